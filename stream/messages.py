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

What a message may hold, and what is refused, is in `stream.wire_models`.

All times are seconds of the LSL clock, which every process of one machine shares; ``wall`` is for people.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from stream.errors import PublishError, WireError
from stream.wire_models import INT64, read

ROOT = "minddiffuser"
Kind = Literal["original", "preview", "picture", "meta", "status", "metrics"]
PICTURES: tuple[Kind, ...] = ("original", "preview", "picture")
KINDS: tuple[Kind, ...] = (*PICTURES, "meta", "status", "metrics")
MAX_PAYLOAD = 16 * 2**20
"""Bytes of a picture file; larger ones are neither sent nor taken in."""
MAX_JSON = 2**20
"""Bytes of a meta, status or metrics message."""
MAX_NESTING = 64
"""Levels of what is encoded; a message may have fewer (`stream.wire_models`)."""
_SESSION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_MAGIC = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF8", "image/gif"))


def lsl_clock() -> float:
    """Return the LSL clock of this machine, in seconds."""
    from pylsl import local_clock

    now: float = local_clock()
    return now


def is_session(name: str) -> bool:
    """Check whether a session may be called so: part of a topic, and a plain file name on every system."""
    return _SESSION.fullmatch(name) is not None and not is_device(name)


def is_device(name: str) -> bool:
    """Check whether Windows takes a file name for a device, with whatever ending."""
    return _DEVICE.fullmatch(name) is not None


def topic(session: str, kind: str) -> str:
    """Return the topic of one kind of message; `session` may be the wildcard '+'.

    Raises
    ------
    PublishError
        The session's name cannot be part of a topic.
    """
    if session != "+" and not is_session(session):
        raise PublishError(
            f"session name {session[:80]!r}: use 1 to 64 letters, digits, '.', '_' or '-', neither '.' nor '-' first, "
            "no '.' last, and no name of a device such as CON"
        )
    return f"{ROOT}/{session}/{kind}"


def content_type(payload: bytes) -> str:
    """Name the format of a picture file by its first bytes.

    Raises
    ------
    WireError
        It is none that a display could show.
    """
    for magic, name in _MAGIC:
        if payload.startswith(magic):
            return name
    if payload[:4] == b"RIFF" and payload[8:12] == b"WEBP":
        return "image/webp"
    raise WireError("no picture", f"picture bytes start with {payload[:8]!r}: give JPEG, PNG, WebP or GIF file bytes")


def to_json(value: object) -> bytes:
    """Encode as strict JSON, as every receiver takes it.

    Numpy scalars, arrays, dataclasses and paths become plain, NaN and infinity null, integers beyond 64 bits text, and
    halves of surrogate pairs, which are no characters, question marks.

    Raises
    ------
    PublishError
        It is nested deeper than `MAX_NESTING` levels, or in itself.
    """
    return json.dumps(_plain(value, 0), allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any, level: int) -> Any:
    if level > MAX_NESTING:
        raise PublishError(f"metadata nested deeper than {MAX_NESTING} levels: flatten it")
    if isinstance(value, Mapping):
        return {_characters(str(key)): _plain(item, level + 1) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), level + 1) for f in fields(value)}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, level + 1) for item in value]
    return _plain(value.tolist(), level + 1) if hasattr(value, "tolist") else _plain_scalar(value)


def _plain_scalar(value: object) -> bool | int | float | str | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        if -INT64 <= value < INT64:
            return value
        return str(value) if value.bit_length() < 4096 else hex(value)  # Python writes no longer ones as decimals
    return _characters(str(value))


def _characters(text: str) -> str:
    """Replace halves of surrogate pairs; they come of bytes that were no UTF-8."""
    return text.encode(errors="replace").decode()


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
        """Decode the payload as a JSON object that fits the message's kind.

        Raises
        ------
        WireError
            It is none.
        """
        return read(self.kind, self.payload, f"{self.kind} of session {self.session}")
