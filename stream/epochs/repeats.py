"""Windows averaged over the presentations of one label."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stream.types.windows import Window

SUMS_BYTES = 2**28
"""Of the presentations averaged so far; those of labels not seen for longest go."""


class Repeats:
    """Average windows of one label as they come.

    Parameters
    ----------
    most : int
        The k-th presentation gives the mean of k, up to so many; then a new mean begins.

    Attributes
    ----------
    forgotten : int
        Labels whose presentations so far were let go, because there were too many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sums: dict[str, tuple[NDArray[np.float64], int]] = {}
        self.forgotten = 0

    def average(self, window: Window, label: str) -> Window:
        """Return the mean of this label's presentations so far; a rejected one stays out and is returned as it is."""
        if self._most == 1 or window.quality.rejected:
            return window
        total, n = self._sums.pop(label, (np.zeros(window.data.shape), 0))
        total, n = total + window.data, n + 1
        if n < self._most:
            self._sums[label] = (total, n)  # the last seen are last
        if len(self._sums) * total.nbytes > SUMS_BYTES:
            del self._sums[next(iter(self._sums))]
            self.forgotten += 1
        return replace(window, data=(total / n).astype(np.float32), repeats=n)

    def problems(self) -> dict[str, str]:
        """Return the problem that presentations were left out, by key."""
        if not self.forgotten:
            return {}
        return {
            "forgotten": f"{self.forgotten} labels have so many others between their presentations that the mean of "
            "window.repeats began anew"
        }
