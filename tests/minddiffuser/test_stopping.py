"""Whatever is asked to stop stops, and takes along what it started."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from minddiffuser.live.session import started
from stream.files.formats.npz import write_npz
from stream.lsl.live import LiveIngest, SourceSpec
from stream.mqtt.broker import EmbeddedBroker
from stream.signal.filters import FilterSpec
from stream.types.recording import RecordedStream, Recording
from stream.types.window_spec import WindowSpec
from stream.types.windows import Channels
from tests.brokers import until
from tests.conftest import ROOT, Cli

GONE_S = 60.0
LONG_S = 600.0
BUSY_BYTES = 300e6
PARENT = """
import asyncio, sys
from minddiffuser.subprocesses import subcommand

async def main():
    async with subcommand(*sys.argv[1:]):
        print("started", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write ten seconds of zeros."""
    times = np.arange(2500) / 250.0
    channels = Channels(("A1", "A2"), ("eeg", "eeg"), ("V", "V"))
    stream = RecordedStream("stopping", "EEG", "stopping", channels, 250.0, times, np.zeros((2500, 2), np.float32))
    path = tmp_path_factory.mktemp("stopping") / "zeros.npz"
    write_npz(Recording("zeros", "zeros", (stream,), ()), path)
    return path


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_child_never_outlives_its_parent(recording: Path, number: signal.Signals) -> None:
    """However a parent ends, the replay that it started, and that nobody listens to, is gone a moment later."""
    command = [sys.executable, "-c", PARENT, "replay", str(recording)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "started\n"
        (replay,) = psutil.Process(parent.pid).children()
        parent.send_signal(number)
    _, left = psutil.wait_procs([replay], GONE_S)
    assert not left


async def test_a_session_that_waits_for_its_source_stops_when_asked() -> None:
    """A stop ends the search for a stream that nobody sends, which is said to be missing; it is no error."""
    source = SourceSpec(name="no-such-amplifier", timeout_s=LONG_S)
    ingest = LiveIngest(source, WindowSpec(mode="sliding", tmin=0, tmax=1), FilterSpec(), lambda _: None)
    stop, missing = asyncio.Event(), list[str]()
    starting = asyncio.create_task(started(ingest, stop, missing.append))
    try:
        await until(lambda: bool(missing), GONE_S)
        assert not starting.done()
    finally:
        stop.set()
    async with asyncio.timeout(GONE_S):
        assert await starting is None
    assert "no stream with name 'no-such-amplifier' yet" in missing[0]


async def test_the_page_is_taken_down_when_asked(cli: Cli) -> None:
    """SIGTERM ends `display` with exit code 0."""
    async with EmbeddedBroker(0) as broker:
        process = cli.start("display", "--broker", f"127.0.0.1:{broker.spec.port}", "--port", "0")
        assert process.stderr
        assert "page" in await asyncio.to_thread(process.stderr.readline)
        process.terminate()
        _, errors = await asyncio.to_thread(process.communicate, timeout=GONE_S)
    assert process.returncode == 0, errors


def test_a_recording_that_never_began_says_so(cli: Cli, tmp_path: Path) -> None:
    """Stopped while it looks for its stream, `record` neither writes a file nor says that the time was up."""
    path = tmp_path / "new.xdf"
    process = cli.start("record", str(path), "--stream", "no-such-amplifier", "--timeout", str(LONG_S))
    deadline = time.monotonic() + GONE_S
    while not psutil.Process(process.pid).net_connections("udp"):  # it asks for streams
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=GONE_S)
    assert process.returncode == 1
    assert "nothing is recorded" in errors
    assert not path.exists()


def test_work_that_never_waits_is_stopped_too(cli: Cli, small_bundle: Path) -> None:
    """SIGTERM in the middle of a computation ends `evaluate` with exit code 130, and without a traceback."""
    process = cli.start("evaluate", str(small_bundle), "--offline")
    deadline = time.monotonic() + GONE_S
    while psutil.Process(process.pid).memory_info().rss < BUSY_BYTES:  # torch is loaded, and the work has begun
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=GONE_S)
    assert process.returncode == 130
    assert "Traceback" not in errors


def catches(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (mask,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(mask >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("later_s", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_a_request_at_any_moment_of_the_start_is_one_line(
    cli: Cli, tmp_path: Path, number: signal.Signals, later_s: float
) -> None:
    """From the moment that a program of ours hears it, whatever it is importing then."""
    process = cli.start("train", "configs/demo.yaml", "--out", str(tmp_path / "new"))
    deadline = time.monotonic() + GONE_S
    while not catches(process, signal.SIGTERM):  # until then it is Python that starts
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(later_s)
    process.send_signal(number)
    out, errors = process.communicate(timeout=GONE_S)
    assert process.returncode == 130, errors
    assert errors in ("minddiffuser: stopped\n", "minddiffuser: stopping\n")
    assert out == ""


@pytest.mark.parametrize("how", ["SIGHUP", "terminal"])
def test_a_hang_up_leaves_no_folders_behind(cli: Cli, small_config: Path, tmp_path: Path, how: str) -> None:
    """In the middle of writing a recording, a hang-up ends `train` with 130 and takes what is half made along."""
    cache, temporary = tmp_path / "cache", tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "minddiffuser", "train", str(small_config), "--out", str(tmp_path / "new")]
    environment = cli.environment | {"MINDDIFFUSER_CACHE": str(cache), "TMPDIR": str(temporary)}
    child, terminal = pty.fork()
    if not child:
        os.chdir(ROOT)
        os.execve(sys.executable, command, environment)  # noqa: S606  there is none to need
    deadline = time.monotonic() + GONE_S
    while not list(cache.glob("simulated/.*")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    if how == "terminal":
        os.close(terminal)
    else:
        os.kill(child, signal.SIGHUP)
    process = psutil.Process(child)
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if how == "SIGHUP":
            drain(terminal)
        assert time.monotonic() < deadline + GONE_S
        time.sleep(0.05)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert [path.name for path in cache.rglob("*")] == ["simulated"]
    assert list(temporary.iterdir()) == []


def drain(terminal: int) -> None:
    """Read what a program says, so that it never waits for us."""
    os.set_blocking(terminal, False)
    try:
        os.read(terminal, 65536)
    except OSError:
        return


def test_nohup_is_respected(cli: Cli, tmp_path: Path) -> None:
    """A program that is started to outlive its terminal does; SIGTERM still ends it."""
    command = f"trap '' HUP; exec {sys.executable} -m minddiffuser record {tmp_path / 'x.xdf'} --timeout {LONG_S}"
    process = subprocess.Popen(["sh", "-c", command], stderr=subprocess.PIPE, text=True, env=cli.environment, cwd=ROOT)
    deadline = time.monotonic() + GONE_S
    while not psutil.Process(process.pid).net_connections("udp"):  # it asks for streams
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=GONE_S)
    assert process.returncode == 1  # as SIGTERM ends it: a hang-up would have killed it
    assert "nothing is recorded" in errors
