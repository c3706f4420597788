"""The display's server, over real sockets: who gets in, and that nobody waits for anybody."""

import asyncio
import contextlib
import io
import json
import socket
import struct
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minddiffuser.archive.archive import Archive
from minddiffuser.config.spec import ArchiveSpec
from minddiffuser.display.server import Display
from minddiffuser.display.viewers import QUEUE, Memory
from minddiffuser.errors import AppError
from stream.errors import PublishError
from stream.mqtt.broker import BrokerSpec, EmbeddedBroker
from stream.mqtt.frames import Frame
from stream.mqtt.publisher import Publisher


def picture(number: int, side: int = 8) -> bytes:
    """Make a PNG of noise, so that its size is that of its pixels; another for every number."""
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 60).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue() + number.to_bytes(4)


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  other processes are waited for, too
            await asyncio.sleep(0.01)


class Page:
    """A browser's half of the socket."""

    def __init__(self, display: Display, token: str | None = None) -> None:
        self.url = display.url.split("#")[0].replace("http", "ws") + "socket"
        self.token = display.token if token is None else token
        self.notes: list[dict[str, Any]] = []
        self.frames: list[tuple[dict[str, Any], dict[str, bytes]]] = []
        self.closed: int | None = None

    async def __aenter__(self) -> "Page":
        self.http = aiohttp.ClientSession()
        self.socket = await self.http.ws_connect(self.url)
        await self.socket.send_json({"token": self.token or ""})
        self.task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.http.close()

    async def _read(self) -> None:
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.notes.append(json.loads(message.data))
            else:
                self.frames.append(unpack(message.data))
        self.closed = self.socket.close_code

    def finals(self) -> list[str]:
        """Windows of the final pictures, as they came."""
        return [header["window_id"] for header, _ in self.frames if header["stage"] == "picture"]


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Take a frame apart as the page does."""
    (length,) = struct.unpack(">I", data[:4])
    header, at, parts = json.loads(data[4 : 4 + length]), 4 + length, {}
    for part in header["parts"]:
        parts[part["kind"]] = data[at : at + part["bytes"]]
        at += part["bytes"]
    assert at == len(data)
    return header, parts


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    """Run an embedded broker."""
    async with EmbeddedBroker() as running:
        yield running


async def test_all_viewers_get_every_picture_once(broker: EmbeddedBroker) -> None:
    """Twenty viewers that keep up get each picture's very bytes, each once, and the status and metrics."""
    async with Display(broker.spec) as display, Publisher(broker.spec, "lab", data="simulated EEG") as publisher:
        pages = [await Page(display).__aenter__() for _ in range(20)]
        await until(lambda: display.viewers == 20)
        publisher.status({"state": "running"})
        publisher.metrics({"rates": {"pictures": 1.5}})
        sent = {}
        for i in range(10):
            sent[f"w{i}"] = {kind: picture(i) for kind in ("original", "preview", "picture")}
            for kind, payload in sent[f"w{i}"].items():
                getattr(publisher, kind)(payload, {"window_id": f"w{i}"})
            await publisher.flush()
            await until(lambda: all(f"w{i}" in page.finals() for page in pages))  # noqa: B023
        for page in pages:
            assert page.finals() == list(sent)
            got: dict[str, dict[str, bytes]] = {}
            for header, parts in page.frames:
                assert not set(parts) & set(got.setdefault(header["window_id"], {}))
                got[header["window_id"]].update(parts)
            assert got == sent
            assert {"type": "broker", "connected": True, "error": ""} in page.notes
            assert any(n["type"] == "status" and n["status"]["data"] == "simulated EEG" for n in page.notes)
            assert any(n["type"] == "metrics" and n["metrics"]["rates"] == {"pictures": 1.5} for n in page.notes)
            await page.__aexit__()
        await until(lambda: display.viewers == 0)


async def test_late_viewer_gets_status_and_the_last_pictures(broker: EmbeddedBroker) -> None:
    """Who opens the page late finds the state of the session and its last pictures, oldest first."""
    async with Display(broker.spec, history=3) as display, Publisher(broker.spec, "lab") as publisher:
        async with Page(display) as early:
            publisher.status({"state": "running"})
            for i in range(5):
                publisher.picture(picture(i), {"window_id": f"w{i}"})
            await until(lambda: len(early.finals()) == 5)
        async with Page(display) as late:
            await until(lambda: len(late.finals()) == 3)
            assert late.finals() == ["w2", "w3", "w4"]
            assert any(n["type"] == "status" and n["status"]["state"] == "running" for n in late.notes)


