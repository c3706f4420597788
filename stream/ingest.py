"""From samples and events to windows, live and offline by the same objects."""

import bisect
import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.clock import Gap, SampleClock, Stamped
from stream.errors import StreamError
from stream.events import Event
from stream.filters import FilterChain, FilterSpec, unfit
from stream.recordings import Recording, choose_stream
from stream.ring import Ring
from stream.window_spec import SLACK, WindowSpec, line, trend
from stream.windows import Channels, Quality, Window

__all__ = ["FilterSpec", "Ingest", "IngestStats", "WindowSpec", "windows_of"]

RECENT_EVENTS = 4096  # remembered, to know a doubled marker


@dataclass(slots=True)
class IngestStats:
    """The account of one stream since its start.

    Attributes
    ----------
    samples, lost, bad : int
        Samples received; missing by the timestamps; received but not finite numbers.
    gaps : list of Gap
        The newest 100. `gap_count` counts them all.
    events, doubled, ignored, unmade, pending : int
        Markers received that match; of these the same marker again; markers that do not match; markers whose window
        lies (partly) outside what the stream still holds; markers whose window is not complete yet.
    windows, rejected : int
        Windows cut, and how many of these were found unfit.
    overruns : int
        Windows lost because the ring had gone on.
    disconnections : int
    state : str
        'waiting' (no sample yet), 'streaming' or 'lost'.
    channel_rms : dict of str to float
        Of the newest second, after the filters.
    """

    samples: int = 0
    lost: int = 0
    bad: int = 0
    gap_count: int = 0
    gaps: list[Gap] = field(default_factory=list)
    events: int = 0
    doubled: int = 0
    ignored: int = 0
    unmade: int = 0
    pending: int = 0
    windows: int = 0
    rejected: int = 0
    overruns: int = 0
    disconnections: int = 0
    state: str = "waiting"
    channel_rms: dict[str, float] = field(default_factory=dict)


