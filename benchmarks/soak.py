"""Minutes or hours of streaming with kills, stalls and holes: everything sent adds up, and memory stays flat.

Two sources, each a process that is killed, stopped and started again at random and skips samples of its own; each is
read by the real ingest in another process, which is stopped at random too. Ends with an account, exit code 3 if
anything does not add up.
"""

import argparse
import json
import signal
import sys
import tempfile
import uuid
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import machine
from tests.soak.live import LiveProgram, plan_of
from tests.soak.plan import Plan
from tests.soak.run import soak

LOST, STOPPED = 3, 130


def plans(folder: Path, seconds: float, seed: int, live: LiveProgram | None = None) -> list[Plan]:
    """Two sources: an EEG cap (the one `live` knows) and a faster one, with crystals that are a little off."""
    run = uuid.uuid4().hex[:8]
    window, every, length = 1000, 730, 500
    names = tuple(f"fast{i:03d}" for i in range(32))
    fast = Plan(
        *(f"soak-fast-{run}", "V", names, "EEG", 1000.0, 0.99997),
        *(int(seconds) * window, window, every, length, seed + 1, str(folder / "fast")),
    )
    if live:
        return [plan_of(live, f"soak-live-{run}", seconds, seed, folder / "live"), fast]
    names = tuple(f"eeg{i:03d}" for i in range(63))
    eeg = Plan(
        *(f"soak-eeg-{run}", "V", names, "EEG", 250.0, 1.00002),
        *(int(seconds) * 250, 250, 180, 125, seed, str(folder / "eeg")),
    )
    return [eeg, fast]


def main() -> None:
    """Run a soak; SIGTERM and Ctrl-C end it, its processes too, without an account."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        _say("stopped before its time: no account")
        sys.exit(STOPPED)


def run() -> None:
    """Read the options, stream, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--bundle", type=Path, help="trained with the config: `minddiffuser live` takes part")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = options.minutes * 60
        live = LiveProgram(options.config, options.bundle) if options.bundle else None
        answer = soak(plans(Path(folder), seconds, options.seed, live), seconds, options.seed, _say, live)
    answer |= {
        "repeats": 1,
        "machine": machine(),
        "versions": {name: version(name) for name in ("minddiffuser", "pylsl", "numpy")},
    }
    if options.json:
        print(json.dumps(answer))
    else:
        for name, value in answer.items():
            print(f"{name}: {value}")
    sys.exit(LOST if answer["wrong"] else 0)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
