"""Who is next: windows wait room by room, and rooms take turns."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from minddiffuser.remote.errors import PoolFullError


class FairSlots:
    """A bounded number of windows in work; the others wait, and each room's oldest is taken in turn.

    Parameters
    ----------
    slots : int
        Windows in work at once.
    queue, room_queue : int
        Windows that may wait: in all, and of one room.
    """

    def __init__(self, slots: int, queue: int, room_queue: int) -> None:
        self._free, self._queue, self._room_queue = slots, queue, room_queue
        self._rooms: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self.waiting = 0

    def enter(self, room: str) -> AbstractAsyncContextManager[None]:
        """Return a block that is entered once it is the window's turn.

        Raises
        ------
        PoolFullError
            At once, where no more may wait.
        """
        if self._free and not self.waiting:
            self._free -= 1
            return self._held(None, room)
        if self.waiting >= self._queue:
            raise PoolFullError(f"{self.waiting} windows wait, as many as may (pool.queue)")
        if len(self._rooms.get(room, ())) >= self._room_queue:
            raise PoolFullError(f"{self._room_queue} windows of this room wait, as many as may (pool.room_queue)")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rooms.setdefault(room, deque()).append(turn)
        self.waiting += 1
        return self._held(turn, room)

    @asynccontextmanager
    async def _held(self, turn: asyncio.Future[None] | None, room: str) -> AsyncIterator[None]:
        try:
            if turn is not None:
                await turn
            yield
        finally:
            if turn is None or (turn.done() and not turn.cancelled()):
                self._free += 1
            else:
                self._leave(room, turn)
            self._next()

    def _leave(self, room: str, turn: asyncio.Future[None]) -> None:
        """Take out a window whose room did not wait for its turn."""
        waiting = self._rooms[room]
        waiting.remove(turn)
        self.waiting -= 1
        if not waiting:
            del self._rooms[room]

    def _next(self) -> None:
        while self._free and self._rooms:
            room, waiting = self._rooms.popitem(last=False)
            waiting.popleft().set_result(None)
            self.waiting -= 1
            self._free -= 1
            if waiting:
                self._rooms[room] = waiting  # behind the other rooms
