"""Ten minutes of three rooms while replicas and the whole pool are killed: `python -m pytest tests/pool -m big`."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from engine.models.loading import Models
from minddiffuser.remote.engine import RemoteEngine
from tests.brokers import until
from tests.minddiffuser.faulty import GAP_S, Run, live
from tests.minddiffuser.test_session_faults import closes
from tests.pool.pools import Pool, RayCluster, end, spec_of
from tests.pool.test_pool import account_of

pytest.importorskip("ray")
MINUTES = 10
ROOMS = 3
REPLICAS_KILLED = (60, 120, 240, 300, 480)
POOL_KILLED = (180, 400)
"""Seconds from the start."""
GROWTH_MB = 60
"""Resident memory of the rooms' process, from a quarter of the time to its end."""


def said(line: str) -> None:
    """Print a line of the account; `-s` shows it."""
    print(line)  # noqa: T201


async def seconds_without_a_pool(pool: Pool, runs: list[Run]) -> float:
    """Kill the pool, start it again, and return how long after that every room has a picture."""
    pool.kill()
    await asyncio.sleep(5)
    await asyncio.to_thread(pool.start)
    ready, before = time.monotonic(), [run.session.account.published for run in runs]
    await until(lambda: all(r.session.account.published > b for r, b in zip(runs, before, strict=True)), 30)
    return time.monotonic() - ready


@pytest.mark.big
@pytest.mark.timeout(60 * MINUTES + 400)
async def test_rooms_outlive_replicas_and_pools(
    cluster: RayCluster, tiny: Models, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every account closes, nothing is published twice, pictures come again within 5 s, and memory stays."""
    pool = Pool(cluster, tmp_path, spec_of(tiny), {"replicas": 2, "cpus": 0.5, "batch": 2})
    pool.make_secrets()
    await asyncio.to_thread(pool.start)
    fates = ["fine"] * round(60 * MINUTES / GAP_S)
    runs: list[Run] = []
    pictures: list[list[str]] = [[] for _ in range(ROOMS)]

    def forget() -> None:
        """Keep of what was heard the pictures' ids alone: what tests keep is no growth of the rooms."""
        for run, own in zip(runs, pictures, strict=True):
            own += [meta["window_id"] for meta in run.metas("picture")]
            run.heard.clear()
        caplog.clear()

    async with AsyncExitStack() as stack:
        for number in range(ROOMS):
            room = RemoteEngine(pool.room(timeout_s=20), f"room {number}", tiny.feature_space)
            engine = await stack.enter_async_context(room)
            (folder := tmp_path / f"room {number}").mkdir()
            runs.append(await stack.enter_async_context(live(tiny, fates, folder, engine=engine)))
        await until(lambda: all(run.session.account.published for run in runs), 60)
        start, memory, back = time.monotonic(), [], []
        events = sorted([(at, "replica") for at in REPLICAS_KILLED] + [(at, "pool") for at in POOL_KILLED])
        while (now := time.monotonic() - start) < 60 * MINUTES - 20:
            if events and now >= events[0][0]:
                if events.pop(0)[1] == "replica":
                    end(cluster.replicas()[:1])
                else:
                    back.append(await seconds_without_a_pool(pool, runs))
            forget()
            replicas = sum(process.memory_info().rss for process in cluster.replicas()) / 2**20
            memory.append((psutil.Process().memory_info().rss / 2**20, replicas))
            await asyncio.sleep(2)
        for run in runs:
            run.stop.set()
            await run.running
        account = await account_of(pool)
    await asyncio.to_thread(pool.stop)
    forget()
    for run, own in zip(runs, pictures, strict=True):
        one = run.session.account
        said(f"room: {one.windows} windows, {one.published} published, {one.dropped} dropped, {one.failed} failed")
        assert closes(one)
        assert len(own) == len(set(own)) == one.published
    said(f"the last pool: {account}")
    said(f"pictures again after {[round(seconds, 1) for seconds in back]} s")
    quarter = len(memory) // 4
    said(f"memory, MB: {[tuple(map(round, pair)) for pair in (memory[quarter], memory[2 * quarter], memory[-1])]}")
    assert account["windows"] == account["pictures"] + account["failed"] + account["abandoned"] + account["in_work"]
    assert max(back) < 5
    assert memory[-1][0] - memory[quarter][0] < GROWTH_MB
