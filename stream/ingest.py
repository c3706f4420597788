"""From samples and events to windows, live and offline by the same objects."""

import bisect
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import StreamError
from stream.events import Event
from stream.filters import FilterSpec
from stream.follow import FollowerSpec
from stream.ingest_stats import IngestStats
from stream.joint import Extra, Joint, distinct
from stream.labels import LabelMatcher
from stream.marker_account import MarkerAccount
from stream.marker_choice import selected
from stream.naming import Naming, printable
from stream.problems import Problems
from stream.recordings import Recording, chosen
from stream.sources import SourceSpec, StreamSelector
from stream.window_spec import SLACK, WindowSpec, line, trend
from stream.windows import Channels, Quality, Window

__all__ = ["Extra", "FilterSpec", "Ingest", "IngestStats", "WindowSpec", "windows_of"]

MOST_PENDING = 10_000  # markers that wait; the oldest go, counted as without a window
SUMS_BYTES = 2**28  # of the presentations averaged so far; those of labels not seen for longest go
RECENT_EVENTS = 4096  # remembered, to know a doubled marker
DOUBLED_S = 0.005  # two marker sources that tell of one thing differ by less
SUMMED = ("samples", "lost", "bad", "gap_count", "disconnections", "bad_stamps", "steps_back", "restarts")
"""Counters that all streams have together."""


