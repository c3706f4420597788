"""The display's listening socket: who may connect, how long for nothing, and under which addresses."""

import asyncio
import logging
import socket
from collections.abc import Iterable

from aiohttp import web

from stream.errors import WireError
from stream.mqtt.refusals import Refusals
from stream.mqtt.wire_models import printable
from stream.tasks import one_line

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANYWHERE = ("", "0.0.0.0", "::")  # noqa: S104  what a user may have asked for
MAX_CONNECTIONS = 256
IDLE_S = 15.0
"""Seconds that a connection may take for a request, or keep quiet between two."""


class BrokenRequests(logging.Logger):
    """Takes aiohttp's tracebacks of broken requests: all are counted, and a few are logged, as a line."""

    def __init__(self, refusals: Refusals) -> None:
        super().__init__(__name__, logging.WARNING)
        self._refusals = refusals

    def handle(self, record: logging.LogRecord) -> None:
        """Count a record by its error's type."""
        error = record.exc_info[1] if record.exc_info else None
        reason = type(error).__name__ if error else "error"
        words = one_line(error) if error else printable(record.getMessage())
        self._refusals.add("HTTP request", WireError(reason, f"HTTP request: {words}"))


def runner_of(app: web.Application, refusals: Refusals) -> web.AppRunner:
    """Return a runner for an app that strangers may reach."""
    return web.AppRunner(
        app, access_log=None, logger=BrokenRequests(refusals), keepalive_timeout=IDLE_S, shutdown_timeout=1.0
    )


async def listen(runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
    """Accept connections, `MAX_CONNECTIONS` at a time; those beyond are closed at once.

    Raises
    ------
    OSError
        The port is taken or the address is not ours.
    """
    server, loop = runner.server, asyncio.get_running_loop()
    assert server is not None

    def connection() -> asyncio.Protocol:
        handler = server()
        if len(server.connections) >= MAX_CONNECTIONS:
            loop.call_soon(loop.call_soon, handler.force_close)  # once it has its transport
        return handler

    listening = await loop.create_server(connection, host or None, port, reuse_address=True)
    first, *others = [one.getsockname()[1] for one in listening.sockets]
    if any(other != first for other in others):  # any free port, but the same for each kind of address
        listening.close()
        listening = await loop.create_server(connection, host or None, first, reuse_address=True)
    return listening


def plainly(host: str, server: asyncio.Server) -> str:
    """Return a listening address as it was asked for, or, where it stands for all in whatever spelling, one of ours."""
    everywhere = {str(one.getsockname()[0]) for one in server.sockets} & set(ANYWHERE)
    if not everywhere:
        return host
    return ANYWHERE[0] if len(everywhere) > 1 else everywhere.pop()


def local(host: str) -> str:
    """Return where a listening address is reached from this machine."""
    if host not in ANYWHERE:
        return host
    return LOOPBACK[2] if host == "::" else LOOPBACK[0]


def addresses(host: str) -> list[str]:
    """Return where a listening address is reached from, this machine's own way first.

    For an address that stands for all, these are loopback, the addresses of the interfaces, and the host's name.
    """
    if host not in ANYWHERE:
        return [host]
    name = socket.gethostname()
    numbers = [*_outward(), *_named(name)]
    if host:
        numbers = [number for number in numbers if (":" in number) == (host == "::")]
    return list(dict.fromkeys([local(host), *numbers, *([name] if numbers else [])]))


def _outward() -> Iterable[str]:
    """Yield the addresses that packets to elsewhere leave from; nothing is sent."""
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                yield probe.getsockname()[0]
        except OSError:
            continue


def _named(name: str) -> list[str]:
    """Return what a host's name stands for, without loopback and what holds on one link only."""
    try:
        infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    found = [str(info[4][0]) for info in infos]
    return [one for one in dict.fromkeys(found) if not one.startswith(("127.", "fe80:")) and one != "::1"]
