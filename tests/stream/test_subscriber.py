"""The receiving end among hostile and broken peers."""

import asyncio

import aiomqtt
import pytest

from stream.mqtt.broker import EmbeddedBroker
from stream.mqtt.publisher import Publisher
from stream.mqtt.subscriber import Subscriber
from tests.brokers import until

JPEG = b"\xff\xd8\xff\xe0"


async def test_an_error_nobody_expected_costs_a_connection_and_not_the_subscriber(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When taking a message in fails by a fault of ours, that is logged, told as a lost connection, and it goes on."""
    faults = [RuntimeError("the clock is gone")]

    def clock() -> float:
        if faults:
            raise faults.pop()
        return 1.0

    async with (
        EmbeddedBroker() as broker,
        Subscriber(broker.spec, "lab", clock=clock) as subscriber,
        Publisher(broker.spec, "lab") as publisher,
    ):
        await until(lambda: subscriber.reconnects == 1)
        publisher.picture(JPEG, {"window_id": "w"})
        kinds = []
        async with asyncio.timeout(20):
            async for message in subscriber:
                kinds.append((message.kind, b"clock is gone" in message.payload))
                if message.kind == "picture":
                    break
    assert ("connection", True) in kinds
    assert "RuntimeError: the clock is gone" in caplog.text


async def test_refused_messages_are_counted_by_reason_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """A flood of messages of sessions that cannot be is one line in the log, and each is counted."""
    async with (
        EmbeddedBroker() as broker,
        Subscriber(broker.spec, "+") as subscriber,
        aiomqtt.Client("127.0.0.1", broker.port) as stranger,
    ):
        for number in range(50):
            await stranger.publish("minddiffuser/../status", str(number).encode(), qos=1)
        await until(lambda: subscriber.refused == 50)
        assert subscriber.refusals.as_dict() == {"message: session name": 50}
        assert caplog.text.count("minddiffuser/../status") == 1


async def test_dropped_messages_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """A reader that does not read loses the oldest, and the log says how many."""
    async with (
        EmbeddedBroker() as broker,
        Subscriber(broker.spec, "lab", queue=4) as subscriber,
        aiomqtt.Client("127.0.0.1", broker.port) as stranger,
    ):
        for number in range(20):
            await stranger.publish("minddiffuser/lab/status", str(number).encode(), qos=1)
        await until(lambda: subscriber.dropped >= 16)
        assert "faster than they are read: 1 dropped so far" in caplog.text
