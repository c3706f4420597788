"""Directions of responses in which pictures differ: a few of thousands of channels and times, found from noisy means.

Pictures that are alike in what drives responses get like responses, and noise of pictures is not alike. So responses
are smoothed over pictures by how alike their features are, and the principal axes of what is left are taken: first
over channels and over times, which many responses settle (Tucker 1966, Psychometrika 31), and then over their products.
White noise of no picture in particular adds to all directions alike, and turns none.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

N_CHANNELS = 25
"""Components of channels at most, where responses are too many for a whole covariance."""
N_TIMES = 14
"""Components of times at most."""
N_DIRECTIONS = 120
"""Directions at most."""
STEPS = 3
"""Of the alternation between channels and times."""


def fit_basis(means: Array, inputs: Array, n_channels: int) -> tuple[Array, Array]:
    """Find components of channels and of times in which pictures differ.

    Parameters
    ----------
    means : ndarray, shape (n_pictures, n_channels * n_times), float32
        Of mean 0 over pictures, noise white.
    inputs : ndarray, shape (n_pictures, n_inputs), float32
        Features of mean 0: two pictures are as alike as the product of theirs.
    n_channels : int

    Returns
    -------
    channels : ndarray, shape (n_channels, k), float32
    times : ndarray, shape (n_times, l), float32
    """
    # The products of smoothed responses need only how responses go with each feature.
    driven = (inputs.T @ means).reshape(inputs.shape[1], n_channels, -1)
    times = np.eye(driven.shape[2], dtype=np.float32)
    for _ in range(STEPS):
        channels = _leading(np.swapaxes(driven @ times, 1, 2).reshape(-1, n_channels), N_CHANNELS)
        times = _leading((channels.T @ driven).reshape(-1, driven.shape[2]), N_TIMES)
    return channels, times


def find_directions(means: Array, inputs: Array) -> Array:
    """Find the directions, shape (m, n_directions), in which means (n_pictures, m) of like pictures are alike most.

    There are no more than so many pictures can have, less one; arguments as of `fit_basis`.
    """
    return _leading(inputs.T @ means, min(N_DIRECTIONS, len(means) - 1))


def _leading(samples: NDArray[np.floating], most: int) -> Array:
    """Return the axes, shape (m, at most `most`), of the largest sums of squares of samples (n, m)."""
    vectors = np.linalg.eigh(samples.T.astype(np.float64) @ samples)[1]
    return np.ascontiguousarray(vectors[:, ::-1][:, :most], np.float32)
