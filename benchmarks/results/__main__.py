"""Run setups, two at a time and each on its share of the cores, and make pages and the README's table of the figures.

    python -m benchmarks.results                     every setup, into docs/results
    python -m benchmarks.results demo ablations-text some of them
    python -m benchmarks.results --check             every setup, into another folder; 1 if figures left their intervals
    python -m benchmarks.results --cluster auto      fits on the Ray cluster of this machine, or on that at an address
    python -m benchmarks.results --tables            no setup: only pages and table anew

Setups whose data are not on this machine (MINDDIFFUSER_DATA, or ../shared/data) are skipped and named. One that fails
does not stop the rest; the exit code is then 1.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.results.running import run_all, run_here
from benchmarks.results.setups import COMMITTED, ROOT, SETUPS, named
from decoder.parallel import workers


def check(names: list[str], out: Path) -> list[str]:
    """Compare figures with the committed ones; give a line for each that differs."""
    from benchmarks.results.tables import differences, read_answers

    committed, new = read_answers(COMMITTED), read_answers(out)
    return [
        line for name in names if name in new and name in committed for line in differences(committed[name], new[name])
    ]


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="setups; all where none is named")
    parser.add_argument("--out", type=Path, help="folder; default docs/results, with --check one that is thrown away")
    parser.add_argument("--check", action="store_true", help="compare with docs/results, which stays as it is")
    parser.add_argument("--tables", action="store_true", help="make pages and table anew from the JSONs there are")
    parser.add_argument("--list", action="store_true", help="name the setups, and what they lack here")
    parser.add_argument("--jobs", type=int, default=2, help="setups at a time, which share the cores; default 2")
    parser.add_argument("--cluster", metavar="ADDRESS", help="of a Ray cluster whose nodes do the fits of every setup")
    parser.add_argument("--here", action="store_true", help="one setup, in this process")
    given = parser.parse_args()
    try:
        setups = named(given.names)
    except KeyError as error:
        parser.error(f"no setup is called {error}; known are {', '.join(setup.name for setup in SETUPS)}")
    if given.list:
        for setup in setups:
            print(f"{setup.name:<22} {setup.unavailable_because() or 'can run'}")
        return 0
    if given.here:
        with workers(1, given.cluster):
            run_here(setups[0], given.out or COMMITTED)
        return 0
    with tempfile.TemporaryDirectory(prefix="minddiffuser-check-") as scratch:
        out = (given.out or (Path(scratch) if given.check else COMMITTED)).resolve()
        failed = [] if given.tables else run_all(setups, out, max(1, given.jobs), given.cluster)
        wrong = check([setup.name for setup in setups], out) if given.check else []
        from benchmarks.results.tables import write_pages

        for file in write_pages(out, ROOT / "README.md" if out == COMMITTED else None):
            print(f"written: {os.path.relpath(file)}")
    for line in wrong:
        print(f"outside its interval: {line}")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
