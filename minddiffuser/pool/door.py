"""The door of a pool: the only part that rooms reach. It checks, counts, lets windows in turn by turn, and answers."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any

from aiohttp import web

from minddiffuser.config.engine import PoolSpec
from minddiffuser.pool.account import Fate, PoolAccount, PoolMetrics
from minddiffuser.pool.fair import FairSlots
from minddiffuser.remote.errors import PoolFullError, ProtocolError
from minddiffuser.remote.frames import pack
from minddiffuser.remote.protocol import (
    ABOUT,
    ACCOUNT,
    METRICS,
    PICTURES,
    PROTOCOL,
    VERSION_HEADER,
    About,
    Failure,
    WindowHead,
    read_window,
)
from stream.tasks import one_line

logger = logging.getLogger(__name__)

Part = tuple[dict[str, Any], bytes]
Ask = Callable[[bytes], AsyncGenerator[Part, None]]
"""Request body -> heads and pixels of its answer, as they are made."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BODY_S = 30.0
"""Seconds in which a request must have come whole."""


class Refused(Exception):  # noqa: N818  no error of the pool's
    """A request that is not taken."""

    def __init__(self, status: int, reason: str, line: str) -> None:
        super().__init__(line)
        self.status, self.reason = status, reason


class Door:
    """The HTTP side of a pool.

    Parameters
    ----------
    spec : PoolSpec
    about : About
        What the replicas take and make.
    ask : callable
        Has a window's pictures made.
    token : str or None
        What rooms must send; None lets everybody in.
    slots : int
        Windows that are with the replicas at once.
    account : PoolAccount
    """

    def __init__(
        self, spec: PoolSpec, about: About, ask: Ask, token: str | None, slots: int, account: PoolAccount
    ) -> None:
        self._about, self._ask, self.account = about, ask, account
        self._token = f"Bearer {token}".encode() if token else None
        self._slots = FairSlots(slots, spec.queue, spec.room_queue)
        self._metrics = PoolMetrics(account)

    def app(self) -> web.Application:
        """Return what serves requests."""

        @web.middleware
        async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._checked(request, handler)

        app = web.Application(client_max_size=self._about.body_bytes, middlewares=[checked])
        app.router.add_get(ABOUT, self._say_about)
        app.router.add_get(ACCOUNT, self._say_account)
        app.router.add_get(METRICS, self._say_metrics)
        app.router.add_post(PICTURES, self._pictures)
        return app

    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in who has the token and speaks this version; a refusal is counted, and is a line."""
        try:
            if self._token is not None:
                sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
                if not hmac.compare_digest(sent, self._token):
                    raise Refused(401, "token", "no token, or a wrong one (token_file)")
            spoken = request.headers.get(VERSION_HEADER)
            if request.path != METRICS and spoken is not None and spoken != str(PROTOCOL):
                raise Refused(
                    409, "version", f"version {spoken[:20]!r} of the protocol is spoken there and {PROTOCOL} here"
                )
            return await handler(request)
        except Refused as refused:
            status, reason, line = refused.status, refused.reason, str(refused)
        except web.HTTPRequestEntityTooLarge:
            status, reason, line = 413, "body", f"more than {self._about.body_bytes} bytes (pool.body_mb)"
        except web.HTTPException as error:
            status, reason, line = error.status, "content", f"no such request: {request.method} {request.path[:100]}"
        self.account.refused[reason] += 1
        logger.info("refused %s: %s", request.remote, line)
        return web.json_response({"refused": reason, "line": line}, status=status)

    async def _say_about(self, _: web.Request) -> web.Response:
        return web.json_response(self._about.model_dump())

    async def _say_account(self, _: web.Request) -> web.Response:
        return web.json_response(self.account.to_dict())

    async def _say_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _pictures(self, request: web.Request) -> web.StreamResponse:
        body, head = await self._read(request)
        began = time.perf_counter()
        try:
            turn = self._slots.enter(head.room)
        except PoolFullError as error:
            raise Refused(503, "full", str(error)) from None
        self.account.begin(head.room)
        answer = _Answer(request, began)
        try:
            async with turn:
                answer.queued = time.perf_counter() - began
                async with aclosing(self._ask(body)) as parts:
                    async for part in parts:
                        await answer.write(part)
            if answer.fate == "abandoned":
                await answer.fail("no engine answered")
        except ConnectionError:
            logger.info("room %s went away", head.room)
        except Exception as error:
            reason = one_line(error)
            logger.error("window %s of room %s failed: %s", head.window_id[:100], head.room, reason)
            await answer.fail(reason)
        finally:
            self.account.end(head.room, answer.fate)
        if answer.fate == "pictures":
            self._metrics.observe(answer.timings, answer.batch)
        return await answer.finish()

    async def _read(self, request: web.Request) -> tuple[bytes, WindowHead]:
        if (length := request.content_length) is not None and length > self._about.body_bytes:
            raise web.HTTPRequestEntityTooLarge(self._about.body_bytes, length)
        try:
            async with asyncio.timeout(BODY_S):
                body = await request.read()
            head, _ = read_window(body, self._about)
        except ProtocolError as error:
            raise Refused(400, "content", str(error)) from None
        except TimeoutError:
            raise Refused(408, "content", f"the request did not come whole in {BODY_S:g} s") from None
        if head.feature_space != self._about.feature_space:
            there, here = head.feature_space, self._about.feature_space
            raise Refused(409, "feature space", f"the window is in feature space {there}, and this pool's is {here}")
        if head.size != self._about.size:
            raise Refused(409, "size", f"pictures of {head.size} are wanted, and this pool makes {self._about.size}")
        return body, head


class _Answer:
    """The answer to one window."""

    def __init__(self, request: web.Request, began: float) -> None:
        self._request, self._began = request, began
        self._response: web.StreamResponse | None = None
        self.queued = 0.0
        self.fate: Fate = "abandoned"
        self.timings: dict[str, float] = {}
        self.batch = 1

    async def write(self, part: Part) -> None:
        """Send a part, with the time that it took in the pool."""
        head, pixels = part
        if head["kind"] != "failed":
            head = head | {"queue_s": head["queue_s"] + self.queued, "pool_s": time.perf_counter() - self._began}
        await self._send(pack(head, pixels))
        if head["kind"] == "picture":
            self.fate, self.batch = "pictures", head["batch"]
            self.timings = head["timings"] | {"queue": head["queue_s"], "total": head["pool_s"]}
        elif head["kind"] == "failed":
            self.fate = "failed"

    async def fail(self, reason: str) -> None:
        """Send why there is no picture, if anybody listens still."""
        try:
            await self._send(pack(Failure(kind="failed", reason=reason[:1000]).model_dump()))
        except ConnectionError:
            return
        self.fate = "failed"

    async def finish(self) -> web.StreamResponse:
        """End the answer."""
        response = self._response or web.StreamResponse(status=502)
        if self._response is not None and self.fate != "abandoned":
            with suppress(ConnectionError):  # the room has the picture
                await response.write_eof()
        return response

    async def _send(self, data: bytes) -> None:
        if self._response is None:
            self._response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
            await self._response.prepare(self._request)
        await self._response.write(data)
