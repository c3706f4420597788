"""What must hold on every broker: late joiners, slow and stuck subscribers, announcements, fallback, size limits."""

import asyncio
import json
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import pytest

from stream.errors import PublishError
from stream.mqtt.broker import BrokerSpec, EmbeddedBroker, connect
from stream.mqtt.frames import Assembler, Frame
from stream.mqtt.homeassistant import announcement
from stream.mqtt.messages import Message
from stream.mqtt.publisher import Publisher
from stream.mqtt.subscriber import Subscriber
from stream.mqtt.topics import MAX_JSON, MAX_PICTURE
from tests.brokers import PROGRAM, Mosquitto, until

JPEG = b"\xff\xd8\xff\xe0"
pytestmark = pytest.mark.timeout(60)
needs_mosquitto = pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed (Debian: mosquitto)")


@pytest.fixture(params=["embedded", pytest.param("mosquitto", marks=needs_mosquitto)])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BrokerSpec]:
    """Run an embedded broker, and a Mosquitto."""
    if request.param == "embedded":
        async with EmbeddedBroker() as running:
            yield running.spec
        return
    mosquitto = Mosquitto(tmp_path, "allow_anonymous true")
    mosquitto.start()
    yield BrokerSpec(host="127.0.0.1", port=mosquitto.port)
    mosquitto.kill()


def run(*command: str | Path) -> None:
    """Run a program that is done in a moment."""
    subprocess.run(command, check=True, capture_output=True)


def picture(number: int, size: int = 50_000) -> bytes:
    """Make what passes for a JPEG, of a size, another for every number."""
    return JPEG + number.to_bytes(8) + bytes(size)


async def finals(subscriber: Subscriber, seen: list[Frame]) -> None:
    """Collect the final pictures of a subscriber."""
    assembler = Assembler()
    async for message in subscriber:
        if (frame := assembler.add(message)) and frame.stage == "picture":
            seen.append(frame)  # noqa: PERF401  it is read while it grows


async def test_late_joiners_get_the_last_picture_and_its_meta_within_a_second(broker: BrokerSpec) -> None:
    """Each of ten who come late, while pictures are published, has a picture and its own meta within one second."""
    async with Publisher(broker, "lab") as publisher:
        for number in range(10):
            publisher.original(picture(1000 + number), {"window_id": f"w{number}"})
            publisher.picture(picture(number), {"window_id": f"w{number}"})
            await publisher.flush()
            began = time.monotonic()
            async with Subscriber(broker, "lab") as late:
                seen: list[Frame] = []
                reading = asyncio.create_task(finals(late, seen))
                await until(lambda: seen)  # noqa: B023
                took = time.monotonic() - began
                reading.cancel()
            assert seen[0].retained
            assert seen[0].window_id == f"w{number}"
            assert seen[0].pictures == {"original": picture(1000 + number), "picture": picture(number)}
            assert took < 1.0


async def test_stuck_and_slow_subscribers_hold_nobody_up(broker: BrokerSpec) -> None:
    """One subscriber reads nothing, one pauses half-way: a third gets all, the publisher drops nothing."""
    stuck = socket.create_connection(("127.0.0.1", broker.resolved_port))
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05stuck")
    assert await asyncio.to_thread(stuck.recv, 4) == b"\x20\x02\x00\x00"
    name = b"minddiffuser/+/picture"
    stuck.sendall(bytes([0x82, 5 + len(name)]) + b"\x00\x01" + len(name).to_bytes(2) + name + b"\x00")
    got: list[Frame] = []
    slow_got: list[Frame] = []
    async with (
        Publisher(broker, "lab") as publisher,
        Subscriber(broker, "lab") as quick,
        Subscriber(broker, "lab") as slow,
    ):
        reading = [asyncio.create_task(finals(quick, got))]
        for number in range(100):
            publisher.picture(picture(number), {"window_id": str(number)})
            await publisher.flush()
            if number == 50:
                reading.append(asyncio.create_task(finals(slow, slow_got)))
        await until(lambda: len(got) == len(slow_got) == 100)
        assert [frame.window_id for frame in got] == [str(number) for number in range(100)]
        assert publisher.counts["picture"].dropped == 0
        assert slow.dropped == 0
        for task in reading:
            task.cancel()
    stuck.close()


