"""What a pool costs a room, what several rooms get from it, and (*simulated*) what one of many GPUs would carry.

Real: desk models on this machine's CPU, features that the demo's decoder gives for simulated EEG, loopback. One room
asks an engine of its own and the pool turn by turn, so that `over_own_ms` (medians of the differences) holds whatever
else ran; rooms then send windows at a fixed rate, alone and several; closed loops of rooms that always ask give the
throughput beside one engine's of the same threads.

Simulated (`--simulated`): the real door and the real Ray Serve application with replicas that sleep what a GPU would
take by batch size, and rooms whose windows come by chance (Poisson). The GPU is a model: UNet calls of SD-Turbo's
shapes and gradient steps as they were timed once on an H100 (CUDA graphs, fp16: 7.24 ms a call alone, 27.5 ms for
eight; 2.04 ms a step alone, for eight taken to grow as the call does), two calls and eight steps a picture. Pictures
are small, and everything else, rooms included, runs on this machine's cores, whose share the figures hold.

    python -m benchmarks.pool --json
    python -m benchmarks.pool --simulated --rooms 64 --replicas 8
    python -m benchmarks.pool --scaling --replicas 4
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.machine import machine
from decoder.features import Features, LayerTarget
from engine.picture import Picture
from engine.spec import EngineSpec
from minddiffuser.config.engine import PoolSpec, RoomEngineSpec
from minddiffuser.config.spec import Config
from minddiffuser.pool.replica import LocalEngine, Make
from minddiffuser.pool.run import run_pool
from minddiffuser.remote.client import PoolClient
from minddiffuser.remote.engine import UNREACHABLE
from minddiffuser.remote.errors import RemoteError

CALL_S, CALLS_OF_8_S, STEP_S = 7.24e-3, 27.5e-3, 2.04e-3
CALLS, STEPS = 2, 8
SIZE = 128
SPACE = "simulated"
RATE_HZ = 0.5
"""Windows a second of a room: a picture every two seconds."""
OVER_MS, FOUR_P99_MS = 25.0, 1500.0
"""What a pool may add to a picture, and the 99th percentile of four rooms."""


class SleepingEngine:
    """Takes as long as a GPU would, and makes grey pictures."""

    def __init__(self, spec: EngineSpec, batch: int) -> None:
        del spec, batch

    def about(self) -> dict[str, Any]:
        """Return shapes like the desk models'."""
        shapes = {"latent_shape": [8, 16, 16], "tokens": 16, "context_dim": 128, "units": 12480}
        return {"feature_space": SPACE, "size": [SIZE, SIZE], "backend": "sleep", "models": {}} | shapes

    def reconstruct(
        self, features: Sequence[Features], on_preview: Callable[[list[Picture]], None] | None, seeds: Sequence[int]
    ) -> list[Picture]:
        """Sleep for stage 1 and for stage 2."""
        count = len(features)
        call = CALL_S + (CALLS_OF_8_S - CALL_S) * (count - 1) / 7
        pixels = np.full((SIZE, SIZE, 3), 128, np.uint8)
        pictures = [
            Picture(f.window_id, 2, pixels, seed, "sleep", {"gpu": CALLS * call}, batch=count)
            for f, seed in zip(features, seeds, strict=True)
        ]
        time.sleep(call)
        if on_preview is not None:
            on_preview(pictures)
        time.sleep((CALLS - 1) * call + STEPS * STEP_S * call / CALL_S)
        return pictures


@dataclass(frozen=True, slots=True)
class Room:
    """A room that sends windows.

    Attributes
    ----------
    name : str
    rate : float
        Windows a second; 0: the next one as soon as the last is there.
    poisson : bool
        Windows come by chance at that rate, and not evenly.
    """

    name: str
    rate: float
    poisson: bool = False


@dataclass(slots=True)
class Got:
    """What a room got: milliseconds from a window's being ready, and what became of the others."""

    preview: list[float] = field(default_factory=list)
    picture: list[float] = field(default_factory=list)
    batches: Counter[int] = field(default_factory=Counter)
    windows: int = 0
    dropped: int = 0
    failed: int = 0


async def _ask(client: PoolClient, about: Any, window: Features, ready: float, got: Got) -> None:
    try:
        async for kind, picture in client.pictures(about, window, stage2=True):  # noqa: B007  it is used below
            getattr(got, kind).append((time.perf_counter() - ready) * 1e3)
        got.batches[picture.batch] += 1
    except (RemoteError, *UNREACHABLE):
        got.failed += 1


