"""Pictures and metadata put together again: the receiving half of the scheme in `stream.messages`."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stream.errors import PublishError
from stream.messages import PICTURES, Message

_KEEP = 48  # pictures and metas of one session that may wait for their other half
_KEEP_BYTES = 64 * 2**20  # of pictures


@dataclass(frozen=True, slots=True)
class Frame:
    """What is known of one window at one stage.

    Attributes
    ----------
    session, window_id : str
    stage : str
        'original', 'preview', 'picture' or 'abstained'.
    meta : mapping
        As published.
    pictures : dict of str to bytes
        By kind; each has the digest that the meta gives for it. The stage's own is always there (not for 'abstained').
    received : float
        LSL seconds at which the frame was complete.
    retained : bool
        Kept by the broker from before we came: its latency means nothing.
    """

    session: str
    window_id: str
    stage: str
    meta: Mapping[str, Any]
    pictures: dict[str, bytes] = field(default_factory=dict)
    received: float = 0.0
    retained: bool = False

    def digest(self, kind: str) -> str | None:
        """SHA-256 of a picture of this frame, in hexadecimal."""
        digest: str | None = self.meta["sha256"].get(kind)
        return digest if kind in self.pictures else None


class Assembler:
    """Pairs the picture bytes of one session with the metas that name them, in whatever order they come.

    Attributes
    ----------
    bad : int
        Metas that were no valid JSON of ours.
    unpaired : int
        Pictures and metas given up because their other half never came.
    duplicates : int
        Frames that came a second time (MQTT delivers at least once).
    """

    def __init__(self) -> None:
        self.bad = self.unpaired = self.duplicates = 0
        self._pictures: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._named: set[str] = set()
        self._metas: OrderedDict[str, tuple[dict[str, Any], Message]] = OrderedDict()
        self._seen: OrderedDict[tuple[str, str, float | None], None] = OrderedDict()

    def add(self, message: Message) -> Frame | None:
        """Take a message in; return the frame that it completes, if it does."""
        if message.kind in PICTURES:
            return self._picture(message)
        return self._meta(message) if message.kind == "meta" else None

    def _picture(self, message: Message) -> Frame | None:
        digest = hashlib.sha256(message.payload).hexdigest()
        self._bytes += len(message.payload) if digest not in self._pictures else 0
        self._pictures[digest] = message.payload
        self._pictures.move_to_end(digest)
        while len(self._pictures) > _KEEP or self._bytes > _KEEP_BYTES:
            old, payload = self._pictures.popitem(last=False)
            self._bytes -= len(payload)
            self.unpaired += old not in self._named
            self._named.discard(old)
        waiting = self._metas.pop(digest, None)
        return self._frame(waiting[0], message) if waiting else None

    def _meta(self, message: Message) -> Frame | None:
        try:
            meta = message.json()
            digest = _own_digest(meta)
        except PublishError:
            self.bad += 1
            return None
        if digest is None or digest in self._pictures:
            return self._frame(meta, message)
        self._metas[digest] = (meta, message)
        while len(self._metas) > _KEEP:
            self._metas.popitem(last=False)
            self.unpaired += 1
        return None

    def _frame(self, meta: dict[str, Any], message: Message) -> Frame | None:
        window_id, stage, digests = meta["window_id"], meta["stage"], meta["sha256"]
        times = meta.get("times")
        key = (window_id, stage, times.get("published") if isinstance(times, dict) else None)
        if key in self._seen:
            self.duplicates += 1
            return None
        self._seen[key] = None
        if len(self._seen) > 16 * _KEEP:
            self._seen.popitem(last=False)
        pictures = {kind: self._pictures[digest] for kind, digest in digests.items() if digest in self._pictures}
        self._named.update(digest for digest in digests.values() if digest in self._pictures)
        return Frame(message.session, window_id, stage, meta, pictures, message.received, message.retained)


def _own_digest(meta: Mapping[str, Any]) -> str | None:
    """Return the digest of the meta's own picture, None when it abstained; what comes from outside is not trusted."""
    window_id, stage, digests = meta.get("window_id"), meta.get("stage"), meta.get("sha256")
    if not isinstance(window_id, str) or not isinstance(stage, str) or not isinstance(digests, dict):
        raise PublishError("meta lacks window_id, stage or sha256")
    if not all(kind in PICTURES and isinstance(digest, str) for kind, digest in digests.items()):
        raise PublishError("meta names pictures that are none")
    if stage == "abstained":
        return None
    if stage not in digests:
        raise PublishError(f"meta of stage {stage!r} does not say which picture it belongs to")
    digest: str = digests[stage]
    return digest
