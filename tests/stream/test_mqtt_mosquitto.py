"""Publisher and subscriber against a real Mosquitto: MQTT 5, passwords, access rules, TLS, restarts."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.errors import PublishError
from stream.mqtt.broker import BrokerSpec, connect
from stream.mqtt.frames import Assembler
from stream.mqtt.publisher import Publisher
from stream.mqtt.subscriber import Subscriber
from stream.mqtt.topics import topic_of
from tests.brokers import PROGRAM, Mosquitto, until

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed (Debian: mosquitto)")
JPEG = b"\xff\xd8\xff\xe0"


@pytest.fixture
def open_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Anyone may do anything."""
    broker = Mosquitto(tmp_path, "allow_anonymous true")
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def strict_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """User `lab` may write all of session lab but its pictures, and read; anyone else may not even come in."""
    passwords, rules = tmp_path / "passwords", tmp_path / "rules"
    subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, "lab", "open-sesame"], check=True, capture_output=True)
    allowed = [f"topic write minddiffuser/lab/{kind}" for kind in ("status", "preview", "meta", "metrics", "original")]
    rules.write_text("\n".join(["user lab", "topic read minddiffuser/lab/#", *allowed]) + "\n")
    rules.chmod(0o600)
    broker = Mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}", f"acl_file {rules}")
    broker.start()
    yield broker
    broker.kill()


def user(broker: Mosquitto, tmp_path: Path, password: str = "open-sesame", mode: int = 0o600) -> BrokerSpec:  # noqa: S107
    """User `lab` with the password in a file."""
    secret = tmp_path / "secret"
    secret.write_text(password + "\n")
    secret.chmod(mode)
    return BrokerSpec(host="127.0.0.1", port=broker.port, username="lab", password_file=secret)


async def test_mqtt5_carries_content_type_and_expiry(open_broker: Mosquitto) -> None:
    """Where the broker speaks MQTT 5, a picture says what it is and a preview when it is old."""
    spec = BrokerSpec(host="127.0.0.1", port=open_broker.port)
    async with connect(spec) as listener:
        assert listener.version == "5"
        await listener.subscribe(topic_of("lab", "preview"), qos=1)
        async with Publisher(spec, "lab") as publisher:
            publisher.preview(JPEG, {"window_id": "w"})
            message = await anext(aiter(listener.messages))
        assert message.payload == JPEG
        assert message.properties is not None
        assert message.properties.ContentType == "image/jpeg"
        assert 0 < message.properties.MessageExpiryInterval <= 60


async def test_older_protocol_on_request(open_broker: Mosquitto) -> None:
    """MQTT 3.1.1 does the same work: picture and meta meet."""
    spec = BrokerSpec(host="127.0.0.1", port=open_broker.port, protocol="3.1.1")
    assembler = Assembler()
    async with Subscriber(spec, "lab") as subscriber, Publisher(spec, "lab") as publisher:
        publisher.picture(JPEG, {"window_id": "w"})
        async with asyncio.timeout(10):
            async for message in subscriber:
                if frame := assembler.add(message):
                    break
    assert frame.pictures == {"picture": JPEG}


async def test_crash_and_restart_twice(open_broker: Mosquitto) -> None:
    """After each crash of the broker both ends come back by themselves, and only the newest picture is sent."""
    spec = BrokerSpec(host="127.0.0.1", port=open_broker.port)
    assembler, seen = Assembler(), []

    async def read(subscriber: Subscriber) -> None:
        async for message in subscriber:
            if (frame := assembler.add(message)) and frame.stage == "picture":
                seen.append(frame.window_id)  # noqa: PERF401  it is read while it grows

    async with Subscriber(spec, "lab") as subscriber, Publisher(spec, "lab") as publisher:
        reading = asyncio.create_task(read(subscriber))
        for crash in (1, 2):
            open_broker.kill()
            await until(lambda: not publisher.connected)
            for i in range(10):
                publisher.picture(JPEG + bytes([crash, i]), {"window_id": f"{crash}.{i}"})
            open_broker.start()
            await until(lambda: publisher.reconnects == crash and subscriber.reconnects == crash)  # noqa: B023
            await publisher.flush()
            await until(lambda: f"{crash}.9" in seen)  # noqa: B023
        assert publisher.counts["picture"].dropped == 18
        assert seen == ["1.9", "2.9"]
        reading.cancel()


