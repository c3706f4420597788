"""A soak from start to account."""

import json
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stream.lsl.discovery import load_lsl
from tests.soak.account import account
from tests.soak.chaos import KINDS, PAUSE_S, Source, torment
from tests.soak.live import LiveProgram, live_account
from tests.soak.plan import Plan

CONNECT_S = 90.0
LEAD_S = 1.0
CALM_S = 15.0  # at the end, in which everybody finds everybody again
DRAIN_S = 30.0
WATCH_EVERY_S = 1.0
FLAT_MB = 5.0  # and 2 % of what a process has


def soak(
    plans: list[Plan],
    seconds: float,
    seed: int,
    say: Callable[[str], None],
    live: LiveProgram | None = None,
    pause_s: tuple[float, float] = PAUSE_S,
    kinds: Sequence[str] = KINDS,
) -> dict[str, Any]:
    """Run and add up.

    Parameters
    ----------
    plans : list of Plan
    seconds : float
        Of streaming; the plans' places are of the same time.
    seed : int
    say : callable
        Takes a line for whoever watches.
    live : LiveProgram, optional
        Decodes the first plan's source all the while.
    pause_s : tuple of float
        Between two kills or stalls, from and to.
    kinds : sequence of str
        What happens, of `tests.soak.chaos.KINDS`.

    Returns
    -------
    dict
        'wrong' lists what does not add up; 'begin' is the LSL time of each source's first sample.
    """
    sources = [Source(plan, plan.write()) for plan in plans]
    said: dict[str, Any] | None = None
    try:
        begin = _connect(sources, live)
        say(f"streaming for {seconds:g} s")
        others = [live.process] if live and live.process else []
        watch = Watch(sources, others)
        try:
            happened = torment(sources, others, seconds - CALM_S, np.random.default_rng(seed), pause_s, kinds)
            for source in sources:
                _drained(source, CALM_S + DRAIN_S)
        finally:
            memory = watch.stop()
        said = live.end() if live else None
        for source in sources:
            source.receiver.terminate()
            source.receiver.wait(30)
    finally:
        for source in sources:
            source.close()
        if live:
            live.kill()
    answers = {source.plan.name: asdict(account(source.plan, begin)) for source in sources}
    wrong = [f"{name}: {line}" for name, answer in answers.items() for line in answer.pop("wrong")]
    wrong += [f"{name}: memory grew by {m['growth_mb']} MB" for name, m in memory.items() if not m["flat"]]
    if said is not None:
        answers["live"], more = live_account(plans[0], said)
        wrong += more
    about = {"seconds": seconds, "seed": seed, "begin": begin, "happened": happened}
    return {**about, **answers, "memory": memory, "wrong": wrong}


def _connect(sources: list[Source], live: LiveProgram | None) -> float:
    """Start everybody; return the LSL time of the first sample, which nobody may miss."""
    for source in sources:
        source.start()
    if live:
        live.start(sources[0].plan.name)
    for source in sources:
        _line(source.receiver, CONNECT_S)
    if live:
        live.wait_until_running(CONNECT_S)
    begin: float = load_lsl().local_clock() + LEAD_S
    for source in sources:
        source.go(begin)
    return begin


def _line(process: Any, seconds: float) -> None:
    """Wait for a process's first line."""
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(process.stdout.readline()), daemon=True)
    reader.start()
    reader.join(seconds)
    if not got or not got[0]:
        raise TimeoutError("a receiver did not connect")


def _drained(source: Source, seconds: float) -> None:
    """Wait until the receiver's account covers the whole grid and nothing more comes."""
    path = Path(source.plan.folder) / "account.json"
    deadline = time.monotonic() + seconds
    before: list[int] = []
    while time.monotonic() < deadline:
        stats = json.loads(path.read_text("utf-8"))
        now = [stats[each]["samples"] + stats[each]["lost"] for each in ("samples", "markers")]
        if min(now) >= source.plan.places and now == before:
            return
        before = now
        time.sleep(1.0)


class Watch:
    """Anonymous memory of processes, once a second, in a thread of its own."""

    def __init__(self, sources: list[Source], others: list[subprocess.Popen[str]]) -> None:
        self._processes = {f"receiver of {source.plan.name}": source.receiver.pid for source in sources}
        self._processes |= {f"live {process.pid}": process.pid for process in others}
        self._seen: dict[str, list[float]] = {name: [] for name in self._processes}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, dict[str, Any]]:
        """Compare the last fifth of the time with the second, in which everything is warm; fit a line from there on."""
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
    hours = np.arange(len(seen)) * WATCH_EVERY_S / 3600
    return {
        "mb": round(last, 1),
        "growth_mb": round(last - warm, 2),
        "mb_an_hour": round(float(np.polyfit(hours[fifth:], seen[fifth:], 1)[0]), 1),
        "flat": last - warm < FLAT_MB + 0.02 * warm,
    }
