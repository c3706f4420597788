"""Real processes, killed, stopped and started again at random moments."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minddiffuser.stopping import TIED
from stream.mqtt.messages import lsl_clock
from tests.soak.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
DOWN_S = (0.1, 3.0)
STALL_S = (0.3, 4.0)
PAUSE_S = (3.0, 9.0)
KINDS = ("sender killed", "markers killed", "both killed", "sender stalled", "receiver stalled")


def start(module: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Run a module of ours in a process of its own, with pipes for stdin and stdout; it ends when we do."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    settings = pipes | {"cwd": ROOT, "env": os.environ | {TIED: "1"}} | options
    return subprocess.Popen([sys.executable, "-m", module, *arguments], text=True, **settings)


@dataclass(slots=True)
class Source:
    """A plan and the processes that carry it out; `close` ends those that were started."""

    plan: Plan
    path: Path
    begin: float = 0.0
    incarnation: int = 0
    sender: subprocess.Popen[str] = field(init=False)
    markers: subprocess.Popen[str] = field(init=False)
    receiver: subprocess.Popen[str] = field(init=False)
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start_sender(self) -> None:
        """Start who sends data and who sends markers; both wait for `go`."""
        self.sender = self._start("tests.soak.sender", "0", "0")
        self.markers = self._start("tests.soak.markers", "0", "0")

    def start(self) -> None:
        """Start senders that wait, and a receiver."""
        self.start_sender()
        self.receiver = self._start("tests.soak.receiver")

    def close(self) -> None:
        """End what is left of all."""
        for process in self._processes:
            end(process)

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        process = start(module, str(self.path), *arguments)
        self._processes.append(process)
        return process

    def go(self, begin: float) -> None:
        """Let the senders begin."""
        self.begin = begin
        for process in (self.sender, self.markers):
            assert process.stdin
            process.stdin.write(f"{begin!r}\n")
            process.stdin.flush()

    def kill_sender(self, down_s: float) -> None:
        """Kill the amplifier as a power cut would, and start it again a while later under the same source id."""
        self.sender = self._again(self.sender, "tests.soak.sender", down_s)

    def kill_markers(self, down_s: float) -> None:
        """Kill the stimulus script alone, and start it again a while later, as is done all day."""
        killed = lsl_clock()
        self.markers = self._again(self.markers, "tests.soak.markers", down_s)
        self.plan.add_marker_outage(killed, lsl_clock())

    def kill_both(self, down_s: float) -> None:
        """Kill amplifier and stimulus script at once, as when their machine dies."""
        end(self.sender)
        self.kill_markers(0.0)
        self.kill_sender(down_s)

    def _again(self, process: subprocess.Popen[str], module: str, down_s: float) -> subprocess.Popen[str]:
        end(process)
        self._processes.remove(process)
        time.sleep(down_s)
        self.incarnation += 1
        return self._start(module, repr(self.begin), str(self.incarnation))


def stall(process: subprocess.Popen[str], seconds: float) -> None:
    """Stop a process for a while; it and its sockets stay."""
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGCONT)


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and take leave of its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def torment(
    sources: list[Source],
    others: list[subprocess.Popen[str]],
    seconds: float,
    rng: np.random.Generator,
    pause_s: tuple[float, float] = PAUSE_S,
    kinds: Sequence[str] = KINDS,
) -> dict[str, int]:
    """Kill and stall at random, with pauses between `pause_s`, until the time is up; return how often each."""
    done = dict.fromkeys(kinds, 0)
    over = time.monotonic() + seconds
    while True:
        pause = rng.uniform(*pause_s)
        if time.monotonic() + pause > over:
            time.sleep(max(0.0, over - time.monotonic()))
            return done
        time.sleep(pause)
        source = sources[rng.integers(len(sources))]
        kind = str(rng.choice(list(done)))
        if kind == "sender killed":
            source.kill_sender(rng.uniform(*DOWN_S))
        elif kind == "markers killed":
            source.kill_markers(rng.uniform(*DOWN_S))
        elif kind == "both killed":
            source.kill_both(rng.uniform(*DOWN_S))
        elif kind == "sender stalled":
            stall(source.sender, rng.uniform(*STALL_S))
        else:
            receivers = [source.receiver for source in sources] + others
            stall(receivers[rng.integers(len(receivers))], rng.uniform(*STALL_S))
        done[kind] += 1
