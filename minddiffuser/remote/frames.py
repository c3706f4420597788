"""How a room and a pool write: a JSON object and raw bytes, each with its length before it. Nothing is pickled."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from minddiffuser.remote.errors import ProtocolError

LENGTHS = struct.Struct(">II")
LONGEST_JSON = 2**20
LONGEST_PAYLOAD = 2**28
"""Bytes of a picture at most: 4096 x 4096 pixels are a fifth of it."""


class Reader(Protocol):
    """What frames are read from: `aiohttp.StreamReader`."""

    async def readexactly(self, n: int) -> bytes:
        """Return the next `n` bytes."""
        ...

    def at_eof(self) -> bool:
        """Return True where nothing more comes."""
        ...


def pack(about: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """Return a frame."""
    text = json.dumps(about, allow_nan=False).encode()
    return b"".join((LENGTHS.pack(len(text), len(payload)), text, payload))


def unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Read a single frame.

    Raises
    ------
    ProtocolError
        It is none, or something follows it.
    """
    if len(data) < LENGTHS.size:
        raise ProtocolError("no frame: too short")
    text, payload = LENGTHS.unpack_from(data)
    if text > LONGEST_JSON or LENGTHS.size + text + payload != len(data):
        raise ProtocolError(f"no frame: {len(data)} bytes where its lengths say {LENGTHS.size + text + payload}")
    end = LENGTHS.size + text
    return _object(data[LENGTHS.size : end]), data[end:]


async def frames(reader: Reader) -> AsyncIterator[tuple[dict[str, Any], bytes]]:
    """Yield the frames of a stream as they come.

    Raises
    ------
    ProtocolError
        One is none, or longer than any picture.
    asyncio.IncompleteReadError
        The stream ends within one.
    """
    while True:
        try:
            head = await reader.readexactly(LENGTHS.size)
        except EOFError as error:  # asyncio.IncompleteReadError is one
            if getattr(error, "partial", b""):
                raise
            return
        text, payload = LENGTHS.unpack(head)
        if text > LONGEST_JSON or payload > LONGEST_PAYLOAD:
            raise ProtocolError("no frame: its lengths are beyond any picture's")
        yield _object(await reader.readexactly(text)), await reader.readexactly(payload) if payload else b""


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("no frame: its head is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError("no frame: its head is no JSON object")
    return value
