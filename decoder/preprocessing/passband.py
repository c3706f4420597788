"""A window's beginning in a band of frequencies, as one matrix on its samples."""

import numpy as np
from numpy.typing import NDArray

EDGE_ORDER = {"low": 2, "high": 4}
"""Order of the Butterworth gains."""
LEAST_GAIN = 0.02
"""Cosines that are damped below this are left out."""

Band = tuple[float | None, float | None]
"""Lower and upper edge in Hz; None: none."""


def passband(n_times: int, sfreq: float, band: Band, share: float = 1.0) -> NDArray[np.float32]:
    """Return what maps samples to cosines (DCT-II), each damped by the gain of a Butterworth filter at its frequency.

    A whole window is there when it is decoded, so this needs no past and delays nothing; and what has few cosines is
    cheap.

    Parameters
    ----------
    n_times : int
        Samples of a window.
    sfreq : float
        In Hz.
    band : (low, high)
    share : float
        Of the window, from its beginning; what comes after is left out.

    Returns
    -------
    matrix : ndarray, shape (n_times, n_cosines), float32
    """
    n = max(2, round(share * n_times))
    order = np.arange(n)
    cosines = np.cos(np.pi * np.outer(order, order + 0.5) / n) * np.sqrt(2 / n)
    cosines[0] /= np.sqrt(2)
    frequencies = order * sfreq / (2 * n)
    low, high = band
    gain = np.ones(n)
    if high is not None:
        gain /= np.sqrt(1 + (frequencies / high) ** (2 * EDGE_ORDER["high"]))
    if low is not None:
        gain[0] = 0
        gain[1:] /= np.sqrt(1 + (low / frequencies[1:]) ** (2 * EDGE_ORDER["low"]))
    used = gain > LEAST_GAIN
    used[:2] |= used.sum() < 2  # too short a window for the band: its slowest cosines are all there is
    matrix = np.zeros((n_times, int(used.sum())), np.float32)
    matrix[:n] = (gain[used, None] * cosines[used]).T
    return matrix
