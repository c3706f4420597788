"""`minddiffuser markers`: a door through which pages of a browser send LSL markers.

GET  /markers.js    the page's side, see there
GET  /clock         LSL seconds when the request came and when the answer leaves
POST /marker        {"page", "id", "label", "time": ms of the page's clock, "rounds": [[sent ms, received s,
                    replied s, returned ms], ...] of /clock}; `Authorization: Bearer TOKEN`
GET  /ws            a WebSocket: {"type": "hello", "page", "token"}, then "marker"; the door asks "ping", answered
                    by {"type": "pong", "n", "page": ms}, and says "ready", "sent" and "refused"
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

from aiohttp import WSMsgType, web

from minddiffuser.display.http import LOOPBACK, addresses, listen, plainly, runner_of
from minddiffuser.errors import AppError
from minddiffuser.experiment.door.messages import (
    AHEAD_S,
    MOST_BYTES,
    MOST_ID,
    MOST_ROUNDS,
    Marker,
    Rate,
    SentIds,
    marker_in,
    read,
    text_in,
)
from minddiffuser.experiment.door.page_clock import LEAST_ROUNDS, PageClock, Round, round_of
from stream.errors import WireError
from stream.lsl.discovery import load_lsl
from stream.mqtt.refusals import Refusals
from stream.tasks import supervised

logger = logging.getLogger(__name__)
T = TypeVar("T")

MOST_PAGES = 32
"""Connected at once, and clocks that are kept of pages that may come back."""
BURST = 2 * LEAST_ROUNDS
BURST_EVERY_S = 0.03
EVERY_S = 1.0
"""Between two measurements of a page's clock, after the first few."""
HELLO_S = 10.0
SCRIPT = Path(__file__).parent / "static" / "markers.js"
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}


@dataclass(slots=True)
class Account:
    """What came through the door.

    Attributes
    ----------
    sent : int
        Markers that went to LSL.
    again : int
        Of markers that had been sent already: no second one was.
    unheard : int
        Of those sent, when nobody listened to the stream.
    pages : int
        Connections that were let in.
    most_error_ms : float
        How far a stamp may be wrong at most, by the round trips.
    refused : dict of str to int
        What was not let through, by reason.
    """

    sent: int = 0
    again: int = 0
    unheard: int = 0
    pages: int = 0
    most_error_ms: float = 0.0
    refused: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Page:
    """A page that was let in.

    Attributes
    ----------
    id : str
    socket : WebSocketResponse
    clock : PageClock
    pings : dict of int to float
        When those left that are not answered yet.
    told : bool
        Whether it was told that its clock is known.
    """

    id: str
    socket: web.WebSocketResponse
    clock: PageClock
    pings: dict[int, float] = field(default_factory=dict)
    told: bool = False

    async def measure(self, now: Callable[[], float]) -> None:
        """Ask the page for its time: often at first, then once a second."""
        n = 0
        while not self.socket.closed:
            self.pings[n] = now()
            self.pings.pop(n - BURST, None)
            with contextlib.suppress(ConnectionError):
                await self.socket.send_json({"type": "ping", "n": n})
            n += 1
            await asyncio.sleep(BURST_EVERY_S if n < BURST or not self.clock.ready else EVERY_S)

    async def pong(self, n: object, page: object, received: float) -> None:
        """Take the page's answer, in its milliseconds; tell it once when enough are there."""
        if isinstance(n, int) and n in self.pings and isinstance(page, int | float):
            self.clock.add(round_of(self.pings.pop(n), page / 1000, received))
            if self.clock.ready and not self.told:
                self.told = True
                await self.socket.send_json({"type": "ready", "error_ms": 1000 * self.clock.error_s})


