"""Publisher and subscriber against the embedded broker, over real sockets."""

import asyncio
import hashlib
import io
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable

import aiomqtt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stream.errors import PublishError
from stream.mqtt.broker import BrokerSpec, EmbeddedBroker
from stream.mqtt.frames import Assembler, Frame
from stream.mqtt.messages import Message, content_type, to_json
from stream.mqtt.publisher import Publisher
from stream.mqtt.subscriber import Subscriber
from stream.mqtt.topics import topic_of

CONNACK, SUBACK_DENIED = b"\x20\x02\x00\x00", 0x80


def picture(number: int, file_format: str = "JPEG") -> bytes:
    """Make a small picture file, another for every number."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (50, 99, 200)).save(buffer, file_format, comment=str(number).encode())
    return buffer.getvalue()


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  other processes are waited for, too
            await asyncio.sleep(0.01)


class Reader:
    """Collects what a subscriber gets."""

    def __init__(self, broker: BrokerSpec, session: str = "lab") -> None:
        self.subscriber = Subscriber(broker, session)
        self.assembler = Assembler()
        self.frames: list[Frame] = []
        self.messages: list[Message] = []

    async def __aenter__(self) -> "Reader":
        await self.subscriber.__aenter__()
        self.task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.subscriber.__aexit__(None, None, None)

    async def _read(self) -> None:
        async for message in self.subscriber:
            self.messages.append(message)
            if frame := self.assembler.add(message):
                self.frames.append(frame)

    def finals(self) -> list[str]:
        """Windows of the final pictures, as they came."""
        return [frame.window_id for frame in self.frames if frame.stage == "picture"]


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    """Run an embedded broker."""
    async with EmbeddedBroker() as running:
        yield running


async def test_every_stage_arrives_with_its_own_meta(broker: EmbeddedBroker) -> None:
    """Original, preview and picture of each window arrive in order, each with a meta that names its bytes."""
    async with Reader(broker.spec) as reader, Publisher(broker.spec, "lab", data="simulated EEG") as publisher:
        for i in range(20):
            meta = {"window_id": f"w{i}", "confidence": np.float32(0.5), "times": {"ready": 1.0}}
            publisher.original(picture(3 * i), meta)
            publisher.preview(picture(3 * i + 1), meta)
            publisher.picture(picture(3 * i + 2), meta)
            await publisher.flush()
        await until(lambda: len(reader.frames) == 60)
        assert [f.stage for f in reader.frames] == ["original", "preview", "picture"] * 20
        last = reader.frames[-1]
        assert last.pictures == {"original": picture(57), "preview": picture(58), "picture": picture(59)}
        assert last.meta["sha256"]["picture"] == hashlib.sha256(picture(59)).hexdigest()
        assert last.meta["confidence"] == 0.5
        assert last.meta["data"] == "simulated EEG"
        assert last.meta["content_type"] == "image/jpeg"
        assert last.meta["times"]["published"] <= last.received
        assert publisher.counts["picture"].published == 20
        assert not any(count.dropped for count in publisher.counts.values())


async def test_late_joiner_gets_the_last_picture_and_its_meta(broker: EmbeddedBroker) -> None:
    """Who comes late, even between a preview and its picture, gets the last final picture with the meta it has."""
    async with Publisher(broker.spec, "lab") as publisher:
        publisher.original(picture(1), {"window_id": "a"})
        publisher.preview(picture(2), {"window_id": "a"})
        publisher.picture(picture(3), {"window_id": "a"})
        publisher.preview(picture(4), {"window_id": "b"})
        await publisher.flush()
        async with Reader(broker.spec) as late:
            await until(lambda: late.frames)
            frame = late.frames[0]
            assert (frame.window_id, frame.stage, frame.retained) == ("a", "picture", True)
            assert frame.pictures == {"original": picture(1), "picture": picture(3)}


async def test_broker_restarts_twice_and_only_the_newest_is_sent() -> None:
    """While the broker is away the newest picture waits for it and the others are counted as dropped."""
    async with EmbeddedBroker() as first:
        spec = first.spec
        publisher, reader = Publisher(spec, "lab", seed=1), Reader(spec)
        await reader.__aenter__()
        await publisher.__aenter__()
    try:
        for outage in (1, 2):
            await until(lambda: not publisher.connected)
            for i in range(5):
                publisher.picture(picture(i), {"window_id": f"{outage}.{i}"})
            async with EmbeddedBroker(spec.resolved_port):
                await until(lambda: publisher.connected and publisher.reconnects == outage)  # noqa: B023
                await until(lambda: reader.subscriber.connected)
                await publisher.flush()
                publisher.picture(picture(9), {"window_id": f"{outage}.end"})
                await until(lambda: f"{outage}.end" in reader.finals())  # noqa: B023
            assert publisher.counts["picture"].dropped == 4 * outage
            assert publisher.counts["picture"].published == 2 * outage
        assert {f"{o}.{i}" for o in (1, 2) for i in range(4)}.isdisjoint(reader.finals())
        assert [m.json()["connected"] for m in reader.messages if m.kind == "connection"][:3] == [True, False, True]
    finally:
        await publisher.__aexit__(None, None, None)
        await reader.__aexit__(None, None, None)


async def test_killed_publisher_is_declared_offline(broker: EmbeddedBroker) -> None:
    """The last will of a publisher killed with SIGKILL says offline; a clean end says so too."""
    code = (
        "import asyncio, sys\nfrom stream.mqtt.broker import BrokerSpec\nfrom stream.mqtt.publisher import Publisher\n"
        "async def main():\n"
        f"    async with Publisher(BrokerSpec(host='127.0.0.1', port={broker.port}, protocol='3.1.1'), 'lab'):\n"
        "        print('up', flush=True)\n        await asyncio.sleep(60)\nasyncio.run(main())\n"
    )
    async with Reader(broker.spec) as reader:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)  # noqa: ASYNC220  it starts at once
        try:
            await until(lambda: any(m.kind == "status" and m.json()["state"] == "starting" for m in reader.messages))
            child.send_signal(signal.SIGKILL)
            await until(lambda: any(m.kind == "status" and m.json()["state"] == "offline" for m in reader.messages))
        finally:
            child.kill()
            child.communicate()
        async with Publisher(broker.spec, "lab") as publisher:
            publisher.status({"state": "running"})
        await until(lambda: reader.messages[-1].kind == "status" and reader.messages[-1].json()["state"] == "offline")


async def test_publishing_from_threads_loses_nothing(broker: EmbeddedBroker) -> None:
    """Pictures handed over by several threads at once are all published, and abstentions beside them."""
    async with Reader(broker.spec) as reader, Publisher(broker.spec, "lab", queue=100) as publisher:

        def work(name: int) -> None:
            for i in range(10):
                publisher.picture(picture(10 * name + i), {"window_id": f"{name}.{i}"})

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        publisher.abstained({"window_id": "none", "reason": "too noisy"})
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])
        await publisher.flush()
        await until(lambda: len(reader.finals()) == 40)
        assert sorted(f.meta["n"] for f in reader.frames if f.stage == "picture") == list(range(1, 41))
        assert next(f for f in reader.frames if f.stage == "abstained").meta["reason"] == "too noisy"


async def fake_broker(after_connack: Callable[[bytes], bytes]) -> asyncio.Server:
    """Start what lets anyone in and then answers by script: what a stuck or a strict one does on the wire."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(CONNACK)
        while data := await reader.read(65536):
            if answer := after_connack(data):
                writer.write(answer)
            elif data[0] >> 4 == 3:
                await asyncio.Event().wait()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


