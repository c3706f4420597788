"""The encoding model: responses predicted from picture features, and the noise of what is not predicted.

The other direction than a decoder's: what a window says about a whole picture is kept in its likelihood, and the
strongest identification works so (Kay et al. 2008, Nature 452; Naselaris et al. 2011, NeuroImage 56).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import group_folds
from decoder.encoding.axes import N_AXES, Features, PrincipalAxes, band_variances, fit_axes
from decoder.encoding.influence import Influence, influence_of
from decoder.encoding.noise import Noise, fit_noise
from decoder.solvers.ridge import Split, cross_validate, decompose, fit_ridge

Array = NDArray[np.float32]
Rows = NDArray[np.intp]

PENALTIES = (1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
"""Candidate penalties, in units of the inputs' mean eigenvalue."""
MOST_CHANNELS = 1000
"""Channels or voxels of whose errors a covariance is estimated."""
FOLDS = 5
"""Of training pictures, by which penalties are chosen and errors are measured."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodingModel:
    """A fitted encoding model.

    Attributes
    ----------
    axes : PrincipalAxes
        From features to scores.
    weights : ndarray, shape (n_scores, n_responses), float32
        Onto responses, as standardised scores have them.
    intercept : ndarray, shape (n_responses,), float32
    used : ndarray of int, shape (n_used,)
        Responses that likelihoods read: of more channels than a covariance can be estimated of, the best-explained.
    noise : Noise
        Of the used responses of single windows about the prediction for a picture that was not trained on.
    explained : ndarray, shape (n_responses,), float32
        Share of the variance of training windows that predictions explain while their pictures are held out; below 0
        where predicting the mean would be better.
    """

    axes: PrincipalAxes
    weights: Array
    intercept: Array
    used: Rows
    noise: Noise
    explained: Array

    def predict(self, features: Features) -> Array:
        """Predict responses, shape (n, n_responses), to pictures of which the features are given by group."""
        return np.asarray(self.axes(features) @ self.weights + self.intercept, np.float32)

    def log_likelihood(self, features: Features, responses: Array) -> NDArray[np.float64]:
        """Compute how likely responses (n, n_responses) are, given each of k pictures: shape (k, n)."""
        return self.noise.log_likelihood(self.predict(features)[:, self.used], responses[:, self.used])


@dataclass(frozen=True, slots=True, eq=False)
class EncodingFit:
    """A model, and what each training picture did to it.

    Attributes
    ----------
    model : EncodingModel
    influence : Influence
    spread : ndarray, shape (n_scores,), float32
        By which scores are scaled to be the ridge's inputs.
    """

    model: EncodingModel
    influence: Influence
    spread: Array

    def shares(self, features: Features) -> NDArray[np.float64]:
        """Compute `Influence.shares` of pictures of which the features are given by group."""
        return self.influence.shares(self.model.axes(features) * self.spread)


def fit_encoding(
    features: Features,
    responses: Array,
    rows: Rows,
    groups: Sequence[str] | NDArray[np.str_],
    rng: np.random.Generator,
    *,
    n_axes: int = N_AXES,
) -> EncodingModel:
    """Fit axes, weights and noise on training windows; as `fit_with_influence`, whose model it is."""
    return fit_with_influence(features, responses, rows, groups, rng, n_axes=n_axes).model


def fit_with_influence(
    features: Features,
    responses: Array,
    rows: Rows,
    groups: Sequence[str] | NDArray[np.str_],
    rng: np.random.Generator,
    *,
    n_axes: int = N_AXES,
) -> EncodingFit:
    """Fit axes, weights and noise on training windows.

    Ridge is banded: scores of each band of axes are scaled by the spread that their weights are expected to have
    (`decoder.encoding.axes.band_variances`), after which each response chooses one penalty by held-out pictures.

    Parameters
    ----------
    features : mapping of str to ndarray, shape (n_pictures, n_features)
        By group; only those of pictures in `rows` are read.
    responses : ndarray, shape (n, n_channels, n_times) or (n, n_responses)
        Of training windows.
    rows : ndarray of int, shape (n,)
        Picture of each window.
    groups : sequence of str, one a window
        Never on both sides of a fold.
    rng : numpy.random.Generator
        Of the folds.
    n_axes : int
        At most so many principal axes of a group of features.

    Raises
    ------
    TrainingError
        If there are fewer than two groups.
    """
    n_channels = responses.shape[1]
    flat = np.ascontiguousarray(responses.reshape(len(responses), -1), np.float32)
    pictures, first, of_window = np.unique(rows, return_index=True, return_inverse=True)
    axes = fit_axes({name: values[pictures] for name, values in features.items()}, n_axes)
    scores = axes({name: values[pictures] for name, values in features.items()})
    means = picture_means(flat, of_window)
    spread = np.sqrt(band_variances(scores, axes.bands, standardised(means))).astype(np.float32)
    inputs = np.asarray(scores * spread)
    group_of_picture = np.asarray(groups)[first]
    n_folds = min(FOLDS, len(np.unique(group_of_picture)))
    splits = [
        Split(train, test, inputs[train], inputs[test])
        for train, test in group_folds(group_of_picture.tolist(), n_folds, rng)
    ]
    spectrum = decompose(inputs)
    alphas = np.asarray(PENALTIES) * (spectrum.level or 1.0)
    found = cross_validate(splits, means, alphas)
    weights, intercept = fit_ridge(spectrum, means, found.choice)
    errors = flat - found.predictions[of_window]
    about = flat - flat.mean(axis=0)
    power = np.square(about, dtype=np.float64).sum(axis=0)
    left = np.square(errors, dtype=np.float64).sum(axis=0)
    explained = np.asarray(1 - np.divide(left, power, out=np.ones_like(left), where=power > 0), np.float32)
    whole = np.asarray(weights * spread[:, None], np.float32)
    channels = np.sort(np.argsort(-explained.reshape(n_channels, -1).max(axis=1), kind="stable")[:MOST_CHANNELS])
    used = np.arange(flat.shape[1]).reshape(n_channels, -1)[channels].ravel()
    noise = fit_noise(errors[:, used], len(channels), of_window)
    residuals = np.asarray(means - (inputs @ weights + intercept), np.float32)
    influence = influence_of(pictures, spectrum, found.choice, residuals)
    return EncodingFit(EncodingModel(axes, whole, intercept, used, noise, explained), influence, spread)


def picture_means(responses: Array, of_window: Rows) -> Array:
    """Average windows (n, m) picture by picture, numbered from 0 without gaps."""
    counts = np.bincount(of_window)
    sums = np.zeros((len(counts), responses.shape[1]))
    np.add.at(sums, of_window, responses)
    return np.asarray(sums / counts[:, None], np.float32)


def standardised(responses: Array) -> Array:
    """Scale columns (n, m) to mean 0 and variance 1; those that do not vary are 0."""
    centred = responses - responses.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0))
