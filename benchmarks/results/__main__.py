"""Run setups, two at a time and each in a process of its own, and make pages and the README's table of what they found.

    python -m benchmarks.results                     every setup, into docs/results
    python -m benchmarks.results demo ablations-text some of them
    python -m benchmarks.results --check             every setup, into another folder; 1 if figures left their intervals
    python -m benchmarks.results --cluster auto      fits on the Ray cluster of this machine, or on that at an address
    python -m benchmarks.results --tables            no setup: only pages and table anew

Setups whose data are not on this machine (MINDDIFFUSER_DATA, or ../shared/data) are skipped and named. One that fails
does not stop the rest; the exit code is then 1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.results.setups import COMMITTED, ROOT, SETUPS, Setup, named
from decoder.parallel import workers
from stream.atomic import write_whole


def run_all(setups: list[Setup], out: Path, jobs: int, cluster: str | None = None) -> list[str]:
    """Run setups, `jobs` at a time, with their fits here or on a Ray cluster; give the names of those that failed."""
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for setup in setups:
        if lacking := setup.unavailable_because():
            print(f"{setup.name:<22} skipped: {lacking}", flush=True)
    # Ablations and the setup they start from share decoders; those who only wait for them come last.
    shared = next(
        (setup for setup in setups if setup.protocol == "ablations" and not setup.unavailable_because()), None
    )
    waits = {setup.name: shared is not None and setup.config == shared.config for setup in setups}
    can_run = sorted(
        (setup for setup in setups if not setup.unavailable_because()), key=lambda setup: waits[setup.name]
    )
    there = ["--cluster", cluster] if cluster else []
    with ThreadPoolExecutor(jobs) as pool:
        made = shared and pool.submit(_in_a_process, "shared decoders", [shared.name, "--prepare", *there], jobs)

        def run(setup: Setup) -> bool:
            if made and waits[setup.name]:
                made.result()
            return _in_a_process(setup.name, [setup.name, "--here", "--out", str(out), *there], jobs)

        failed = [setup.name for setup, well in zip(can_run, pool.map(run, can_run), strict=True) if not well]
    print(f"{len(setups)} setups, {time.monotonic() - began:.0f} s", flush=True)
    return failed


def _in_a_process(name: str, arguments: list[str], jobs: int) -> bool:
    """Run this module anew, on its share of the cores; what it says is told if it fails."""
    started = time.monotonic()
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads),
    }
    command = [sys.executable, "-m", "benchmarks.results", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    verdict = f"failed ({done.returncode})\n{done.stdout}{done.stderr}" if done.returncode else "done"
    print(f"{name:<22} {verdict}, {time.monotonic() - started:.0f} s", flush=True)
    return done.returncode == 0


def run_here(setup: Setup, out: Path) -> None:
    """Run one setup in this process and write its JSON, whole or not at all."""
    from benchmarks.results.steps import run_step

    found = run_step(setup, out)
    write_whole(out / f"{setup.name}.json", json.dumps(found, indent=1) + "\n")


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
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        setups = named(given.names)
    except KeyError as error:
        parser.error(f"no setup is called {error}; known are {', '.join(setup.name for setup in SETUPS)}")
    if given.list:
        for setup in setups:
            print(f"{setup.name:<22} {setup.unavailable_because() or 'can run'}")
        return 0
    if given.prepare or given.here:
        with workers(1, given.cluster):
            if given.prepare:
                from benchmarks.results.lab import Lab

                Lab.of(setups[0]).plain()
            else:
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
