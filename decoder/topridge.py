"""Ridge on the n inputs most correlated with each target, as MindDiffuser decodes fMRI (Lu et al. 2023).

Unlike in its published script, the intercept is not penalised.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decoder.accelerate import device
from decoder.ridge import By, CrossValidation, Part, Tally, summary

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

BATCH = 2**23
"""Numbers of the normal equations that are solved at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Training inputs and targets as the normal equations need them.

    Attributes
    ----------
    gram : Tensor, shape (n_inputs, n_inputs), float64
        X'X of the centred inputs.
    moment : Tensor, shape (n_inputs, n_targets), float64
        X'Y of the centred inputs and targets.
    order : Tensor of int, shape (n_targets, n_inputs)
        Inputs by falling absolute correlation with each target.
    x_mean : ndarray, shape (n_inputs,)
    y_mean : ndarray, shape (n_targets,)
    """

    gram: Tensor
    moment: Tensor
    order: Tensor
    x_mean: Floats
    y_mean: Floats

    def solve(self, targets: NDArray[np.intp], n: int, alphas: Sequence[float]) -> list[Array]:
        """Give the weights (n_inputs, n_targets) of some targets on their first n inputs, for each penalty."""
        chosen = torch.from_numpy(targets).to(self.gram.device)
        picked = self.order[chosen, :n]
        square = self.gram[picked[:, :, None], picked[:, None, :]]
        right = self.moment[picked, chosen[:, None]][..., None]
        unit = torch.eye(n, dtype=square.dtype, device=square.device)
        out = []
        for alpha in alphas:
            solved = torch.cholesky_solve(right, torch.linalg.cholesky(square + alpha * unit))[..., 0]
            weights = torch.zeros((len(targets), len(self.gram)), dtype=square.dtype, device=square.device)
            out.append(weights.scatter_(1, picked, solved).T.cpu().numpy().astype(np.float32))
        return out


def find_moments(X: Array, Y: Array) -> Moments:
    """Centre inputs (n_samples, n_inputs) and targets (n_samples, n_targets), and rank inputs for each target."""
    x_mean, y_mean = X.mean(axis=0, dtype=np.float64), Y.mean(axis=0, dtype=np.float64)
    x, y = (torch.from_numpy(part).to(device()) for part in (X - x_mean, Y - y_mean))
    gram, moment = x.T @ x, x.T @ y
    size = gram.diagonal().sqrt()
    correlation = torch.where(size > 0, 1 / size, 0)[:, None] * moment
    order = correlation.abs().T.argsort(dim=1, descending=True, stable=True)
    return Moments(gram, moment, order, x_mean, y_mean)


class TopRegression:
    """Ridge on the n most correlated inputs; the correlations are those of the training samples.

    Parameters
    ----------
    parts : sequence of Part
    X : ndarray, shape (n_samples, n_inputs)
    alphas : ndarray, shape (n_alphas,)
    counts : sequence of int
        Candidate numbers of inputs.
    per_target, by
        As `decoder.ridge.Tally` has them.

    Notes
    -----
    The first column of a choice is the number of inputs, the second the penalty.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        X: Array,
        alphas: Floats,
        counts: Sequence[int],
        *,
        per_target: bool = True,
        by: By = "error",
    ) -> None:
        self.parts, self.X, self.alphas = list(parts), X, alphas
        self.counts = sorted({min(count, X.shape[1]) for count in counts})
        self.per_target, self.by = per_target, by

    def chooser(self, parts: Sequence[Part]) -> "TopRegression":
        """Return what chooses among the same settings by other parts; it is not to be fitted."""
        return TopRegression(parts, self.X, self.alphas, self.counts, per_target=self.per_target, by=self.by)

    def choose(self, Y: Array) -> CrossValidation:
        """Choose each target's number of inputs and penalty by held-out samples."""
        Y = np.asarray(Y, np.float32)
        candidates = np.array([(n, alpha) for n in self.counts for alpha in self.alphas])
        tally = Tally(len(candidates), Y.shape[1], per_target=self.per_target, by=self.by)
        moments = [find_moments(part.X_train, Y[part.train]) for part in self.parts]
        for part, known in zip(self.parts, moments, strict=True):
            inputs = np.asarray(part.X_test - known.x_mean, np.float32)
            truth = np.asarray(Y[part.test] - known.y_mean, np.float32)
            for place, n in enumerate(self.counts):
                for targets in _batches(np.arange(Y.shape[1]), n):
                    for row, weights in enumerate(known.solve(targets, n, self.alphas.tolist())):
                        columns = slice(int(targets[0]), int(targets[-1]) + 1)
                        tally.add(place * len(self.alphas) + row, inputs @ weights, truth[:, columns], columns)
        best, loss = tally.best()
        choice = candidates[best]
        deviations = [_predict(known, part.X_test, choice) for part, known in zip(self.parts, moments, strict=True)]
        return summary(choice, loss, self.parts, Y, deviations)

    def fit(self, Y: Array, choice: Floats) -> tuple[Array, Array]:
        """Fit on all samples, each target on its own inputs."""
        known = find_moments(self.X, np.asarray(Y, np.float32))
        weights = _solve(known, choice)
        return weights, np.asarray(known.y_mean - known.x_mean @ weights, np.float32)

    def predict_part(self, part: int, inputs: Array, Y: Array, choice: Floats) -> Array:
        """Give deviations from the training mean, decoded by one part's training samples."""
        own = self.parts[part]
        return _predict(find_moments(own.X_train, np.asarray(Y[own.train], np.float32)), inputs, choice)


def _predict(known: Moments, inputs: Array, choice: Floats) -> Array:
    return np.asarray(np.asarray(inputs - known.x_mean, np.float32) @ _solve(known, choice), np.float32)


def _solve(known: Moments, choice: Floats) -> Array:
    """Solve each target with its own number of inputs and penalty."""
    weights = np.empty((len(known.gram), len(choice)), np.float32)
    for n, alpha in np.unique(choice, axis=0).tolist():
        for targets in _batches(np.flatnonzero((choice == (n, alpha)).all(axis=1)), int(n)):
            weights[:, targets] = known.solve(targets, int(n), [alpha])[0]
    return weights


def _batches(targets: NDArray[np.intp], n: int) -> list[NDArray[np.intp]]:
    size = max(1, BATCH // n**2)
    return [targets[start : start + size] for start in range(0, len(targets), size)]