class Ingest:
    """Windows out of samples and events; feed it both in any order and chunking.

    One stream, the source, decides the windows: their rate and where their samples lie. Others follow it: their
    channels come after its own in each window, at the times of its samples. A window over a gap of any of them is
    flagged; one that waits in vain for a stream that has fallen silent comes out flagged after `Follower.patience`.

    Parameters
    ----------
    channels : Channels
        Of the source, in SI units.
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
    name : str
        Of the source.
    extras : sequence of Extra
        Streams that follow; their samples are fed in step with the source's.
    labels : LabelMatcher, optional
        Finds the picture that each marker names; left out, labels stay as they are.

    Attributes
    ----------
    channels : Channels
        Of the windows.
    sfreq : float
        Of the windows.
    intakes : list of Intake
        The source's, then the extras'.

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
        name: str = "source",
        extras: Sequence[Extra] = (),
        labels: LabelMatcher | None = None,
    ) -> None:
        if not sfreq and window.mode != "sample":
            raise StreamError(
                f"window mode {window.mode!r} needs a regular stream, and {name!r} declares no rate: set source.sfreq "
                "to the rate it really has, or use mode 'sample'"
            )
        self._spec, self._speed, self._clock_now = window, speed, now
        self._wanted = re.compile(window.events, re.DOTALL)
        self._naming = Naming(labels)
        begin = min(window.tmin, window.baseline[0]) if window.baseline else window.tmin
        span = max(window.tmax, 0.0) - min(begin, 0.0)
        self._streams = Joint(name, channels, sfreq, filters, extras, speed=speed, span=span, buffer_s=buffer_s)
        self.channels, self.sfreq = self._streams.channels, self._streams.sfreq
        self.intakes, self._ring = self._streams.intakes, self._streams.ring
        self._first = round(window.tmin * self.sfreq)
        self._length = window.samples(self.sfreq)
        self._step = max(1, round(window.step * self.sfreq))
        self._twins = int(DOUBLED_S * self.sfreq) if window.mode == "event" else 0
        self._pending: list[Event] = []
        self._recent: dict[tuple[str, int], None] = {}
        self._slide = 0
        self._count = 0
        self._sums: dict[str, tuple[NDArray[np.float64], int]] = {}
        self._stats = IngestStats()
        self._markers = MarkerAccount(window.events, window.tmax / speed)
        self._problems = Problems()

    def event(self, event: Event) -> None:
        """Take note of a marker; its window comes out of the next `samples` call that completes it."""
        if not math.isfinite(event.time):
            self._markers.refuse()
            return
        if self._spec.mode == "sliding" or not self._wanted.fullmatch(event.sent or event.label):
            self._markers.ignore(event)
            return
        self._markers.events += 1
        event = self._naming.named(event)
        bisect.insort(self._pending, event, key=lambda pending: pending.time)
        if len(self._pending) > MOST_PENDING:
            self._markers.fail(self._pending.pop(0), *self._streams.held)

    def samples(self, data: NDArray[np.floating[Any]], raw_times: NDArray[np.float64], stream: int = 0) -> list[Window]:
        """Take the next samples of a stream and give the windows they complete.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels)
            In SI units.
        raw_times : ndarray, shape (n,), float64
            LSL time of this machine, clock-corrected, not smoothed.
        stream : int
            0: the source; k: the k-th of the extras.
        """
        made: list[Window] = []
        intake = self.intakes[stream]
        # A chunk may be longer than the ring: windows are cut before what they hold is written over.
        for start in range(0, max(len(data), 1), intake.ring.capacity // 4):
            part = slice(start, start + intake.ring.capacity // 4)
            intake.take(data[part], raw_times[part])
            made += self._windows()
        return made

    def release(self, stream: int = 0) -> list[Window]:
        """Give the windows of what a stream's clock holds back: nothing more comes from it for now."""
        self.intakes[stream].release()
        return self._windows()

    @property
    def received(self) -> int:
        """Samples received so far, of all streams; cheap, and safe in any thread."""
        return sum(intake.stats.samples for intake in self.intakes)

    def levels(self) -> dict[str, float]:
        """Root mean square of each channel over the newest second, where there is one; safe in any thread."""
        return self._streams.levels()

    def account(self, *, levels: bool = True) -> IngestStats:
        """Copy the counters, with the newest second's level of each channel unless those are left out."""
        streams, markers = self._streams.account(), self._markers
        each = list(streams.values())
        states = {stats.state for stats in each}

        def total(counter: str) -> int:
            return sum(getattr(stats, counter) for stats in each)

        return replace(
            self._stats,
            **{counter: total(counter) for counter in SUMMED},
            gaps=[gap for stats in each for gap in stats.gaps],
            measured_hz=each[0].measured_hz,
            drift_ppm=each[0].drift_ppm,
            state=next(state for state in ("lost", "waiting", "streaming") if state in states),
            events=markers.events,
            doubled=markers.doubled,
            ignored=markers.ignored,
            unmade=markers.unmade,
            bad_events=markers.bad_events,
            pending=len(self._pending),
            unnamed=self._naming.unnamed,
            overruns=sum(intake.ring.overruns for intake in self.intakes),
            channel_rms=self.levels() if levels else {},
            streams=streams if len(streams) > 1 else {},
            problems=self.problems(),
        )

    def problems(self, *, over: bool = False) -> list[str]:
        """Say what is wrong at present, a line each, and log what has come or gone.

        Parameters
        ----------
        over : bool
            Nothing more comes: a recording has been read to its end.
        """
        lines = self._streams.problems()
        if self._spec.mode != "sliding":
            lines |= self._markers.problems(self._pending, *self._streams.held, over=over)
        if self._clock_now:  # whoever reads recordings counts all of theirs
            lines |= self._naming.problems()
        if self._stats.forgotten:
            lines["forgotten"] = (
                f"{self._stats.forgotten} labels have so many others between their presentations that the mean of "
                "window.repeats began anew"
            )
        return self._problems.update(lines)

    def _windows(self) -> list[Window]:
        if self._spec.mode == "sliding":
            return self._slid()
        made: list[Window] = []
        while self._pending:
            row = self._row(self._pending[0].time)
            if row is None or not self._streams.complete(row, row + self._length):
                break
            event = self._pending.pop(0)
            if not self._doubled(event, row):
                window = self._cut(row, f"{self._count:05d}-{printable(event.label)}", event)
                self._count += 1
                if window:
                    self._markers.make()
                    made.append(self._averaged(window, event.label))
        return self._account_for(made)

    def _slid(self) -> list[Window]:
        made: list[Window] = []
        while self._streams.complete(self._slide, self._slide + self._length):
            window = self._cut(self._slide, f"{self._count:05d}-sliding", None)
            self._count += 1
            self._slide += self._step
            if window:
                made.append(window)
        return self._account_for(made)

    def _account_for(self, made: list[Window]) -> list[Window]:
        self._stats.windows += len(made)
        self._stats.rejected += sum(window.quality.rejected is not None for window in made)
        return made if self._spec.rejected == "flag" else [window for window in made if not window.quality.rejected]

    def _row(self, time: float) -> int | None:
        """First row of the window of an event; None while the stream has not got there."""
        if self._spec.mode in {"sample", "mean"}:
            position = self._streams.position(time + (self._spec.tmin - SLACK) / self._speed)
            return None if position == math.inf else math.ceil(max(position, self._streams.start))
        position = self._streams.position(time)
        if math.isinf(position):
            return None if position > 0 else -1
        # An event midway between two samples must not be a matter of the last digit.
        return math.floor(position + 0.5 - SLACK) + self._first

    def _doubled(self, event: Event, row: int) -> bool:
        """Whether the same marker was there already, from this source or another one's slightly different clock."""
        near = range(row - self._twins, row + self._twins + 1)
        if row >= 0 and any((event.label, at) in self._recent for at in near):
            self._markers.double()
            return True
        self._recent[event.label, row] = None
        if len(self._recent) > RECENT_EVENTS:
            del self._recent[next(iter(self._recent))]
        return False

    def _cut(self, row: int, name: str, event: Event | None) -> Window | None:
        """Copy one window out of the rings; None (counted) where it is not, or no longer, all there."""
        late = event and self._spec.mode in {"sample", "mean"} and self._too_late(row, event)
        cut = self._streams.read(row, row + self._length) if not late else None
        start, stop = self._baseline(row)
        baseline = self._streams.read(start, stop) if cut is not None and stop > start else None
        if cut is None or (baseline is None and stop > start):
            self._markers.fail(event, *self._streams.held)
            return None
        data = self._corrected(cut.data, baseline.data.astype(np.float64) if baseline else None, start - row)
        reason = cut.reason or self._streams.unfit(data)
        if not reason and baseline and baseline.reason:
            reason = f"baseline: {baseline.reason}"
        if not np.isfinite(data.sum()):  # samples are bounded: no sum of them overflows
            reason = reason or "numbers that are not finite"
        if self._spec.mode == "mean":
            data = data.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        onset = event.time if event else float(cut.times[0])
        acquired = float(cut.times[-1])
        return Window(
            id=name,
            data=data,
            channels=self.channels,
            sfreq=self.sfreq,
            onset=onset,
            tmin=(float(cut.times[0]) - onset) * self._speed,
            event=event,
            acquired=acquired,
            ready=self._clock_now() if self._clock_now else acquired,
            quality=Quality(samples_lost=cut.lost, interpolated=cut.interpolated, rejected=reason),
        )

    def _too_late(self, row: int, event: Event) -> bool:
        return self._ring.time(row) > event.time + (self._spec.tmax + SLACK) / self._speed

    def _baseline(self, row: int) -> tuple[int, int]:
        """Rows of the baseline of a window that starts at `row`; none where there is no baseline."""
        if self._spec.baseline is None:
            return row, row
        start, stop = (row - self._first + round(edge * self.sfreq) for edge in self._spec.baseline)
        return start, max(stop, start + 1)

    def _corrected(
        self, data: NDArray[np.float32], baseline: NDArray[np.float64] | None, offset: int
    ) -> NDArray[np.float32]:
        """Take the trend, then the mean of the baseline, which begins `offset` samples from it, from a window."""
        if self._spec.detrend and data.shape[1] > 1:
            level, slope = trend(data)
            data = (data - line(level, slope, 0, data.shape[1])).astype(np.float32)
            if baseline is not None:
                baseline = baseline - line(level, slope, offset, baseline.shape[1])
        if baseline is not None:
            data = (data - baseline.mean(axis=1, keepdims=True)).astype(np.float32)
        return data

    def _averaged(self, window: Window, label: str) -> Window:
        """Average over this label's presentations so far; an unfit one stays out and is handed on as it is."""
        if self._spec.repeats == 1 or window.quality.rejected:
            return window
        total, n = self._sums.pop(label, (np.zeros(window.data.shape), 0))
        total, n = total + window.data, n + 1
        if n < self._spec.repeats:
            self._sums[label] = (total, n)  # the last seen are last
        if len(self._sums) * total.nbytes > SUMS_BYTES:
            del self._sums[next(iter(self._sums))]
            self._stats.forgotten += 1
        return replace(window, data=(total / n).astype(np.float32), repeats=n)


