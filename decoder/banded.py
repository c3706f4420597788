"""Banded ridge: inputs of each band (a region, a stretch of time) have a penalty of their own.

The penalty of a band is alpha divided by its share; shares are drawn from a Dirichlet distribution and chosen, with
alpha, by held-out samples (Nunez-Elizalde et al. 2019; random search as in Dupre la Tour et al. 2022, NeuroImage 264).
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from decoder.ridge import By, CrossValidation, Part, RidgeRegression, decompose, summary

Array = NDArray[np.float32]
Floats = NDArray[np.float64]


def draw_shares(n_bands: int, n_candidates: int, rng: np.random.Generator) -> Floats:
    """Draw shares of the bands that add up to their number, shape (n_candidates, n_bands); the first is even."""
    # Of concentrations 0.1 and 1 alike, so that lone bands are tried as well as mixtures.
    drawn = [rng.dirichlet(np.full(n_bands, (0.1, 1.0)[row % 2])) for row in range(n_candidates - 1)]
    return n_bands * np.stack([np.full(n_bands, 1 / n_bands), *drawn])


class BandedRegression:
    """Plain ridge on inputs whose bands are scaled by each candidate in turn.

    Parameters
    ----------
    parts : sequence of Part
    X : ndarray, shape (n_samples, n_inputs)
    alphas : ndarray, shape (n_alphas,)
    bands : ndarray of int, shape (n_inputs,)
    shares : ndarray, shape (n_candidates, n_bands)
    per_target, by
        As `decoder.ridge.Tally` has them.

    Notes
    -----
    The first column of a choice is the candidate, the second the penalty. All candidates' decompositions are kept, as
    every feature is regressed on them: (n_parts + 1) n_samples (n_samples + n_inputs) numbers each.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        X: Array,
        alphas: Floats,
        bands: NDArray[np.intp],
        shares: Floats,
        *,
        per_target: bool = True,
        by: By = "error",
    ) -> None:
        self.parts = list(parts)
        self.scales = np.sqrt(shares)[:, bands].astype(np.float32)
        self.members = [
            RidgeRegression(_scaled(parts, scale), decompose(X * scale), alphas, per_target=per_target, by=by)
            for scale in self.scales
        ]

    def chooser(self, parts: Sequence[Part]) -> "BandedRegression":
        """Return what chooses among the same settings by other parts; it is not to be fitted."""
        twin = copy.copy(self)
        twin.parts = list(parts)
        scaled = zip(self.members, self.scales, strict=True)
        twin.members = [member.chooser(_scaled(parts, scale)) for member, scale in scaled]
        return twin

    def choose(self, Y: Array) -> CrossValidation:
        """Choose each target's shares and penalty by held-out samples."""
        Y = np.asarray(Y, np.float32)
        choice, loss = np.zeros((Y.shape[1], 2)), np.full(Y.shape[1], np.inf)
        for number, member in enumerate(self.members):
            found = member.choose(Y)
            better = found.loss < loss
            loss[better] = found.loss[better]
            choice[better] = np.column_stack([np.full(better.sum(), number), found.choice[better]])
        deviations = [self.predict_part(row, part.X_test, Y, choice) for row, part in enumerate(self.parts)]
        return summary(choice, loss, self.parts, Y, deviations)

    def fit(self, Y: Array, choice: Floats) -> tuple[Array, Array]:
        """Fit on all samples, each target with the shares and the penalty of its own."""
        weights = np.empty((self.scales.shape[1], Y.shape[1]), np.float32)
        intercept = np.empty(Y.shape[1], np.float32)
        for number, targets in _by_candidate(choice):
            own, intercept[targets] = self.members[number].fit(Y[:, targets], choice[targets, 1])
            weights[:, targets] = own * self.scales[number][:, None]
        return weights, intercept

    def predict_part(self, part: int, inputs: Array, Y: Array, choice: Floats) -> Array:
        """Give deviations from the training mean, decoded by one part's training samples."""
        out = np.empty((len(inputs), Y.shape[1]), np.float32)
        for number, targets in _by_candidate(choice):
            scaled = inputs * self.scales[number]
            out[:, targets] = self.members[number].predict_part(part, scaled, Y[:, targets], choice[targets, 1])
        return out


def _scaled(parts: Sequence[Part], scale: Array) -> list[Part]:
    return [replace(part, X_train=part.X_train * scale, X_test=part.X_test * scale) for part in parts]


def _by_candidate(choice: Floats) -> list[tuple[int, NDArray[np.intp]]]:
    numbers = choice[:, 0].astype(np.intp)
    return [(int(number), np.flatnonzero(numbers == number)) for number in np.unique(numbers)]
