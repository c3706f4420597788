"""The display's listening socket among strangers: broken requests, idle connections, and addresses that lead here."""

import asyncio
import logging
import socket

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minddiffuser.display import http
from minddiffuser.display.server import Display
from stream.mqtt.broker import EmbeddedBroker
from tests.minddiffuser.test_display import Page, broker, until

__all__ = ["broker"]

GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BROKEN = {
    "chunk size": GET + b"Transfer-Encoding: chunked\r\n\r\nZZZ\r\nxx\r\n",
    "endless chunk size": GET + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nxx\r\n",
    "negative chunk size": GET + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nxx\r\n",
    "megabytes in a header": GET + b"X: " + b"a" * 3_000_000 + b"\r\n\r\n",
    "a hundred thousand headers": GET + b"".join(b"X%d: a\r\n" % i for i in range(100_000)) + b"\r\n",
    "a long line": b"GET /" + b"a" * 2_000_000 + b" HTTP/1.1\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
    "length": GET + b"Content-Length: -5\r\n\r\n",
    "port of the host": b"GET / HTTP/1.1\r\nHost: 127.0.0.1:99999999\r\n\r\n",
    "bytes of the host": b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
    "host": b"GET / HTTP/1.1\r\nHost: [::1]:%zz\r\n\r\n",
    "address": b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "name of a file": b"GET /static/" + b"a" * 5000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "gzip": GET.replace(b"GET", b"POST") + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
}


async def send(port: int, data: bytes, seconds: float = 10.0) -> bytes:
    """Send bytes on a connection of its own; return what comes until it is closed, or until the answer is there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(seconds):
            writer.write(data)
            return await reader.read(4096)
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("what", BROKEN)
async def test_a_broken_request_is_at_most_one_line(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """Ten of a kind are answered or closed and are one line in the log, without a traceback; a page works on."""
    caplog.set_level(logging.INFO)
    async with Display(broker.spec) as display:
        answers = [await send(display.port, BROKEN[what]) for _ in range(10)]
        assert all(answer.startswith((b"HTTP/1.0 4", b"HTTP/1.1 4")) or not answer for answer in answers)
        async with Page(display) as page:
            await until(lambda: page.notes)
    lines = [record for record in caplog.records if record.name != "stream.mqtt.broker.paho"]
    assert len(lines) <= 1
    for record in lines:
        assert record.exc_info is None
        assert "\n" not in record.getMessage()
        assert len(record.getMessage()) < 600


@given(st.lists(st.binary(max_size=300), max_size=4))
@settings(max_examples=25, deadline=None)
def test_whatever_is_sent_the_page_is_served(pieces: list[bytes]) -> None:
    """Any bytes on any connections leave the page in reach of the next."""

    async def attack() -> None:
        async with EmbeddedBroker() as running, Display(running.spec) as display, aiohttp.ClientSession() as client:
            for piece in pieces:
                await send(display.port, piece + b"\r\n\r\n", seconds=0.2)
            async with client.get(display.url) as answer:
                assert answer.status == 200

    asyncio.run(attack())


async def test_a_connection_that_asks_nothing_is_closed(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever connects and sends nothing, or half a request drop by drop, is let go after a while."""
    monkeypatch.setattr(http, "IDLE_S", 0.5)
    async with Display(broker.spec) as display:
        for start in (b"", b"GET / HT", GET + b"X"):
            reader, writer = await asyncio.open_connection("127.0.0.1", display.port)
            writer.write(start)
            async with asyncio.timeout(10):
                assert await reader.read() == b""
            writer.close()


async def test_connections_are_bounded(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of connections new ones are closed at once; when some go, others may come."""
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 20)
    async with Display(broker.spec) as display:
        held = [await asyncio.open_connection("127.0.0.1", display.port) for _ in range(20)]
        reader, writer = await asyncio.open_connection("127.0.0.1", display.port)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        for _, one in [*held, (reader, writer)]:
            one.close()

        async def served() -> bool:
            return (await send(display.port, GET + b"\r\n")).startswith(b"HTTP/1.1 200")

        async with asyncio.timeout(10):
            while not await served():
                pass


@pytest.mark.parametrize("host", ["0.0.0.0", "", "0", "0.0", "0x0"])  # noqa: S104
async def test_every_address_that_is_named_leads_to_the_page(broker: EmbeddedBroker, host: str) -> None:
    """Listening on all interfaces, the page names addresses that answer, with the token, and never 0.0.0.0."""
    async with Display(broker.spec, host) as display, aiohttp.ClientSession() as client:
        assert display.token
        assert display.url == display.urls[0] == f"http://127.0.0.1:{display.port}/#token={display.token}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))
                outward = probe.getsockname()[0]
            except OSError:
                outward = "127.0.0.1"  # a machine without a network
        assert f"http://{outward}:{display.port}/#token={display.token}" in display.urls
        assert len(set(display.urls)) == len(display.urls)
        for url in display.urls:
            assert "0.0.0.0" not in url  # noqa: S104
            assert url.endswith(f"#token={display.token}")
            async with client.get(url) as answer:
                assert answer.status == 200


async def test_one_address_is_named_as_it_is(broker: EmbeddedBroker) -> None:
    """Listening on loopback there is one address, without a token."""
    async with Display(broker.spec) as display:
        assert display.urls == [display.url] == [f"http://127.0.0.1:{display.port}/"]