class Ingest:
    """Clock, filters, ring and windows of one stream; feed it samples and events in any order and chunking.

    Parameters
    ----------
    channels : Channels
        SI units.
    sfreq : float
        Of the source; 0 for an irregular stream.
    window : WindowSpec
    filters : FilterSpec
    speed : float
        Source seconds per second of the LSL clock.
    buffer_s : float
        Seconds of the source kept in the ring, so how late a marker may come (at least three windows are kept).
    now : callable, optional
        The LSL clock, for `Window.ready`; left out, a window is ready when its last sample is there.

    Raises
    ------
    StreamError
        The specs do not fit the stream.
    """

    def __init__(
        self,
        channels: Channels,
        sfreq: float,
        window: WindowSpec,
        filters: FilterSpec,
        *,
        speed: float = 1.0,
        buffer_s: float = 30.0,
        now: Callable[[], float] | None = None,
    ) -> None:
        if not sfreq and window.mode != "sample":
            raise StreamError(f"window mode {window.mode!r} needs a regular stream; use mode 'sample' for this one")
        self._spec, self._filters, self._speed, self._clock_now = window, filters, speed, now
        self._wanted = re.compile(window.events)
        self._clock = SampleClock(sfreq, speed)
        self._chain = FilterChain(filters, channels, sfreq)
        self.channels, self.sfreq = self._chain.channels, self._chain.sfreq
        self._first = round(window.tmin * self.sfreq)
        self._length = window.samples(self.sfreq)
        self._step = max(1, round(window.step * self.sfreq))
        begin = min(window.tmin, window.baseline[0]) if window.baseline else window.tmin
        seconds = max(buffer_s, 3 * (max(window.tmax, 0.0) - min(begin, 0.0)))
        self._ring = Ring(max(1024, round(seconds * (self.sfreq or 10.0))), len(self.channels))
        self._line = 0  # since when the ring's times increase: a source's clock may step back
        self._interpolated = [(0, self._chain.interpolated)]  # from which row on which channels
        self._last_row: NDArray[np.float64] | None = None
        self._pending: list[Event] = []
        self._recent: dict[tuple[str, int], None] = {}
        self._slide = 0
        self._count = 0
        self._sums: dict[str, tuple[NDArray[np.float64], int]] = {}
        self.stats = IngestStats()

    def event(self, event: Event) -> None:
        """Take note of a marker; its window comes out of the next `samples` call that completes it."""
        if self._spec.mode == "sliding" or not self._wanted.fullmatch(event.label):
            self.stats.ignored += 1
            return
        self.stats.events += 1
        bisect.insort(self._pending, event, key=lambda pending: pending.time)

    def samples(self, data: NDArray[np.floating[Any]], raw_times: NDArray[np.float64]) -> list[Window]:
        """Take the next samples and give the windows they complete.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels)
            In SI units.
        raw_times : ndarray, shape (n,), float64
            LSL time of this machine, clock-corrected, not smoothed.
        """
        made: list[Window] = []
        # A chunk may be longer than the ring: windows are cut before what they hold is written over.
        for start in range(0, max(len(data), 1), self._ring.capacity // 4):
            part = slice(start, start + self._ring.capacity // 4)
            self._take(np.asarray(data[part], dtype=np.float64), raw_times[part])
            made += self._windows()
        return made

    def interrupted(self) -> None:
        """Note that the source is gone; what comes next is a gap away at best."""
        self.stats.state = "lost"
        self.stats.disconnections += 1

    def account(self) -> IngestStats:
        """Copy the counters, with the newest second's level of each channel."""
        n = max(1, round(self.sfreq))
        stretch = self._ring.read(max(self._ring.start, self._ring.stop - n), self._ring.stop)
        rms: dict[str, float] = {}
        if stretch is not None and len(stretch.data):
            levels = np.sqrt(np.mean(np.square(stretch.data, dtype=np.float64), axis=0))
            rms = dict(zip(self.channels.names, levels.tolist(), strict=True))
        now = replace(self.stats, gaps=list(self.stats.gaps), overruns=self._ring.overruns, channel_rms=rms)
        now.pending = len(self._pending)
        return now

    def _take(self, data: NDArray[np.float64], raw_times: NDArray[np.float64]) -> None:
        if not len(data):
            return
        self.stats.samples += len(data)
        self.stats.state = "streaming"
        stamped = self._clock.feed(raw_times)
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
        filtered = self._chain.feed(data, int(stamped.index[start]) if stop > start else 0, bad)
        rows, known = filtered.data, filtered.known
        times = stamped.times[start:stop][filtered.newest] + filtered.ahead / self._speed
        self._interpolated += [(self._ring.stop + at, names) for at, names in filtered.interpolated]
        # One write a run of equal presence; without bad samples that is the whole chunk.
        edges = [0, *(np.flatnonzero(np.diff(known)) + 1).tolist(), len(rows)]
        for first, last in itertools.pairwise(edges):
            if last > first:
                self._ring.write(rows[first:last], times[first:last], present=bool(known[first]))
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
        self._chain.reset()
        if gap.length < 0:
            self._line = self._ring.stop
        factor, delay = self._chain.factor, self._chain.delay / self._speed
        # A third of the ring is a window at least; with it and a chunk's quarter, no window is written over uncut.
        places = min(math.ceil(index * factor) - math.ceil((index - gap.lost) * factor), self._ring.capacity // 3)
        if places > 0 and self._ring.stop:
            last = self._ring.row(self._ring.stop - 1)
            times = np.linspace(gap.start, resumed, places + 2)[1:-1] - delay
            self._ring.write(np.repeat(last[None], places, axis=0), times, present=False)

    def _windows(self) -> list[Window]:
        if self._spec.mode == "sliding":
            return self._slid()
        made: list[Window] = []
        while self._pending:
            row = self._row(self._pending[0].time)
            if row is None or row + self._length > self._ring.stop:
                break
            event = self._pending.pop(0)
            if not self._doubled(event, row):
                window = self._cut(row, f"{self._count:05d}-{event.label}", event)
                self._count += 1
                if window:
                    made.append(self._averaged(window, event.label))
        return self._account_for(made)

    def _slid(self) -> list[Window]:
        made: list[Window] = []
        while self._slide + self._length <= self._ring.stop:
            window = self._cut(self._slide, f"{self._count:05d}-sliding", None)
            self._count += 1
            self._slide += self._step
            if window:
                made.append(window)
        return self._account_for(made)

    def _account_for(self, made: list[Window]) -> list[Window]:
        self.stats.windows += len(made)
        self.stats.rejected += sum(window.quality.rejected is not None for window in made)
        return made if self._spec.rejected == "flag" else [window for window in made if not window.quality.rejected]

    def _row(self, time: float) -> int | None:
        """First row of the window of an event; None while the stream has not got there."""
        if self._spec.mode in {"sample", "mean"}:
            position = self._ring.position(time + (self._spec.tmin - SLACK) / self._speed, self._line)
            return None if position == math.inf else math.ceil(max(position, self._ring.start, self._line))
        position = self._ring.position(time, self._line)
        if math.isinf(position):
            return None if position > 0 else -1
        # An event midway between two samples must not be a matter of the last digit.
        return math.floor(position + 0.5 - SLACK) + self._first

    def _doubled(self, event: Event, row: int) -> bool:
        key = (event.label, row)
        if row >= 0 and key in self._recent:
            self.stats.doubled += 1
            return True
        self._recent[key] = None
        if len(self._recent) > RECENT_EVENTS:
            del self._recent[next(iter(self._recent))]
        return False

    def _cut(self, row: int, name: str, event: Event | None) -> Window | None:
        """Copy one window out of the ring; None (counted) where it is not, or no longer, all there."""
        early = max(self._ring.start, self._line)
        late = event and self._spec.mode in {"sample", "mean"} and self._too_late(row, event)
        stretch = self._ring.read(row, row + self._length) if row >= early and not late else None
        baseline = self._baseline(row) if stretch is not None else None
        if stretch is None or (self._spec.baseline and baseline is None):
            self.stats.unmade += 1
            return None
        data = self._corrected(np.ascontiguousarray(stretch.data.T), row, baseline)
        lost = round(int((~stretch.present).sum()) / self._chain.factor)
        reason = f"{lost} samples lost" if lost else unfit(data, self.channels, self._filters)
        if self._spec.mode == "mean":
            data = data.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        onset = event.time if event else float(stretch.times[0])
        acquired = float(stretch.times[-1])
        return Window(
            id=name,
            data=data,
            channels=self.channels,
            sfreq=self.sfreq,
            onset=onset,
            tmin=(float(stretch.times[0]) - onset) * self._speed,
            event=event,
            acquired=acquired,
            ready=self._clock_now() if self._clock_now else acquired,
            quality=Quality(samples_lost=lost, interpolated=self._interpolated_in(row), rejected=reason),
        )

    def _too_late(self, row: int, event: Event) -> bool:
        return self._ring.time(row) > event.time + (self._spec.tmax + SLACK) / self._speed

    def _baseline(self, row: int) -> tuple[int, NDArray[np.float64]] | None:
        """Where the baseline of a window that starts at `row` begins, and its samples, shape (n_channels, n)."""
        if self._spec.baseline is None:
            return None
        start, stop = (row - self._first + round(edge * self.sfreq) for edge in self._spec.baseline)
        stretch = self._ring.read(start, max(stop, start + 1)) if start >= max(self._ring.start, self._line) else None
        return None if stretch is None else (start, stretch.data.T.astype(np.float64))

    def _corrected(
        self, data: NDArray[np.float32], row: int, baseline: tuple[int, NDArray[np.float64]] | None
    ) -> NDArray[np.float32]:
        """Take the trend, then the baseline's mean, from a window that starts at `row`."""
        if self._spec.detrend and data.shape[1] > 1:
            level, slope = trend(data)
            data = (data - line(level, slope, 0, data.shape[1])).astype(np.float32)
            if baseline is not None:
                start, samples = baseline
                baseline = (start, samples - line(level, slope, start - row, samples.shape[1]))
        if baseline is not None:
            data = (data - baseline[1].mean(axis=1, keepdims=True)).astype(np.float32)
        return data

    def _interpolated_in(self, row: int) -> tuple[str, ...]:
        """Channels that were interpolated anywhere in the window that starts at `row`."""
        since = self._interpolated
        while len(since) > 1 and since[1][0] <= self._ring.start:
            del since[0]
        ends = [start for start, _ in since[1:]] + [row + self._length]
        names = {
            name
            for (start, some), end in zip(since, ends, strict=True)
            if start < row + self._length and end > row
            for name in some
        }
        return tuple(name for name in self.channels.names if name in names)

    def _averaged(self, window: Window, label: str) -> Window:
        """Average over this label's presentations so far; an unfit one stays out and is handed on as it is."""
        if self._spec.repeats == 1 or window.quality.rejected:
            return window
        total, n = self._sums.get(label, (np.zeros(window.data.shape), 0))
        total, n = total + window.data, n + 1
        self._sums[label] = (total, n)
        if n == self._spec.repeats:
            del self._sums[label]
        return replace(window, data=(total / n).astype(np.float32), repeats=n)


def windows_of(
    recording: Recording, window: WindowSpec, filters: FilterSpec, stream: str | None = None
) -> Iterator[Window]:
    """Cut a recording into the windows that a live session on its replay gets: same ids, same data.

    Parameters
    ----------
    recording : Recording
    window : WindowSpec
    filters : FilterSpec
    stream : str, optional
        Name or type of the stream; the first when left out.

    Yields
    ------
    Window
        Times are in seconds from the recording's start.

    Raises
    ------
    StreamError
        The specs do not fit the stream.
    """
    source = choose_stream(recording, stream)
    ingest = Ingest(source.channels, source.sfreq, window, filters)
    for event in sorted(recording.events, key=lambda event: event.time):
        ingest.event(event)
    chunk = max(1, round(source.sfreq)) if source.sfreq else 64
    for start in range(0, len(source.times), chunk):
        part = slice(start, start + chunk)
        yield from ingest.samples(source.data[part], source.times[part])
