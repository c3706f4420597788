"""What waits for the broker: parcels by kind, in bounded numbers, and an account of every one of them."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["published", "dropped", "denied"]


@dataclass(slots=True)
class Counts:
    """What became of the parcels of one kind: put = published + dropped + denied, once the publisher has left.

    Attributes
    ----------
    put : int
        Handed over by the session.
    published : int
        Taken by the broker.
    dropped : int
        Let go here: too old, too many, too large, or still unsent at the end.
    denied : int
        Refused by the broker.
    bytes : int
        Of what was taken.
    """

    put: int = 0
    published: int = 0
    dropped: int = 0
    denied: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Parcel:
    """What goes out together or not at all.

    Attributes
    ----------
    kind : str
        Under which it is counted.
    parts : tuple of (name of a topic, payload, retained or not)
    tags : tuple of (str, str)
        Go beside each part as MQTT 5 user properties, for those who look at one topic alone.
    put : float
        LSL time of the hand-over.
    """

    kind: str
    parts: tuple[tuple[str, bytes, bool], ...]
    tags: tuple[tuple[str, str], ...] = ()
    put: float = 0.0

    def __str__(self) -> str:
        window = dict(self.tags).get("window_id")
        size = max(len(payload) for _, payload, _ in self.parts)
        return f"{self.kind}{f' of window {window}' if window else ''} ({size} bytes)"


class Outbox:
    """Parcels that wait, the one under way, and the account; for any thread.

    Parameters
    ----------
    kinds : sequence of str
    limit : int
        Parcels of one kind that may wait while the broker is there; while it is away only the newest of each kind may.

    Attributes
    ----------
    counts : dict of str to Counts
    """

    def __init__(self, kinds: Sequence[str], limit: int) -> None:
        self.counts: dict[str, Counts] = {kind: Counts() for kind in kinds}
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: deque[Parcel] = deque()
        self._under_way: Parcel | None = None
        self._away = self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """True if nothing waits and nothing is under way."""
        with self._lock:
            return not self._waiting and self._under_way is None

    def put(self, parcel: Parcel) -> None:
        """Add a parcel; the oldest of its kind goes where too many wait."""
        with self._lock:
            self.counts[parcel.kind].put += 1
            if self._closed:
                self.counts[parcel.kind].dropped += 1
                return
            self._waiting.append(parcel)
            self._trim(parcel.kind)

    def take(self) -> Parcel | None:
        """Return the next parcel, which is under way until `settle` or `give_back`; None where none waits."""
        with self._lock:
            assert self._under_way is None
            if self._waiting:
                self._under_way = self._waiting.popleft()
            return self._under_way

    def settle(self, outcome: Outcome, n_bytes: int = 0) -> None:
        """Count the parcel under way, and the bytes of it that the broker took."""
        with self._lock:
            if self._under_way is None:  # already counted, as at the end
                return
            counts = self.counts[self._under_way.kind]
            setattr(counts, outcome, getattr(counts, outcome) + 1)
            counts.bytes += n_bytes
            self._under_way = None

    def give_back(self) -> None:
        """Let the parcel under way, if there is one, wait again, before all others."""
        with self._lock:
            if self._under_way is not None and not self._closed:
                self._waiting.appendleft(self._under_way)
                kind, self._under_way = self._under_way.kind, None
                self._trim(kind)

    def hold(self) -> None:
        """Keep only the newest of each kind, as long as the broker is away."""
        with self._lock:
            self._away = True
            for kind in self.counts:
                self._trim(kind)

    def resume(self) -> None:
        """Let parcels go again: the newest picture first, and no preview that is older than it."""
        with self._lock:
            self._away = False
            pictures = [parcel for parcel in self._waiting if parcel.kind == "picture"]
            if not pictures:
                return
            newest = pictures[-1]
            rest = []
            for parcel in self._waiting:
                if parcel.kind == "preview" and parcel.put <= newest.put:
                    self.counts["preview"].dropped += 1
                elif parcel is not newest:
                    rest.append(parcel)
            self._waiting = deque([newest, *rest])

    def close(self) -> dict[str, int]:
        """Drop what waits and what is under way, and all that is put from now on; return how many, by kind."""
        with self._lock:
            self._closed = True
            left: dict[str, int] = {}
            for parcel in (*self._waiting, *([self._under_way] if self._under_way else [])):
                self.counts[parcel.kind].dropped += 1
                left[parcel.kind] = left.get(parcel.kind, 0) + 1
            self._waiting.clear()
            self._under_way = None
            return left

    def _trim(self, kind: str) -> None:
        waiting = [parcel for parcel in self._waiting if parcel.kind == kind]
        for parcel in waiting[: -1 if self._away else -self._limit]:
            self._waiting.remove(parcel)
            self.counts[kind].dropped += 1