async def test_home_assistant_finds_the_session(broker: BrokerSpec) -> None:
    """The retained discovery messages name the very topics that pictures and metas are published on."""
    announce = announcement("lab.1", "homeassistant", "image/jpeg")
    async with Publisher(broker, "lab.1", announce=announce):
        found: dict[str, dict[str, object]] = {}
        async with connect(broker) as client, asyncio.timeout(10):
            await client.subscribe("homeassistant/#", qos=0)
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                found[message.topic.value] = json.loads(message.payload)
                if len(found) == 2:
                    break
    image = found["homeassistant/image/minddiffuser_lab_1/picture/config"]
    assert image["image_topic"] == "minddiffuser/lab.1/picture"
    assert image["content_type"] == "image/jpeg"
    confidence = found["homeassistant/sensor/minddiffuser_lab_1/confidence/config"]
    assert confidence["state_topic"] == "minddiffuser/lab.1/meta"
    assert image["device"] == confidence["device"]
    assert image["unique_id"] != confidence["unique_id"]


async def test_a_version_the_broker_does_not_speak_costs_one_attempt_and_no_slot(broker: BrokerSpec) -> None:
    """Two hundred clients, one after the other, that try MQTT 5 first are all let in."""
    spec = broker.model_copy(update={"protocol": "auto"})
    for _ in range(200):
        async with asyncio.timeout(5), connect(spec) as client:
            assert client.version in ("5", "3.1.1")


async def test_a_publisher_that_tries_mqtt5_first_gets_in(broker: BrokerSpec) -> None:
    """With a last will too, which an old broker cannot read in MQTT 5, a publisher falls back and publishes."""
    async with Publisher(broker.model_copy(update={"protocol": "auto"}), "lab") as publisher:
        publisher.picture(picture(1), {"window_id": "w"})
        await publisher.flush()
        assert publisher.counts["picture"].published == 1


async def test_what_is_too_large_is_refused_at_both_ends(broker: BrokerSpec) -> None:
    """A picture beyond the limit is an error where it is given; a foreign message beyond it is counted and let go."""
    async with (
        Publisher(broker, "lab") as publisher,
        Subscriber(broker, "lab") as subscriber,
        aiomqtt.Client("127.0.0.1", broker.resolved_port, protocol=aiomqtt.ProtocolVersion.V311) as stranger,
    ):
        with pytest.raises(PublishError, match=r"bytes: .* are the most"):
            publisher.picture(JPEG + bytes(MAX_PICTURE), {"window_id": "w"})
        await stranger.publish("minddiffuser/lab/meta", b" " * (MAX_JSON + 1), qos=1)
        seen: list[Frame] = []
        reading = asyncio.create_task(finals(subscriber, seen))
        publisher.picture(picture(1), {"window_id": "good"})
        await until(lambda: seen)
        assert subscriber.refused == 1
        reading.cancel()


async def test_sessions_that_cannot_be_are_refused(broker: BrokerSpec) -> None:
    """Who watches all sessions is shown none whose name could not be ours."""
    async with (
        Subscriber(broker, "+") as subscriber,
        aiomqtt.Client("127.0.0.1", broker.resolved_port, protocol=aiomqtt.ProtocolVersion.V311) as stranger,
    ):
        for name in ("a b", "../x", "\u202edab", "x" * 65):
            await stranger.publish(f"minddiffuser/{name}/status", b"{}", qos=1)
        await stranger.publish("minddiffuser/good/status", b"{}", qos=1)
        async with asyncio.timeout(10):
            async for message in subscriber:
                if message.kind != "connection":
                    break
        assert message.session == "good"
        assert subscriber.refused >= 3


def test_pictures_that_wait_for_their_meta_are_bounded_in_bytes() -> None:
    """However large the pictures of a stranger, an assembler holds 64 MB of them at most."""
    assembler = Assembler()
    for number in range(12):
        assembler.add(Message("lab", "picture", picture(number, 15 * 2**20)))
    assert sum(map(len, assembler._pictures.values())) == assembler.size <= 64 * 2**20
    assert assembler.unpaired == 8


