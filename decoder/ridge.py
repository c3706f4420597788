"""Ridge regression onto many targets, each with a penalty of its own, chosen by cross-validation.

The penalty is added to the eigenvalues of the centred inputs' scatter matrix, so the intercept goes unpenalised.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Centred inputs in the basis of their principal axes.

    Attributes
    ----------
    mean : ndarray, shape (n_inputs,)
    axes : ndarray, shape (n_inputs, rank)
    scores : ndarray, shape (n_samples, rank)
        Centred inputs on the axes.
    eigenvalues : ndarray, shape (rank,)
        Of the scatter matrix X'X of the centred inputs.
    """

    mean: Array
    axes: Array
    scores: Array
    eigenvalues: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One side of a split: fitted inputs, and held-out inputs prepared with what was fitted.

    Attributes
    ----------
    train, test : ndarray of int
        Rows of the target array.
    spectrum : Spectrum
        Of the training inputs.
    held_out : ndarray, shape (len(test), rank)
        Held-out inputs on the spectrum's axes.
    """

    train: NDArray[np.intp]
    test: NDArray[np.intp]
    spectrum: Spectrum
    held_out: Array


@dataclass(frozen=True, slots=True, eq=False)
class CrossValidation:
    """What held-out samples say.

    Attributes
    ----------
    alpha : ndarray, shape (n_targets,), float64
        The penalty of least squared error on held-out samples.
    r : ndarray, shape (n_targets,), float32
        Pearson correlation of held-out predictions with the truth, both about the fold's
        training mean, at `alpha`.
    predictions : ndarray, shape (n_samples, n_targets), float32
        Held-out predictions at `alpha`.
    """

    alpha: NDArray[np.float64]
    r: Array
    predictions: Array


def decompose(X: Array) -> Spectrum:
    """Find the principal axes of inputs through the smaller of the two scatter matrices.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_inputs)
    """
    mean = X.mean(axis=0, dtype=np.float64)
    centred = X - mean
    n, p = centred.shape
    values, vectors = np.linalg.eigh(centred.T @ centred if p <= n else centred @ centred.T)
    keep = values > max(n, p) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    values, vectors = values[keep][::-1], vectors[:, keep][:, ::-1]
    axes = vectors if p <= n else centred.T @ vectors / np.sqrt(values)
    return Spectrum(mean.astype(np.float32), axes.astype(np.float32), (centred @ axes).astype(np.float32), values)


def make_fold(X_train: Array, X_test: Array, train: NDArray[np.intp], test: NDArray[np.intp]) -> Fold:
    """Prepare a split; both design matrices come from what was fitted on `train` alone."""
    spectrum = decompose(X_train)
    return Fold(train, test, spectrum, np.asarray((X_test - spectrum.mean) @ spectrum.axes, np.float32))


def cross_validate(
    folds: Iterable[Fold], Y: Array, alphas: NDArray[np.float64], *, per_target: bool = True
) -> CrossValidation:
    """Choose each target's penalty and predict each sample from the folds that did not see it.

    Parameters
    ----------
    folds : iterable of Fold
        Every row of `Y` is held out exactly once.
    Y : ndarray, shape (n_samples, n_targets)
    alphas : ndarray, shape (n_alphas,)
        Candidate penalties, in the inputs' units squared.
    per_target : bool
        False: one penalty for all targets, of least squared error summed over them.
    """
    folds = list(folds)
    Y = np.asarray(Y, dtype=np.float32)
    means = [Y[fold.train].mean(axis=0) for fold in folds]
    moments = [fold.spectrum.scores.T @ (Y[fold.train] - mean) for fold, mean in zip(folds, means, strict=True)]
    errors = np.zeros((len(alphas), Y.shape[1]))
    for fold, mean, moment in zip(folds, means, moments, strict=True):
        truth = Y[fold.test] - mean
        for row, alpha in enumerate(alphas):
            shrunk = fold.held_out / (fold.spectrum.eigenvalues + alpha).astype(np.float32)
            residual = shrunk @ moment
            residual -= truth
            errors[row] += np.einsum("ij,ij->j", residual, residual)
    if not per_target:
        errors[:] = errors.sum(axis=1, keepdims=True)
    best = alphas[errors.argmin(axis=0)]
    # About each fold's training mean: pooled raw predictions of noise correlate negatively, as the mean of the others
    # falls where a fold's own is high.
    predictions, truth = np.empty_like(Y), np.empty_like(Y)
    for fold, mean, moment in zip(folds, means, moments, strict=True):
        predictions[fold.test] = fold.held_out @ _shrink(moment, fold.spectrum, best)
        truth[fold.test] = Y[fold.test] - mean
    r = column_correlations(truth, predictions)
    for fold, mean in zip(folds, means, strict=True):
        predictions[fold.test] += mean
    return CrossValidation(best, r, predictions)


def fit_ridge(spectrum: Spectrum, Y: Array, alpha: NDArray[np.float64]) -> tuple[Array, Array]:
    """Fit the weights of each target at its own penalty.

    Parameters
    ----------
    spectrum : Spectrum
        Of the inputs.
    Y : ndarray, shape (n_samples, n_targets)
    alpha : ndarray, shape (n_targets,)

    Returns
    -------
    weights : ndarray, shape (n_inputs, n_targets), float32
    intercept : ndarray, shape (n_targets,), float32
    """
    mean = Y.mean(axis=0, dtype=np.float64).astype(np.float32)
    moment = spectrum.scores.T @ (Y - mean)
    weights = spectrum.axes @ _shrink(moment, spectrum, alpha)
    return weights, np.asarray(mean - spectrum.mean @ weights, np.float32)


def _shrink(moment: Array, spectrum: Spectrum, alpha: NDArray[np.float64]) -> Array:
    penalised = np.add.outer(spectrum.eigenvalues.astype(np.float32), alpha.astype(np.float32))
    return np.asarray(moment / penalised, np.float32)


def column_correlations(a: Array, b: Array) -> Array:
    """Pearson correlation of each column of `a` with that of `b`; 0 where either is constant."""
    a = a - a.mean(axis=0, dtype=np.float64).astype(a.dtype)
    b = b - b.mean(axis=0, dtype=np.float64).astype(b.dtype)
    norm = np.sqrt(np.einsum("ij,ij->j", a, a) * np.einsum("ij,ij->j", b, b))
    product = np.einsum("ij,ij->j", a, b)
    return np.asarray(np.divide(product, norm, out=np.zeros_like(product), where=norm > 0), np.float32)
