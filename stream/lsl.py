"""Live ingest over the Lab Streaming Layer: read in a thread of its own, handed on as windows."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError, StreamError
from stream.events import Event
from stream.filters import FilterSpec
from stream.ingest import Ingest, IngestStats, WindowSpec
from stream.offset import ClockOffset
from stream.sources import (
    LOOK_S,
    Source,
    SourceSpec,
    StreamSelector,
    describe,
    find_among,
    load_lsl,
    marker_event,
    matches,
)
from stream.windows import Channels, Window

if TYPE_CHECKING:
    import pylsl

__all__ = ["IngestStats", "LiveIngest", "Source", "SourceSpec", "StreamSelector"]

LOG = logging.getLogger(__name__)
BATCH_S = 0.003  # the thread sleeps so long after each chunk: a stream pushed sample by sample would wake it each time
CHUNK_S = 0.5  # the most that one pull may bring
LOST_AFTER_S = 3.0  # a regular stream that is silent so long is called lost
CORRECT_EVERY_S = 5.0


class LiveIngest:
    """One live source and its markers, read in a thread of its own.

    Parameters
    ----------
    source : SourceSpec
    window : WindowSpec
    filters : FilterSpec
    on_window : callable
        Called with each window from the reading thread; it must not block.

    Attributes
    ----------
    source : Source or None
        What was found; set by `start`.
    channels : Channels or None
        Of the windows: after the filters' choice.
    sfreq : float
        Of the windows.
    error : StreamError or None
        Why the reading thread ended, if it did so by itself.
    """

    def __init__(
        self, source: SourceSpec, window: WindowSpec, filters: FilterSpec, on_window: Callable[[Window], None]
    ) -> None:
        self._spec, self._window, self._filters, self._on_window = source, window, filters, on_window
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # between the pipeline and whoever asks for the account
        self._ingest: Ingest | None = None
        self._markers: StreamSelector | None = None  # which marker stream, once that is known
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
            The window or the filters do not fit the stream.
        """
        self._lsl = load_lsl(self._spec.peers)
        info, found = find_among(None, self._spec, self._spec.timeout_s, lsl=self._lsl, stop=self._stop)
        marker_info = self._find_markers(info, found)
        inlets = _Inlets(self._lsl, info, marker_info)
        try:
            self.source = describe(inlets.info(), self._spec.unit)
            self._ingest = Ingest(
                self.source.channels,
                self.source.sfreq,
                self._window,
                self._filters,
                speed=self.source.speed,
                buffer_s=self._spec.buffer_s,
                now=self._lsl.local_clock,
            )
            inlets.open()
        except (self._lsl.util.TimeoutError, self._lsl.util.LostError) as error:
            inlets.close()
            raise SourceError(
                f"stream {info.name()!r} was found but does not answer: is a firewall between?"
            ) from error
        except BaseException:
            inlets.close()
            raise
        self.channels, self.sfreq = self._ingest.channels, self._ingest.sfreq
        self._thread = threading.Thread(target=self._read, args=(inlets,), name=f"lsl-{info.name()}", daemon=True)
        self._thread.start()
        return self.channels

    def stop(self) -> None:
        """End the thread and close the inlets; returns when both are gone."""
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None

    def stats(self) -> IngestStats:
        """Account of what came in so far."""
        if self._ingest is None:
            return IngestStats()
        with self._lock:
            return self._ingest.account()

    def _find_markers(self, info: Any, found: list[Any]) -> Any:
        """Find the marker stream: the config's, else the source's own, else the only one; after a loss the same."""
        if self._window.mode == "sliding":
            return None
        if self._markers is None:
            own = StreamSelector(name=f"{info.name()}-markers")
            if not self._spec.markers and not any(matches(own, other) for other in found):
                # It may be announced a moment after the data: look once more before taking another one.
                found = self._lsl.resolve_streams(LOOK_S)
                own = own if any(matches(own, other) for other in found) else StreamSelector(type="Markers")
            self._markers = self._spec.markers or own
        chosen, _ = find_among(found, self._markers, self._spec.timeout_s, lsl=self._lsl, stop=self._stop)
        self._markers = StreamSelector(name=chosen.name(), type=chosen.type(), source_id=chosen.source_id() or None)
        return chosen

    def _read(self, inlets: "_Inlets | None") -> None:
        assert self._ingest is not None
        assert self.source is not None
        lost_error = self._lsl.util.LostError
        heard = time.monotonic()
        silent_s = max(LOST_AFTER_S, 3 / (self.source.sfreq * self.source.speed)) if self.source.sfreq else np.inf
        try:
            while not self._stop.is_set():
                try:
                    inlets = inlets or self._again()
                    if inlets and self._pump(inlets):
                        heard = time.monotonic()
                    elif inlets and time.monotonic() - heard > silent_s and self._ingest.stats.state == "streaming":
                        LOG.warning("stream %s is silent", self.source.name)
                        with self._lock:
                            self._ingest.interrupted()
                except lost_error:
                    if self._ended():
                        LOG.info("stream %s has ended", self.source.name)
                    else:
                        LOG.warning("stream %s is lost", self.source.name)
                    with self._lock:
                        self._ingest.interrupted()
                    if inlets:
                        inlets.close()
                    inlets = None
                    if not self._spec.reconnect:
                        break
        except StreamError as error:
            self.error = error
            LOG.error("ingest ended: %s", error)
        except Exception as error:
            # Whoever started this thread must learn that it ended, whatever a window's receiver threw.
            self.error = StreamError(f"ingest of {self.source.name!r} failed: {error!r}")
            LOG.exception("ingest failed")
        finally:
            if inlets:
                inlets.close()

    def _ended(self) -> bool:
        """Whether a replay has sent all it said it would."""
        assert self._ingest is not None
        assert self.source is not None
        stats = self._ingest.stats
        return self.source.samples is not None and stats.samples >= self.source.samples

    def _pump(self, inlets: "_Inlets") -> bool:
        """Move what has come in through the pipeline; False if no sample came."""
        assert self._ingest is not None
        assert self.source is not None
        chunk, stamps = inlets.pull()
        with self._lock:
            for event in inlets.pull_events():
                self._ingest.event(event)
            windows = self._ingest.samples(chunk * self.source.factors, stamps)
        for window in windows:
            self._on_window(window)
        if len(stamps):
            self._stop.wait(BATCH_S)
        return len(stamps) > 0

    def _again(self) -> "_Inlets | None":
        """Look for the lost source; None while it is not back."""
        assert self.source is not None
        again = StreamSelector(name=self.source.name, type=self.source.type, source_id=self.source.source_id or None)
        try:
            info, found = find_among(None, again, 0.0, lsl=self._lsl, stop=self._stop)
            marker_info = self._find_markers(info, found)
        except SourceError:
            return None
        inlets = _Inlets(self._lsl, info, marker_info)
        try:
            back = describe(inlets.info(), self._spec.unit)
            inlets.open()
        except (self._lsl.util.TimeoutError, self._lsl.util.LostError):
            inlets.close()
            return None
        if (back.channels, back.sfreq, back.speed) != (self.source.channels, self.source.sfreq, self.source.speed):
            inlets.close()
            raise SourceError(f"stream {back.name!r} came back with other channels or another rate; start again")
        self.source = back
        return inlets


