"""From samples and events to windows, live and offline by the same objects."""

import bisect
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.epochs.follower import CheckedSegment, FollowerSpec
from stream.epochs.ingest_stats import IngestStats
from stream.epochs.merged_streams import ExtraStream, MergedStreams, unique_names
from stream.epochs.repeats import Repeats
from stream.errors import StreamError
from stream.markers.account import MarkerAccount
from stream.markers.choice import select_events
from stream.markers.naming import Naming, printable
from stream.quality.level_watch import LevelWatches
from stream.quality.limits import LimitCheck, Limits
from stream.quality.problems import Problems
from stream.quality.signal_profile import SignalProfile, SignalRecorder
from stream.signal.filters import FilterSpec
from stream.types.events import Event
from stream.types.labels import LabelMatcher
from stream.types.recording import Recording, choose_streams
from stream.types.source_spec import SourceSpec, StreamSelector
from stream.types.window_spec import SLACK, WindowSpec, line, trend
from stream.types.windows import Cause, Channels, Quality, Window

__all__ = ["ExtraStream", "FilterSpec", "Ingest", "IngestStats", "WindowSpec", "windows_of"]

MOST_PENDING = 10_000
"""Markers that wait; beyond, the oldest go and count as incomplete."""
RECENT_EVENTS = 4096
"""Events remembered, to recognise a duplicate marker."""
DUPLICATE_S = 0.005
"""Two marker sources that tell of one thing differ by fewer seconds."""
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
    extras : sequence of ExtraStream
        Streams that follow; their samples are fed in step with the source's.
    labels : LabelMatcher, optional
        Finds the picture that each marker names; left out, labels stay as they are.
    profile : SignalProfile, optional
        What the calibration's signal was like: windows are held against its limits, streams against its levels.
    recorder : SignalRecorder, optional
        Gets the levels of every second and the spans of windows, to learn a profile from.

    Attributes
    ----------
    channels : Channels
        Of the windows.
    sfreq : float
        Of the windows.
    buffers : list of StreamBuffer
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
        extras: Sequence[ExtraStream] = (),
        labels: LabelMatcher | None = None,
        profile: SignalProfile | None = None,
        recorder: SignalRecorder | None = None,
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
        self._streams = MergedStreams(name, channels, sfreq, filters, extras, speed=speed, span=span, buffer_s=buffer_s)
        self.channels, self.sfreq = self._streams.channels, self._streams.sfreq
        self.buffers, self._ring = self._streams.buffers, self._streams.ring
        parts = self._streams.parts
        rates = [buffer.sfreq for buffer in self.buffers]
        watched = [(part, rate) for (part, _), rate in zip(parts, rates, strict=True)]
        self._recorder = recorder
        self._levels = LevelWatches(self._streams.names, watched, profile, recorder)
        self._reject_levels = filters.levels == "reject"
        self._limits = Limits(parts, profile)
        self._first = round(window.tmin * self.sfreq)
        self._length = window.samples(self.sfreq)
        self._step = max(1, round(window.step * self.sfreq))
        self._twins = int(DUPLICATE_S * self.sfreq) if window.mode == "event" else 0
        self._pending: list[Event] = []
        self._recent: dict[tuple[str, int], None] = {}
        self._slide = 0
        self._count = 0
        self._repeats = Repeats(window.repeats)
        self._stats = IngestStats()
        self._markers = MarkerAccount(window.events, window.tmax / speed)
        self._problems = Problems()

    def event(self, event: Event) -> None:
        """Add a marker; its window comes out of the next `samples` call that completes it."""
        if not math.isfinite(event.time):
            self._markers.refuse()
            return
        if self._spec.mode == "sliding" or not self._wanted.fullmatch(event.original_label or event.label):
            self._markers.ignore(event)
            return
        self._markers.events += 1
        event = self._naming.name_event(event)
        bisect.insort(self._pending, event, key=lambda pending: pending.time)
        if len(self._pending) > MOST_PENDING:
            self._markers.fail(self._pending.pop(0), *self._streams.span)

    def samples(self, data: NDArray[np.floating[Any]], raw_times: NDArray[np.float64], stream: int = 0) -> list[Window]:
        """Add the next samples of a stream, and return the windows that they complete.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels)
            In SI units.
        raw_times : ndarray, shape (n,), float64
            LSL time of this machine, clock-corrected, not smoothed.
        stream : int
            0: the source; k: the k-th of the extras.
        """
        windows: list[Window] = []
        buffer = self.buffers[stream]
        # A chunk may be longer than the ring: windows are cut before what they hold is written over.
        for start in range(0, max(len(data), 1), buffer.ring.capacity // 4):
            part = slice(start, start + buffer.ring.capacity // 4)
            buffer.take(data[part], raw_times[part])
            self._levels.advance(stream, buffer.ring)
            windows += self._windows()
        return windows

    def release(self, stream: int = 0) -> list[Window]:
        """Release the samples that a stream's clock holds back, and return their windows: no more will come for now."""
        self.buffers[stream].release()
        self._levels.advance(stream, self.buffers[stream].ring)
        return self._windows()

    @property
    def received(self) -> int:
        """Samples received so far, of all streams; cheap, and safe in any thread."""
        return sum(buffer.stats.samples for buffer in self.buffers)

    def levels(self, *, centred: bool = False) -> dict[str, float]:
        """Return each channel's RMS over the newest second, see `MergedStreams.levels`; safe in any thread."""
        return self._streams.levels(centred=centred)

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
            declared_hz=each[0].declared_hz,
            measured_hz=each[0].measured_hz,
            drift_ppm=each[0].drift_ppm,
            bad_channels=tuple(name for stats in each for name in stats.bad_channels),
            flat_channels=tuple(name for stats in each for name in stats.flat_channels),
            state=next(state for state in ("lost", "waiting", "streaming") if state in states),
            events=markers.events,
            duplicates=markers.duplicates,
            ignored=markers.ignored,
            incomplete=markers.incomplete,
            bad_events=markers.bad_events,
            pending=len(self._pending),
            unmatched=self._naming.unmatched,
            forgotten=self._repeats.forgotten,
            overruns=sum(buffer.ring.overruns for buffer in self.buffers),
            channel_rms=self.levels() if levels else {},
            streams=streams if len(streams) > 1 else {},
            problems=self.problems(),
        )

    def problems(self, *, over: bool = False) -> list[str]:
        """Return the present problems, a line each, and log which have come or gone.

        Parameters
        ----------
        over : bool
            Nothing more comes: a recording has been read to its end.
        """
        lines = self._streams.problems() | self._levels.problems()
        if self._spec.mode != "sliding":
            lines |= self._markers.problems(self._pending, *self._streams.span, over=over)
        if self._clock_now:  # whoever reads recordings counts all of theirs
            lines |= self._naming.problems()
        lines |= self._repeats.problems()
        return self._problems.update(lines)

    def _windows(self) -> list[Window]:
        if self._spec.mode == "sliding":
            return self._slid()
        windows: list[Window] = []
        while self._pending:
            row = self._row(self._onset(self._pending[0]))
            if row is None or not self._streams.complete(row, row + self._length):
                break
            event = self._pending.pop(0)
            if not self._doubled(event, row):
                window = self._cut(row, f"{self._count:05d}-{printable(event.label)}", event)
                self._count += 1
                if window:
                    self._markers.make()
                    windows.append(self._repeats.average(window, event.label))
        return self._account_for(windows)

    def _slid(self) -> list[Window]:
        windows: list[Window] = []
        while self._streams.complete(self._slide, self._slide + self._length):
            window = self._cut(self._slide, f"{self._count:05d}-sliding", None)
            self._count += 1
            self._slide += self._step
            if window:
                windows.append(window)
        return self._account_for(windows)

    def _account_for(self, windows: list[Window]) -> list[Window]:
        self._stats.windows += len(windows)
        self._stats.rejected += sum(window.quality.rejected is not None for window in windows)
        drop = self._spec.rejected != "flag"
        return [window for window in windows if not (drop and window.quality.rejected)]

    def _onset(self, event: Event) -> float:
        """Return when what a marker announces was to be seen."""
        return event.time + self._spec.delay / self._speed

    def _row(self, time: float) -> int | None:
        """Return the first row of an event's window; None while the stream has not got there."""
        if self._spec.mode in {"sample", "mean"}:
            position = self._streams.position(time + (self._spec.tmin - SLACK) / self._speed)
            return None if position == math.inf else math.ceil(max(position, self._streams.start))
        position = self._streams.position(time)
        if math.isinf(position):
            return None if position > 0 else -1
        # An event midway between two samples must not be a matter of the last digit.
        return math.floor(position + 0.5 - SLACK) + self._first

    def _doubled(self, event: Event, row: int) -> bool:
        """Check if the same marker was there already, from this source or another one's slightly different clock."""
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
            self._markers.fail(event, *self._streams.span)
            return None
        data = self._corrected(cut.data, baseline.data.astype(np.float64) if baseline else None, start - row)
        checked = self._limits(data)
        data = checked.data
        quality = self._quality(row, cut, baseline, checked, finite=bool(np.isfinite(data.sum())))
        if self._spec.mode == "mean":
            data = data.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        onset = self._onset(event) if event else float(cut.times[0])
        acquired = float(cut.times[-1])
        window = Window(
            id=name,
            data=data,
            channels=self.channels,
            sfreq=self.sfreq,
            onset=onset,
            tmin=(float(cut.times[0]) - onset) * self._speed,
            event=event,
            acquired=acquired,
            ready=self._clock_now() if self._clock_now else acquired,
            quality=quality,
            number=self._count + 1,
        )
        if self._recorder:
            self._recorder.add_window(window)
        return window

    def _quality(
        self, row: int, cut: CheckedSegment, baseline: CheckedSegment | None, checked: LimitCheck, *, finite: bool
    ) -> Quality:
        """Return a window's quality: of several reasons to reject it, the first counts."""
        quality = Quality(cut.lost, tuple(dict.fromkeys((*cut.interpolated, *checked.interpolated))))
        levels = self._levels.reason(row + self._length) if self._reject_levels else None
        if cut.reason:
            return replace(quality, rejected=cut.reason, cause="gap" if cut.lost else "samples")
        if baseline and baseline.reason:
            cause: Cause = "gap" if baseline.lost else "samples"
            return replace(quality, rejected=f"baseline: {baseline.reason}", cause=cause)
        if levels:
            return replace(quality, rejected=levels, cause="level")
        if checked.reason:
            return replace(quality, rejected=checked.reason, cause=checked.cause, channels=checked.channels)
        if not finite:
            return replace(quality, rejected="numbers that are not finite", cause="samples")
        return quality

    def _too_late(self, row: int, event: Event) -> bool:
        return self._ring.time(row) > self._onset(event) + (self._spec.tmax + SLACK) / self._speed

    def _baseline(self, row: int) -> tuple[int, int]:
        """Return the rows of the baseline of a window that starts at `row`; none where there is no baseline."""
        if self._spec.baseline is None:
            return row, row
        start, stop = (row - self._first + round(edge * self.sfreq) for edge in self._spec.baseline)
        return start, max(stop, start + 1)

    def _corrected(
        self, data: NDArray[np.float32], baseline: NDArray[np.float64] | None, offset: int
    ) -> NDArray[np.float32]:
        """Subtract from a window its trend, then the mean of the baseline, which begins `offset` samples from it."""
        if self._spec.detrend and data.shape[1] > 1:
            level, slope = trend(data)
            data = (data - line(level, slope, 0, data.shape[1])).astype(np.float32)
            if baseline is not None:
                baseline = baseline - line(level, slope, offset, baseline.shape[1])
        if baseline is not None:
            data = (data - baseline.mean(axis=1, keepdims=True)).astype(np.float32)
        return data


def windows_of(
    recording: Recording,
    window: WindowSpec,
    filters: FilterSpec,
    source: StreamSelector | None = None,
    extra: Sequence[FollowerSpec] = (),
    *,
    profile: SignalProfile | None = None,
    recorder: SignalRecorder | None = None,
) -> Iterator[Window]:
    """Cut a recording into the windows that a live session on its replay gets: same ids, same data.

    Parameters
    ----------
    recording : Recording
    window : WindowSpec
    filters : FilterSpec
    source : StreamSelector, optional
        Which stream decides the windows, by name, type and source id; where there is only one, that one. A
        `SourceSpec` says also which markers count, see `stream.markers.choice.select_events`, and the true rate.
    extra : sequence of FollowerSpec
        Streams that join it.
    profile, recorder
        As `Ingest` has them.

    Yields
    ------
    Window
        Times are in seconds from the recording's start.

    Raises
    ------
    StreamError
        The specs do not fit the streams, or do not tell them apart.
    """
    streams = choose_streams(recording, source, extra)
    main, others = streams[0], streams[1:]
    name, *names = unique_names([(each.name, each.source_id) for each in streams])
    sfreq = source.sfreq if isinstance(source, SourceSpec) and source.sfreq else main.sfreq
    extras = [
        ExtraStream(of, each.channels, spec.sfreq or each.sfreq, spec)
        for of, each, spec in zip(names, others, extra, strict=True)
    ]
    ingest = Ingest(
        main.channels, sfreq, window, filters,
        name=name, extras=extras, labels=recording.labels, profile=profile, recorder=recorder,
    )  # fmt: skip
    events: list[Event] = []
    if window.mode != "sliding":
        selectors = source.markers if isinstance(source, SourceSpec) else ()
        # Trigger channels that were not chosen in reading count where the config names them.
        events = select_events((*recording.events, *(recording.other_events if selectors else ())), selectors, main)
    fed, sent = [0] * len(others), 0
    samples, *other_samples = [each.masked_data for each in streams]
    chunk = max(1, round(sfreq)) if sfreq else 64
    for start in range(0, len(main.times), chunk):
        part = slice(start, start + chunk)
        now = float(main.times[part][-1])
        while sent < len(events) and events[sent].time <= now:
            ingest.event(events[sent])
            sent += 1
        for k, other in enumerate(others):
            upto = other.until(fed[k], now)
            yield from ingest.samples(other_samples[k][fed[k] : upto], other.times[fed[k] : upto], k + 1)
            fed[k] = upto
        yield from ingest.samples(samples[part], main.times[part])
    for event in events[sent:]:
        ingest.event(event)
    for k, other in enumerate(others):
        yield from ingest.samples(other_samples[k][fed[k] :], other.times[fed[k] :], k + 1)
    for k in reversed(range(len(streams))):
        yield from ingest.release(k)
    if recorder is None:  # whoever learns cuts the recording again, and hears it then
        ingest.problems(over=True)
