"""Live ingest over the Lab Streaming Layer: each stream read in a thread of its own, handed on as windows."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.epochs.follower import FollowerSpec
from stream.epochs.ingest import ExtraStream, Ingest, IngestStats, WindowSpec
from stream.epochs.merged_streams import unique_names
from stream.epochs.stream_buffer import StreamStats
from stream.errors import StreamError
from stream.lsl.discovery import Source, load_lsl
from stream.lsl.duplicate_sources import DuplicateSourceWatch
from stream.lsl.marker_discovery import find_markers
from stream.lsl.marker_reader import MarkerReader
from stream.lsl.offset import HostClocks
from stream.lsl.reader import Reader, StreamReader
from stream.lsl.stamps import FAR_S, stamp_problems
from stream.lsl.tap import Tap
from stream.markers.markers import TriggerColumn
from stream.quality.problems import Problems
from stream.quality.signal_profile import SignalProfile
from stream.signal.filters import FilterSpec
from stream.types.events import Event
from stream.types.labels import LabelMatcher
from stream.types.source_spec import ReadingSpec, SourceSpec, StreamSelector
from stream.types.windows import Channels, Window

__all__ = ["IngestStats", "LiveIngest", "Source", "SourceSpec", "StreamSelector"]


class LiveIngest:
    """One or more live sources and their markers, each stream read in a thread of its own.

    Parameters
    ----------
    source : SourceSpec
        Decides the windows, and has the markers.
    window : WindowSpec
    filters : FilterSpec
    on_window : callable
        Called with each window, one at a time, from a reading thread; it must not block.
    extra : sequence of FollowerSpec
        Streams that join the windows.
    labels : LabelMatcher, optional
        Finds the picture that each marker names.
    wait_s : float, optional
        How long to look for the source and its markers, where that is another time than `source.timeout_s`.
    profile : SignalProfile, optional
        What the calibration's signal was like; windows and streams are held against it.

    Attributes
    ----------
    source : Source or None
        What was found; set by `start`.
    channels : Channels or None
        Of the windows: after the filters' choice.
    sfreq : float
        Of the windows.
    marker_names : list of str
        Of the marker streams that are read, and of trigger channels in their place.
    tap : Tap
        The source's samples as they come in, in SI units, for whoever watches.
    missing : str
        What `start` looks for and has not found yet; empty where there is nothing.
    error : StreamError or None
        Why a reading thread ended, if one did so by itself.
    """

    def __init__(
        self,
        source: SourceSpec,
        window: WindowSpec,
        filters: FilterSpec,
        on_window: Callable[[Window], None],
        extra: Sequence[FollowerSpec] = (),
        labels: LabelMatcher | None = None,
        wait_s: float | None = None,
        profile: SignalProfile | None = None,
    ) -> None:
        self._labels, self._wait_s, self._profile = labels, wait_s, profile
        self._spec, self._window, self._filters, self._on_window = source, window, filters, on_window
        self._extra = extra
        self._stop = threading.Event()
        self._lock = threading.RLock()  # between the readers and whoever asks for the account, a window's receiver too
        self._readers: list[Reader] = []
        self._marker_readers: list[MarkerReader] = []
        self._twins: DuplicateSourceWatch | None = None
        self.marker_names: list[str] = []
        self._ingest: Ingest | None = None
        self._stamps = Problems()
        self.tap = Tap()
        self.source: Source | None = None
        self.channels: Channels | None = None
        self.sfreq = 0.0
        self.missing = ""
        self.error: StreamError | None = None

    def start(self) -> Channels:
        """Find the streams, read their metadata and begin to read. Blocks for a second or more.

        Raises
        ------
        SourceError
            A stream is missing, ambiguous, duplicated, or its units are not known.
        StreamError
            The window or the filters do not fit the streams.
        """
        lsl = self._lsl = load_lsl(self._spec.peers)
        clocks, options = HostClocks(lsl), {"reconnect": self._spec.reconnect}
        specs: list[tuple[ReadingSpec, FilterSpec]] = [(self._spec, self._filters)]
        specs += [(each, each.filters) for each in self._extra]
        self._readers = [
            Reader(lsl, spec, self._stop, clocks, needed=filters.channels, **options) for spec, filters in specs
        ]
        try:
            wait_s = self._spec.timeout_s if self._wait_s is None else self._wait_s
            around = self._readers[0].find(None, wait_s, self._note_missing)
            if self._window.mode != "sliding":
                self._find_markers(around, clocks, wait_s)
            for reader in self._readers[1:]:
                around = reader.find(around, self._spec.timeout_s, self._note_missing)
            self.missing = ""
            self._ingest = self._make()
            self._connect()
        except BaseException:
            self.stop()
            for each in (*self._readers, *self._marker_readers):
                each.close()
            raise
        self.source = self._readers[0].source
        self.tap.sfreq = self.source.sfreq * self.source.speed
        self.channels, self.sfreq = self._ingest.channels, self._ingest.sfreq
        return self.channels

    def stop(self) -> None:
        """End the threads, which close their inlets; a `start` under way in another thread ends soon after."""
        self._stop.set()
        for reader in (*self._readers, *self._marker_readers):
            reader.join()
        if self._twins:
            self._twins.close()

    def stats(self) -> IngestStats:
        """Return the account of what came in so far."""
        if self._ingest is None:
            return IngestStats()
        with self._lock:
            stats = self._ingest.account(levels=False)
        lines = self._problems()
        return replace(
            stats,
            channel_rms=self._ingest.levels(),  # readers need not wait for these
            bad_events=stats.bad_events + sum(reader.bad for reader in self._marker_readers),
            marker_disconnections=sum(reader.losses for reader in self._marker_readers),
            problems=[*stats.problems, *lines],
        )

    @property
    def total(self) -> int | None:
        """Windows of a pass of a replay, where every one of its markers counts; None for any other source."""
        known = [reader.events for reader in self._marker_readers]
        every = self._window.mode != "sliding" and self._window.events == WindowSpec.model_fields["events"].default
        return sum(known) if every and known and all(known) else None

    def spreads(self) -> dict[str, float]:
        """Return each channel's root mean square about its mean over the newest second, after the filters."""
        return self._ingest.levels(centred=True) if self._ingest else {}

    @property
    def samples(self) -> int:
        """Samples received so far: for whoever only wants to know whether some come."""
        return self._ingest.received if self._ingest else 0

    def take(self, stream: int, data: NDArray[np.float64], times: NDArray[np.float64], events: list[Event]) -> None:
        """Move what a reader has got through the pipeline."""
        assert self._ingest is not None
        if stream == 0:
            self.tap.feed(data, times)
        with self._lock:
            for event in events:
                self._ingest.event(event)
            # Handed over under the lock: another reader's windows must not come in between.
            for window in self._ingest.samples(data, times, stream):
                self._on_window(window)

    def mark(self, events: list[Event]) -> None:
        """Move markers through the pipeline, with the windows that were complete but for them."""
        assert self._ingest is not None
        with self._lock:
            for event in events:
                self._ingest.event(event)
            nothing = np.empty((0, len(self._readers[0].source.channels)))
            for window in self._ingest.samples(nothing, np.empty(0)):
                self._on_window(window)

    def interrupted(self, stream: int) -> None:
        """Note that a stream is silent or gone."""
        assert self._ingest is not None
        with self._lock:
            self._ingest.buffers[stream].interrupted()
            for window in self._ingest.release(stream):
                self._on_window(window)

    def stream_stats(self, stream: int) -> StreamStats:
        """Return one stream's account."""
        assert self._ingest is not None
        with self._lock:
            return self._ingest.buffers[stream].account()

    def ended(self) -> bool:
        """Return whether the source has sent all it said it would."""
        return self._readers[0].ended()

    def failed(self, error: StreamError) -> None:
        """Keep the first error that ended a reader."""
        self.error = self.error or error

    def _make(self) -> Ingest:
        """Make the pipeline for what was found."""
        sources = [reader.source for reader in self._readers]
        source, others = sources[0], sources[1:]
        name, *names = unique_names([(each.name, each.source_id) for each in sources])
        return Ingest(
            source.channels,
            source.sfreq,
            self._window,
            self._filters,
            speed=source.speed,
            buffer_s=self._spec.buffer_s,
            now=self._lsl.local_clock,
            name=name,
            extras=[
                ExtraStream(of, each.channels, each.sfreq, spec, each.speed)
                for of, each, spec in zip(names, others, self._extra, strict=True)
            ],
            labels=self._labels,
            profile=self._profile,
        )

    def _note_missing(self, what: str) -> None:
        self.missing = what

    def _find_markers(self, around: list[Any], clocks: HostClocks, wait_s: float) -> None:
        """Find what marks the source's samples."""
        reader, spec = self._readers[0], self._spec
        source = reader.source
        streams, channels = find_markers(
            self._lsl, spec.markers, source, around, wait_s, self._stop, self._note_missing
        )
        self.marker_names = [*(info.name() for info, _ in streams), *(f"channel {name}" for name in channels)]
        reader.triggers = [
            TriggerColumn(name, source.channels.names.index(name), source.sfreq, source.speed) for name in channels
        ]
        for info, selector in streams:
            marks = MarkerReader(
                self._lsl, selector, self._stop, clocks, buffer_s=spec.buffer_s, reconnect=spec.reconnect
            )
            self._marker_readers.append(marks)
            marks.attach(info)

    def _connect(self) -> None:
        """Connect to all that was found, at once, and begin to read."""
        # Markers first: a replay that waits for consumers begins soon after data are asked for.
        for each in (*self._marker_readers, *self._readers):
            each.open()
        for stream, reader in enumerate(self._readers):
            reader.read(stream, self)
        for marks in self._marker_readers:
            marks.start(self)
        ids = [each.source_id for each in (*self._readers, *self._marker_readers)]
        self._twins = DuplicateSourceWatch(self._lsl, ids)

    def _problems(self) -> list[str]:
        """Return the present problems of connections and time stamps; log new ones."""
        readers: list[StreamReader] = [*self._readers, *self._marker_readers]
        away = [reader.away for reader in readers if reader.away]
        gone = set[str]().union(*(reader.gone for reader in readers))
        twins = self._twins.problems(gone) if self._twins and not self._stop.is_set() else []
        first, *extras = self._readers
        others = [(f"samples of {each.name!r}", "extra.stamps", each.stamps) for each in extras]
        others += [(f"markers of {each.name!r}", "source.markers.stamps", each.stamps) for each in self._marker_readers]
        stamps = stamp_problems((first.name, first.stamps), others, self._spec.buffer_s + FAR_S)
        return [*away, *twins, *self._stamps.update({line: line for line in stamps})]
