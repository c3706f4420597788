"""Normalising each session by its own training trials: what differs between days is taken out, and nothing leaks."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from decoder.datasets import PerSession
from decoder.preprocessing.preprocess import noise_whitener

Array = NDArray[np.float32]


def normaliser(training: Array, how: PerSession) -> Callable[[Array], Array]:
    """Learn from a session's training trials what is done to all of its trials.

    Parameters
    ----------
    training : ndarray, shape (n, n_channels, n_times)
        Trials of pictures that are trained on, and of no others.
    how : {'none', 'zscore', 'whiten'}
        'zscore': each channel to mean 0 and deviation 1 over trials and times. 'whiten': multivariate noise
        normalisation (Guggenmos et al. 2018), channels by the inverse square root of their noise covariance.

    Returns
    -------
    normalise : callable
        Takes data (..., n_channels, n_times).
    """
    if how == "whiten":
        whitener = noise_whitener(training)
        return lambda data: np.asarray(whitener @ data, np.float32)
    if how == "zscore":
        mean = training.mean(axis=(0, 2), dtype=np.float64).astype(np.float32)[:, None]
        spread = training.std(axis=(0, 2), dtype=np.float64).astype(np.float32)[:, None]
        # A voxel outside the brain does not vary, and must not be made to.
        scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
        return lambda data: np.asarray((data - mean) * scale, np.float32)
    return lambda data: data
