"""From a pooled CLIP embedding to the tokens that the UNet attends to, learned from pictures and captions alone.

Brain data are scarce and pictures are not: a decoder that reaches the pooled embedding can drive `c` through what any
number of captioned pictures say of how the one goes with the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import group_folds
from decoder.solvers.ridge import Split, cross_validate, decompose, fit_ridge

Array = NDArray[np.float32]

ALPHAS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Candidate penalties, in units of the embeddings' mean eigenvalue."""
CONSTANT = 1e-5
"""A number of the tokens that ranges less than this is carried along, not predicted."""
CV_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """A linear map; what is decoded from one window lies near the mean, where any smooth map is linear.

    Attributes
    ----------
    weights : ndarray, shape (d, n_active), float32
    intercept : ndarray, shape (n_active,), float32
    active : ndarray of int32, shape (n_active,)
        The tokens' flat numbers that vary.
    constant : ndarray, shape (tokens, dims), float32
        The tokens where they do not.
    """

    weights: Array
    intercept: Array
    active: NDArray[np.int32]
    constant: Array

    def __call__(self, embeddings: Array) -> Array:
        """Predict tokens, shape (n, tokens, dims), from pooled embeddings, shape (n, d)."""
        flat = np.repeat(self.constant.reshape(1, -1), len(embeddings), axis=0)
        flat[:, self.active] = embeddings @ self.weights + self.intercept
        return flat.reshape(-1, *self.constant.shape)

    def scale_about(self, factor: float, centre: Array) -> "Prior":
        """Scale what is predicted about `centre`, shape (tokens, dims), by a factor."""
        about = centre.reshape(-1)[self.active]
        return replace(self, weights=factor * self.weights, intercept=about + factor * (self.intercept - about))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return everything that was fitted, by name."""
        return {name: getattr(self, name) for name in Prior.__slots__}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "Prior":
        """Rebuild a prior from `tensors()`."""
        return cls(*(tensors[name] for name in Prior.__slots__))


def fit_prior(embeddings: Array, tokens: Array, rng: np.random.Generator) -> Prior:
    """Learn the map, with a penalty for each number of the tokens by cross-validation over pictures.

    Parameters
    ----------
    embeddings : ndarray, shape (n, d)
        Of pictures.
    tokens : ndarray, shape (n, tokens, dims)
        Mean hidden states of their captions.
    rng : numpy.random.Generator
        Of the folds.
    """
    flat = tokens.reshape(len(tokens), -1)
    active = np.flatnonzero(np.ptp(flat, axis=0) > CONSTANT)
    spectrum = decompose(embeddings)
    grid = np.asarray(ALPHAS) * spectrum.level
    splits = group_folds([str(row) for row in range(len(flat))], CV_FOLDS, rng)
    folds = [Split(train, test, embeddings[train], embeddings[test]) for train, test in splits]
    weights, intercept = fit_ridge(spectrum, flat[:, active], cross_validate(folds, flat[:, active], grid).choice)
    return Prior(weights, intercept, active.astype(np.int32), flat[0].reshape(tokens.shape[1:]).copy())
