"""Triggers that come as a column of a data stream: live and in files by the same steps."""

import numpy as np
from numpy.typing import NDArray


class Triggers:
    """Find where a trigger channel takes a new value other than 0; in any chunking the same ones.

    A sample that is no number keeps the value before it. The value is the channel's at the first sample of the step.

    Parameters
    ----------
    mask : int, optional
        The bits that are trigger; the others are flags of the device and are left out. Negative values are taken in
        two's complement.
    """

    def __init__(self, mask: int | None = None) -> None:
        self._mask = mask
        self._before = 0

    def feed(self, values: NDArray[np.floating]) -> list[tuple[int, int]]:
        """Add the next samples.

        Parameters
        ----------
        values : ndarray, shape (n,)

        Returns
        -------
        list of (int, int)
            Place among these samples, and code.
        """
        known = np.isfinite(values)
        codes = np.rint(np.where(known, values, 0.0)).astype(np.int64)
        if self._mask is not None:
            codes &= self._mask
        # The place of the last known value at or before each sample; -1: before this chunk.
        last = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
        codes = np.where(last >= 0, codes[last], self._before)
        steps = np.flatnonzero((codes != np.concatenate([[self._before], codes[:-1]])) & (codes != 0))
        if len(codes):
            self._before = int(codes[-1])
        return [(int(at), int(codes[at])) for at in steps]
