"""A soak from start to account."""

import json
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stream.sources import load_lsl
from tests.soak.account import account
from tests.soak.chaos import Source, end, torment
from tests.soak.plan import Plan

CONNECT_S = 90.0
LEAD_S = 1.0
CALM_S = 15.0  # at the end, in which everybody finds everybody again
DRAIN_S = 30.0
WATCH_EVERY_S = 1.0
FLAT_MB = 5.0  # and 2 % of what a process has


def soak(plans: list[Plan], seconds: float, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run and add up.

    Parameters
    ----------
    plans : list of Plan
    seconds : float
        Of streaming; the plans' places are of the same time.
    seed : int
    say : callable
        Takes a line for whoever watches.

    Returns
    -------
    dict
        'wrong' lists what does not add up.
    """
    sources = [Source(plan, plan.write()) for plan in plans]
    watch = None
    try:
        for source in sources:
            source.start()
        for source in sources:
            _line(source.receiver, CONNECT_S)
        begin = load_lsl().local_clock() + LEAD_S
        for source in sources:
            source.go(begin)
        say(f"streaming for {seconds:g} s")
        watch = Watch({f"receiver of {source.plan.name}": source.receiver.pid for source in sources})
        happened = torment(sources, [], seconds - CALM_S, np.random.default_rng(seed))
        for source in sources:
            _drained(source, CALM_S + DRAIN_S)
        memory = watch.stop()
        for source in sources:
            source.receiver.terminate()
            source.receiver.wait(30)
    finally:
        if watch:
            watch.stop()
        for source in sources:
            end(source.sender)
            end(source.receiver)
    answers = {source.plan.name: asdict(account(source.plan, begin)) for source in sources}
    wrong = [f"{name}: {line}" for name, answer in answers.items() for line in answer["wrong"]]
    wrong += [f"{name}: memory grew by {m['growth_mb']} MB" for name, m in memory.items() if not m["flat"]]
    return {"seconds": seconds, "seed": seed, "happened": happened, **answers, "memory": memory, "wrong": wrong}


def _line(process: Any, seconds: float) -> None:
    """Wait for a process's first line."""
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(process.stdout.readline()), daemon=True)
    reader.start()
    reader.join(seconds)
    if not got or not got[0]:
        raise TimeoutError("a receiver did not connect")


def _drained(source: Source, seconds: float) -> None:
    """Wait until the receiver's account covers the whole grid."""
    path = Path(source.plan.folder) / "account.json"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        stats = json.loads(path.read_text("utf-8"))
        if all(stats[each]["samples"] + stats[each]["lost"] >= source.plan.places for each in ("samples", "markers")):
            return
        time.sleep(0.2)


class Watch:
    """Anonymous memory of processes, once a second, in a thread of its own."""

    def __init__(self, processes: dict[str, int]) -> None:
        self._processes = processes
        self._seen: dict[str, list[float]] = {name: [] for name in processes}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, dict[str, Any]]:
        """Compare the last fifth of the time with the second, in which everything is warm."""
        self._over.set()
        self._thread.join()
        return {name: _growth(seen) for name, seen in self._seen.items()}

    def _look(self) -> None:
        while not self._over.wait(WATCH_EVERY_S):
            for name, pid in self._processes.items():
                status = Path(f"/proc/{pid}/status")
                if status.exists():
                    kilobytes = [line.split()[1] for line in status.read_text().splitlines() if "RssAnon" in line]
                    self._seen[name] += [float(number) / 1e3 for number in kilobytes]


def _growth(seen: list[float]) -> dict[str, Any]:
    fifth = len(seen) // 5
    if not fifth:
        return {"growth_mb": None, "flat": False}
    warm, last = statistics.median(seen[fifth : 2 * fifth]), statistics.median(seen[-fifth:])
    hours = 3 / 5 * len(seen) * WATCH_EVERY_S / 3600
    return {
        "mb": round(last, 1),
        "growth_mb": round(last - warm, 2),
        "mb_an_hour": round((last - warm) / hours, 1),
        "flat": last - warm < FLAT_MB + 0.02 * warm,
    }