async def test_a_display_that_ends_says_goodbye_after_its_session(broker: EmbeddedBroker) -> None:
    """Each page gets the last word of the session that ends with its display, and then a close that is no failure."""
    async with Publisher(broker.spec, "lab") as publisher:
        async with Display(broker.spec, own="lab") as display:
            publisher.status({"state": "running"})
            pages = [await Page(display).__aenter__() for _ in range(3)]
            await until(lambda: all(any(n["type"] == "status" for n in page.notes) for page in pages))
            publisher.picture(picture(1), {"window_id": "w1"})
            publisher.status({"state": "ended"})
        for page in pages:
            await until(lambda: page.closed is not None)  # noqa: B023
            assert page.closed == aiohttp.WSCloseCode.GOING_AWAY
            assert page.finals() == ["w1"]
            assert [n["status"]["state"] for n in page.notes if n["type"] == "status"][-1] == "ended"
            await page.__aexit__()


async def test_frozen_viewer_costs_nobody_anything(broker: EmbeddedBroker) -> None:
    """A viewer that stops reading holds a few frames at most, while another gets every picture."""
    async with Display(broker.spec) as display, Publisher(broker.spec, "lab") as publisher:
        frozen = socket.create_connection(("127.0.0.1", display.port))
        frozen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        handshake = (
            f"GET /socket HTTP/1.1\r\nHost: 127.0.0.1:{display.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        frozen.sendall(handshake.encode() + b"\x81\x82\0\0\0\0{}")
        await until(lambda: display.viewers == 1)
        stuck = next(iter(display._viewers))
        async with Page(display) as page:
            await until(lambda: display.viewers == 2)
            for i in range(60):
                publisher.picture(picture(i, side=512), {"window_id": f"w{i}"})
                await until(lambda: f"w{i}" in page.finals())  # noqa: B023
            assert page.finals() == [f"w{i}" for i in range(60)]
            assert stuck.skipped > 0
            assert len(stuck._frames) <= QUEUE
            assert stuck._frames[-1].window_id == "w59"
        frozen.close()


async def test_broker_away_and_back_is_told(broker: EmbeddedBroker) -> None:
    """Pages learn that the broker is lost, and that it is back."""
    async with EmbeddedBroker() as doomed:
        spec = doomed.spec
        display = await Display(spec).__aenter__()
    try:
        async with Page(display) as page:
            await until(lambda: any(n["type"] == "broker" and not n["connected"] for n in page.notes))
            async with EmbeddedBroker(spec.resolved_port):
                await until(lambda: page.notes[-1]["type"] == "broker" and page.notes[-1]["connected"])
    finally:
        await display.__aexit__(None, None, None)


async def test_other_sites_and_names_are_turned_away(broker: EmbeddedBroker) -> None:
    """A page of another origin, and a name that was pointed at loopback, get neither page nor socket."""
    async with Display(broker.spec) as display, aiohttp.ClientSession() as http:
        there = f"http://127.0.0.1:{display.port}"
        async with http.get(there) as answer:
            assert answer.status == 200
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "://" not in policy
        async with http.get(there, headers={"Host": "evil.example"}) as answer:
            assert answer.status == 403
        for origin in ("http://evil.example", f"http://127.0.0.1:{display.port + 1}", "null"):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await http.ws_connect(f"{there}/socket", headers={"Origin": origin})
        for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/server.py"):
            async with http.get(there + path) as answer:
                assert answer.status in (403, 404)


async def test_token_opens_and_nothing_else_does(broker: EmbeddedBroker) -> None:
    """On a network address the page's address holds a token; a wrong or missing one is turned away."""
    async with Display(broker.spec, "0.0.0.0") as display:  # noqa: S104
        assert display.token is not None
        assert display.url.endswith(f"#token={display.token}")
        async with Page(display) as page:
            await until(lambda: page.notes)
        for wrong in ("", "wrong", "ü" * 24):
            async with Page(display, token=wrong) as page:
                await until(lambda: page.closed)
                assert page.closed == 4401
                assert not page.notes


@pytest.mark.parametrize("hello", [b"[]", b"3", b"{", b"null", b"[" * 3000, b'{"token": [1]}'])
async def test_odd_greetings_are_turned_away(broker: EmbeddedBroker, hello: bytes) -> None:
    """Whatever a client says first, it is let in with the token or closed, and the server lives."""
    async with Display(broker.spec, token="secret") as display, aiohttp.ClientSession() as http:  # noqa: S106
        client = await http.ws_connect(f"http://127.0.0.1:{display.port}/socket")
        await client.send_str(hello.decode())
        async with asyncio.timeout(10):
            await client.receive()
        assert client.close_code == 4401
        async with Page(display) as page:
            await until(lambda: page.notes)


async def test_taken_port_and_missing_broker_are_one_line(broker: EmbeddedBroker) -> None:
    """A port in use and a broker that is not there are told in one line, and nothing stays behind."""
    with pytest.raises(AppError, match=f"cannot listen on 127.0.0.1:{broker.port}") as caught:
        await Display(broker.spec, port=broker.port).__aenter__()
    assert "\n" not in str(caught.value)
    with pytest.raises(PublishError, match="cannot be reached"):
        await Display(BrokerSpec(host="127.0.0.1", port=1)).__aenter__()
    async with Display(broker.spec) as display:
        assert display.port > 0
    ours = ("display", "viewer", "subscriber", "publisher")
    await until(lambda: not any(task.get_name().startswith(ours) for task in asyncio.all_tasks()))


@given(hello=st.binary(max_size=200) | st.text(max_size=200), more=st.lists(st.binary(max_size=200), max_size=3))
@settings(max_examples=30, deadline=None)
def test_whatever_a_browser_sends_the_server_lives(hello: bytes | str, more: list[bytes]) -> None:
    """Any first message and any after it, of text or bytes: that viewer is let in or closed, the next is served."""

    async def attack() -> None:
        async with EmbeddedBroker() as running, Display(running.spec) as display, aiohttp.ClientSession() as http:
            client = await http.ws_connect(f"http://127.0.0.1:{display.port}/socket")
            with contextlib.suppress(ConnectionError):
                await (client.send_str(hello) if isinstance(hello, str) else client.send_bytes(hello))
                for message in more:
                    await client.send_bytes(message)
            async with Page(display) as page:
                await until(lambda: page.notes)
            await client.close()

    asyncio.run(attack())


async def test_raw_rubbish_on_the_socket_ends_only_itself(broker: EmbeddedBroker) -> None:
    """Frames that break the protocol and messages beyond the limit close their own connection."""
    handshake = (
        "GET /socket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with Display(broker.spec) as display:
        for rubbish in (b"\xff" * 64, b"\x81\xff" + b"\x7f" * 16, b"\x82\xfe\xff\xff\0\0\0\0" + bytes(65535)):
            reader, writer = await asyncio.open_connection("127.0.0.1", display.port)
            writer.write(handshake.encode() + rubbish)
            async with asyncio.timeout(15):
                with contextlib.suppress(ConnectionError):
                    await reader.read()
            writer.close()
        async with Page(display) as page:
            await until(lambda: page.notes)


async def test_download_holds_what_was_published(broker: EmbeddedBroker, tmp_path: Path) -> None:
    """The zip has each published file, from memory or from the archive; who lacks the token gets none of it."""
    archive = Archive(ArchiveSpec(folder=tmp_path), "kept", {"data": "simulated EEG"})
    async with (
        Display(broker.spec, token="secret", archive=archive) as display,  # noqa: S106
        Publisher(broker.spec, "lab") as one,
        Publisher(broker.spec, "kept") as other,
        Page(display) as page,
        aiohttp.ClientSession() as http,
    ):
        one.picture(picture(1), {"window_id": "w1"})
        other.picture(picture(2), {"window_id": "w2"})
        await until(lambda: sorted(page.finals()) == ["w1", "w2"])
        archive.add(Frame("kept", "w3", "picture", {"window_id": "w3"}, {"picture": picture(3)}))
        address = f"http://127.0.0.1:{display.port}/sessions/%s.zip"
        key = {"Authorization": "Bearer secret"}
        for session, name, payload in (("lab", "w1", picture(1)), ("kept", "w3", picture(3))):
            async with http.get(address % session, headers=key) as answer:
                assert answer.status == 200
                with zipfile.ZipFile(io.BytesIO(await answer.read())) as content:
                    # Windows end in the picture's own running number, so their bytes are told apart.
                    assert content.read(f"{session}/{name}.picture.png")[-4:] == payload[-4:]
                    assert f"{session}/session.json" in content.namelist()
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({**key, "Sec-Fetch-Site": "cross-site"}, 403),
        ):
            async with http.get(address % "lab", headers=headers) as answer:
                assert answer.status == status
        for nobody in ("other", "..%2flab", "%00"):
            async with http.get(address % nobody, headers=key) as answer:
                assert answer.status == 404


def test_memory_forgets_the_oldest_and_says_so() -> None:
    """What is remembered for downloads stays within its bytes, and the account in it says what is gone."""
    memory = Memory(limit=10 * 5000)
    for number in range(30):
        memory.add(
            Frame("lab", f"w{number:02d}", "picture", {"window_id": f"w{number:02d}"}, {"picture": picture(1, 62)})
        )
    files = dict(memory.entries("lab"))
    kept = sorted(name for name in files if name.endswith(".png"))
    assert kept[-1] == "w29.picture.png"
    assert sum(len(files[name]) for name in kept) <= 50_000
    assert json.loads(files["session.json"])["removed"] == 30 - len(kept) > 0
