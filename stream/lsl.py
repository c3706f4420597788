"""Live ingest over the Lab Streaming Layer: each source read in a thread of its own, handed on as windows."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError, StreamError
from stream.events import Event
from stream.filters import FilterSpec
from stream.follow import FollowerSpec
from stream.ingest import Extra, Ingest, IngestStats, WindowSpec
from stream.intake import StreamStats
from stream.joint import distinct
from stream.reader import Reader
from stream.sources import LOOK_S, Source, SourceSpec, StreamSelector, find_among, load_lsl, matches
from stream.windows import Channels, Window

__all__ = ["IngestStats", "LiveIngest", "Source", "SourceSpec", "StreamSelector"]


class LiveIngest:
    """One or more live sources and their markers, each source read in a thread of its own.

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

    Attributes
    ----------
    source : Source or None
        What was found; set by `start`.
    channels : Channels or None
        Of the windows: after the filters' choice.
    sfreq : float
        Of the windows.
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
    ) -> None:
        self._spec, self._window, self._filters, self._on_window = source, window, filters, on_window
        self._extra = extra
        self._stop = threading.Event()
        self._lock = threading.RLock()  # between the readers and whoever asks for the account, a window's receiver too
        self._readers: list[Reader] = []
        self._ingest: Ingest | None = None
        self._markers: list[StreamSelector] = []  # which marker streams, once that is known
        self.source: Source | None = None
        self.channels: Channels | None = None
        self.sfreq = 0.0
        self.error: StreamError | None = None

    def start(self) -> Channels:
        """Find the streams, read their metadata and begin to read. Blocks for a second or more.

        Raises
        ------
        SourceError
            A stream is missing, ambiguous, doubled, or its units are not known.
        StreamError
            The window or the filters do not fit the streams.
        """
        lsl = self._lsl = load_lsl(self._spec.peers)
        markers = None if self._window.mode == "sliding" else self._find_markers
        reconnect = self._spec.reconnect
        self._readers = [Reader(lsl, self._spec, self._spec.unit, self._stop, markers=markers, reconnect=reconnect)]
        self._readers += [Reader(lsl, each, each.unit, self._stop, reconnect=reconnect) for each in self._extra]
        try:
            found: list[Any] | None = None
            for reader in self._readers:
                found = reader.find(found, self._spec.timeout_s)
            self._ingest = self._make()
            # All at once: a replay that waits for consumers begins soon after the first has come.
            for reader in self._readers:
                reader.open()
            for stream, reader in enumerate(self._readers):
                reader.start(stream, self)
        except BaseException:
            self.stop()
            for reader in self._readers:
                reader.close()
            raise
        self.source = self._readers[0].source
        self.channels, self.sfreq = self._ingest.channels, self._ingest.sfreq
        return self.channels

    def stop(self) -> None:
        """End the threads, which close their inlets; a `start` under way in another thread ends soon after."""
        self._stop.set()
        for reader in self._readers:
            reader.join()

    def stats(self) -> IngestStats:
        """Account of what came in so far."""
        if self._ingest is None:
            return IngestStats()
        with self._lock:
            stats = self._ingest.account(levels=False)
        stats.channel_rms = self._ingest.levels()  # readers need not wait for these
        return stats

    @property
    def samples(self) -> int:
        """Samples received so far: for whoever only wants to know whether some come."""
        return self._ingest.received if self._ingest else 0

    def take(self, stream: int, data: NDArray[np.float64], times: NDArray[np.float64], events: list[Event]) -> None:
        """Move what a reader has got through the pipeline."""
        assert self._ingest is not None
        with self._lock:
            for event in events:
                self._ingest.event(event)
            # Handed over under the lock: another reader's windows must not come in between.
            for window in self._ingest.samples(data, times, stream):
                self._on_window(window)

    def interrupted(self, stream: int) -> None:
        """Note that a stream is silent or gone."""
        assert self._ingest is not None
        with self._lock:
            self._ingest.intakes[stream].interrupted()
            for window in self._ingest.release(stream):
                self._on_window(window)

    def stream_stats(self, stream: int) -> StreamStats:
        """Give one stream's account."""
        assert self._ingest is not None
        with self._lock:
            return self._ingest.intakes[stream].account()

    def failed(self, error: StreamError) -> None:
        """Keep the first error that ended a reader."""
        self.error = self.error or error

    def _make(self) -> Ingest:
        """Make the pipeline for what was found."""
        sources = source, *others = [reader.source for reader in self._readers]
        name, *names = distinct([(each.name, each.source_id) for each in sources])
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
                Extra(of, each.channels, each.sfreq, spec, each.speed)
                for of, each, spec in zip(names, others, self._extra, strict=True)
            ],
        )

    def _find_markers(self, info: Any, found: list[Any]) -> list[Any]:
        """Find the marker streams: the config's, else the source's own, else the only one; after a loss the same."""
        wanted = self._markers or self._spec.marker_selectors
        if not wanted:
            own = StreamSelector(name=f"{info.name()}-markers")
            if not any(matches(own, other) for other in found):
                # It may be announced a moment after the data: look once more before taking another one.
                found = self._lsl.resolve_streams(LOOK_S)
                own = own if any(matches(own, other) for other in found) else StreamSelector(type="Markers")
            wanted = [own]
        chosen = []
        for selector in wanted:
            one, found = find_among(found, selector, self._spec.timeout_s, lsl=self._lsl, stop=self._stop)
            chosen.append(one)
        if len({one.uid() for one in chosen}) < len(chosen):
            raise SourceError(f"two of the markers are one stream: {', '.join(one.name() for one in chosen)}")
        self._markers = [
            StreamSelector(name=one.name(), type=one.type(), source_id=one.source_id() or None) for one in chosen
        ]
        return chosen
