"""A marker stream that may come later than who listens to it."""

import logging
import math
import threading
from collections.abc import Callable
from typing import Any

from stream.errors import StreamError
from stream.lsl.discovery import find_among
from stream.lsl.marker_reader import MarkerReader
from stream.lsl.offset import HostClocks
from stream.types.events import Event
from stream.types.source_spec import MarkerSelector

logger = logging.getLogger(__name__)


class MarkerWatch:
    """Waits for a marker stream however long it takes, and reads it, in threads of its own.

    Parameters
    ----------
    lsl : module
    selector : MarkerSelector
    on_event : callable
        Gets each marker, from a thread.
    stop : threading.Event
        Ends it; is set by it when the stream cannot be read.
    buffer_s : float
        How late a marker may come.

    Attributes
    ----------
    error : StreamError or None
        What it ended by.
    """

    def __init__(
        self, lsl: Any, selector: MarkerSelector, on_event: Callable[[Event], None], stop: threading.Event,
        buffer_s: float,
    ) -> None:  # fmt: skip
        self._lsl, self._selector, self._on_event, self._stop = lsl, selector, on_event, stop
        self._reader = MarkerReader(lsl, selector, stop, HostClocks(lsl), buffer_s=buffer_s)
        self._thread = threading.Thread(target=self._find, name="find markers", daemon=True)
        self.error: StreamError | None = None

    def start(self) -> None:
        """Begin to look for the stream."""
        self._thread.start()

    def join(self) -> None:
        """Wait until all threads have ended, after `stop` was set."""
        self._thread.join()
        self._reader.join()

    def mark(self, events: list[Event]) -> None:
        """Hand on markers."""
        for event in events:
            self._on_event(event)

    def ended(self) -> bool:
        """Return whether no more markers can come: the next presentation has some."""
        return False

    def failed(self, error: StreamError) -> None:
        """End with an error."""
        self.error = error
        self._stop.set()

    def _find(self) -> None:
        try:
            info, _ = find_among(None, self._selector, math.inf, lsl=self._lsl, stop=self._stop)
            self._reader.attach(info)
            self._reader.open()
            self._reader.start(self)
            logger.info("markers of %s are answered", info.name())
        except StreamError as error:
            self._reader.close()
            if not self._stop.is_set():
                self.failed(error)