async def test_right_password_from_file_and_environment(
    strict_broker: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password is read from a 0600 file or the environment, and opens the door."""
    monkeypatch.setenv("LAB_PASSWORD", "open-sesame")
    by_environment = BrokerSpec(host="127.0.0.1", port=strict_broker.port, username="lab", password_env="LAB_PASSWORD")  # noqa: S106
    for spec in (user(strict_broker, tmp_path), by_environment):
        async with Publisher(spec, "lab") as publisher:
            assert publisher.connected
        assert "open-sesame" not in repr(spec) + spec.model_dump_json()


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
async def test_wrong_password_is_one_line(strict_broker: Mosquitto, tmp_path: Path, protocol: str) -> None:
    """A wrong password is an error that names user and broker, and not the password."""
    spec = user(strict_broker, tmp_path, "wrong-secret").model_copy(update={"protocol": protocol})
    with pytest.raises(PublishError, match=f"127.0.0.1:{strict_broker.port} does not let user 'lab' in") as caught:
        await Publisher(spec, "lab").__aenter__()
    assert "\n" not in str(caught.value)
    assert "wrong-secret" not in str(caught.value)


def test_secrets_others_can_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password file with loose permissions, a missing one and an unset variable are told with the way out."""
    monkeypatch.delenv("LAB_PASSWORD", raising=False)
    loose = tmp_path / "loose"
    loose.write_text("x")
    loose.chmod(0o644)
    missing = tmp_path / "missing"
    for spec, words in (
        (BrokerSpec(host="h", username="u", password_file=loose), f"chmod 600 {loose}"),
        (BrokerSpec(host="h", username="u", password_file=missing), f"cannot read {missing}"),
        (BrokerSpec(host="h", username="u", password_env="LAB_PASSWORD"), "LAB_PASSWORD is not set"),  # noqa: S106
    ):
        with pytest.raises(PublishError, match=words):
            spec.password()


async def test_denied_session_is_one_line_at_the_start(strict_broker: Mosquitto, tmp_path: Path) -> None:
    """A session whose topics the rules deny is refused on entering, by name."""
    with pytest.raises(PublishError, match="denies user 'lab' the topic minddiffuser/other/status"):
        await Publisher(user(strict_broker, tmp_path), "other").__aenter__()


async def test_denied_picture_is_counted_and_told(
    strict_broker: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Pictures that the broker denies count as denied, not as published, and the error says which topic."""
    async with Publisher(user(strict_broker, tmp_path), "lab") as publisher:
        publisher.preview(JPEG, {"window_id": "w"})
        publisher.picture(JPEG, {"window_id": "w"})
        await publisher.flush()
        assert publisher.counts["preview"].published == 1
        assert (publisher.counts["picture"].published, publisher.counts["picture"].denied) == (0, 1)
        assert publisher.error is not None
        assert "denies user 'lab' the topic minddiffuser/lab/picture" in publisher.error
    assert "minddiffuser/lab/picture" in caplog.text


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Make an authority, and a certificate that it signed for 127.0.0.1."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for authority in ("ca", "other"):
        openssl(*new, "-x509", "-keyout", f"{authority}.key", "-out", f"{authority}.pem", "-subj", f"/CN={authority}")
    for name in ("server", "client"):
        (tmp_path / "san").write_text("subjectAltName=IP:127.0.0.1")
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "san", "-days", "2"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    return tmp_path


async def test_tls_with_client_certificate(certificates: Path) -> None:
    """TLS with our authority works, with a client certificate too; without them it is an error in one line."""
    files = [
        f"cafile {certificates}/ca.pem",
        f"certfile {certificates}/server.pem",
        f"keyfile {certificates}/server.key",
    ]
    broker = Mosquitto(certificates, *files, "require_certificate true", "use_identity_as_username true")
    broker.start()
    there = {"host": "127.0.0.1", "port": broker.port}
    ours = {"cert": certificates / "client.pem", "key": certificates / "client.key"}
    try:
        async with Publisher(BrokerSpec(**there, ca=certificates / "ca.pem", **ours), "lab") as publisher:
            publisher.picture(JPEG, {"window_id": "w"})
            await publisher.flush()
            assert publisher.counts["picture"].published == 1
        for spec, words in (
            (BrokerSpec(**there, ca=certificates / "other.pem", **ours), "certificate verify failed"),
            (BrokerSpec(**there, ca=certificates / "ca.pem"), "broker 127.0.0.1"),
            (BrokerSpec(**there, ca=certificates / "none.pem"), "cannot use .*none.pem"),
        ):
            with pytest.raises(PublishError, match=words) as caught:
                await Publisher(spec, "lab").__aenter__()
            assert "\n" not in str(caught.value)
    finally:
        broker.kill()


def test_specs_that_contradict_themselves() -> None:
    """A spec says what it lacks."""
    for values, words in (
        ({"host": "h", "password_env": "X"}, "needs a username"),
        ({"host": "h", "cert": "a.pem"}, "belong together"),
        ({"username": "u"}, "name a host"),
        ({"host": "h", "username": "u", "password_env": "X", "password_file": "y"}, "not both"),
        ({"hots": "h"}, "hots"),
    ):
        with pytest.raises(ValueError, match=words):
            BrokerSpec.model_validate(values)
    assert BrokerSpec(host="h", tls=True).resolved_port == 8883
    assert os.environ.get("LAB_PASSWORD") is None
