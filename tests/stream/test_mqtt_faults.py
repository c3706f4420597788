"""A publisher whose broker, callback or own task fails: heard, counted, and back soon."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.errors import PublishError
from stream.mqtt.broker import BrokerSpec, EmbeddedBroker
from stream.mqtt.publisher import Publisher
from stream.mqtt.subscriber import Subscriber
from tests.brokers import PROGRAM, Mosquitto, until

JPEG = b"\xff\xd8\xff\xe0"
needs_mosquitto = pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed (Debian: mosquitto)")
pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    """Run an embedded broker."""
    async with EmbeddedBroker() as running:
        yield running


def picture(number: int, size: int = 2000) -> bytes:
    """Make what passes for a JPEG, of a size, another for every number."""
    return JPEG + number.to_bytes(8) + bytes(size)


def open_accounts(publisher: Publisher) -> list[str]:
    """Name the kinds of which something is unaccounted for."""
    return [
        kind
        for kind, counts in publisher.counts.items()
        if counts.put != counts.published + counts.dropped + counts.denied
    ]


async def test_a_callback_that_fails_costs_nothing_else(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever `on_published` raises, every picture goes out, and the error is in the log."""
    async with Publisher(broker.spec, "lab") as publisher:
        publisher.on_published = lambda *_: 1 // 0  # type: ignore[assignment,return-value]
        for number in range(5):
            publisher.picture(picture(number), {"window_id": str(number)})
        await publisher.flush()
        assert publisher.connected
        assert publisher.counts["picture"].published == 5
    assert "ZeroDivisionError" in caplog.text
    assert not open_accounts(publisher)


async def test_a_publisher_whose_task_is_gone_says_so(broker: EmbeddedBroker) -> None:
    """It is not connected, flush and `ended` raise at once with the reason, and leaving counts what waits."""
    publisher = await Publisher(broker.spec, "lab").__aenter__()
    watching = asyncio.create_task(publisher.ended())
    publisher._task.cancel()
    await until(publisher._task.done)
    assert not publisher.connected
    for number in range(9):
        publisher.picture(picture(number), {"window_id": str(number)})
    await until(lambda: publisher.error is not None)
    assert len(publisher._parcels) == 1
    async with asyncio.timeout(2):
        with pytest.raises(PublishError, match="was cancelled"):
            await publisher.flush()
        with pytest.raises(PublishError, match="was cancelled"):
            await watching
        await publisher.__aexit__(None, None, None)
    publisher.picture(picture(2), {"window_id": "late"})
    assert publisher.counts["picture"].dropped == publisher.counts["picture"].put == 10


