"""Directions of responses in which pictures differ: a few of thousands of channels and times, found from noisy means.

Responses to two pictures covary as far as the pictures are alike in what drives them, and noise of single pictures is
in no pair. So the covariance that pictures cause is estimated from pairs of different pictures, weighed by how alike
their features are: first over channels and over times, which many responses settle (Tucker 1966, Psychometrika 31), and
then over the products of what is left.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

N_CHANNELS = 25
"""Components of channels at most, where responses are too many for a whole covariance."""
N_TIMES = 14
"""Components of times at most."""
N_DIRECTIONS = 120
"""Directions at most."""
STEPS = 3
"""Of the alternation between channels and times."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Sums over pairs of different pictures, weighed by how alike their features are.

    Attributes
    ----------
    inputs : ndarray, shape (n_pictures, n_inputs), float32
        Of mean 0; two pictures are as alike as the product of theirs.
    """

    inputs: Array

    def covariance(self, responses: Array) -> Floats:
        """Compute what pictures cause, shape (m, m), but for a factor: symmetric, of mean 0 where there is nothing.

        Parameters
        ----------
        responses : ndarray, shape (n_pictures, ..., m)
            All but the first axis and the last are summed over.
        """
        n, m = len(responses), responses.shape[-1]
        own = np.square(self.inputs, dtype=np.float64).sum(axis=1)
        both = (self.inputs.T @ responses.reshape(n, -1)).reshape(-1, m).astype(np.float64)
        flat = responses.reshape(-1, m)
        alone = np.repeat(own, len(flat) // n)[:, None] * flat
        return np.asarray(both.T @ both - flat.T @ alone)


def fit_basis(means: Array, inputs: Array, n_channels: int) -> tuple[Array, Array]:
    """Find components of channels and of times in which pictures differ.

    Parameters
    ----------
    means : ndarray, shape (n_pictures, n_channels * n_times), float32
        Of mean 0 over pictures, noise white.
    inputs : ndarray, shape (n_pictures, n_inputs), float32
    n_channels : int

    Returns
    -------
    channels : ndarray, shape (n_channels, k), float32
    times : ndarray, shape (n_times, l), float32
    """
    pairs, maps = Pairs(inputs), means.reshape(len(means), n_channels, -1)
    times = np.eye(maps.shape[2], dtype=np.float32)
    for _ in range(STEPS):
        over_channels = np.ascontiguousarray(np.swapaxes(maps @ times, 1, 2))
        channels = _leading(pairs.covariance(over_channels), N_CHANNELS)[0]
        times = _leading(pairs.covariance(np.ascontiguousarray(channels.T @ maps)), N_TIMES)[0]
    return channels, times


def find_directions(means: Array, inputs: Array) -> Array:
    """Find the directions, shape (m, n_directions), of means (n_pictures, m) in which pictures differ most."""
    directions, sizes = _leading(Pairs(inputs).covariance(means), N_DIRECTIONS)
    # At least one, so that a model that says nothing is a model, too.
    return directions[:, : max(1, np.count_nonzero(sizes > 0))]


def _leading(covariance: Floats, most: int) -> tuple[Array, Floats]:
    sizes, vectors = np.linalg.eigh(covariance)
    return np.ascontiguousarray(vectors[:, ::-1][:, :most], np.float32), sizes[::-1][:most]
