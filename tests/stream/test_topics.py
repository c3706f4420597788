"""Topics have one registry: what is entered there is published, received, checked and documented."""

import asyncio
from pathlib import Path

import pytest

from stream.errors import PublishError
from stream.mqtt import topics
from stream.mqtt.broker import EmbeddedBroker
from stream.mqtt.client import properties_of
from stream.mqtt.publisher import COUNTED, Publisher
from stream.mqtt.subscriber import Subscriber
from stream.mqtt.topics import JSON_TOPICS, PICTURES, TOPICS, Topic

ROOT = Path(__file__).resolve().parents[2]


def test_each_topic_is_documented() -> None:
    """A page of the documentation has every topic."""
    pages = "\n".join(path.read_text("utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
    absent = [name for name in TOPICS if f"minddiffuser/<session>/{name}" not in pages]
    assert not absent, "run python -m docs.generate"


def test_models_are_of_topics_and_every_message_is_counted() -> None:
    """Every JSON topic of ours has a model and no other has, and what is published is counted once."""
    assert {name for name, topic in TOPICS.items() if topic.model} == {*JSON_TOPICS, "meta"}
    assert sorted(COUNTED) == sorted({*PICTURES, *JSON_TOPICS, "abstained"})


def test_an_entry_is_all_that_a_topic_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is published under a new entry of the registry reaches a subscriber, retained if the entry says so."""
    monkeypatch.setitem(TOPICS, "note", Topic("note", "json", "a test's", retained=True, expiry_s=7))
    for module in ("topics", "publisher"):
        monkeypatch.setattr(f"stream.mqtt.{module}.JSON_TOPICS", (*JSON_TOPICS, "note"))
    monkeypatch.setattr("stream.mqtt.publisher.COUNTED", (*COUNTED, "note"))

    async def run() -> None:
        async with EmbeddedBroker() as broker, Publisher(broker.spec, "lab") as publisher:
            publisher.publish("note", {"text": "hello"})
            await publisher.flush()
            async with Subscriber(broker.spec, "lab") as subscriber:
                async for message in subscriber:
                    if message.kind == "note":
                        assert (message.json(), message.retained) == ({"text": "hello"}, True)
                        return

    asyncio.run(asyncio.wait_for(run(), 10))
    assert properties_of("note", b"{}").MessageExpiryInterval == 7


def test_what_is_no_topic_of_its_own_is_refused() -> None:
    """A meta goes with its picture, and what is not in the registry nowhere."""

    async def run() -> None:
        async with EmbeddedBroker() as broker, Publisher(broker.spec, "lab") as publisher:
            for name in ("meta", "picture", "nonsense"):
                with pytest.raises(PublishError, match=r"there are .*status, metrics"):
                    publisher.publish(name, {})

    asyncio.run(asyncio.wait_for(run(), 10))


def test_sizes_follow_what_is_carried() -> None:
    """Pictures may be larger than JSON."""
    assert TOPICS["picture"].max_size == topics.MAX_PICTURE > TOPICS["meta"].max_size == topics.MAX_JSON
