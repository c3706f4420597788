"""The time line of one stream: jitter out, gaps found, every sample on a grid."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.signal.rate import RateMeter
from stream.signal.startup_gaps import first_holes, packets, swing

MEMORY_S = 10.0
"""Seconds over which the fit forgets: long against chunk jitter, short against crystal drift."""
STARTUP_S = 1.0
"""Seconds held back at the start, to estimate the stream's own jitter."""
STARTUP_TOLERANCE_S = 0.05
SWINGS = 2.0
"""Multiple of the first second's jitter."""
PACKETS = 1.5
"""Multiple of a packet whose samples are all stamped on arrival: in it timestamps fall behind and catch up."""
JITTERS = 8.0
"""Multiple of the rms; real Bluetooth chunks reach 6.3 times theirs."""
SHORTEST, LONGEST = 0.975, 1.025
"""Of the nominal period; beyond 2 % the rate is wrong, or samples are lost."""
FEW = 8
"""Samples in a second below which nothing is concluded from it."""
NEAR = 10.0
"""Samples; a timestamp is confirmed by the next one if that follows it by less."""
FAR_S = 3600.0
"""Seconds; an irregular stream's timestamps that lie so far apart are looked at twice."""
OUTAGE_S = 86400.0
"""Seconds; no outage is longer: a clock was set anew."""
BIAS_S = 0.25
"""Seconds over which the mean distance of timestamps from the line tells a line that is off from jitter."""
OFF = 2.5
"""Multiple of the jitter's rms above which a mean distance is no jitter."""
BLIND_S = 0.1
"""Seconds that samples are placed without a usable timestamp before this counts against them."""
DRIFT_S = 5.0
"""Seconds of an unbroken line before its rate is worth a number."""
LARGEST = 1e13
"""Seconds beyond which a double no longer tells two samples apart."""


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
class StampedChunk:
    """What the clock makes of the next n samples.

    Attributes
    ----------
    times : ndarray, shape (n,), float64
        Without jitter; strictly increasing, save where the source's own clock stepped back.
    index : ndarray, shape (n,), int64
        Place on the stream's grid, from 0; lost samples take up places.
    gaps : tuple of (int, Gap)
        Each with the position, among these n, of the first sample after it.
    doubts : tuple of (int, int, str)
        From where to where among these n the times should not be trusted, and why.
    """

    times: NDArray[np.float64]
    index: NDArray[np.int64]
    gaps: tuple[tuple[int, Gap], ...]
    doubts: tuple[tuple[int, int, str], ...] = ()


