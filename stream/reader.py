"""One source, read in a thread of its own and looked for again when it is lost."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError, StreamError
from stream.events import Event
from stream.inlets import Inlets
from stream.intake import StreamStats
from stream.sources import Source, StreamSelector, describe, find_among

LOG = logging.getLogger(__name__)
BATCH_S = 0.003  # the thread sleeps so long after each chunk: a stream pushed sample by sample would wake it each time
LOST_AFTER_S = 3.0  # a regular stream that is silent so long is called lost

FindMarkers = Callable[[Any, list[Any]], list[Any]]
"""(the source's StreamInfo, those of all streams found with it) -> those of its marker streams."""


class Receiver(Protocol):
    """Where the samples of several readers go; called from their threads."""

    def take(self, stream: int, data: NDArray[np.float64], times: NDArray[np.float64], events: list[Event]) -> None:
        """Take samples in SI units, and markers."""

    def interrupted(self, stream: int) -> None:
        """Note that a stream is silent or gone."""

    def stream_stats(self, stream: int) -> StreamStats:
        """Give a stream's account."""

    def failed(self, error: StreamError) -> None:
        """Learn that a reader has ended by itself."""


class Reader:
    """Finds one source and reads it.

    Parameters
    ----------
    lsl : module
    selector : StreamSelector
        Which stream.
    unit : str or None
        Of all its channels, where its metadata do not say.
    stop : threading.Event
        Ends the thread.
    markers : callable, optional
        Finds the marker streams that come with it.
    reconnect : bool
        Look for the source again when it is lost.

    Attributes
    ----------
    source : Source
        What was found.
    """

    source: Source

    def __init__(
        self, lsl: Any, selector: StreamSelector, unit: str | None, stop: threading.Event, *,
        markers: FindMarkers | None = None, reconnect: bool = True,
    ) -> None:  # fmt: skip
        self._lsl, self._selector, self._unit, self._stop = lsl, selector, unit, stop
        self._find_markers, self._reconnect = markers, reconnect
        self._inlets: Inlets | None = None
        self._thread: threading.Thread | None = None

    def find(self, seen: list[Any] | None, timeout_s: float) -> list[Any]:
        """Find the source and read its description; gives the streams that the last look-around found.

        Raises
        ------
        SourceError
            A stream is missing, ambiguous, doubled, or its units are not known.
        """
        info, found = find_among(seen, self._selector, timeout_s, lsl=self._lsl, stop=self._stop)
        self._inlets = Inlets(self._lsl, info, self._find_markers(info, found) if self._find_markers else ())
        with _Answering(self._lsl, info.name()):
            self.source = describe(self._inlets.info(), self._unit)
        return found

    def open(self) -> None:
        """Connect to what was found."""
        assert self._inlets is not None
        with _Answering(self._lsl, self.source.name):
            self._inlets.open()

    def start(self, stream: int, receiver: Receiver) -> None:
        """Begin to read, in a thread; `stream` says to the receiver which one this is."""
        assert self._inlets is not None
        with _Answering(self._lsl, self.source.name):
            self._inlets.measure()
        self._stream, self._receiver = stream, receiver
        self._thread = threading.Thread(target=self._read, name=f"lsl-{self.source.name}", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread, which ends, and lets the connections go, once the stop event is set."""
        if self._thread:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Let the connections go that no thread reads."""
        if self._inlets:
            self._inlets.close()
        self._inlets = None

    def _read(self) -> None:
        source, receiver = self.source, self._receiver
        heard = time.monotonic()
        silent_s = max(LOST_AFTER_S, 3 / (source.sfreq * source.speed)) if source.sfreq else np.inf
        try:
            while not self._stop.is_set():
                try:
                    if not self._inlets:
                        self._look_again()
                    elif self._pump(self._inlets):
                        heard = time.monotonic()
                    elif time.monotonic() - heard > silent_s and self._state() == "streaming":
                        LOG.warning("stream %s is silent", source.name)
                        receiver.interrupted(self._stream)
                except self._lsl.util.LostError:
                    if self._ended():
                        LOG.info("stream %s has ended", source.name)
                    else:
                        LOG.warning("stream %s is lost", source.name)
                    receiver.interrupted(self._stream)
                    self.close()
                    if not self._reconnect:
                        break
        except StreamError as error:
            LOG.error("ingest ended: %s", error)
            receiver.failed(error)
        except Exception as error:
            # Whoever started this thread must learn that it ended, whatever a window's receiver threw.
            LOG.exception("ingest failed")
            receiver.failed(StreamError(f"ingest of {source.name!r} failed: {error!r}"))
        finally:
            self.close()

    def _state(self) -> str:
        return self._receiver.stream_stats(self._stream).state

    def _ended(self) -> bool:
        """Whether a replay has sent all it said it would."""
        announced = self.source.samples
        return announced is not None and self._receiver.stream_stats(self._stream).samples >= announced

    def _pump(self, inlets: Inlets) -> bool:
        """Hand on what has come in; False if no sample came."""
        data, times = inlets.pull()
        events = inlets.pull_events()
        self._receiver.take(self._stream, data * self.source.factors, times, events)
        if len(times):
            self._stop.wait(BATCH_S)
        return len(times) > 0

    def _look_again(self) -> None:
        """Look for the lost source and connect to it if it is back."""
        source = self.source
        again = StreamSelector(name=source.name, type=source.type, source_id=source.source_id or None)
        try:
            info, found = find_among(None, again, 0.0, lsl=self._lsl, stop=self._stop)
            markers = self._find_markers(info, found) if self._find_markers else ()
        except SourceError:
            return
        inlets = Inlets(self._lsl, info, markers)
        try:
            back = describe(inlets.info(), self._unit)
            inlets.open()
            inlets.measure()
        except (self._lsl.util.TimeoutError, self._lsl.util.LostError):
            inlets.close()
            return
        if (back.channels, back.sfreq, back.speed) != (source.channels, source.sfreq, source.speed):
            inlets.close()
            raise SourceError(f"stream {back.name!r} came back with other channels or another rate; start again")
        self.source, self._inlets = back, inlets


class _Answering:
    """Turns liblsl's silence while a connection is made into a line that says what to look at."""

    def __init__(self, lsl: Any, name: str) -> None:
        self._silences, self._name = (lsl.util.TimeoutError, lsl.util.LostError), name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, self._silences):
            raise SourceError(f"stream {self._name!r} was found but does not answer: is a firewall between?") from error
