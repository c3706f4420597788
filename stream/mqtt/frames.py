"""Pictures and metadata put together again: the receiving half of the scheme in `stream.mqtt.messages`."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from stream.errors import PublishError, WireError
from stream.mqtt.messages import Message, content_type
from stream.mqtt.refusals import Refusals
from stream.mqtt.topics import PICTURES

_KEEP = 48
"""Pictures and metas of one session that may wait for their other half."""
_KEEP_BYTES = 64 * 2**20
"""Bytes of pictures of one session."""
_KEEP_META_BYTES = 4 * 2**20
"""Bytes of metas of one session that wait."""
ALL_BYTES = 256 * 2**20
"""Bytes of pictures that wait, of all sessions together."""
MAX_SESSIONS = 64
"""Sessions whose halves are kept, where all are listened to."""

Check = Callable[[bytes], object]
"""Raises a PublishError where bytes that begin like a picture file are none after all."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What is known of one window at one stage.

    Attributes
    ----------
    session, window_id : str
    stage : str
        'original', 'retrieved', 'preview', 'picture' or 'abstained'.
    meta : mapping
        As published.
    pictures : dict of str to bytes
        By kind; each has the digest that the meta gives for it. The stage's own is always there (not for 'abstained').
    received : float
        LSL seconds at which the frame was complete.
    retained : bool
        Kept by the broker from before we came: its latency means nothing.
    meta_size : int
        Bytes of the meta as it came.
    """

    session: str
    window_id: str
    stage: str
    meta: Mapping[str, Any]
    pictures: dict[str, bytes] = field(default_factory=dict)
    received: float = 0.0
    retained: bool = False
    meta_size: int = 0

    @property
    def size(self) -> int:
        """Bytes that the frame holds, about: a meta takes several times its size once it is read."""
        return 1024 + 4 * self.meta_size + sum(map(len, self.pictures.values()))

    def digest(self, kind: str) -> str | None:
        """Return the SHA-256 of a picture of this frame, in hexadecimal."""
        digest: str | None = self.meta["sha256"].get(kind)
        return digest if kind in self.pictures else None


class Assembler:
    """Pairs the picture bytes of one session with the metas that name them, in whatever order they come.

    Parameters
    ----------
    check : callable, optional
        Looks at every picture beyond its first bytes.
    refusals : Refusals, optional
        Counts what is no picture and no meta; one of its own by default.

    Attributes
    ----------
    bad : int
        Metas that do not fit.
    unpaired : int
        Pictures and metas given up because their other half never came.
    duplicates : int
        Frames that came a second time (MQTT delivers at least once).
    frames : int
        Frames given out.
    size : int
        Bytes of the pictures that are kept.
    """

    def __init__(self, check: Check | None = None, refusals: Refusals | None = None) -> None:
        self.bad = self.unpaired = self.duplicates = self.frames = self.size = 0
        self.refusals = refusals or Refusals()
        self._check = check
        self._pictures: OrderedDict[str, bytes] = OrderedDict()
        self._named: set[str] = set()
        self._metas: OrderedDict[str, tuple[dict[str, Any], Message]] = OrderedDict()
        self._meta_bytes = 0
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def add(self, message: Message) -> Frame | None:
        """Add a message; return the frame that it completes, if it does. What does not fit is counted."""
        try:
            return self.take(message)
        except PublishError as error:
            self.refusals.add(message.kind, error)
            return None

    def take(self, message: Message) -> Frame | None:
        """Add a message; return the frame that it completes, if it does.

        Raises
        ------
        PublishError
            It is no picture, or no meta.
        """
        if message.kind in PICTURES:
            return self._picture(message)
        return self._meta(message) if message.kind == "meta" else None

    def forget_oldest(self) -> None:
        """Let the picture go that has been kept longest."""
        old, payload = self._pictures.popitem(last=False)
        self.size -= len(payload)
        self.unpaired += old not in self._named
        self._named.discard(old)

    def _picture(self, message: Message) -> Frame | None:
        try:
            content_type(message.payload)
            if self._check:
                self._check(message.payload)
        except WireError as error:
            raise WireError(error.reason, f"{message.kind} of session {message.session}: {error}") from None
        digest = hashlib.sha256(message.payload).hexdigest()
        self.size += len(message.payload) if digest not in self._pictures else 0
        self._pictures[digest] = message.payload
        self._pictures.move_to_end(digest)
        while len(self._pictures) > _KEEP or self.size > _KEEP_BYTES:
            self.forget_oldest()
        if digest not in self._metas:
            return None
        meta, of = self._metas.pop(digest)
        self._meta_bytes -= len(of.payload)
        return self._frame(meta, message, len(of.payload))

    def _meta(self, message: Message) -> Frame | None:
        try:
            meta = message.json()
            digest = _own_digest(meta)
        except PublishError:
            self.bad += 1
            raise
        if digest is None or digest in self._pictures:
            return self._frame(meta, message, len(message.payload))
        if (other := self._metas.pop(digest, None)) is not None:
            self._meta_bytes -= len(other[1].payload)
        self._metas[digest] = (meta, message)
        self._meta_bytes += len(message.payload)
        while len(self._metas) > _KEEP or self._meta_bytes > _KEEP_META_BYTES:
            _, (_, oldest) = self._metas.popitem(last=False)
            self._meta_bytes -= len(oldest.payload)
            self.unpaired += 1
        return None

    def _frame(self, meta: dict[str, Any], message: Message, meta_size: int) -> Frame | None:
        window_id, stage, digests = meta["window_id"], meta["stage"], meta["sha256"]
        published = (meta.get("times") or {}).get("published")
        key = hashlib.sha256(f"{stage} {published} {window_id}".encode()).digest()  # an id may be long
        if key in self._seen:
            self.duplicates += 1
            return None
        self._seen[key] = None
        if len(self._seen) > 16 * _KEEP:
            self._seen.popitem(last=False)
        pictures = {kind: self._pictures[digest] for kind, digest in digests.items() if digest in self._pictures}
        self._named.update(digest for digest in digests.values() if digest in self._pictures)
        self.frames += 1
        return Frame(message.session, window_id, stage, meta, pictures, message.received, message.retained, meta_size)


class Assemblers:
    """An assembler for each session, so that no session can push another's halves out.

    Beyond `MAX_SESSIONS` the one that was heard longest ago goes, first among those that never gave a frame.

    Parameters
    ----------
    check : callable, optional
    refusals : Refusals, optional
        As for `Assembler`.
    """

    def __init__(self, check: Check | None = None, refusals: Refusals | None = None) -> None:
        self.refusals = refusals or Refusals()
        self._check = check
        self._sessions: OrderedDict[str, Assembler] = OrderedDict()
        self._gone: dict[str, int] = dict.fromkeys(("bad", "unpaired", "duplicates"), 0)

    def add(self, message: Message) -> Frame | None:
        """Add a message; return the frame that it completes, if it does."""
        if message.session not in self._sessions:
            self._make_room()
            self._sessions[message.session] = Assembler(self._check, self.refusals)
        self._sessions.move_to_end(message.session)
        frame = self._sessions[message.session].add(message)
        keep_within(self._sessions.values())
        return frame

    def _make_room(self) -> None:
        if len(self._sessions) < MAX_SESSIONS:
            return
        silent = (name for name, one in self._sessions.items() if not one.frames)
        gone = self._sessions.pop(next(silent, next(iter(self._sessions))))
        self._gone = {name: count + getattr(gone, name) for name, count in self._gone.items()}

    def count(self, name: str) -> int:
        """Return `bad`, `unpaired` or `duplicates` of all sessions together."""
        return self._gone[name] + sum(int(getattr(one, name)) for one in self._sessions.values())


def keep_within(assemblers: Collection[Assembler], limit: int = ALL_BYTES) -> None:
    """Let pictures go, of whoever keeps most, until all together keep no more than `limit` bytes."""
    while sum(one.size for one in assemblers) > limit:
        max(assemblers, key=lambda one: one.size).forget_oldest()


def _own_digest(meta: Mapping[str, Any]) -> str | None:
    """Return the digest of the meta's own picture, None when it abstained."""
    if meta["stage"] == "abstained":
        return None
    if meta["stage"] not in meta["sha256"]:
        raise WireError("sha256", f"meta of stage {meta['stage']!r} does not say which picture it belongs to")
    digest: str = meta["sha256"][meta["stage"]]
    return digest
