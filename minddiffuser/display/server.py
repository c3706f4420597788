"""The display's server: subscribes to a broker over TCP, and hands the newest to any number of browsers.

Every viewer has its own short queue and its own task. One that cannot keep up is caught up with the newest picture; one
that is frozen holds a few references until its heartbeat fails. Nothing else waits for it.

Wire format, server to page: text messages are JSON ({"type": "broker" | "status" | "metrics", ...}); a binary message
is a frame: 4 bytes big-endian length of a JSON header, the header, the picture files it lists in `parts`, end to end.
A picture is sent once a window and viewer. The page sends one message, {"token": ...}, when it connects.

GET /sessions/NAME.zip is a session as a file: the archive, where there is one, else what the display remembers.
"""

import asyncio
import contextlib
import hmac
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import WSMsgType, web

from minddiffuser.archive import Archive, entries
from minddiffuser.display.download import zipped
from minddiffuser.display.viewers import Memory, SessionView, Viewer
from minddiffuser.errors import AppError
from stream.broker import BrokerSpec
from stream.errors import PublishError
from stream.messages import Message, is_session
from stream.subscriber import Subscriber

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_SESSIONS = 32
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Display:
    """Web page and server of the display.

    Use as an async context manager; `url` is what to open.

    Parameters
    ----------
    broker : BrokerSpec
    host : str
        Loopback by default. Any other address needs the token in `url`.
    port : int
        0 takes any free port.
    session : str
        '+' shows every session of the broker, side by side.
    token : str, optional
        Asked of every viewer; made up when `host` is not loopback.
    history : int
        Pictures a new viewer finds on the strip.
    archive : Archive, optional
        Of the session that runs beside this display; its download is the whole of it.

    Attributes
    ----------
    url : str
    viewers : int
        Browsers connected now.

    Raises
    ------
    AppError
        The port is taken or the address is not ours.
    PublishError
        The broker cannot be reached or refuses.
    """

    def __init__(
        self,
        broker: BrokerSpec,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        session: str = "+",
        token: str | None = None,
        history: int = 8,
        archive: Archive | None = None,
    ) -> None:
        self._archive = archive
        self._memory = Memory()
        self.host, self.port = host, port
        self.token = token or (None if host in LOOPBACK else secrets.token_urlsafe(18))
        self._subscriber = Subscriber(broker, session)
        self._history = history
        self._sessions: dict[str, SessionView] = {}
        self._viewers: dict[Viewer, asyncio.Task[None]] = {}
        self._broker_note: dict[str, Any] = {"type": "broker", "connected": True, "error": ""}

    @property
    def url(self) -> str:
        """The page's address; the token is in the fragment, which browsers send to nobody."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/" + (f"#token={self.token}" if self.token else "")

    @property
    def urls(self) -> list[str]:
        """All addresses of the page that are known, this machine's own first."""
        return [self.url]

    @property
    def viewers(self) -> int:
        """Number of browsers connected now."""
        return len(self._viewers)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            messages = await stack.enter_async_context(self._subscriber)
            runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, self.host, self.port)
            try:
                await site.start()
            except OSError as error:
                raise AppError(
                    f"display cannot listen on {self.host}:{self.port}: {error.strerror or error}; "
                    "choose another port, or 0 for any free one"
                ) from error
            self.port = runner.addresses[0][1]
            reading = asyncio.create_task(self._read(messages), name="display")
            stack.push_async_callback(_cancelled, reading)
            stack.push_async_callback(self._dismiss)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _dismiss(self) -> None:
        for task in list(self._viewers.values()):
            await _cancelled(task)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=4096)
        app.router.add_get("/", lambda _: _file("index.html"))
        app.router.add_get("/socket", self._socket)
        app.router.add_get("/sessions/{name}.zip", self._download)
        app.router.add_static("/static", STATIC)
        return app

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Turn away other sites' pages: a loopback server is in reach of every page the browser has open."""
        host = request.url.host
        if self.host in LOOPBACK and host not in LOOPBACK:
            raise web.HTTPForbidden(text=f"This display answers to {self.host} only.\n")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is not None and origin.split("://")[-1] != request.headers.get("Host"):
            raise web.HTTPForbidden(text="This display talks to its own page only.\n")
        socket = web.WebSocketResponse(heartbeat=20, compress=False, max_msg_size=4096, timeout=2.0)
        await socket.prepare(request)
        if not await self._admitted(socket):
            await socket.close(code=4401, message=b"token missing or wrong")
            return socket
        viewer = Viewer()
        self._greet(viewer)
        sending = self._viewers[viewer] = asyncio.create_task(viewer.send_to(socket), name="viewer")
        try:
            async for _ in socket:  # pages have nothing more to say; reading is what notices that they left
                pass
        finally:
            del self._viewers[viewer]
            await _cancelled(sending)
        return socket

    async def _download(self, request: web.Request) -> web.StreamResponse:
        """Send a session as a zip, to our own page or to a program that has the token."""
        if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise web.HTTPForbidden(text="This display talks to its own page only.\n")
        if self.token is not None and not _same(request.headers.get("Authorization", ""), f"Bearer {self.token}"):
            raise web.HTTPUnauthorized(text="The token of the page's address is needed.\n")
        name = request.match_info["name"]
        if name not in self._sessions or not is_session(name):
            raise web.HTTPNotFound(text=f"No session {name!r} here.\n")
        archived = self._archive is not None and self._archive.session == name
        files = entries(self._archive.folder) if self._archive and archived else self._memory.entries(name)
        response = web.StreamResponse(
            headers={
                **HEADERS,
                "Content-Type": "application/zip",
                "Content-Disposition": f'attachment; filename="{name}.zip"',
            }
        )
        await response.prepare(request)
        chunks = zipped(files, name)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            await response.write(chunk)
        await response.write_eof()
        return response

    async def _admitted(self, socket: web.WebSocketResponse) -> bool:
        try:
            message = await socket.receive(timeout=10.0)
            token = json.loads(message.data).get("token", "") if message.type is WSMsgType.TEXT else None
        except (TimeoutError, ValueError, AttributeError, RecursionError):
            return False
        if self.token is None:
            return token is not None
        return isinstance(token, str) and _same(token, self.token)

    def _greet(self, viewer: Viewer) -> None:
        viewer.note(self._broker_note)
        for view in self._sessions.values():
            for note in view.notes.values():
                viewer.note(note)
            for frame in view.catch_up():
                viewer.frame(frame)

    async def _read(self, messages: Subscriber) -> None:
        async for message in messages:
            try:
                self._take(message)
            except PublishError as error:  # what comes from outside must not end the display
                logger.warning("left out: %s", error)

    def _take(self, message: Message) -> None:
        if message.kind == "connection":
            self._broker_note = {"type": "broker", **message.json()}
            self._tell(self._broker_note)
            return
        view = self._view(message.session)
        if message.kind in ("status", "metrics"):
            note = {"type": message.kind, "session": message.session, message.kind: message.json()}
            view.notes[message.kind] = note
            self._tell(note)
        elif (frame := view.assembler.add(message)) is not None:
            view.remember(frame)
            self._memory.add(frame)
            for viewer in self._viewers:
                viewer.frame(frame)

    def _view(self, session: str) -> SessionView:
        if session not in self._sessions:
            if len(self._sessions) >= MAX_SESSIONS:
                raise PublishError(f"session {session}: a display shows {MAX_SESSIONS} sessions at most")
            self._sessions[session] = SessionView(self._history)
        return self._sessions[session]

    def _tell(self, note: dict[str, Any]) -> None:
        for viewer in self._viewers:
            viewer.note(note)


def _same(given: str, wanted: str) -> bool:
    """Compare secrets in a time that tells nothing of them."""
    return hmac.compare_digest(given.encode(errors="surrogatepass"), wanted.encode())


async def _file(name: str) -> web.StreamResponse:
    return web.FileResponse(STATIC / name)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