async def _run_room(room: Room, url: str, windows: Sequence[Features], seconds: float, seed: int) -> Got:
    """Send windows for so long, policy `latest`: while one is under way, only the newest waits."""
    got, rng = Got(), np.random.default_rng(seed)
    async with PoolClient(RoomEngineSpec(remote=url, timeout_s=60), room.name) as client:
        about = await client.about()
        start = time.perf_counter()
        if not room.rate:
            while time.perf_counter() - start < seconds:
                got.windows += 1
                await _ask(client, about, windows[got.windows % len(windows)], time.perf_counter(), got)
            return got
        gaps = rng.exponential(1 / room.rate, 10_000) if room.poisson else np.full(10_000, 1 / room.rate)
        onsets = start + rng.uniform(0, 1 / room.rate) + np.cumsum(gaps) - gaps[0]
        onsets = onsets[onsets < start + seconds]
        place = 0
        while place < len(onsets):
            await asyncio.sleep(max(0.0, onsets[place] - time.perf_counter()))
            newest = int(np.searchsorted(onsets, time.perf_counter(), side="right")) - 1
            got.dropped += max(0, newest - place)
            place = max(place, newest)
            await _ask(client, about, windows[place % len(windows)], float(onsets[place]), got)
            place += 1
        got.windows = len(onsets)
    return got


def run_rooms(rooms: Sequence[Room], url: str, windows: Sequence[Features], seconds: float) -> list[Got]:
    """Run rooms side by side; in a process of its own."""

    async def together() -> list[Got]:
        work = (_run_room(room, url, windows, seconds, i) for i, room in enumerate(rooms))
        return list(await asyncio.gather(*work))

    return asyncio.run(together())


def paired(spec: EngineSpec, url: str, windows: Sequence[Features], count: int) -> dict[str, float]:
    """Ask an engine of one's own and the pool for the same windows, turn by turn; in a process of its own."""
    engine = LocalEngine(spec, 1)
    own, pool = Got(), Got()

    async def turns() -> None:
        async with PoolClient(RoomEngineSpec(remote=url, timeout_s=60), "paired") as client:
            about = await client.about()
            for i in range(count):
                window, ready = windows[i % len(windows)], time.perf_counter()
                previews: list[float] = []
                engine.reconstruct([window], lambda _, p=previews: p.append(time.perf_counter()), [0])  # type: ignore[misc]
                own.preview.append((previews[0] - ready) * 1e3)
                own.picture.append((time.perf_counter() - ready) * 1e3)
                await _ask(client, about, window, time.perf_counter(), pool)

    asyncio.run(turns())
    over = {kind: np.subtract(getattr(pool, kind), getattr(own, kind)) for kind in ("preview", "picture")}
    return {
        "own_preview_ms": median(own.preview),
        "own_picture_ms": median(own.picture),
        "pool_preview_ms": median(pool.preview),
        "pool_picture_ms": median(pool.picture),
        "over_own_preview_ms": median(over["preview"]),
        "over_own_picture_ms": median(over["picture"]),
    }


