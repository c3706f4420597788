"""The time line of one stream: jitter out, gaps found, every sample on a grid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MEMORY_S = 10.0  # the fit forgets over this time: long against chunk jitter, short against crystal drift
SETTLING_S = 1.0  # until then the stream's own jitter is not known well enough to call a hole of a few samples a gap
SETTLING_TOLERANCE_S = 0.05
JITTERS = 8.0  # real Bluetooth chunks reach 6.3 times their own rms


@dataclass(frozen=True, slots=True)
class Gap:
    """A hole in a stream.

    Attributes
    ----------
    start : float
        Time of the last sample before it (LSL clock).
    length : float
        Seconds of the LSL clock to the first sample after it; negative where the source's clock stepped back.
    lost : int
        Samples missing.
    """

    start: float
    length: float
    lost: int


@dataclass(frozen=True, slots=True)
class Stamped:
    """What the clock makes of a chunk of n samples.

    Attributes
    ----------
    times : ndarray, shape (n,), float64
        Without jitter; strictly increasing, save where the source's own clock stepped back.
    index : ndarray, shape (n,), int64
        Place on the stream's grid, from 0; lost samples take up places.
    gaps : tuple of (int, Gap)
        Each with the position in the chunk of the first sample after it.
    """

    times: NDArray[np.float64]
    index: NDArray[np.int64]
    gaps: tuple[tuple[int, Gap], ...]


class SampleClock:
    """Fit a straight line to the timestamps as they come, anew after each gap.

    liblsl's own smoothing bends the time line for 20 s after a hole and so hides it; here the raw timestamp is held
    against the line first. Scalar recursion: a stream gives bit-equal times in any chunking. The gains are those of a
    growing-memory filter (Brookner, Tracking and Kalman Filtering Made Easy, 1998, eq. 1.3-4) until `MEMORY_S`.

    In the first second of a stream a hole shorter than 50 ms passes as jitter: it is not counted, and the line takes
    the time of the samples before and after it to be off by its length. Nothing told by then sets the two apart.

    Parameters
    ----------
    sfreq : float
        Samples a second of the source; 0 for an irregular stream, whose timestamps are left as they are.
    speed : float
        Source seconds per second of the LSL clock (1 unless replayed faster or slower).
    """

    def __init__(self, sfreq: float, speed: float = 1.0) -> None:
        self.sfreq = sfreq
        self.steps_back = 0
        self._nominal = 1.0 / (sfreq * speed) if sfreq else 0.0
        self._period = self._nominal
        self._memory = max(32.0, MEMORY_S * sfreq)
        self._settling = SETTLING_S * sfreq
        self._settling_tolerance = SETTLING_TOLERANCE_S / speed
        self._seen = 0  # samples since the start
        self._fitted = 0  # samples since the line was last seeded
        self._next = 0.0  # where the line puts the next sample
        self._last = -np.inf
        self._index = -1
        self._variance = 0.0

    def feed(self, raw: NDArray[np.float64]) -> Stamped:
        """Place the next chunk on the line.

        Parameters
        ----------
        raw : ndarray, shape (n,), float64
            Timestamps in the LSL clock of this machine, not smoothed.
        """
        place = self._place_regular if self.sfreq else self._place_irregular
        times = np.empty(len(raw))
        index = np.empty(len(raw), dtype=np.int64)
        gaps: list[tuple[int, Gap]] = []
        for i, stamp in enumerate(raw.tolist()):
            gap = place(stamp)
            if gap:
                gaps.append((i, gap))
            times[i], index[i] = self._last, self._index
        return Stamped(times, index, tuple(gaps))

    def _place_irregular(self, stamp: float) -> Gap | None:
        self._last = max(stamp, float(np.nextafter(self._last, np.inf)))
        self._index += 1
        return None

    def _place_regular(self, stamp: float) -> Gap | None:
        gap = None
        residual = stamp - self._next
        if self._seen == 0:
            self._seed(stamp, lost=0)
        elif abs(residual) > self._tolerance():
            gap = self._jump(stamp, residual)
        else:
            self._follow(residual)
        self._seen += 1
        return gap

    def _tolerance(self) -> float:
        if self._seen < self._settling:
            return max(0.75 * self._period, self._settling_tolerance)
        return max(0.75 * self._period, JITTERS * float(np.sqrt(self._variance)))

    def _seed(self, stamp: float, lost: int) -> None:
        self._index += 1 + lost
        self._fitted = 1
        self._last = stamp
        self._next = stamp + self._period

    def _jump(self, stamp: float, residual: float) -> Gap:
        lost = max(0, round(residual / self._period))
        gap = Gap(self._last, stamp - self._last, lost)
        self.steps_back += residual < 0
        self._seed(stamp, lost)
        return gap

    def _follow(self, residual: float) -> None:
        level = min(self._fitted, self._memory)
        slope = min(self._seen, self._memory)
        self._variance += (residual * residual - self._variance) / slope
        # The slope starts from the nominal rate, so it is trusted as if 32 samples had been seen already.
        fitted = self._next + residual * 4.0 / (level + 4.0)
        period = self._period + residual * 6.0 / (slope + 32.0) ** 2
        self._period = min(max(period, 0.9 * self._nominal), 1.1 * self._nominal)
        self._last = max(fitted, self._last + 0.01 * self._period)
        self._next = self._last + self._period
        self._fitted += 1
        self._index += 1
