"""Replays in processes of their own, and waiting for what they bring about."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.files.formats.npz import write_npz
from stream.types.recording import Recording

PLAY = """
import sys
from pathlib import Path
from stream.files.registry import read
from stream.recording.replay import replay
replay(read(Path(sys.argv[1])), speed=float(sys.argv[2]), loop=sys.argv[3] == "loop")
"""


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until a condition holds; fail at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.01)


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start replays in processes of their own; whatever still runs at the end is killed."""
    running: list[subprocess.Popen[bytes]] = []

    def start(recording: Recording, speed: float = 1.0, loop: bool = False) -> subprocess.Popen[bytes]:
        file = tmp_path / f"{len(running)}.npz"
        write_npz(recording, file)
        command = [sys.executable, "-c", PLAY, str(file), str(speed), "loop" if loop else "once"]
        running.append(subprocess.Popen(command))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()