async def test_what_fails_in_an_unknown_way_costs_itself(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that no MQTT library announces costs one parcel, or one connection, and no picture after it."""
    faults: list[str] = []

    def clock() -> float:
        if faults:
            raise KeyError(faults.pop())
        return time.monotonic()

    async with Publisher(broker.spec, "lab", clock=clock) as publisher:
        publisher.picture(picture(1), {"window_id": "costs itself"})
        faults.append("under way")
        await publisher.flush()
        assert not faults
        assert publisher.counts["picture"].dropped == 1
        await broker.__aexit__(None, None, None)
        await until(lambda: not publisher.connected)
        faults.append("on the way back")
        async with EmbeddedBroker(broker.port):
            await until(lambda: publisher.connected)
            assert not faults
            publisher.picture(picture(2), {"window_id": "w"})
            await publisher.flush()
            assert publisher.counts["picture"].published == 1
        await broker.__aenter__()
    assert "under way" in caplog.text
    assert "on the way back" in caplog.text
    assert not open_accounts(publisher)


@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whenever_a_publisher_leaves_its_account_closes(broker: EmbeddedBroker, data: st.DataObject) -> None:
    """However many parcels of whatever kind wait or are under way when it is left, cancelled even, all are counted."""
    publisher = await Publisher(broker.spec, "lab", queue=data.draw(st.integers(1, 8))).__aenter__()
    kinds = data.draw(st.lists(st.sampled_from(["original", "preview", "picture", "abstained"]), max_size=12))
    for number, kind in enumerate(kinds):
        if kind == "abstained":
            publisher.abstained({"window_id": str(number)})
        else:
            getattr(publisher, kind)(picture(number), {"window_id": str(number)})
        await asyncio.sleep(data.draw(st.sampled_from([0, 0, 0.001, 0.01])))
    if data.draw(st.booleans()):
        publisher._task.cancel()
    await publisher.__aexit__(None, None, None)
    assert not open_accounts(publisher)
    assert sum(counts.put for counts in publisher.counts.values()) == len(kinds) + 1  # and the status 'offline'


@needs_mosquitto
@pytest.mark.parametrize(
    ("protocol", "limit", "words", "reconnects"),
    [
        ("5", "max_packet_size 20000", "takes 20000 bytes at most", 0),
        ("3.1.1", "max_packet_size 20000", "hung up twice", 2),
        ("5", "message_size_limit 20000", "hung up twice|too large", 2),
    ],
)
async def test_pictures_larger_than_the_broker_takes_are_named_and_let_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: str, limit: str, words: str, reconnects: int
) -> None:
    """The limit costs two connections at most; then large pictures are dropped, with the remedy, and small ones go."""
    mosquitto = Mosquitto(tmp_path, "allow_anonymous true", limit)
    mosquitto.start()
    spec = BrokerSpec.model_validate({"host": "127.0.0.1", "port": mosquitto.port, "protocol": protocol})
    caplog.set_level(logging.INFO, "stream.mqtt.publisher")
    try:
        async with Publisher(spec, "lab", seed=1) as publisher:
            for number in range(20):
                publisher.picture(picture(number, 50_000), {"window_id": f"w{number}"})
                await asyncio.sleep(0.1)
            await until(lambda: publisher.connected and publisher._parcels.idle)
            publisher.picture(picture(99, 500), {"window_id": "small"})
            await publisher.flush()
            counts = publisher.counts["picture"]
            assert (counts.put, counts.published, counts.dropped) == (21, 1, 20)
            assert publisher.reconnects <= reconnects
        (told,) = [
            record.getMessage()
            for record in caplog.records
            if record.name == "stream.mqtt.publisher" and record.levelno == logging.ERROR
        ]
        assert "picture of window w" in told
        assert "lower publish.size or publish.quality" in told
        assert any(word in told for word in words.split("|"))
    finally:
        mosquitto.kill()


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
async def test_the_newest_picture_is_there_soon_after_the_broker_is_back(tmp_path: Path, protocol: str) -> None:
    """Five seconds without a broker, in the middle of a stream of pictures: the next one within three, the newest."""
    mosquitto = Mosquitto(tmp_path, "allow_anonymous true")
    mosquitto.start()
    spec = BrokerSpec.model_validate({"host": "127.0.0.1", "port": mosquitto.port, "protocol": protocol})
    received: list[tuple[float, int]] = []
    put: list[float] = []

    async def publish(publisher: Publisher) -> None:
        while True:
            meta = {"window_id": str(len(put))}
            publisher.original(picture(len(put), 50_000), meta)
            publisher.picture(picture(len(put), 50_001), meta)
            put.append(time.monotonic())
            await asyncio.sleep(0.1)

    async def read() -> None:
        async with Subscriber(spec, "lab") as subscriber:
            async for message in subscriber:
                if message.kind == "picture":
                    received.append((time.monotonic(), int.from_bytes(message.payload[4:12])))  # noqa: PERF401  it is read while it grows

    try:
        async with Publisher(spec, "lab") as publisher:
            tasks = [asyncio.create_task(publish(publisher)), asyncio.create_task(read())]
            await until(lambda: len(received) > 5)
            mosquitto.kill()
            before = len(received)
            await asyncio.sleep(5)
            await asyncio.to_thread(mosquitto.start)
            back = time.monotonic()
            await until(lambda: len(received) > before)
            at, number = received[before]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert at - back < 3.0
        assert at - put[number] < 1.0  # it is no picture of the time without a broker
        assert not open_accounts(publisher)
    finally:
        mosquitto.kill()
