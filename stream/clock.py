"""The time line of one stream: jitter out, gaps found, every sample on a grid."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.settling import first_holes

MEMORY_S = 10.0  # the fit forgets over this time: long against chunk jitter, short against crystal drift
SETTLING_S = 1.0  # held back at the start, to learn the stream's own jitter from
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
    """What the clock makes of the next n samples.

    Attributes
    ----------
    times : ndarray, shape (n,), float64
        Without jitter; strictly increasing, save where the source's own clock stepped back.
    index : ndarray, shape (n,), int64
        Place on the stream's grid, from 0; lost samples take up places.
    gaps : tuple of (int, Gap)
        Each with the position, among these n, of the first sample after it.
    """

    times: NDArray[np.float64]
    index: NDArray[np.int64]
    gaps: tuple[tuple[int, Gap], ...]


class SampleClock:
    """Fit a straight line to the timestamps as they come, anew after each gap.

    liblsl's own smoothing bends the time line for 20 s after a hole and so hides it; here the raw timestamp is held
    against the line first. Scalar recursion: a stream gives bit-equal times in any chunking. The gains are those of a
    growing-memory filter (Brookner, Tracking and Kalman Filtering Made Easy, 1998, eq. 1.3-4) until `MEMORY_S`.

    The first second of a stream is held back until it is over: before its jitter is known, a hole of a few samples
    cannot be told from it. `stream.settling` says from what length it can then: from one sample on where there is no
    jitter, else from a few times its swing; shorter ones pass as jitter. What is longer than 50 ms is a hole anyway.

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
        self._settling = max(1, math.ceil(SETTLING_S * sfreq))
        self._settling_tolerance = SETTLING_TOLERANCE_S / speed
        self._held: list[float] = []  # the first second
        self._lost: dict[int, int] = {}  # samples missing before some of the first second's
        self._seen = 0  # samples since the start
        self._fitted = 0  # samples since the line was last seeded
        self._next = 0.0  # where the line puts the next sample
        self._last = -np.inf
        self._index = -1
        self._variance = 0.0

    def feed(self, raw: NDArray[np.float64], *, last: bool = False) -> Stamped:
        """Place the next samples on the line.

        Parameters
        ----------
        raw : ndarray, shape (n,), float64
            Timestamps in the LSL clock of this machine, not smoothed.
        last : bool
            Hold nothing back: the source has ended, or fallen silent.

        Returns
        -------
        Stamped
            Of all samples fed and not given yet, in order; of none while the first second is not over.
        """
        stamps = raw.tolist()
        place = self._place_irregular
        if self.sfreq:
            stamps, place = self._release(stamps, last=last), self._place_regular
        times = np.empty(len(stamps))
        index = np.empty(len(stamps), dtype=np.int64)
        gaps: list[tuple[int, Gap]] = []
        for i, stamp in enumerate(stamps):
            gap = place(stamp)
            if gap:
                gaps.append((i, gap))
            times[i], index[i] = self._last, self._index
        return Stamped(times, index, tuple(gaps))

    def _release(self, stamps: list[float], *, last: bool) -> list[float]:
        """Hold the first second back; at its end look for its holes and let it go."""
        if self._seen:
            return stamps
        self._held += stamps
        if len(self._held) < self._settling and not last:
            return []
        stamps, self._held = self._held, []
        self._lost = first_holes(np.array(stamps[: self._settling]), self._nominal)
        return stamps

    def _place_irregular(self, stamp: float) -> Gap | None:
        self._last = max(stamp, float(np.nextafter(self._last, np.inf)))
        self._index += 1
        return None

    def _place_regular(self, stamp: float) -> Gap | None:
        gap = None
        residual = stamp - self._next
        if self._seen == 0:
            self._seed(stamp, lost=0)
        elif self._seen in self._lost:
            gap = self._jump(stamp, self._lost.pop(self._seen))
        elif abs(residual) > self._tolerance():
            self.steps_back += residual < 0
            gap = self._jump(stamp, max(0, round(residual / self._period)))
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

    def _jump(self, stamp: float, lost: int) -> Gap:
        gap = Gap(self._last, stamp - self._last, lost)
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
