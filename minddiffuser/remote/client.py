"""A room's side of the protocol: one connection to a pool."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Literal, NoReturn

import aiohttp
from pydantic import ValidationError

from decoder.features import Features
from engine.picture import Picture
from minddiffuser.config.engine import RoomEngineSpec
from minddiffuser.remote.errors import PoolFullError, PoolRefusedError, ProtocolError, RemoteError
from minddiffuser.remote.frames import frames
from minddiffuser.remote.protocol import (
    ABOUT,
    PICTURES,
    PROTOCOL,
    VERSION_HEADER,
    About,
    Failure,
    PictureHead,
    Refusal,
    WindowHead,
    checked,
    read_picture,
    write_window,
)
from minddiffuser.remote.secret import client_context, read_token

PATIENCE = 2.0
"""Seconds for a connection, and for an answer that needs no engine."""
LONGEST_ANSWER = 2**20
"""Bytes of an answer that is no picture."""
FULL = 503


class PoolClient:
    """Speaks with a pool; an async context manager.

    Parameters
    ----------
    spec : RoomEngineSpec
        With `remote`.
    room : str
        Names this session in the pool's account.

    Raises
    ------
    AppError
        Token or certificate cannot be read.
    """

    def __init__(self, spec: RoomEngineSpec, room: str) -> None:
        assert spec.remote is not None
        self.address, self._spec, self._room = spec.remote, spec, room
        token = read_token(spec.token_file)
        self._headers = {VERSION_HEADER: str(PROTOCOL)} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._context = client_context(self.address, spec.ca_file)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> PoolClient:
        connector = aiohttp.TCPConnector(ssl=self._context) if self._context else aiohttp.TCPConnector()
        timeout = aiohttp.ClientTimeout(total=self._spec.timeout_s, sock_connect=PATIENCE)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def about(self) -> About:
        """Ask what the pool is.

        Raises
        ------
        PoolRefusedError
            It speaks another version, or wants another token.
        ProtocolError
            It is no pool.
        aiohttp.ClientError, TimeoutError
            It cannot be reached.
        """
        assert self._session is not None
        async with self._session.get(self.address + ABOUT, timeout=aiohttp.ClientTimeout(total=PATIENCE)) as answer:
            if answer.status != 200:
                await self._refused(answer)
            try:
                raw = await answer.json()
            except (ValueError, aiohttp.ContentTypeError):
                raise ProtocolError(f"{self.address} is no pool: its {ABOUT} is not JSON") from None
        if isinstance(raw, dict) and raw.get("protocol") not in {None, PROTOCOL}:
            raise PoolRefusedError(self._versions(raw.get("protocol"), raw.get("version")), "version")
        return checked(About, raw if isinstance(raw, dict) else {}, f"{self.address} is no pool of this version")

    async def pictures(
        self, about: About, features: Features, *, stage2: bool
    ) -> AsyncIterator[tuple[Literal["preview", "picture"], Picture]]:
        """Yield a window's preview and its picture as they come.

        Raises
        ------
        PoolFullError, PoolRefusedError, ProtocolError, RemoteError
            The pool gives no picture, and says why.
        aiohttp.ClientError, TimeoutError, OSError
            It cannot be reached, or went away.
        """
        assert self._session is not None
        head = WindowHead(
            room=self._room,
            window_id=features.window_id,
            seed=self._spec.seed,
            feature_space=about.feature_space,
            size=about.size,
        )
        body = write_window(head, features, half=self._spec.half, stage2=stage2)
        if len(body) > about.body_bytes:
            words = f"its features are {len(body)} bytes, and the pool at {self.address} reads {about.body_bytes}"
            raise PoolRefusedError(f"{words}; half: true halves them, pool.body_mb lets more in", "body")
        began, final = time.perf_counter(), False
        async with self._session.post(self.address + PICTURES, data=body) as answer:
            if answer.status != 200:
                await self._refused(answer)
            async for raw, pixels in frames(answer.content):
                if raw.get("kind") == "failed":
                    raise RemoteError(f"the pool failed: {checked(Failure, raw, 'failure').reason}")
                part = checked(PictureHead, raw, "picture")
                picture = read_picture(part, pixels, features, about.size)
                picture.timings["handover"] = max(0.0, part.pool_s - sum(part.timings.values()) - part.queue_s)
                picture.timings["network"] = max(0.0, time.perf_counter() - began - part.pool_s)
                final = final or part.kind == "picture"
                yield part.kind, picture
        if not final:
            raise aiohttp.ClientPayloadError("the answer ended before the picture")

    async def _refused(self, answer: aiohttp.ClientResponse) -> NoReturn:
        """Raise what an answer without pictures says."""
        text = await answer.content.read(LONGEST_ANSWER)
        try:
            refusal = Refusal.model_validate_json(text)
        except ValidationError:
            raise ProtocolError(f"{self.address} is no pool: it answered {answer.status} {answer.reason}") from None
        line = " ".join(refusal.line.split())[:500]
        if answer.status == FULL:
            raise PoolFullError(f"the pool at {self.address} is full: {line}")
        raise PoolRefusedError(f"the pool at {self.address} refused: {line}", refusal.refused)

    def _versions(self, protocol: object, version: object) -> str:
        return (
            f"the pool at {self.address} speaks version {protocol!r:.20} of the protocol "
            f"(minddiffuser {version!r:.40}) and this room {PROTOCOL}; install the same minddiffuser on both"
        )