class SampleClock:
    """Fit a straight line to the timestamps as they come, anew after each gap.

    liblsl's own smoothing bends the time line for 20 s after a hole and so hides it; here the raw timestamp is held
    against the line first. Scalar recursion: a stream gives bit-equal times in any chunking. The gains are those of a
    growing-memory filter (Brookner, Tracking and Kalman Filtering Made Easy, 1998, eq. 1.3-4) until `MEMORY_S`.

    The first second of a stream is held back until it is over: before its jitter is known, a hole of a few samples
    cannot be told from it. `stream.signal.startup_gaps` states from what length it can then: from one sample on
    where there is no jitter, else from a few times its swing; shorter ones pass as jitter. What is longer than 50 ms is
    a hole anyway. A line from which the timestamps of a quarter second are off, all to one side, is drawn anew, and
    reported.

    A timestamp off the line is believed when the next one bears it out, so the sample waits for that. One that is not,
    and one that is not finite, is bad: the sample is placed where it was due.

    Parameters
    ----------
    sfreq : float
        Samples a second of the source; 0 for an irregular stream, whose timestamps are left as they are.
    speed : float
        Source seconds per second of the LSL clock (1 unless replayed faster or slower).

    Attributes
    ----------
    steps_back : int
        How often the source's clock stepped: back, or ahead by more than a day.
    bad_stamps : int
        Timestamps that were not finite, or that no other bore out.
    blind : int
        Samples since the last timestamp that was of use.
    meter : RateMeter or None
        Of a regular stream.
    """

    def __init__(self, sfreq: float, speed: float = 1.0) -> None:
        self.sfreq = sfreq
        self.steps_back = self.bad_stamps = self.blind = 0
        self.meter = RateMeter(sfreq, speed) if sfreq else None
        self._speed = speed
        self._nominal = 1.0 / (sfreq * speed) if sfreq else 0.0
        self._period = self._nominal
        self._memory = max(32.0, MEMORY_S * sfreq)
        self._startup = max(1, math.ceil(STARTUP_S * sfreq))
        self._startup_tolerance = STARTUP_TOLERANCE_S / speed
        self._blindness = max(2, math.ceil(BLIND_S * sfreq))
        self._waiting: list[float] = []  # not placed yet: the first second, or one that the next must bear out
        self._lost: dict[int, int] = {}  # samples missing before some of the first second's
        self._suspects: list[tuple[int, float | None]] = []  # from which sample on the meter doubts the rate
        self._suspect: float | None = None
        self._seen = 0  # samples since the start
        self._fitted = 0  # samples since the line was last seeded
        self._next = 0.0  # where the line puts the next sample
        self._groundless = False  # no timestamp has been of use yet: the line lies nowhere
        self._last = -np.inf
        self._stamp = np.nan  # the last one of an irregular stream
        self._index = -1
        self._variance = 0.0
        self._sloped = 1  # samples since the slope was last seeded
        self._shifted = (0.0, 0)  # by how much the line was moved last, and up to which sample that shows
        self._bias = 0.0  # mean distance of the newest timestamps from the line
        self._horizon = max(8.0, BIAS_S * sfreq)
        self._anchor = (0, 0.0)  # (index, time) since which the line is unbroken

    @property
    def measured_hz(self) -> float | None:
        """Samples a second that the source really sends, in its own seconds; None while that is not known."""
        if self.meter and self.meter.verdict:
            return self.meter.verdict
        seconds = (self._last - self._anchor[1]) * self._speed
        if not self.sfreq or not self._seen or seconds < max(DRIFT_S, 10 / self.sfreq):
            return None
        return (self._index - self._anchor[0]) / seconds

    def feed(self, raw: NDArray[np.float64], *, last: bool = False) -> StampedChunk:
        """Stamp the next samples by the fitted line.

        Parameters
        ----------
        raw : ndarray, shape (n,), float64
            Timestamps in the LSL clock of this machine, not smoothed.
        last : bool
            Hold nothing back: the source has ended, or fallen silent.

        Returns
        -------
        Stamped
            Of all samples fed and not given yet, in order; of none while the first second is not over, and not of the
            newest while its timestamp is in question.
        """
        if self.meter:
            before = self._seen + len(self._waiting)
            self._suspects += [(before + at, rate) for at, rate in self.meter.feed(raw)]
        stamps = self._waiting + raw.tolist()
        if self._seen == 0 and stamps:
            first = self._first_second(stamps)
            if not first and not last:
                self._waiting = stamps
                return StampedChunk(np.empty(0), np.empty(0, dtype=np.int64), ())
            self._begin(np.array(stamps[: first or len(stamps)]))
        place = self._place_regular if self.sfreq else self._place_irregular
        n, seen = len(stamps), self._seen
        times = np.empty(n)
        index = np.empty(n, dtype=np.int64)
        gaps: list[tuple[int, Gap]] = []
        doubts: list[tuple[int, int, str]] = []
        i = -1
        while (i := i + 1) < n:
            if self.sfreq and self._seen:
                begin, i = i, self._follow(stamps, i, times, index)
                if (flagged := min(i, begin + self._shifted[1] - (self._seen - (i - begin)))) > begin:
                    doubts.append((begin, flagged, self._how_far_off()))
                if i == n:
                    break
            stamp = stamps[i]
            placed = place(stamp, stamps[i + 1] if i + 1 < n else None if not last else stamp + self._nominal)
            if placed is False:
                n = i
                break
            if placed is not True:
                gaps.append((i, placed))
                if placed.lost == 0:
                    doubts.append((i, i + 1, f"timestamps step by {placed.length - self._nominal:.3g} s"))
            if self._seen <= self._shifted[1]:
                doubts.append((i, i + 1, self._how_far_off()))
            if self.blind > self._blindness:
                doubts.append((i, i + 1, "no timestamps of use"))
            times[i], index[i] = self._last, self._index
        self._waiting = stamps[n:]
        doubts += self._rate_doubts(seen, n)
        return StampedChunk(times[:n], index[:n], tuple(gaps), tuple(doubts))

    def _first_second(self, stamps: list[float]) -> int:
        """Count the timestamps of the first second; 0 while it is not over.

        By their number, or, of a stream that sends faster than it says, by the time that they took.
        """
        for n in range(self._startup, min(len(stamps), 4 * self._startup) + 1):
            if (
                n == 4 * self._startup
                or self._startup < FEW
                or not stamps[n - 1] - stamps[0] < 0.5 * STARTUP_S / self._speed
            ):
                return n
        return 0

    def _begin(self, stamps: NDArray[np.float64]) -> None:
        """Find the holes of the first second, and where its line begins."""
        good = np.isfinite(stamps) & (np.abs(stamps) < LARGEST)
        places = np.arange(len(stamps))
        if not self.sfreq:
            return
        self._groundless = not good.any()
        if self._groundless:
            return
        starts = stamps - places * self._nominal
        usual = float(np.median(starts[good]))
        far = ~good | (np.abs(starts - usual) > STARTUP_S / self._speed + self._startup * self._nominal)
        self._next = usual if far[0] else float(stamps[0])
        if far.any():
            stamps = np.interp(places, places[~far], stamps[~far])
        self._lost = first_holes(stamps, self._nominal)
        self._startup = len(stamps)
        self._startup_tolerance = min(self._startup_tolerance, SWINGS * swing(stamps, self._nominal))
        self._startup_tolerance = max(self._startup_tolerance, PACKETS * packets(stamps, self._nominal))
        # What the meter makes of the first second is said of all of it.
        self._suspects = [(0 if at <= self._startup else at, rate) for at, rate in self._suspects]

    def _rate_doubts(self, seen: int, n: int) -> list[tuple[int, int, str]]:
        """Find where among the n samples after the first `seen` the rate is in doubt."""
        doubts: list[tuple[int, int, str]] = []
        at = 0 if self._suspects or self._suspect is not None else n
        while at < n:
            while self._suspects and self._suspects[0][0] <= seen + at:
                self._suspect = self._suspects.pop(0)[1]
            stop = min(n, self._suspects[0][0] - seen) if self._suspects else n
            if self._suspect is not None:
                doubts.append((at, stop, f"sends {figure(self._suspect)} Hz instead of {self.sfreq:g} Hz"))
            at = stop
        return doubts

    def _place_irregular(self, stamp: float, following: float | None) -> Gap | bool:
        usable = abs(stamp) < LARGEST
        step = stamp - self._last
        if usable and abs(step) > FAR_S / self._speed and self._seen:
            if following is None:
                return False
            usable = abs(following - stamp) < FAR_S / self._speed
        gap: Gap | bool = True
        if not usable:
            self._bad()
            stamp = -np.inf if self._seen else 0.0
        elif -step > FAR_S / self._speed:
            gap = Gap(self._last, step, 0)
            self.steps_back += 1
            self._last = -np.inf
        if usable:
            self.blind = self.blind + 1 if stamp == self._stamp else 0
            self._stamp = stamp
        self._last = max(stamp, float(np.nextafter(self._last, np.inf)))
        self._index += 1
        self._seen += 1
        return gap

    def _place_regular(self, stamp: float, following: float | None) -> Gap | bool:
        """Stamp a sample; return the gap before it, or True, or False where its timestamp waits for the next one."""
        residual = stamp - self._next
        if self._seen == 0:
            first = stamp if abs(residual) <= STARTUP_S / self._speed else self._next
            self._seed(first, lost=0)
        elif self._seen in self._lost:
            self._seen += 1
            return self._jump(stamp, self._lost.pop(self._seen - 1))
        elif residual * residual <= self._tolerance_squared():  # off, or it would have been followed
            self._bias += (residual - self._bias) / min(self._fitted, self._horizon)
            self._seen += 1
            return self._shift()
        elif not abs(stamp) < LARGEST:
            self._pass_over()
        elif following is None:
            return False
        elif self._borne_out(stamp, following):
            self._seen += 1
            lost = max(0, round(residual / self._period))
            if self._groundless:
                self._groundless, lost = False, 0
            elif residual < 0 or lost > OUTAGE_S * self.sfreq:
                self.steps_back += 1
                lost = 0
            return self._jump(stamp, lost)
        else:
            self._pass_over()
        self._seen += 1
        return True

    def _tolerance_squared(self) -> float:
        limit = 0.75 * self._period
        if self._seen < self._startup:
            return max(limit, self._startup_tolerance) ** 2
        return max(limit * limit, JITTERS * JITTERS * self._variance)

    def _how_far_off(self) -> str:
        return f"times are off by {1e3 * self._shifted[0]:.3g} ms"

    def _shift(self) -> Gap | bool:
        """Move the line to where the newest timestamps lie; samples missed are counted."""
        # A clock that wanders is a sample off now and then; what is farther off has missed some.
        bias, lost = self._bias, round(self._bias / self._period) if self._bias > 2 * self._period else 0
        gap = Gap(self._last, self._next + bias - self._last, lost)
        self._last = max(self._next + bias, self._last + 0.01 * self._period)
        self._next += bias + self._period
        self._index += 1 + lost
        self._fitted = round(self._horizon)
        self._period = self._nominal  # what led off the line is not kept
        self._sloped = self._fitted
        self._shifted = (bias, self._seen + max(self._fitted, math.ceil(-bias / self._period)))
        self._anchor = (self._index, self._last)
        self._bias = 0.0
        return gap if lost else True

    def _borne_out(self, stamp: float, following: float) -> bool:
        """Check that the next timestamp goes on from this one, and is not back on the line that this one left."""
        near = NEAR * self._nominal + self._startup_tolerance
        back = abs(following - self._next - self._period)
        return 0 < following - stamp < near and back >= abs(stamp - self._next) / 2

    def _bad(self) -> None:
        self.bad_stamps += 1
        self.blind += 1

    def _pass_over(self) -> None:
        """Stamp a sample whose timestamp is of no use with the time at which it was due."""
        self._bad()
        self._last = self._next
        self._next = self._last + self._period
        self._index += 1

    def _seed(self, stamp: float, lost: int) -> None:
        self._index += 1 + lost
        self._fitted = 1
        self._last = stamp
        self._next = stamp + self._period
        self._anchor = (self._index, stamp)
        self._bias = 0.0
        self.blind = 0

    def _jump(self, stamp: float, lost: int) -> Gap:
        gap = Gap(self._last, stamp - self._last, lost)
        self._seed(stamp, lost)
        return gap

    def _follow(
        self, stamps: list[float], start: int, times: NDArray[np.float64], index: NDArray[np.int64]
    ) -> int:  # fmt: skip
        """Stamp samples from `start` on, as long as their timestamps lie on the line; return the first that does not.

        The line is off where the mean distance of the newest timestamps is more than a sample, and than jitter. The
        recursion is written out with local names: it runs for every sample.
        """
        period, line, last, variance, bias = self._period, self._next, self._last, self._variance, self._bias
        seen, fitted, sloped, place = self._seen, self._fitted, self._sloped, self._index
        shortest, longest = SHORTEST * self._nominal, LONGEST * self._nominal
        memory, horizon = self._memory, self._horizon
        startup = self._startup_tolerance if seen < self._startup else 0.0
        wide = 0.0 if startup else JITTERS * JITTERS
        stop = len(stamps) if not startup else min(len(stamps), start + self._startup - seen)
        if self._lost:
            stop = min(stop, start + min(self._lost) - seen)
        recent = placed = steps = memory  # how many samples the jitter, the line and its slope remember
        ripe = min(seen, fitted, sloped) > memory > horizon
        i = start
        while i < stop:
            residual = stamps[i] - line
            limit = max(0.75 * period, startup)
            square = residual * residual
            if not (square <= limit * limit or square <= wide * variance):
                break
            if not ripe:
                recent, placed, steps = min(memory, seen), min(memory, fitted), min(memory, sloped)
            mean = bias + (residual - bias) / (horizon if ripe else min(horizon, fitted))
            off = mean * mean
            if off > period * period and off > OFF * OFF * variance and fitted > horizon:
                break
            bias = mean
            jitter = residual - bias  # a line that is off is no jitter
            variance += (jitter * jitter - variance) / recent
            # The slope starts from the nominal rate, so it is trusted as if 32 samples had been seen already.
            nearer = line + residual * 4.0 / (placed + 4.0)
            period += residual * 6.0 / (steps + 32.0) ** 2
            period = shortest if period < shortest else min(period, longest)
            last += 0.01 * period
            last = max(last, nearer)
            line = last + period
            seen, fitted, sloped, place = seen + 1, fitted + 1, sloped + 1, place + 1
            times[i], index[i] = last, place
            i += 1
        if i > start:
            self._period, self._next, self._last, self._variance, self._bias = period, line, last, variance, bias
            self._seen, self._fitted, self._sloped, self._index = seen, fitted, sloped, place
            self.blind = 0
        if i == stop < len(stamps) and startup and seen == self._startup:
            return self._follow(stamps, i, times, index)  # from here on by the jitter that was learnt
        return i


def figure(rate: float) -> str:
    """Write a measured rate in as many digits as it is worth; a whole number where it is near one."""
    nearest = round(rate)
    return str(nearest) if nearest and abs(rate / nearest - 1) < 0.003 else f"{rate:.4g}"