@needs_mosquitto
async def test_mqtt5_tags_let_one_topic_tell_its_window(tmp_path: Path) -> None:
    """On MQTT 5 a picture says which window, stage and session it is of, with what a label may hold made harmless."""
    mosquitto = Mosquitto(tmp_path, "allow_anonymous true")
    mosquitto.start()
    spec = BrokerSpec(host="127.0.0.1", port=mosquitto.port)
    try:
        async with connect(spec) as listener, Publisher(spec, "lab") as publisher:
            await listener.subscribe("minddiffuser/lab/picture", qos=1)
            publisher.picture(JPEG, {"window_id": "w\x00\ud800\n7"})
            async with asyncio.timeout(10):
                message = await anext(aiter(listener.messages))
        assert message.properties is not None
        assert message.properties.UserProperty == [("window_id", "w???7"), ("stage", "picture"), ("session", "lab")]
    finally:
        mosquitto.kill()


PLUGIN = next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"), None)


@needs_mosquitto
@pytest.mark.skipif(PLUGIN is None, reason="Mosquitto's dynamic security plug-in is not installed")
async def test_a_denied_subscription_is_one_line(tmp_path: Path) -> None:
    """Where Mosquitto refuses a subscription, the error names user, topic and broker."""
    rules = tmp_path / "dynamic.json"
    run("mosquitto_ctrl", "dynsec", "init", rules, "lab", "open-sesame")
    known = json.loads(rules.read_text())
    known["clients"][0]["roles"] = []  # the default is to deny subscriptions
    rules.write_text(json.dumps(known))
    secret = tmp_path / "secret"
    secret.write_text("open-sesame")
    secret.chmod(0o600)
    mosquitto = Mosquitto(
        tmp_path, "allow_anonymous false", "per_listener_settings false", f"plugin {PLUGIN}",
        f"plugin_opt_config_file {rules}",
    )  # fmt: skip
    mosquitto.start()
    spec = BrokerSpec(host="127.0.0.1", port=mosquitto.port, username="lab", password_file=secret)
    try:
        with pytest.raises(PublishError, match="does not let user 'lab' read minddiffuser/lab/original") as caught:
            await Subscriber(spec, "lab").__aenter__()
        assert "\n" not in str(caught.value)
    finally:
        mosquitto.kill()


@needs_mosquitto
async def test_tls_password_and_rules_together(tmp_path: Path) -> None:
    """Over TLS, with a password and rules, the allowed session is published and read, and another is refused."""
    san = ("-addext", "subjectAltName=IP:127.0.0.1")
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=lab", *san, "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem",
    )  # fmt: skip
    passwords, rules, secret = tmp_path / "passwords", tmp_path / "rules", tmp_path / "secret"
    run("mosquitto_passwd", "-c", "-b", passwords, "lab", "open-sesame")
    rules.write_text("user lab\ntopic readwrite minddiffuser/lab/#\n")
    rules.chmod(0o600)
    secret.write_text("open-sesame")
    secret.chmod(0o600)
    mosquitto = Mosquitto(
        tmp_path, "allow_anonymous false", f"password_file {passwords}", f"acl_file {rules}",
        f"certfile {tmp_path / 'cert.pem'}", f"keyfile {tmp_path / 'key.pem'}",
    )  # fmt: skip
    mosquitto.start()
    spec = BrokerSpec(
        host="127.0.0.1", port=mosquitto.port, username="lab", password_file=secret, ca=tmp_path / "cert.pem"
    )
    try:
        async with Publisher(spec, "lab") as publisher, Subscriber(spec, "lab") as subscriber:
            seen: list[Frame] = []
            reading = asyncio.create_task(finals(subscriber, seen))
            publisher.picture(picture(1), {"window_id": "w"})
            await until(lambda: seen)
            reading.cancel()
        with pytest.raises(PublishError, match="denies user 'lab' the topic minddiffuser/other/status"):
            await Publisher(spec, "other").__aenter__()
    finally:
        mosquitto.kill()