def bounds(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold what `real` found against what a pool is to keep to."""
    lines: list[dict[str, Any]] = []

    def line(what: str, figure: float, bound: float, *, least: bool = False) -> None:
        held = figure >= bound if least else figure <= bound
        lines.append({"what": what, "figure": figure, "bound": f"{'>=' if least else '<='} {bound:g}", "held": held})

    for name, one in found.items():
        room, four = one["one room"], one[f"4 rooms at {RATE_HZ:g}/s"]
        slow, own = one["slow room alone, and beside a fast one"], one["one engine alone, pictures a second"]
        line(f"{name}: a preview over an engine of one's own, ms", room["over_own_preview_ms"], OVER_MS)
        line(f"{name}: a picture over an engine of one's own, ms", room["over_own_picture_ms"], OVER_MS)
        line(f"{name}: lost of four rooms' windows", four["dropped"] + four["failed"], 0)
        line(f"{name}: four rooms' p99, ms", four["picture_p50_p99_ms"][1], FOUR_P99_MS)
        longer = round(slow[1]["picture_p50_p99_ms"][1] - slow[0]["picture_p50_p99_ms"][1], 1)
        line(f"{name}: a slow room's p99 beside a fast one over alone, ms", longer, room["own_picture_ms"])
        line(f"{name}: pictures a second", one["as fast as it goes"]["pictures_a_second"], own, least=True)
    return lines


def own_throughput(spec: EngineSpec, windows: Sequence[Features], seconds: float) -> float:
    """Return the pictures a second of one engine alone; in a process of its own."""
    engine, done, start = LocalEngine(spec, 1), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        engine.reconstruct([windows[done % len(windows)]], None, [0])
        done += 1
    return round(done / (time.perf_counter() - start), 3)


@asynccontextmanager
async def running(engine: EngineSpec, spec: PoolSpec, make: Make) -> AsyncIterator[str]:
    """Run a pool in this process; give its address."""
    config = Config.model_validate(
        {"name": "pool", "data": {"dataset": "recording"}, "source": {"name": "-"}, "window": {"tmin": 0, "tmax": 1}}
    ).model_copy(update={"engine": engine, "pool": spec})
    stop, url = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(run_pool(config, stop, on_ready=lambda u, _: url.set_result(u), make=make))
    await asyncio.wait({serving, url}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if not url.done():
            serving.result()
        yield url.result()
    finally:
        stop.set()
        account = await serving
        assert account["windows"] == account["pictures"] + account["failed"] + account["abandoned"], account


def median(values: Sequence[float] | np.ndarray[Any, Any]) -> float:
    """Return the median of some milliseconds."""
    return round(float(np.median(values)), 1)


def summary(found: Sequence[Got], seconds: float) -> dict[str, Any]:
    """Summarise what some rooms got."""
    previews, pictures = (np.concatenate([getattr(got, k) for got in found]) for k in ("preview", "picture"))
    p99 = [float(np.percentile(got.picture, 99)) for got in found if got.picture]
    batches = sum((got.batches for got in found), Counter[int]())
    counts = {key: sum(getattr(got, key) for got in found) for key in ("windows", "dropped", "failed")}
    made = [len(got.picture) for got in found]
    return counts | {
        "pictures": len(pictures),
        "pictures_a_second": round(len(pictures) / seconds, 2),
        "preview_p50_p99_ms": [median(previews), round(float(np.percentile(previews, 99)), 1)],
        "picture_p50_p99_ms": [median(pictures), round(float(np.percentile(pictures, 99)), 1)],
        "p99_of_best_and_worst_room_ms": [round(min(p99), 1), round(max(p99), 1)],
        "fewest_and_most_pictures_of_a_room": [min(made), max(made)],
        "batches": dict(sorted(batches.items())),
    }


async def real(seconds: float, count: int) -> dict[str, Any]:
    """Measure desk models with one and two replicas."""
    from benchmarks.engine import decoded
    from minddiffuser.workflows.demo import prepare

    prepared = prepare()
    windows = decoded(prepared, 0, 20).features
    models, cores = prepared.config.engine.models, os.cpu_count() or 1
    found: dict[str, Any] = {}
    with _apart() as apart:
        for replicas in (1, 2):
            engine = EngineSpec(models=models, threads=max(1, cores // replicas))
            spec = PoolSpec(replicas=replicas, port=0)
            own = await apart(own_throughput, engine, windows, seconds)
            async with running(engine, spec, LocalEngine) as url:
                one = found[f"{replicas} x {engine.threads} threads"] = {}
                one["one engine alone, pictures a second"] = own
                one["one room"] = await apart(paired, engine, url, windows, count)
                for rooms in (1, 4, 8):
                    even = [Room(f"room {i}", RATE_HZ) for i in range(rooms)]
                    got = await apart(run_rooms, even, url, windows, seconds)
                    one[f"{rooms} rooms at {RATE_HZ:g}/s"] = summary(got, seconds)
                beside = [Room("slow", 1.0), Room("fast", 10.0)]
                alone = await apart(run_rooms, beside[:1], url, windows, seconds)
                got = await apart(run_rooms, beside, url, windows, seconds)
                one["slow room alone, and beside a fast one"] = [summary([g], seconds) for g in (*alone, got[0])]
                crowd = [Room(f"crowd {i}", 0.0) for i in range(2 * replicas)]
                one["as fast as it goes"] = summary(await apart(run_rooms, crowd, url, windows, seconds), seconds)
    return found | {"bounds": bounds(found)}


async def simulated(seconds: float, rooms: int, most: int) -> dict[str, Any]:
    """Measure the application with engines that sleep: rooms by chance, and the curve over replicas."""
    found: dict[str, Any] = {}
    windows = _windows(20)
    with _apart() as apart:
        for replicas in [n for n in (1, 2, 4, 8, 16) if n <= most]:
            spec = PoolSpec(replicas=replicas, port=0, cpus=0, batch=8, queue=256, room_queue=4)
            async with running(EngineSpec(), spec, SleepingEngine) as url:
                crowd = [Room(f"crowd {i}", 0.0) for i in range(16 * replicas)]
                got = await apart(run_rooms, crowd, url, windows, seconds)
                found[f"{replicas} replicas, as fast as it goes"] = summary(got, seconds)
                some = {n for n in (8, 16, 32, rooms) if n <= rooms and (replicas in {1, most})}
                for n in sorted(some):
                    chance = [Room(f"room {i}", RATE_HZ, poisson=True) for i in range(n)]
                    got = await apart(run_rooms, chance, url, windows, seconds)
                    found[f"{replicas} replicas, {n} rooms by chance at {RATE_HZ:g}/s"] = summary(got, seconds)
    return found


async def scaling(seconds: float, most: int) -> dict[str, Any]:
    """Count replicas while a crowd comes to a pool of one that may have more, and after it has gone."""
    from ray import serve

    from minddiffuser.pool.ray_cluster import NAME, SCALING

    spec = PoolSpec(replicas=1, max_replicas=most, port=0, cpus=0, batch=8, queue=256)
    changes: list[tuple[float, int]] = []
    start, over = time.perf_counter(), asyncio.Event()

    def look() -> int:
        states = serve.status().applications[NAME].deployments["engine"].replica_states
        return sum(count for state, count in states.items() if state == "RUNNING")

    async def watch() -> None:
        while not over.is_set() or changes[-1][1] > 1:
            now = await asyncio.to_thread(look)
            if not changes or now != changes[-1][1]:
                changes.append((round(time.perf_counter() - start, 1), now))
            await asyncio.sleep(0.5)

    with _apart() as apart:
        async with running(EngineSpec(), spec, SleepingEngine) as url:
            start = time.perf_counter()
            watching = asyncio.create_task(watch())
            crowd = [Room(f"crowd {i}", 0.0) for i in range(16 * most)]
            got = await apart(run_rooms, crowd, url, _windows(20), seconds)
            gone = round(time.perf_counter() - start, 1)
            over.set()
            await asyncio.wait_for(watching, 2 * SCALING["downscale_delay_s"])
    return {"replicas since": changes, "the crowd went after": gone} | summary(got, seconds)


def _windows(count: int) -> list[Features]:
    """Return features of the desk models' shapes that mean nothing."""
    rng = np.random.default_rng(0)

    def block() -> LayerTarget:
        mask = rng.random(12480) < 0.25
        return LayerTarget((rng.normal(size=12480) * mask).astype(np.float32), mask)

    def numbers(*shape: int) -> np.ndarray[Any, Any]:
        return rng.normal(size=shape).astype(np.float32)

    return [
        Features(f"{i}-w", numbers(16, 128), numbers(8, 16, 16), {b: block() for b in (1, 2, 3)}) for i in range(count)
    ]


class _apart:  # noqa: N801  a block
    """Run functions in another process, which loads nothing that this one has."""

    def __enter__(self) -> Callable[..., Any]:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        loop = asyncio.get_running_loop()
        return lambda function, *given: loop.run_in_executor(self._pool, function, *given)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def main() -> None:
    """Measure, and print one JSON object."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line has it
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="in one line")
    parser.add_argument("--simulated", action="store_true", help="engines that sleep, in place of the desk models")
    parser.add_argument("--scaling", action="store_true", help="the same, from one to --replicas as rooms come and go")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=30, help="pictures of the paired measurement")
    parser.add_argument("--rooms", type=int, default=64)
    parser.add_argument("--replicas", type=int, default=8)
    given = parser.parse_args()
    if given.scaling:
        work = scaling(given.seconds, given.replicas)
    elif given.simulated:
        work = simulated(given.seconds, given.rooms, given.replicas)
    else:
        work = real(given.seconds, given.repeats)
    kind = "simulated: engines sleep" if given.simulated or given.scaling else "desk models, simulated EEG"
    found = {"kind": kind, "machine": machine(), "seconds": given.seconds, "found": asyncio.run(work)}
    print(json.dumps(found, indent=None if given.json else 1))


if __name__ == "__main__":
    main()
