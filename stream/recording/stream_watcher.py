"""Looks for LSL streams while a recording goes on: those that come later, and those that come back."""

import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stream.lsl.discovery import LOOK_S, matching_streams
from stream.types.source_spec import StreamSelector

if TYPE_CHECKING:
    import pylsl

logger = logging.getLogger(__name__)
BUFFERED_S = 360
"""Seconds that liblsl buffers while the disk is busy."""
TWIN_AFTER_S = 2.0
"""Seconds; a source that was started anew is announced beside its dead self for a moment."""

Key = tuple[str, str, str, int, int, float]


def key_of(info: "pylsl.StreamInfo") -> Key:
    """Return what stays the same when a source is started anew; without a source id, the machine it is on."""
    return (
        info.name(), info.type(), info.source_id() or f"@{info.hostname()}",
        info.channel_count(), info.channel_format(), info.nominal_srate(),
    )  # fmt: skip


def connect(lsl: Any, info: "pylsl.StreamInfo") -> tuple[Any, str] | None:
    """Open an inlet; with the stream's header as XML, or None if the stream does not answer.

    Recovery by liblsl is off: it raises no event, and an inlet destroyed while it recovers can abort the process
    (liblsl issue 220).
    """
    inlet = lsl.StreamInlet(info, max_buflen=BUFFERED_S, recover=False)
    try:
        header: str = inlet.info(5.0).as_xml()
        inlet.open_stream(5.0)
    except (lsl.util.TimeoutError, lsl.util.LostError):
        inlet.close_stream()
        return None
    return inlet, header


class StreamWatcher:
    """A thread that looks around, connects, and leaves what it connected in `arrivals`.

    Each look-around asks anew: liblsl's ContinuousResolver keeps streams for seconds after their end, among which a
    source that was started anew cannot be told from its dead self.

    Parameters
    ----------
    lsl : module
    selectors : sequence of StreamSelector
        What is looked for; everything if empty.
    recorded : sequence of pylsl.StreamInfo
        What is recorded from the start.

    Attributes
    ----------
    arrivals : queue.Queue
        (info, inlet, header) of each stream that came or came back.
    """

    def __init__(self, lsl: Any, selectors: Sequence[StreamSelector], recorded: "Sequence[pylsl.StreamInfo]") -> None:
        self._lsl, self._selectors = lsl, selectors
        self.arrivals: queue.Queue[tuple[Any, Any, str]] = queue.Queue()
        self._handled = {info.uid() for info in recorded}
        self._alive = [key_of(info) for info in recorded]
        self._gone: list[Key] = []
        self._twins: dict[str, float] = {}
        self._warned: set[str] = set()  # twins that are in the log
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="stream watcher", daemon=True)

    def __enter__(self) -> "StreamWatcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        while not self.arrivals.empty():
            self.arrivals.get()[1].close_stream()

    def lost(self, key: Key) -> None:
        """Record that a stream went away, and is to be found again."""
        with self._lock:
            self._alive.remove(key)
            self._gone.append(key)

    def _look(self) -> None:
        while not self._stop.wait(LOOK_S / 2):
            around = self._lsl.resolve_streams(LOOK_S)
            for info in around:
                if info.uid() not in self._handled and self._meant(info, around):
                    self._take(info)

    def _meant(self, info: "pylsl.StreamInfo", around: "list[pylsl.StreamInfo]") -> bool:
        key = key_of(info)
        with self._lock:
            if key in self._gone:
                return True
            twin = key in self._alive and bool(info.source_id())
        if twin:
            since = self._twins.setdefault(info.uid(), time.monotonic())
            if time.monotonic() - since > TWIN_AFTER_S and info.uid() not in self._warned:
                logger.warning(
                    "another stream %s on %s has the same source_id %r: it is not recorded while the first one runs",
                    info.name(),
                    info.hostname(),
                    info.source_id(),
                )
                self._warned.add(info.uid())
            return False
        return not self._selectors or any(
            info.uid() in {one.uid() for one in matching_streams(around, selector, lsl=self._lsl)}
            for selector in self._selectors
        )

    def _take(self, info: "pylsl.StreamInfo") -> None:
        opened = connect(self._lsl, info)
        if opened is None:
            logger.warning("stream %s was found but does not answer", info.name())
            return
        self._handled.add(info.uid())
        key = key_of(info)
        with self._lock:
            if key in self._gone:
                self._gone.remove(key)
            self._alive.append(key)
        self.arrivals.put((info, *opened))
