"""How large a message a broker takes: as it says itself (MQTT 5), or as the connections that it breaks tell."""

from collections import deque

SURVIVED_S = 2.0
"""Seconds after which a message without an acknowledgement was taken, if the connection still stands."""
AGAIN_S = 60.0
"""Seconds until a size that broke connections is tried once more; twice as long each time it breaks one again."""
LONGEST_S = 3600.0


class SizeLimit:
    """The size from which a broker refuses messages.

    MQTT 3.1.1 has no word for 'too large': the broker hangs up. So does one that crashes; but that one does not let us
    in again at once. A size is refused once two connections broke under messages larger than any that was taken, each
    followed by a reconnection at the first attempt.

    Attributes
    ----------
    stated_limit : int or None
        Largest packet in bytes, by the broker's own word.
    """

    def __init__(self) -> None:
        self.stated_limit: int | None = None
        self._largest = 0
        self._pending: deque[tuple[float, int]] = deque()
        self._candidate: int | None = None
        self._suspect: int | None = None
        self._suspected = 0.0
        self._refused: int | None = None
        self._until = 0.0
        self._wait = AGAIN_S

    def refuses(self, size: int, now: float) -> bool:
        """Check if a message of `size` bytes would be refused."""
        if self.stated_limit is not None and size > self.stated_limit:
            return True
        return self._refused is not None and size >= self._refused and now < self._until

    def sent(self, size: int, now: float) -> None:
        """Note that a message goes out."""
        while self._pending and now - self._pending[0][0] > SURVIVED_S:
            self._take(self._pending.popleft()[1])
        self._pending.append((now, size))

    def taken(self) -> None:
        """Note an acknowledgement: all that was sent before it has been taken, too."""
        while self._pending:
            self._take(self._pending.popleft()[1])

    def broke(self, now: float) -> None:
        """Note that the connection broke."""
        fresh = [size for at, size in self._pending if now - at <= SURVIVED_S or at == self._pending[-1][0]]
        self._pending.clear()
        largest = max(fresh, default=0)
        self._candidate = largest if largest > self._largest else None

    def away(self) -> None:
        """Note that the broker does not let us in: what broke the connection was no message."""
        self._candidate = None

    def back(self, stated_limit: int | None, now: float) -> None:
        """Note a new connection, and what the broker states."""
        self.stated_limit = stated_limit
        candidate, self._candidate = self._candidate, None
        if candidate is None:
            return
        if self._suspect is None or (self._refused is None and now - self._suspected > AGAIN_S):
            self._suspect, self._suspected = candidate, now
            return
        if self._refused is not None:
            self._wait = min(2 * self._wait, LONGEST_S)
        self._refused = self._suspect = min(self._suspect, candidate)
        self._until = now + self._wait

    def _take(self, size: int) -> None:
        self._largest = max(self._largest, size)
        if self._suspect is not None and size >= self._suspect:
            self._suspect = self._refused = None
            self._wait = AGAIN_S