def windows_of(
    recording: Recording,
    window: WindowSpec,
    filters: FilterSpec,
    source: StreamSelector | None = None,
    extra: Sequence[FollowerSpec] = (),
) -> Iterator[Window]:
    """Cut a recording into the windows that a live session on its replay gets: same ids, same data.

    Parameters
    ----------
    recording : Recording
    window : WindowSpec
    filters : FilterSpec
    source : StreamSelector, optional
        Which stream decides the windows, by name, type and source id; where there is only one, that one. A
        `SourceSpec` says also which markers count, see `stream.marker_choice.selected`, and the true rate.
    extra : sequence of FollowerSpec
        Streams that join it.

    Yields
    ------
    Window
        Times are in seconds from the recording's start.

    Raises
    ------
    StreamError
        The specs do not fit the streams, or do not tell them apart.
    """
    streams = own, *others = chosen(recording, source, extra)
    name, *names = distinct([(each.name, each.source_id) for each in streams])
    sfreq = source.sfreq if isinstance(source, SourceSpec) and source.sfreq else own.sfreq
    extras = [
        Extra(of, each.channels, spec.sfreq or each.sfreq, spec)
        for of, each, spec in zip(names, others, extra, strict=True)
    ]
    ingest = Ingest(own.channels, sfreq, window, filters, name=name, extras=extras, labels=recording.labels)
    events: list[Event] = []
    if window.mode != "sliding":
        selectors = source.markers if isinstance(source, SourceSpec) else ()
        # Trigger channels that were not chosen in reading count where the config names them.
        events = selected((*recording.events, *(recording.other_events if selectors else ())), selectors, own)
    fed, told = [0] * len(others), 0
    sent, *others_sent = [each.sent for each in streams]
    chunk = max(1, round(sfreq)) if sfreq else 64
    for start in range(0, len(own.times), chunk):
        part = slice(start, start + chunk)
        now = float(own.times[part][-1])
        while told < len(events) and events[told].time <= now:
            ingest.event(events[told])
            told += 1
        for k, other in enumerate(others):
            upto = other.until(fed[k], now)
            yield from ingest.samples(others_sent[k][fed[k] : upto], other.times[fed[k] : upto], k + 1)
            fed[k] = upto
        yield from ingest.samples(sent[part], own.times[part])
    for event in events[told:]:
        ingest.event(event)
    for k, other in enumerate(others):
        yield from ingest.samples(others_sent[k][fed[k] :], other.times[fed[k] :], k + 1)
    for k in reversed(range(len(streams))):
        yield from ingest.release(k)
    ingest.problems(over=True)
