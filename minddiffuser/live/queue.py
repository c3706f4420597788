"""The bounded queue between ingest and decoder: back-pressure that counts what it drops."""

import asyncio
from collections import deque

from stream.types.windows import Window


class WindowQueue:
    """Windows that wait for the decoder.

    Parameters
    ----------
    length : int
        How many may wait; 1 keeps only the newest (policy `latest`). A full queue drops its oldest window.

    Attributes
    ----------
    dropped : int
        Windows dropped so far.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._windows: deque[Window] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._windows)

    def put(self, window: Window) -> Window | None:
        """Add a window; the oldest one goes, and is returned, when the queue is full. For the event loop's thread."""
        gone = None
        if len(self._windows) == self._length:
            gone = self._windows.popleft()
            self.dropped += 1
        self._windows.append(window)
        self._changed.set()
        return gone

    def close(self) -> None:
        """Close the queue; `get` hands out what waits and then None."""
        self._closed = True
        self._changed.set()

    def clear(self) -> list[Window]:
        """Drop, count and return what waits."""
        waiting = list(self._windows)
        self.dropped += len(waiting)
        self._windows.clear()
        return waiting

    async def get(self) -> Window | None:
        """Return the oldest waiting window, or None once the queue is closed and empty.

        On return `dropped` counts just the dropped windows that are older than the one returned.
        """
        while not self._windows:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._windows.popleft()
