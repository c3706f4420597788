"""`subscribe` and `display` find the session of this machine by themselves."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minddiffuser.display import running
from minddiffuser.errors import AppError
from stream.mqtt.broker import BrokerSpec, EmbeddedBroker
from stream.mqtt.publisher import Publisher
from tests.conftest import ROOT, Cli
from tests.minddiffuser.test_subscribe import picture

LEFT_BEHIND = """
import os, sys
from minddiffuser.display.running import announced
from stream.mqtt.broker import BrokerSpec
here = announced(sys.argv[1], BrokerSpec(host="127.0.0.1", port=int(sys.argv[2])))
here.__enter__()
if len(sys.argv) == 3:
    os._exit(9)
print("ready", flush=True)
sys.stdin.read()
"""
"""A program that announces a session and is killed, or waits to be told."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a cache, and so a list of what runs, of one's own."""
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def announce(session: str, port: int, *more: str) -> subprocess.Popen[str]:
    """Start a process that announces a session at a port."""
    command = [sys.executable, "-c", LEFT_BEHIND, session, str(port), *more]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_subscribe_finds_the_session_of_this_machine(cache: Path, tmp_path: Path) -> None:
    """Without a broker's address it gets the pictures of the one session that runs, and says where it is."""
    cli = Cli(os.environ | {"MINDDIFFUSER_CACHE": str(cache)})
    async with EmbeddedBroker() as broker, Publisher(broker.spec, "lab", data="simulated EEG") as publisher:
        with running.announced("lab", broker.spec):
            receiving = cli.start("subscribe", "--count", "1", "--json", "--save", str(tmp_path / "got"))
            try:
                assert receiving.stdout
                assert receiving.stderr
                ready = await asyncio.to_thread(receiving.stdout.readline)
                assert json.loads(ready) == {"ready": True}
                publisher.picture(picture(1), {"window_id": "w1"})
                out, errors = await asyncio.to_thread(receiving.communicate, timeout=30)
            finally:
                receiving.kill()
        assert (json.loads(out)["pictures"], json.loads(out)["session"]) == (1, "lab")
        assert f"Session lab at {broker.spec.address}" in errors
        assert running.running() == []


def test_what_a_killed_process_left_is_ignored_and_removed(cache: Path) -> None:
    """A file of a process that is gone names no session, and goes; so does one whose broker does not answer."""
    killed = announce("gone", 1)
    killed.communicate(timeout=30)
    assert killed.returncode == 9
    assert len(list((cache / "running").iterdir())) == 1
    assert running.running() == []
    assert list((cache / "running").iterdir()) == []
    with running.announced("deaf", BrokerSpec(host="127.0.0.1", port=1)):
        assert running.find_session(None) is None


async def test_of_several_sessions_one_must_be_named() -> None:
    """Two brokers are listed with their sessions and processes; a name chooses; one broker serves both."""
    async with EmbeddedBroker() as one, EmbeddedBroker() as two:
        other = announce("right", two.port, "wait")
        try:
            assert other.stdout
            assert await asyncio.to_thread(other.stdout.readline) == "ready\n"
            with running.announced("left", one.spec):
                with pytest.raises(AppError) as caught:
                    running.find_session(None)
                assert str(caught.value) == (
                    f"2 sessions run on this machine: left (process {os.getpid()}, broker 127.0.0.1:{one.port}); "
                    f"right (process {other.pid}, broker 127.0.0.1:{two.port}); say which with --session or --broker"
                )
                assert running.find_session("right") == (two.spec.model_copy(update={"protocol": "auto"}), "right")
            with running.announced("left", two.spec):
                found = running.find_session(None)
                assert found is not None
                assert found[1] == "+"
        finally:
            other.communicate(timeout=30)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"pid": "x"}', '{"pid": 1, "session": "s", "broker": {"port": -1}}']
)
def test_other_files_among_them_are_no_sessions(cache: Path, content: str) -> None:
    """What is no file of ours, or half of one, is passed over."""
    (cache / "running").mkdir(parents=True)
    (cache / "running" / "1.json").write_text(content)
    assert running.running() == []


def test_a_session_runs_where_nobody_can_be_told(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A cache that cannot be written costs the finding, and that is said."""
    cache.write_text("a file")
    with running.announced("lab", BrokerSpec(host="127.0.0.1", port=1)):
        pass
    assert "cannot find this session by themselves" in caplog.text


async def test_display_finds_the_session_of_this_machine(cache: Path) -> None:
    """Without a broker's address the page is of the one session that runs."""
    cli = Cli(os.environ | {"MINDDIFFUSER_CACHE": str(cache)})
    async with EmbeddedBroker() as broker:
        with running.announced("lab", broker.spec):
            serving = cli.start("display", "--port", "0")
            try:
                assert serving.stderr
                said = [await asyncio.to_thread(serving.stderr.readline) for _ in range(2)]
                assert said[0] == f"Session lab at {broker.spec.address}\n"
                assert "The page is at" in said[1]
                serving.send_signal(signal.SIGINT)
                await asyncio.to_thread(serving.communicate, timeout=30)
            finally:
                serving.kill()
