"""Whatever is asked to stop stops, and takes along what it started."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from minddiffuser.session import started
from stream.broker import EmbeddedBroker
from stream.filters import FilterSpec
from stream.lsl import LiveIngest, SourceSpec
from stream.recordings import RecordedStream, Recording, write_npz
from stream.window_spec import WindowSpec
from stream.windows import Channels
from tests.conftest import ROOT, Cli

GONE_S = 60.0
LONG_S = 600.0
BUSY_BYTES = 300e6
PARENT = """
import asyncio, sys
from minddiffuser.children import child

async def main():
    async with child(*sys.argv[1:]):
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
    """A stop ends the search for a stream that nobody sends, long before its time is up, and it is no error."""
    source = SourceSpec(name="no-such-amplifier", timeout_s=LONG_S)
    ingest = LiveIngest(source, WindowSpec(mode="sliding", tmin=0, tmax=1), FilterSpec(), lambda _: None)
    stop = asyncio.Event()
    starting = asyncio.create_task(started(ingest, stop))
    await asyncio.sleep(0)
    assert not starting.done()
    stop.set()
    async with asyncio.timeout(GONE_S):
        assert await starting is None


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
