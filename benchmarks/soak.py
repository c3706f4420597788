"""Minutes or hours of streaming with kills, stalls and holes: everything sent adds up, and memory stays flat.

Two sources, each a process that is killed, stopped and started again at random and skips samples of its own; each is
read by the real ingest in another process, which is stopped at random too. Ends with an account, exit code 3 if
anything does not add up.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import uuid
from importlib.metadata import version
from pathlib import Path

from tests.soak.plan import Plan
from tests.soak.run import soak

LOST = 3


def plans(folder: Path, seconds: float, seed: int) -> list[Plan]:
    """Two sources: an EEG cap at 250 Hz and a wider, faster one, with crystals that are a little off."""
    run = uuid.uuid4().hex[:8]

    def plan(name: str, n_channels: int, rate: float, drift: float, number: int) -> Plan:
        names = tuple(f"{name}{i:03d}" for i in range(n_channels))
        window = round(rate)
        places = int(seconds) * window
        every, length = round(0.73 * rate), round(0.5 * rate)
        where = str(folder / name)
        return Plan(
            f"soak-{name}-{run}", "V", names, "EEG", rate, drift, places, window, every, length, seed + number, where
        )

    return [plan("eeg", 63, 250.0, 1.00002, 1), plan("fast", 32, 1000.0, 0.99997, 2)]


def main() -> None:
    """Run a soak."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = options.minutes * 60
        answer = soak(plans(Path(folder), seconds, options.seed), seconds, options.seed, _say)
    answer |= {
        "repeats": 1,
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
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
