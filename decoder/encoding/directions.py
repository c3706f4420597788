"""Directions of responses in which pictures differ: a few of thousands of channels and times, found from noisy means.

Pictures that are alike in what drives responses get like responses, and noise of pictures is not alike. So responses
are smoothed over pictures by how alike their features are, and the principal axes of what is left are taken: first
over channels and over times, which many responses settle (Tucker 1966, Psychometrika 31), and then over their products.
White noise of no picture in particular adds to all directions alike, and turns none.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

RANKS = ((4, 3), (5, 4), (7, 5), (10, 6), (15, 8), (25, 14))
"""Candidate numbers of components of channels and of times, where responses are too many for a whole covariance."""
N_DIRECTIONS = 120
"""Directions at most."""
STEPS = 3
"""Of the alternation between channels and times."""


def fit_basis(driven: Array, n_channels: int, rank: tuple[int, int]) -> Array:
    """Find products of components of channels and of times in which pictures differ.

    Parameters
    ----------
    driven : ndarray, shape (n_inputs, n_channels * n_times), float32
        Sums over pictures of the products of features and responses, each of mean 0 and noise white: those of smoothed
        responses need no more.
    n_channels : int
    rank : (int, int)
        Components of channels and of times, at most.

    Returns
    -------
    basis : ndarray, shape (n_channels * n_times, k), float32
        Orthonormal.
    """
    maps = driven.reshape(len(driven), n_channels, -1)
    times = np.eye(maps.shape[2], dtype=np.float32)
    for _ in range(STEPS):
        channels = _leading(np.swapaxes(maps @ times, 1, 2).reshape(-1, n_channels), rank[0])
        times = _leading((channels.T @ maps).reshape(-1, maps.shape[2]), rank[1])
    return np.kron(channels, times)


def find_directions(driven: Array, most: int) -> Array:
    """Find the directions, shape (m, at most `most`), in which responses to like pictures are alike most.

    `driven` is as of `fit_basis`, shape (n_inputs, m).
    """
    return _leading(driven, min(N_DIRECTIONS, most))


def _leading(samples: NDArray[np.floating], most: int) -> Array:
    """Return the axes, shape (m, at most `most`), of the largest sums of squares of samples (n, m)."""
    vectors = np.linalg.eigh(samples.T.astype(np.float64) @ samples)[1]
    return np.ascontiguousarray(vectors[:, ::-1][:, :most], np.float32)
