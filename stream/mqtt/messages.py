"""Messages over MQTT: how they are encoded, and how pictures and metadata belong together.

The topics are in `stream.mqtt.topics`. Each meta carries ``window_id``, ``stage`` ('original', 'retrieved', 'preview',
'picture' or 'abstained'), ``n`` (the running number of its stage, so that a hole is a loss) and ``sha256``: the digest
of every picture known of that window by then, by stage. Receivers pair bytes with meta by digest, in whatever order
they come (`stream.mqtt.frames`). Only the final meta is retained, which names the pictures of its window that are
retained too, so a late joiner gets them together; the metas of earlier stages pass by on the same topic.

What a message may hold, and what is refused, is in `stream.mqtt.wire_models`.

All times are seconds of the LSL clock, which every process of one machine shares; ``wall`` is for people.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from stream.errors import PublishError, WireError
from stream.mqtt.topics import read
from stream.mqtt.wire_models import INT64

MAX_NESTING = 64
"""Levels of what is encoded; a message may have fewer (`stream.mqtt.wire_models`)."""
_MAGIC = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF8", "image/gif"))


def lsl_clock() -> float:
    """Return the LSL clock of this machine, in seconds."""
    from pylsl import local_clock

    now: float = local_clock()
    return now


def content_type(payload: bytes) -> str:
    """Return the content type of a picture file by its first bytes.

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
        A name of `TOPICS`, or 'connection': our own word on the broker, JSON {"connected": bool, "error": str}.
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
