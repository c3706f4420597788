"""The display's server: subscribes to a broker over TCP, and hands the newest to any number of browsers.

Every viewer has its own short queue and its own task. One that cannot keep up is caught up with the newest picture; one
that is frozen holds a few references until its heartbeat fails. Nothing else waits for it.

Wire format, server to page: text messages are JSON ({"type": "broker" | "display" | "status" | "metrics", ...};
"display" names the sessions that are shown, the display's own, those of this machine (`local`), how many found no
place, how many messages were refused, how many frames could not be archived and, in `problem`, what is wrong with the
display itself); a binary message is a frame: 4 bytes big-endian length of a JSON header, the header, the picture files
it lists in `parts`, end to end.
A picture is sent once a window and viewer. The page sends one message, {"token": ...}, when it connects.

GET /sessions/NAME.zip is a session as a file: the archive, where there is one, else what the display remembers.
Raw traces and notes: see `minddiffuser.display.local_routes`.
"""

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import WSCloseCode, WSMsgType, web

from minddiffuser.archive.archive import Archive, entries
from minddiffuser.display.download import zipped
from minddiffuser.display.http import LOOPBACK, addresses, listen, local, plainly, runner_of
from minddiffuser.display.local import same
from minddiffuser.display.local_routes import Find, add_local_routes, check_page, nobody
from minddiffuser.display.sessions import Sessions
from minddiffuser.display.viewers import Memory, Viewer
from minddiffuser.errors import AppError
from stream.errors import PublishError, WireError
from stream.mqtt.broker import BrokerSpec
from stream.mqtt.frames import Frame
from stream.mqtt.messages import Message
from stream.mqtt.subscriber import Subscriber
from stream.mqtt.topics import is_session_name
from stream.tasks import one_line, supervised

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
GOODBYE_S = 1.0
"""Seconds that the session beside a display has at its end to say that it is over."""
RESTART_S = 1.0
"""Seconds until messages are read again after an error that nobody expected."""
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
    own : str, optional
        Session that runs beside this display, or the one it is for: it always has a place and is shown first.
    find : callable, optional
        Finds the sessions that run on this machine, by name: their raw traces are shown, and they take notes.

    Attributes
    ----------
    url : str
        To open on this machine.
    urls : list of str
        All that are known to lead here, this machine's own first.
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
        own: str | None = None,
        find: Find = nobody,
    ) -> None:
        self._archive, self._find = archive, find
        self._memory = Memory()
        self.host, self.port = host, port
        self.token = token or (None if host in LOOPBACK else secrets.token_urlsafe(18))
        self._subscriber = Subscriber(broker, session)
        own = own or (archive.session if archive else None) or (session if session != "+" else None)
        self._sessions = Sessions(history, own, self._subscriber.refusals)
        self._viewers: dict[Viewer, tuple[web.WebSocketResponse, asyncio.Task[None]]] = {}
        self._broker_note: dict[str, Any] = {"type": "broker", "connected": True, "error": ""}
        self._problem = ""
        self._own_note = self._note_of_own()
        self._reading: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def url(self) -> str:
        """The page's address; the token is in the fragment, which browsers send to nobody."""
        return self._url(local(self.host))

    @property
    def urls(self) -> list[str]:
        """All addresses of the page that are known, this machine's own first."""
        return [self._url(host) for host in addresses(self.host)]

    def _url(self, host: str) -> str:
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}/" + (f"#token={self.token}" if self.token else "")

    @property
    def viewers(self) -> int:
        """Number of browsers connected now."""
        return len(self._viewers)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            messages = await stack.enter_async_context(self._subscriber)
            runner = runner_of(self._app(), self._subscriber.refusals)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            try:
                server = await listen(runner, self.host, self.port)
            except (OSError, UnicodeError) as error:
                raise AppError(
                    f"display cannot listen on {self.host}:{self.port}: {getattr(error, 'strerror', None) or error}; "
                    "choose another port, or 0 for any free one"
                ) from error
            stack.callback(server.close)
            self.host, self.port = plainly(self.host, server), server.sockets[0].getsockname()[1]
            self._start_reading(messages)
            stack.push_async_callback(self._stop_reading)
            stack.push_async_callback(self._dismiss)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _dismiss(self) -> None:
        """Send browsers what is under way, such as that the session has ended, and close: nothing is lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                while self._expects_more():  # noqa: ASYNC110  of a broker and of sockets
                    await asyncio.sleep(0.02)
        await asyncio.gather(*(_dismissed(*one) for one in list(self._viewers.values())), return_exceptions=True)

    def _expects_more(self) -> bool:
        """Check whether there is, or may come at the end, something to say to a browser."""
        own = self._sessions.get(self._sessions.own or "")
        return bool(self._viewers) and ((own is not None and own.runs()) or any(one.waits for one in self._viewers))

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=4096)
        app.router.add_get("/", lambda _: _file("index.html"))
        app.router.add_get("/socket", self._socket)
        app.router.add_get("/sessions/{name}.zip", self._download)
        add_local_routes(app, self._find, lambda: self.token)
        app.router.add_static("/static", STATIC)
        return app

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Turn away other sites' pages: a loopback server is in reach of every page the browser has open."""
        try:
            host = request.url.host
        except ValueError:
            raise web.HTTPBadRequest(text="The host header is none.\n") from None
        if self.host in LOOPBACK and host not in LOOPBACK:
            raise web.HTTPForbidden(text=f"This display answers to {self.host} only.\n")
        try:
            response = await handler(request)
        except OSError:
            if isinstance(request.match_info.route.resource, web.StaticResource):  # a name that no file can have
                raise web.HTTPNotFound from None
            raise
        if not response.prepared:
            response.headers.update({name: HEADERS[name] for name in HEADERS if name not in response.headers})
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
        # Whatever ends the sending ends the connection too, and the page opens another.
        sending = supervised(viewer.send_to(socket), "viewer", lambda _: request.protocol.force_close())
        self._viewers[viewer] = socket, sending
        try:
            async for _ in socket:  # pages have nothing more to say; reading is what notices that they left
                pass
        finally:
            del self._viewers[viewer]
            await _cancelled(sending)
        return socket

    async def _download(self, request: web.Request) -> web.StreamResponse:
        """Send a session as a zip, to our own page or to a program that has the token."""
        check_page(request, self.token)
        name = request.match_info["name"]
        if name not in self._sessions or not is_session_name(name):
            raise web.HTTPNotFound(text=f"No session {name!r} here.\n")
        archived = self._archive is not None and self._archive.session == name
        files = entries(self._archive.folder) if self._archive and archived else self._remembered(name)
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

    def _remembered(self, name: str) -> Iterator[tuple[str, bytes]]:
        return self._memory.entries(name, self._sessions[name].notes.get("status", {}).get("status"))

    async def _admitted(self, socket: web.WebSocketResponse) -> bool:
        try:
            message = await socket.receive(timeout=10.0)
            token = json.loads(message.data).get("token", "") if message.type is WSMsgType.TEXT else None
        except (TimeoutError, ValueError, AttributeError, RecursionError):
            return False
        if self.token is None:
            return token is not None
        return isinstance(token, str) and same(token, self.token)

    def _greet(self, viewer: Viewer) -> None:
        viewer.note(self._broker_note)
        viewer.note(self._note_of_own())
        for view in self._sessions.values():
            for note in view.notes.values():
                viewer.note(note)
            for frame in view.catch_up():
                viewer.frame(frame)

    def _start_reading(self, messages: Subscriber) -> None:
        """Read messages as long as the display runs; an error that ends it is said on the page, and it begins anew."""

        def died(error: BaseException) -> None:
            self._problem = f"the display stopped reading: {one_line(error)}"
            self._tell_of_own()
            asyncio.get_running_loop().call_later(RESTART_S, self._start_reading, messages)

        if not self._closed:
            self._reading = supervised(self._read(messages), "display", died)

    async def _stop_reading(self) -> None:
        self._closed = True
        if self._reading is not None:
            await _cancelled(self._reading)

    async def _read(self, messages: Subscriber) -> None:
        async for message in messages:
            try:
                self._take(message)
            except PublishError as error:  # what comes from outside must not end the display
                messages.refusals.add(message.kind, error)
            except Exception as error:  # nor must an error of our own
                words = f"{message.kind} of session {message.session}: {one_line(error)}"
                messages.refusals.add(message.kind, WireError("our own error", words), logging.ERROR)
            if self._note_of_own() != self._own_note:
                self._tell_of_own()

    def _take(self, message: Message) -> None:
        if message.kind == "connection":
            self._broker_note = {"type": "broker", **message.json()}
            self._tell(self._broker_note)
            return
        taken = self._sessions.take(message)
        if isinstance(taken, Frame):
            self._memory.add(taken)
            for viewer in self._viewers:
                viewer.frame(taken)
        elif taken is not None:
            self._tell(taken)
        self._problem = ""

    def _note_of_own(self) -> dict[str, Any]:
        return {
            "type": "display",
            "sessions": list(self._sessions),
            "own": self._sessions.own,
            "local": [name for name in self._sessions if self._find(name)],
            "unshown": self._sessions.unshown,
            "refused": self._subscriber.refusals.total,
            "unarchived": self._archive.failed if self._archive else 0,
            "problem": self._problem,
        }

    def _tell_of_own(self) -> None:
        self._own_note = self._note_of_own()
        self._tell(self._own_note)

    def _tell(self, note: dict[str, Any]) -> None:
        for viewer in self._viewers:
            viewer.note(note)


async def _file(name: str) -> web.StreamResponse:
    return web.FileResponse(STATIC / name)


async def _dismissed(socket: web.WebSocketResponse, sending: asyncio.Task[None]) -> None:
    await _cancelled(sending)
    await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the display ends")


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
