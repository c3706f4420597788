"""What the channels of training windows look like, whatever was shown: what a drifted session is realigned to."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MOST_CHANNELS = 512
"""With more, a covariance is neither small nor learned from a session's windows."""


@dataclass(frozen=True, slots=True, eq=False)
class SessionMoments:
    """First and second moments of windows.

    Attributes
    ----------
    response : ndarray, shape (n_channels, n_times), float32
        Mean window.
    covariance : ndarray, shape (n_channels, n_channels), float32
        Between channels about the mean window, over windows and times; in squared units of the channels' overall
        root mean square, `unit`, as float32 does not hold squares of femtotesla.
    unit : ndarray, shape (1,), float32
    """

    response: Array
    covariance: Array
    unit: Array


def fit_session_moments(data: Array) -> SessionMoments:
    """Learn the moments of windows, shape (n, n_channels, n_times)."""
    response = data.mean(axis=0, dtype=np.float64).astype(np.float32)
    noise = data - response
    unit = np.float32(np.sqrt(np.mean(noise**2, dtype=np.float64)) or 1.0)
    noise /= unit
    scatter = np.einsum("nct,ndt->cd", noise, noise, optimize=True)
    return SessionMoments(response, scatter / np.float32(len(data) * data.shape[2]), np.array([unit], np.float32))


def can_align(data: Array) -> bool:
    """Check whether windows (n, n_channels, n_times) have a covariance that a session can be aligned to."""
    return bool(data.shape[2] > 1 and data.shape[1] <= MOST_CHANNELS)