def spec_of(server: asyncio.Server) -> BrokerSpec:
    """How to reach a server that speaks 3.1.1."""
    return BrokerSpec(host="127.0.0.1", port=server.sockets[0].getsockname()[1], protocol="3.1.1")


async def test_stuck_broker_holds_nobody_up_and_drops_are_counted() -> None:
    """With a broker that stops reading, publishing returns and what does not fit the queue is counted as dropped."""
    acknowledged = 0

    def acknowledge_status(data: bytes) -> bytes:
        nonlocal acknowledged
        if data[0] >> 4 == 3 and not acknowledged:
            acknowledged = 1
            length = int.from_bytes(data[2:4]) if data[1] < 128 else int.from_bytes(data[3:5])
            start = 2 if data[1] < 128 else 3
            return b"\x40\x02" + data[start + 2 + length : start + 4 + length]
        return b""

    server = await fake_broker(acknowledge_status)
    publisher = Publisher(spec_of(server), "lab", queue=3)
    await publisher.__aenter__()
    publisher.picture(picture(0), {"window_id": "in flight"})
    await until(lambda: not publisher._parcels)
    for i in range(50):
        publisher.picture(picture(i), {"window_id": str(i)})
    assert publisher.counts["picture"].dropped == 47
    with pytest.raises(PublishError, match="did not take everything within"):
        await publisher.flush(timeout=0.1)
    publisher._task.cancel()
    server.close()


