"""One stream's way in: clock, filters and ring."""

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.clock import Gap, SampleClock, Stamped
from stream.filters import FilterChain, FilterSpec
from stream.ring import Ring
from stream.windows import Channels

FASTEST_IRREGULAR = 1000.0  # samples a second that an irregular stream's ring is made for...
IRREGULAR_NUMBERS = 2**22  # ...as far as so many numbers go


@dataclass(slots=True)
class StreamStats:
    """The account of one stream since its start.

    Attributes
    ----------
    samples, lost, bad : int
        Samples received; missing by the timestamps; received but not finite numbers.
    gaps : list of Gap
        The newest 100. `gap_count` counts them all.
    disconnections : int
    state : str
        'waiting' (no sample yet), 'streaming' or 'lost'.
    """

    samples: int = 0
    lost: int = 0
    bad: int = 0
    gap_count: int = 0
    gaps: list[Gap] = field(default_factory=list)
    disconnections: int = 0
    state: str = "waiting"


class Intake:
    """Places the samples of one stream on its time line, filters them and keeps the newest.

    Parameters
    ----------
    channels : Channels
        SI units.
    sfreq : float
        Of the source; 0 for an irregular stream.
    filters : FilterSpec
    speed : float
        Source seconds per second of the LSL clock.
    seconds : float
        Of the source, kept in the ring.

    Attributes
    ----------
    channels : Channels
        After the filters.
    sfreq : float
        After the filters.
    chain : FilterChain
    ring : Ring
        Rows of lost samples are filled and marked as absent.
    line : int
        The row since which the ring's times increase: a source's clock may step back.
    stats : StreamStats

    Raises
    ------
    StreamError
        The filters do not fit the stream.
    """

    def __init__(self, channels: Channels, sfreq: float, filters: FilterSpec, *, speed: float, seconds: float) -> None:
        self._speed = speed
        self._clock = SampleClock(sfreq, speed)
        self.chain = FilterChain(filters, channels, sfreq)
        self.channels, self.sfreq, n = self.chain.channels, self.chain.sfreq, max(1, len(self.chain.channels))
        rows = seconds * (self.sfreq or FASTEST_IRREGULAR)
        self.ring = Ring(max(1024, round(rows if sfreq else min(rows, IRREGULAR_NUMBERS / n))), n)
        self.line = 0
        self._held: NDArray[np.float64] = np.empty((0, len(channels)))  # what the clock has not placed yet
        self._interpolated = [(0, self.chain.interpolated)]  # from which row on which channels
        self._last_row: NDArray[np.float64] | None = None
        self.stats = StreamStats()

    def take(self, data: NDArray[np.floating[Any]], raw_times: NDArray[np.float64]) -> None:
        """Take the next samples.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels)
            In SI units; n at most a quarter of the ring, or rows are written over before they can be read.
        raw_times : ndarray, shape (n,), float64
            LSL time of this machine, clock-corrected, not smoothed.
        """
        if len(data):
            self.stats.samples += len(data)
            self.stats.state = "streaming"
            self._place(np.asarray(data, dtype=np.float64), self._clock.feed(raw_times))

    def release(self) -> None:
        """Let go what the clock holds back: nothing more comes for now."""
        self._place(self._held[:0], self._clock.feed(np.empty(0), last=True))

    def interrupted(self) -> None:
        """Note that the source is gone; what comes next is a gap away at best."""
        self.stats.state = "lost"
        self.stats.disconnections += 1

    def account(self) -> StreamStats:
        """Copy the counters."""
        return replace(self.stats, gaps=list(self.stats.gaps))

    def levels(self) -> list[float]:
        """Root mean square of each channel over the newest second; nothing before the first sample."""
        n = max(1, round(self.sfreq))
        stretch = self.ring.read(max(self.ring.start, self.ring.stop - n), self.ring.stop)
        if stretch is None or not len(stretch.data):
            return []
        return np.sqrt(np.mean(np.square(stretch.data, dtype=np.float64), axis=0)).tolist()  # type: ignore[no-any-return]

    def interpolated(self, start: int, stop: int) -> tuple[str, ...]:
        """Name the channels that were interpolated anywhere in the rows start..stop."""
        since = self._interpolated
        while len(since) > 1 and since[1][0] <= self.ring.start:
            del since[0]
        ends = [begin for begin, _ in since[1:]] + [stop]
        names = {
            name
            for (begin, some), end in zip(since, ends, strict=True)
            if begin < stop and end > start
            for name in some
        }
        return tuple(name for name in self.channels.names if name in names)

    def lost(self, present: NDArray[np.bool_]) -> int:
        """Count the source's samples that the absent ones among some rows stand for."""
        return round(int((~present).sum()) / self.chain.factor)

    def _place(self, data: NDArray[np.float64], stamped: Stamped) -> None:
        """Write what the clock has placed of these samples and those before them."""
        if len(self._held) or len(stamped.times) < len(data):
            joined = np.concatenate([self._held, data])
            data, self._held = joined[: len(stamped.times)], joined[len(stamped.times) :]
        if not len(data):
            return
        edges = [0, *(at for at, _ in stamped.gaps), len(data)]
        gaps: list[Gap | None] = [None, *(gap for _, gap in stamped.gaps)]
        for gap, start, stop in zip(gaps, edges[:-1], edges[1:], strict=True):
            if gap:
                self._hole(gap, float(stamped.times[start]), int(stamped.index[start]))
            self._write(data[start:stop], stamped, start, stop)

    def _write(self, data: NDArray[np.float64], stamped: Stamped, start: int, stop: int) -> None:
        bad: NDArray[np.bool_] = np.logical_not(np.isfinite(data).all(axis=1))
        if bad.any():
            data = self._hold(data, bad)
        filtered = self.chain.feed(data, int(stamped.index[start]) if stop > start else 0, bad)
        rows, known = filtered.data, filtered.known
        times = stamped.times[start:stop][filtered.newest] + filtered.ahead / self._speed
        self._interpolated += [(self.ring.stop + at, names) for at, names in filtered.interpolated]
        # One write a run of equal presence; without bad samples that is the whole chunk.
        edges = [0, *(np.flatnonzero(np.diff(known)) + 1).tolist(), len(rows)]
        for first, last in itertools.pairwise(edges):
            if last > first:
                self.ring.write(rows[first:last], times[first:last], present=bool(known[first]))
        if len(data):
            self._last_row = data[-1]

    def _hold(self, data: NDArray[np.float64], bad: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Put the last good row in place of rows that are not finite: one NaN would stay in a filter for ever."""
        self.stats.bad += int(bad.sum())
        data = data.copy()
        last = self._last_row if self._last_row is not None else np.zeros(data.shape[1])
        for i in range(len(data)):
            data[i] = last = last if bad[i] else data[i]
        return data

    def _hole(self, gap: Gap, resumed: float, index: int) -> None:
        """Fill the places of lost samples with the last value, marked as absent, and start the filters anew."""
        self.stats.lost += gap.lost
        self.stats.gap_count += 1
        self.stats.gaps = [*self.stats.gaps[-99:], gap]
        self.chain.reset()
        if gap.length < 0:
            self.line = self.ring.stop
        factor, delay = self.chain.factor, self.chain.delay / self._speed
        # A third of the ring is a window at least; with it and a chunk's quarter, no window is written over uncut.
        places = min(math.ceil(index * factor) - math.ceil((index - gap.lost) * factor), self.ring.capacity // 3)
        if places > 0 and self.ring.stop:
            last = self.ring.row(self.ring.stop - 1)
            times = np.linspace(gap.start, resumed, places + 2)[1:-1] - delay
            self.ring.write(np.repeat(last[None], places, axis=0), times, present=False)
