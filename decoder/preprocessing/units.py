"""Channels of unlike units on scales that can be compared."""

import numpy as np
from numpy.typing import NDArray

from stream.types.windows import Channels

USUAL = {"V": 1e6, "T": 1e15, "T/m": 1e13}
"""What brings brain signals in SI units to some units or tens: microvolts, femtotesla, femtotesla per centimetre."""


def alike(channels: Channels, data: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale channels of unlike units, so that none looks dead beside another.

    A tesla is to a volt as nothing: shrunk covariances and the search for dead channels compare numbers. Channels
    that share one unit stay as they are.

    Parameters
    ----------
    channels : Channels
    data : ndarray, shape (n, n_channels, n_times)

    Returns
    -------
    data : ndarray, shape (n, n_channels, n_times), float32
    """
    if one_unit(channels):
        return data
    factors = np.array([USUAL.get(unit, 1.0) for unit in channels.units], np.float32)
    return data * factors[:, None]


def one_unit(channels: Channels) -> bool:
    """Check whether all channels share a unit."""
    return len(set(channels.units)) < 2