async def test_denied_subscription_is_an_error() -> None:
    """A SUBACK that refuses is told in one line with the topic."""

    def deny(data: bytes) -> bytes:
        message_id = data[3:5]  # after two bytes of length: seven topics are over 127 bytes
        return b"\x90\x09" + message_id + bytes([SUBACK_DENIED] * 7) if data[0] >> 4 == 8 else b""

    server = await fake_broker(deny)
    with pytest.raises(PublishError, match="does not let a client without a name read minddiffuser/lab/original"):
        await Subscriber(spec_of(server), "lab").__aenter__()
    server.close()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (BrokerSpec(host="127.0.0.1", port=1), "127.0.0.1:1 cannot be reached"),
        (BrokerSpec(host="nowhere.invalid"), "nowhere.invalid:1883 cannot be reached"),
        (BrokerSpec(host="a..b"), "a..b:1883 cannot be reached: 'a..b' can be no host"),
        (BrokerSpec(host="x" * 64), f"{'x' * 64}:1883 cannot be reached: '{'x' * 64}' can be no host"),
        (BrokerSpec(), "no broker named"),
    ],
)
async def test_no_broker_is_one_line(spec: BrokerSpec, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that is not there is named in one line, by publisher and subscriber alike, and the log adds none."""
    for end in (Publisher(spec, "lab"), Subscriber(spec, "lab")):
        with pytest.raises(PublishError, match=words) as caught:
            await end.__aenter__()
        assert "\n" not in str(caught.value)
    assert not caplog.records


async def test_taken_port_is_one_line(broker: EmbeddedBroker) -> None:
    """An embedded broker says which port is taken; a second on a free port does its work."""
    with pytest.raises(PublishError, match=f"cannot listen on 127.0.0.1:{broker.port}"):
        await EmbeddedBroker(broker.port).__aenter__()
    async with EmbeddedBroker() as other:
        assert other.port != broker.port


async def test_embedded_broker_leaves_nothing_behind() -> None:
    """After the broker's end its port is free and no task of it runs."""
    before = asyncio.all_tasks()
    async with EmbeddedBroker() as first, Publisher(first.spec, "lab"):
        pass
    await until(lambda: asyncio.all_tasks() <= before)
    async with EmbeddedBroker(first.port):
        pass


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a b", "x" * 65, "ä"])
def test_session_names_cannot_break_topics(name: str) -> None:
    """A session's name that MQTT would read otherwise is refused."""
    if name == "+":
        assert topic_of(name, "meta") == "minddiffuser/+/meta"
    else:
        with pytest.raises(PublishError, match="session name"):
            Publisher(BrokerSpec(host="h"), name)


async def test_bad_input_is_refused_where_it_is_given(broker: EmbeddedBroker) -> None:
    """Bytes that are no picture and metas without a window are the caller's errors, at the call."""
    async with Publisher(broker.spec, "lab") as publisher:
        with pytest.raises(PublishError, match="give JPEG, PNG, WebP or GIF"):
            publisher.picture(b"<svg/>", {"window_id": "w"})
        with pytest.raises(PublishError, match="window_id None"):
            publisher.picture(picture(1), {})


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WebP", "GIF"])
def test_formats_are_told_by_their_bytes(file_format: str) -> None:
    """Each format that Pillow writes is recognised."""
    assert content_type(picture(7, file_format)) == f"image/{file_format.lower()}"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.floats(width=32).map(np.float32),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_strict_whatever_goes_in(value: object) -> None:
    """NaN and infinity become null, so that a browser can parse all that is sent."""

    def forbid(name: str) -> None:
        raise AssertionError(name)

    json.loads(to_json({"value": value}), parse_constant=forbid)


async def test_foreign_messages_do_no_harm(broker: EmbeddedBroker) -> None:
    """Rubbish on our topics is counted and passed over; the next good picture comes through."""
    async with Reader(broker.spec) as reader, aiomqtt.Client("127.0.0.1", broker.port) as stranger:
        await stranger.publish("minddiffuser/lab/meta", b"\xff{]", qos=1)
        await stranger.publish("minddiffuser/lab/meta", b"[" * 100_000, qos=1)
        await stranger.publish("minddiffuser/lab/meta", b'{"window_id": 3}', qos=1)
        await stranger.publish("minddiffuser/lab/picture", b"", qos=1)
        async with Publisher(broker.spec, "lab") as publisher:
            publisher.picture(picture(5), {"window_id": "good"})
            await until(lambda: reader.finals() == ["good"])
        assert reader.assembler.bad == 3


async def test_the_embedded_broker_takes_the_usual_port_if_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no port is asked for it is the usual one; where that is taken, another; and the usual one again after."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        usual = free.getsockname()[1]
    monkeypatch.setattr("stream.mqtt.broker.USUAL_PORT", usual)
    for _ in range(2):
        async with EmbeddedBroker(None) as first, EmbeddedBroker(None) as second:
            assert first.port == usual
            assert second.port not in {0, usual}
            async with Publisher(second.spec, "lab"):
                pass
