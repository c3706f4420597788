"""The range of a covariance: what an average reference, an interpolated or a doubled channel leaves of it."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TOLERANCE = 1e-10
"""Share of the largest eigenvalue, of channels scaled to unit variance, below which a direction is rounding errors."""


def rank(covariance: Floats) -> int:
    """Count the directions of a covariance, shape (m, m), that hold more than rounding errors."""
    return int(whitening_of_range(covariance).shape[1])


def whitening_of_range(covariance: Floats) -> Floats:
    """Find W, shape (m, rank), with W' covariance W = I and nothing of directions that hold rounding errors only.

    Channels are scaled to unit variance first: next to a large one, a small one is no rounding error.
    """
    size = np.sqrt(np.diag(covariance))
    scale = np.divide(1, size, out=np.zeros_like(size), where=size > 0)
    values, vectors = np.linalg.eigh(covariance * np.outer(scale, scale))
    kept = values > TOLERANCE * max(values[-1], 0)
    return np.asarray(scale[:, None] * vectors[:, kept] / np.sqrt(values[kept]))
