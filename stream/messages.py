"""Pictures and their story over MQTT: what is published under which topic, and the two ends of it.

Topics, all under ``minddiffuser/<session>/``
    original   raw bytes of the picture the person was shown, retained
    preview    raw bytes of the stage-1 picture
    picture    raw bytes of the final picture, retained
    meta       JSON, one for every picture of whatever kind; retained for ``stage: picture`` only
    status     JSON, retained; last will ``{"state": "offline"}``
    metrics    JSON, about once a second, whatever the live loop measures

Which meta belongs to which bytes
    Each meta carries ``window_id``, ``stage`` ('original', 'preview', 'picture' or 'abstained'), ``n`` (the running
    number of its stage, so that a hole is a loss) and ``sha256``: the digest of every picture known of that window by
    then, by kind. Whoever receives pairs bytes with meta by digest, in whatever order they come (`stream.frames`).
    Only the final meta is retained, as only the final picture is, so a late joiner gets a picture and the meta that
    names it; the metas of earlier stages pass by on the same topic.

All times are seconds of the LSL clock, which every process of one machine shares; ``wall`` is for people.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from stream.errors import PublishError

ROOT = "minddiffuser"
Kind = Literal["original", "preview", "picture", "meta", "status", "metrics"]
PICTURES: tuple[Kind, ...] = ("original", "preview", "picture")
KINDS: tuple[Kind, ...] = (*PICTURES, "meta", "status", "metrics")
MAX_PAYLOAD = 16 * 2**20
"""Bytes of a picture file; larger ones are neither sent nor taken in."""
MAX_JSON = 2**20
"""Bytes of a meta, status or metrics message."""
_SESSION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAGIC = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF8", "image/gif"))


def lsl_clock() -> float:
    """Return the LSL clock of this machine, in seconds."""
    from pylsl import local_clock

    now: float = local_clock()
    return now


def is_session(name: str) -> bool:
    """Tell whether a session may be called so."""
    return _SESSION.fullmatch(name) is not None


def topic(session: str, kind: str) -> str:
    """Return the topic of one kind of message; `session` may be the wildcard '+'.

    Raises
    ------
    PublishError
        The session's name cannot be part of a topic.
    """
    if session != "+" and not is_session(session):
        raise PublishError(f"session name {session!r}: use 1 to 64 letters, digits, '.', '_' or '-'")
    return f"{ROOT}/{session}/{kind}"


def content_type(payload: bytes) -> str:
    """Name the format of a picture file by its first bytes.

    Raises
    ------
    PublishError
        It is none that a display could show.
    """
    for magic, name in _MAGIC:
        if payload.startswith(magic):
            return name
    if payload[:4] == b"RIFF" and payload[8:12] == b"WEBP":
        return "image/webp"
    raise PublishError(f"picture bytes start with {payload[:8]!r}: give JPEG, PNG, WebP or GIF file bytes")


def to_json(value: object) -> bytes:
    """Encode as strict JSON: numpy scalars, arrays, dataclasses and paths become plain, NaN and infinity null."""
    return json.dumps(_plain(value), allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a session, as it came.

    Attributes
    ----------
    session : str
    kind : str
        One of `KINDS`, or 'connection': our own word on the broker, JSON {"connected": bool, "error": str}.
    payload : bytes
    retained : bool
        The broker kept it from before we came.
    received : float
        LSL seconds.
    """

    session: str
    kind: str
    payload: bytes
    retained: bool = False
    received: float = 0.0

    def json(self) -> dict[str, Any]:
        """Decode the payload as a JSON object.

        Raises
        ------
        PublishError
            It is none.
        """
        try:
            value = json.loads(self.payload, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise PublishError(f"{self.kind} of session {self.session}: not JSON ({error})") from error
        if not isinstance(value, dict):
            raise PublishError(f"{self.kind} of session {self.session}: a JSON object is expected")
        return value
