"""Setups run by processes that each have their share of the cores, and go from one setup to the next."""

import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.results.setups import COMMITTED, ROOT, Setup
from decoder.parallel import workers
from stream.atomic import write_whole

SHARED = "shared decoders"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_all(setups: Sequence[Setup], out: Path, jobs: int, cluster: str | None = None) -> list[str]:
    """Run setups, `jobs` at a time, with their fits here or on a Ray cluster; give the names of those that failed.

    That of the decoders that ablations share may be among them. Simulated participants see the same pictures, whose
    features are kept when recorded data are done; of the others the longest come first, so that the end is even.
    Ablations and the setup they start from share decoders, and wait for them.
    """
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    order = sorted(setups, key=lambda setup: (setup.species == "simulated", -_seconds_last_time(setup)))
    for setup in order:
        if lacking := setup.unavailable_because():
            print(f"{setup.name:<22} skipped: {lacking}", flush=True)
    can_run = [setup for setup in order if not setup.unavailable_because()]
    shared = next((setup for setup in can_run if setup.protocol == "ablations"), None)
    waiting = [setup for setup in can_run if shared is not None and setup.config == shared.config]
    failed: list[str] = []
    with _processes(jobs) as pool:

        def start(setup: Setup) -> Future[tuple[float, str]]:
            return _submitted(pool, _on, cluster, run_here, setup, out)

        running: dict[Future[tuple[float, str]], str] = (
            {} if shared is None else {pool.submit(_on, cluster, prepare, shared): SHARED}
        )
        running |= {start(setup): setup.name for setup in can_run if setup not in waiting}
        while running:
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(done)
                try:
                    seconds, error = done.result()
                except BrokenProcessPool as broken:  # killed, it may be for memory: those after it cannot begin
                    seconds, error = 0, f"its process, or one beside it, ended: {broken}"
                print(f"{name:<22} {'failed' if error else 'done'}, {seconds:.0f} s", error, flush=True)
                if error:
                    failed.append(name)
                if name == SHARED:
                    running |= {start(setup): setup.name for setup in waiting}
    print(f"{len(setups)} setups, {time.monotonic() - began:.0f} s", flush=True)
    return failed


def prepare(setup: Setup) -> None:
    """Train the decoders that ablations share."""
    from benchmarks.results.lab import Lab

    _ = Lab.of(setup).plain_bundle


def run_here(setup: Setup, out: Path) -> None:
    """Run one setup in this process and write its JSON, whole or not at all."""
    from benchmarks.results.steps import run_step

    found = run_step(setup, out)
    write_whole(out / f"{setup.name}.json", json.dumps(found, indent=1) + "\n")


def _on(cluster: str | None, work: Callable[..., None], *arguments: Any) -> tuple[float, str]:
    """Do work, with its fits in this process or on a cluster; return the seconds it took, and what went wrong."""
    began, error = time.monotonic(), ""
    try:
        with workers(1, cluster):
            work(*arguments)
    except (Exception, SystemExit):  # told where it is run from, whatever it is; the others go on
        error = traceback.format_exc()
    return time.monotonic() - began, error


def _submitted(pool: ProcessPoolExecutor, *work: Any) -> Future[Any]:
    """Have a pool do work; of one that is broken, the future says so."""
    try:
        return pool.submit(*work)
    except BrokenProcessPool as broken:
        failed: Future[Any] = Future()
        failed.set_exception(broken)
        return failed


def _seconds_last_time(setup: Setup) -> float:
    """Return what a setup took when its committed figures were made; 0 of a new one."""
    file = COMMITTED / f"{setup.name}.json"
    return float(json.loads(file.read_text("utf-8"))["seconds"]) if file.is_file() else 0.0


@contextmanager
def _processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Have processes that begin anew, with their share of the cores; what they print is not shown."""
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    before = {name: os.environ.get(name) for name in (*THREADS, "PYTHONPATH")}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    os.environ.update(dict.fromkeys(THREADS, threads), PYTHONPATH=path)
    try:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _be_silent) as pool:
            try:
                yield pool
            except BaseException:  # Ctrl-C too: what has not begun does not begin
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _be_silent() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
