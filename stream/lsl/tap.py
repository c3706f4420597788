"""The newest samples of a stream as they came in, before any filter: kept only while somebody watches."""

import time

import numpy as np
from numpy.typing import NDArray

from stream.signal.ring import Ring

KEPT_S = 4.0
"""Seconds of the stream that are kept."""
UNWATCHED_S = 3.0
"""Seconds after which whoever asked last is taken to be gone."""
IRREGULAR_HZ = 1000.0
"""Samples a second that the memory of an irregular stream is made for."""


class Tap:
    """Lets one thread feed a stream's samples and others watch them; costs one comparison while nobody does.

    Attributes
    ----------
    sfreq : float
        Of the stream, in Hz of the LSL clock; 0 where it is irregular. To be set before it is watched.
    """

    def __init__(self) -> None:
        self.sfreq = 0.0
        self._until = 0.0  # time.monotonic() at which nobody watches any more; 0 where nobody does
        self._ring: Ring | None = None

    @property
    def watched(self) -> bool:
        """True while samples are kept."""
        return self._ring is not None

    def feed(self, data: NDArray[np.float64], times: NDArray[np.float64]) -> None:
        """Add the next samples, (n, n_channels), and their LSL times, (n,)."""
        if not self._until or not len(times):
            return
        if time.monotonic() > self._until:
            self._until, self._ring = 0.0, None
            return
        if self._ring is None:
            self._ring = Ring(max(64, round(KEPT_S * (self.sfreq or IRREGULAR_HZ))), data.shape[1])
        self._ring.write(data.astype(np.float32), times)

    def watch(self) -> Ring | None:
        """Keep samples from now on, for some seconds; return those kept so far, if there are any."""
        self._until = time.monotonic() + UNWATCHED_S
        return self._ring