class _Inlets:
    """The data inlet and the markers' of one source, on one clock.

    Recovery by liblsl is off: it raises no event, and an inlet destroyed while it recovers can abort the process
    (liblsl issue 220). A lost source raises LostError here and is looked for anew.
    """

    def __init__(self, lsl: Any, info: "pylsl.StreamInfo", marker_info: "pylsl.StreamInfo | None") -> None:
        rate = info.nominal_srate()
        self._lsl = lsl
        self._data = lsl.StreamInlet(info, max_buflen=60, recover=False)
        self._markers = lsl.StreamInlet(marker_info, max_buflen=60, recover=False) if marker_info else None
        self._offset = ClockOffset(lsl, self._data, info.hostname())
        # Streams of one host share one offset, else markers slip against samples.
        self._marker_offset = self._offset
        if marker_info is not None and marker_info.hostname() != info.hostname():
            self._marker_offset = ClockOffset(lsl, self._markers, marker_info.hostname())
        self._buffer = np.empty((max(256, round(rate * CHUNK_S)), info.channel_count()), dtype=self._data.np_dtype)
        self._measured = -np.inf

    def info(self) -> Any:
        return self._data.info(5.0)

    def open(self) -> None:
        # The markers first: a replay that waits for consumers begins when the data are asked for.
        if self._markers:
            self._markers.open_stream(5.0)
        self._data.open_stream(5.0)
        self._measure()

    def close(self) -> None:
        for inlet in (self._data, self._markers):
            if inlet:
                inlet.close_stream()
        self._data = self._markers = None

    def _measure(self) -> None:
        self._measured = time.monotonic()
        self._offset.measure()
        if self._marker_offset is not self._offset:
            self._marker_offset.measure()

    def pull(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if time.monotonic() - self._measured > CORRECT_EVERY_S:
            try:
                self._measure()
            except self._lsl.util.TimeoutError:
                LOG.warning("no answer on the clock offset; the last one stays in use")
        n = len(self._buffer)
        _, stamps = self._data.pull_chunk(timeout=0.02, max_samples=n, dest_obj=self._buffer, min_samples=1)
        return self._buffer[: len(stamps)].astype(np.float64), np.asarray(
            stamps, dtype=np.float64
        ) + self._offset.seconds

    def pull_events(self) -> list[Event]:
        if not self._markers:
            return []
        rows, stamps = self._markers.pull_chunk(timeout=0.0)
        return [
            marker_event(row[0], stamp + self._marker_offset.seconds)
            for row, stamp in zip(rows or (), stamps, strict=True)
        ]
