"""`minddiffuser live` started and stopped again and again; every few times its source is killed in the middle.

`python -m tests.soak.cycles BUNDLE --config CONFIG --cycles 50`; exit code 3 if an end was not clean, or left a child.
"""

import argparse
import json
import signal
import sys
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from stream.lsl.discovery import load_lsl
from stream.mqtt.messages import lsl_clock
from tests.soak.chaos import Source
from tests.soak.live import LiveProgram, plan_of

A_CYCLE_S = 120.0
KILL_EVERY = 5
LOST, STOPPED = 3, 130


def cycles(config: Path, bundle: Path, count: int, folder: Path) -> dict[str, object]:
    """Run the program `count` times and say what was not clean."""
    load_lsl()
    live = LiveProgram(config, bundle)
    plan = plan_of(live, f"cycles-{uuid.uuid4().hex[:8]}", count * A_CYCLE_S, 0, folder / "source")
    source = Source(plan, plan.write())
    source.start_sender()
    wrong: list[str] = []
    try:
        source.go(lsl_clock())
        for number in range(count):
            live.start(plan.name)
            live.wait_until_running(A_CYCLE_S)
            with ThreadPoolExecutor(1) as killer:  # waits for the kill, whatever becomes of the end
                if number % KILL_EVERY == KILL_EVERY - 1:
                    killer.submit(source.kill_sender, 0.1)
                try:
                    live.end((signal.SIGINT, signal.SIGTERM)[number % 2])
                except RuntimeError as error:
                    wrong.append(f"cycle {number}: {error}")
            senders = {source.sender.pid, source.markers.pid}
            left = [child.pid for child in psutil.Process().children(recursive=True) if child.pid not in senders]
            if left:
                wrong.append(f"cycle {number}: children left {left}")
    finally:
        source.close()
        live.kill()
    return {"cycles": count, "wrong": wrong}


def main() -> None:
    """Run the cycles; SIGTERM and Ctrl-C end them, and every process they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        sys.exit(STOPPED)


def run() -> None:
    """Read the options, run, and say what was not clean."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.cycles", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--cycles", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        answer = cycles(options.config, options.bundle, options.cycles, Path(folder))
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.exit(LOST if answer["wrong"] else 0)


if __name__ == "__main__":
    main()