class Door:
    """The door; use as an async context manager.

    Parameters
    ----------
    name : str
        Of the LSL marker stream.
    host : str
        Loopback by default.
    port : int
        0 takes any free port.
    token : str, optional
        Asked of every page; made up when it is not given.
    origins : collection of str
        Other sites whose pages may send, such as 'http://localhost:5173'; 'null' stands for files.
    pages : Path, optional
        Folder that is served, too: its pages need no origin named.

    Attributes
    ----------
    account : Account
    urls : list of str
        Where the door is reached, this machine's own way first.

    Raises
    ------
    AppError
        The port is taken or the address is not ours.
    """

    def __init__(
        self,
        name: str = "browser-markers",
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        token: str | None = None,
        origins: tuple[str, ...] = (),
        pages: Path | None = None,
    ) -> None:
        self.host, self.port, self.token = host, port, token or secrets.token_urlsafe(18)
        self.account = Account()
        self._name, self._origins, self._folder = name, frozenset(origins), pages
        self._refusals, self._sent = Refusals(), SentIds()
        self._clocks: OrderedDict[str, PageClock] = OrderedDict()
        self._rates: OrderedDict[str, Rate] = OrderedDict()
        self._sockets: set[web.WebSocketResponse] = set()

    @property
    def urls(self) -> list[str]:
        """Addresses of the door, without the token."""
        hosts = [f"[{host}]" if ":" in host else host for host in addresses(self.host)]
        return [f"http://{host}:{self.port}" for host in hosts]

    def invitation(self) -> list[str]:
        """Return what a person needs to know, line by line: pages or addresses, the token, the stream."""
        lines = [f"Markers become the LSL stream {self._name!r} (Ctrl-C ends it)"]
        found = sorted(self._folder.glob("*.html")) if self._folder is not None else []
        lines += [f"Page: {url}/{quote(page.name)}#token={self.token}" for page in found for url in self.urls]
        if not found:
            lines += [f"Door: {url}" for url in self.urls] + [f"Token: {self.token}"]
        return lines

    async def __aenter__(self) -> Self:
        self._lsl = load_lsl()
        info = self._lsl.StreamInfo(self._name, "Markers", 1, 0.0, "string", f"{self._name}-door")
        self._outlet = self._lsl.StreamOutlet(info)
        app = web.Application(middlewares=[self._guard], client_max_size=MOST_BYTES)
        app.router.add_get("/markers.js", self._script)
        app.router.add_get("/clock", self._clock)
        app.router.add_post("/marker", self._post)
        app.router.add_get("/ws", self._socket)
        if self._folder is not None:
            app.router.add_static("/", self._folder)
        self._runner = runner_of(app, self._refusals)
        await self._runner.setup()
        try:
            self._server = await listen(self._runner, self.host, self.port)
        except (OSError, UnicodeError) as error:
            await self._runner.cleanup()
            del self._outlet
            raise AppError(
                f"cannot listen on {self.host}:{self.port}: {getattr(error, 'strerror', None) or error}; choose "
                "another port, or 0 for any free one"
            ) from error
        self.host, self.port = plainly(self.host, self._server), self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        await self.hang_up()
        await self._runner.cleanup()
        self.account.refused = self.refused
        del self._outlet  # it is announced as long as it lives, and the app's cycles would keep it

    @property
    def refused(self) -> dict[str, int]:
        """What was not let through so far, by reason."""
        return {reason: count for (_, reason), count in sorted(self._refusals.counts.items())}

    async def hang_up(self) -> None:
        """End all connections; pages open new ones as long as the door is there."""
        for socket in list(self._sockets):
            with contextlib.suppress(ConnectionError):
                await socket.close(code=1001, message=b"the door closes")

    def send(self, page: str, marker: Marker, clock: PageClock) -> float:
        """Send a marker with the time of its flip, once; return its stamp in LSL seconds.

        Raises
        ------
        WireError
            The page's clock is not known yet, its time cannot be, or markers come too fast.
        """
        if (stamp := self._sent.stamp(page, marker.id)) is not None:
            self.account.again += 1
            return stamp
        now = self._lsl.local_clock()
        if not clock.ready:
            raise WireError("clock", f"a marker before {LEAST_ROUNDS} round trips have measured the page's clock")
        stamp = clock.lsl(marker.time)
        if not 0 < stamp < now + AHEAD_S:
            raise WireError("time", f"time of marker {marker.label!r} is {stamp - now:g} s from now")
        if not self._rate(page, now).take(now):
            raise WireError("rate", f"more markers than a page may send ({marker.label!r})")
        self._outlet.push_sample([marker.label], stamp)
        self._sent.add(page, marker.id, stamp)
        self.account.sent += 1
        self.account.unheard += not self._outlet.have_consumers()
        self.account.most_error_ms = max(self.account.most_error_ms, round(1000 * clock.error_s, 3))
        return stamp

    def _rate(self, page: str, now: float) -> Rate:
        return _kept(self._rates, page, lambda: Rate(now))

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Turn away pages of other sites: a loopback server is in reach of every page the browser has open."""
        try:
            own = request.url.host, request.host
        except ValueError:
            raise web.HTTPBadRequest(text="The host header is none.\n") from None
        origin = request.headers.get("Origin")
        if self.host in LOOPBACK and own[0] not in LOOPBACK:
            self._refuse("request", WireError("host", f"a request to {own[0]!r}, which this door is not"))
            raise web.HTTPForbidden(text=f"This door answers to {self.host} only.\n")
        if origin is not None and origin.split("://")[-1] != own[1] and origin not in self._origins:
            self._refuse("request", WireError("origin", f"a page of {origin!r}; --origin would let it in"))
            raise web.HTTPForbidden(text="This door is closed to pages of that site; see --origin.\n")
        cross = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if origin in self._origins and origin else {}
        if request.method == "OPTIONS":
            allowed = {"Access-Control-Allow-Headers": "authorization, content-type", "Access-Control-Max-Age": "600"}
            return web.Response(status=204, headers=cross | allowed)
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS | cross)
        return response

    async def _script(self, _: web.Request) -> web.Response:
        return web.Response(text=SCRIPT.read_text("utf-8"), content_type="text/javascript")

    async def _clock(self, _: web.Request) -> web.Response:
        return web.json_response({"received": self._lsl.local_clock(), "replied": self._lsl.local_clock()})

    async def _post(self, request: web.Request) -> web.Response:
        if not self._same(request.headers.get("Authorization", "").removeprefix("Bearer ")):
            self._refuse("marker", WireError("token", "a marker without the door's token"))
            raise web.HTTPUnauthorized(text="token missing or wrong\n")
        try:
            message = read(await request.read())
            clock = PageClock()
            for each in _rounds(message.get("rounds")):
                clock.add(each)
            stamp = self.send(text_in(message, "page", MOST_ID), marker_in(message), clock)
        except web.HTTPRequestEntityTooLarge:
            self._refuse("marker", WireError("size", f"a message of more than {MOST_BYTES} bytes"))
            raise
        except WireError as error:
            self._refuse("marker", error)
            return web.json_response({"error": str(error), "reason": error.reason}, status=400)
        return web.json_response({"stamp": stamp})

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=20, compress=False, max_msg_size=MOST_BYTES, timeout=2.0)
        await socket.prepare(request)
        name = await self._admitted(socket)
        if name is None:
            return socket
        self._sockets.add(socket)
        self.account.pages += 1
        page, now = _Page(name, socket, _kept(self._clocks, name, PageClock)), self._lsl.local_clock
        # Without it the page's clock would go wrong unseen: the connection ends, and the page opens another.
        measuring = supervised(page.measure(now), "clock of a page", lambda _: request.protocol.force_close())
        try:
            async for frame in socket:
                received = now()
                if frame.type is WSMsgType.TEXT:
                    await self._answer(page, frame.data, received)
                else:
                    self._refuse("message", WireError("json", "a message that is no text"))
        finally:
            self._sockets.discard(socket)
            measuring.cancel()
            await asyncio.gather(measuring, return_exceptions=True)
        return socket

    async def _admitted(self, socket: web.WebSocketResponse) -> str | None:
        """Return the page's id if it has the token and there is room; else close the socket."""
        try:
            first = await socket.receive(timeout=HELLO_S)
            message = read(first.data if first.type is WSMsgType.TEXT else "")
            if not self._same(message.get("token")):
                raise WireError("token", "a page without the door's token")
            if len(self._sockets) >= MOST_PAGES:
                raise WireError("pages", f"one page more than {MOST_PAGES}")
            return text_in(message, "page", MOST_ID)
        except (WireError, TimeoutError) as error:
            refusal = error if isinstance(error, WireError) else WireError("hello", "a page that did not say hello")
            self._refuse("page", refusal)
            await socket.close(code=4401, message=refusal.reason.encode())
            return None

    async def _answer(self, page: _Page, text: str, received: float) -> None:
        """Take one message of a page."""
        marker_id = None
        with contextlib.suppress(ConnectionError):  # of a page that has gone: it asks again when it is back
            try:
                message = read(text)
                marker_id = message.get("id")
                if message.get("type") == "pong":
                    await page.pong(message.get("n"), message.get("page"), received)
                elif message.get("type") == "marker":
                    stamp = self.send(page.id, marker_in(message), page.clock)
                    await page.socket.send_json({"type": "sent", "id": marker_id, "stamp": stamp})
                else:
                    raise WireError("type", "a message that is neither marker nor pong")
            except WireError as error:
                self._refuse("marker", error)
                refusal = {"type": "refused", "id": str(marker_id)[:MOST_ID], "reason": str(error)}
                await page.socket.send_json(refusal)

    def _same(self, token: object) -> bool:
        return isinstance(token, str) and hmac.compare_digest(token.encode(), self.token.encode())

    def _refuse(self, kind: str, error: WireError) -> None:
        self._refusals.add(kind, error)


def _kept(kept: OrderedDict[str, T], key: str, make: Callable[[], T]) -> T:
    """Return what is kept under a key, made when it is new; those not asked for longest make room."""
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > MOST_PAGES:
        kept.popitem(last=False)
    return kept[key]


def _rounds(value: Any) -> list[Round]:
    """Return the round trips that a page has measured by /clock.

    Raises
    ------
    WireError
        They are none.
    """
    rounds = []
    for each in value[-MOST_ROUNDS:] if isinstance(value, list) else []:
        good = isinstance(each, list) and len(each) == 4 and all(isinstance(part, int | float) for part in each)
        if not good:
            raise WireError("clock", "rounds must be lists of four numbers: sent, received, replied, returned")
        sent, received, replied, returned = map(float, each)
        middle = (received + replied) / 2
        delay = (returned - sent) / 1000 - (replied - received)
        measured = round_of(middle - delay / 2, (sent + returned) / 2000, middle + delay / 2)
        if measured:
            rounds.append(measured)
    return rounds
