"""A pool with two replicas on a Ray cluster of two nodes, as rooms see it."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from engine.models.loading import Models
from engine.picture import Picture
from engine.reconstructor import Reconstructor
from minddiffuser.config.engine import PoolSpec, RoomEngineSpec
from minddiffuser.errors import AppError, ConfigError
from minddiffuser.remote.engine import RemoteEngine
from minddiffuser.remote.errors import PoolLostError
from minddiffuser.remote.frames import pack
from minddiffuser.remote.protocol import ABOUT, ACCOUNT, METRICS, PICTURES, PROTOCOL, VERSION_HEADER
from tests.brokers import until
from tests.conftest import Cli
from tests.minddiffuser.faulty import config_for, live
from tests.minddiffuser.test_session_faults import closes
from tests.pool.pools import Pool, RayCluster, end, features_of, gone, spec_of

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="ends Ray's processes by Linux' means"),
]
AGAIN_S = 5.0
"""Seconds after which, once a pool is back, pictures come again at the latest."""


@pytest.fixture(scope="module")
def pool(cluster: RayCluster, tiny: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Start a pool of two replicas on the cluster."""
    settings = {"replicas": 2, "cpus": 0.5, "batch": 4, "body_mb": 0.5, "queue": 6, "room_queue": 3}
    pool = Pool(cluster, tmp_path_factory.mktemp("pool"), spec_of(tiny), settings)
    pool.make_secrets()
    pool.start()
    yield pool
    if pool.process is not None:
        replicas = cluster.replicas()
        account = pool.stop()
        assert account["windows"] == account["pictures"] + account["failed"] + account["abandoned"]
        assert replicas
        assert not gone(replicas, 20)


@pytest.fixture(scope="module")
def local(tiny: Models) -> Reconstructor:
    """Return an engine like the pool's in this process."""
    engine = Reconstructor(spec_of(tiny), tiny)
    engine.warm_up(4)
    return engine


def trusting(pool: Pool) -> ssl.SSLContext:
    """Return what trusts the pool's certificate."""
    return ssl.create_default_context(cafile=pool.certificate)


async def ask(pool: Pool, path: str, **more: Any) -> tuple[int, bytes]:
    """Send a bare request with the token, and return status and body."""
    headers = {"Authorization": f"Bearer {pool.token}", VERSION_HEADER: str(PROTOCOL)} | more.pop("headers", {})
    method = "POST" if "data" in more else "GET"
    async with (
        aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=trusting(pool))) as session,
        session.request(method, pool.url + path, **more) as answer,
    ):
        return answer.status, await answer.read()


async def account_of(pool: Pool) -> dict[str, Any]:
    """Return the pool's account."""
    return dict(json.loads((await ask(pool, ACCOUNT))[1]))


async def test_pictures_are_those_of_a_local_engine(pool: Pool, tiny: Models, local: Reconstructor) -> None:
    """Three rooms with seeds of their own get, in order, what an engine of their own makes, alone or in any batch.

    Alone the pixels are the same. Sums of other lengths are added up in another order, so that in a batch a value in
    a thousand may be rounded to the next grey level.
    """
    rooms = {seed: features_of(tiny, 8, seed) for seed in (0, 7, 2**62)}
    previews: dict[int, list[Picture]] = {seed: [] for seed in rooms}

    async def room(seed: int, together: int) -> list[Picture]:
        found: list[Picture] = []
        async with RemoteEngine(pool.room(seed=seed), f"room {seed}", tiny.feature_space) as engine:
            for start in range(0, 8, together):
                part = rooms[seed][start : start + together]
                found += await asyncio.to_thread(engine.reconstruct, part, previews[seed].extend)
        return found

    seeds = list(rooms)
    made = dict(zip(seeds, await asyncio.gather(*(room(seed, 2) for seed in seeds)), strict=True))
    batches, same, values = Counter[int](), 0, 0
    for seed, pictures in made.items():
        first: list[Picture] = []
        own = [local.reconstruct([one], first.extend, [seed])[0] for one in rooms[seed]]
        for mine, theirs in zip([*first, *own], [*previews[seed], *pictures], strict=True):
            named = ("window_id", "stage", "seed", "backend", "note", "confidence")
            assert [getattr(mine, key) for key in named] == [getattr(theirs, key) for key in named]
            apart = np.abs(mine.pixels.astype(int) - theirs.pixels)
            assert apart.max() <= (0 if theirs.batch == 1 else 1)
            same, values = same + int((apart == 0).sum()), values + apart.size
        batches.update(picture.batch for picture in pictures)
        steps = {"queue", "handover", "network", "stage1", "decode1"}
        assert all(steps <= picture.timings.keys() for picture in pictures)
    assert max(batches) > 1
    assert values - same <= values / 1000
    assert len({p.pixels.tobytes() for pictures in made.values() for p in pictures}) == 24  # seeds are the rooms' own
    alone = await room(0, 1)
    assert all((a.pixels == b.pixels).all() for a, b in zip(alone, made[0], strict=True) if a.batch == b.batch)


async def test_half_precision_and_no_stage_2_are_a_room_s_choice(
    pool: Pool, tiny: Models, local: Reconstructor
) -> None:
    """Features in half precision give nearly the same picture; without stage 2 it is stage 1's, without a note."""
    (window,) = features_of(tiny, 4, 3)[3:]
    async with RemoteEngine(pool.room(half=True), "half", tiny.feature_space) as engine:
        (half,) = await asyncio.to_thread(engine.reconstruct, [window])
    previews: list[Picture] = []
    (whole,) = local.reconstruct([window], previews.extend)
    assert half.stage == whole.stage
    assert np.abs(half.pixels.astype(int) - whole.pixels).mean() < 1
    async with RemoteEngine(pool.room(), "first", tiny.feature_space, stage2=False) as engine:
        (first,) = await asyncio.to_thread(engine.reconstruct, [window])
    assert (first.stage, first.note) == (1, "")
    assert (first.pixels == previews[0].pixels).all()


async def test_what_is_wrong_is_one_line_and_is_counted(pool: Pool, tiny: Models, tmp_path: Path) -> None:
    """Token, feature space, version, size, content: a line for the room, a count for the pool, and nothing dies."""
    other = tmp_path / "token"
    other.write_text("another-token-0123456789")
    before = await account_of(pool)

    async def refused(spec: RoomEngineSpec, space: str = tiny.feature_space) -> str:
        with pytest.raises(AppError) as caught:
            await RemoteEngine(spec, "wrong", space).__aenter__()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with pytest.raises(AppError, match="run `chmod 600"):
        RemoteEngine(pool.room(token_file=other), "open", tiny.feature_space)
    other.chmod(0o600)
    assert "refused: no token, or a wrong one" in await refused(pool.room(token_file=other))
    assert "but the pool at" in await refused(pool.room(), "0" * 64)
    port = pool.url.rpartition(":")[2]
    closed = f"https://127.0.0.1:{1 if port != '1' else 2}"
    assert "cannot reach the pool" in await refused(pool.room(remote=closed))
    assert "certificate verify failed" in await refused(pool.room(ca_file=None))
    status, text = await ask(pool, PICTURES, data=b"{}", headers={VERSION_HEADER: "2"})
    assert (status, json.loads(text)["refused"]) == (409, "version")
    status, text = await ask(pool, PICTURES, data=b"x" * 600_000)
    assert (status, json.loads(text)["refused"]) == (413, "body")
    head = {"room": "r", "window_id": "w", "seed": 0, "feature_space": tiny.feature_space, "size": [32, 32]}
    pickled = b"\x80\x04\x95"
    for garbage in (b"", b"\0" * 8, pickled, pack({}), pack(head), pack(head, b"\xff" * 40), pack(head, pickled)):
        status, text = await ask(pool, PICTURES, data=garbage)
        assert (status, json.loads(text)["refused"]) == (400, "content")
    assert (await ask(pool, "/nothing"))[0] == 404
    (window,) = features_of(tiny, 1, 0)
    async with RemoteEngine(pool.room(), "right", tiny.feature_space) as engine:
        engine._about = engine._about.model_copy(update={"size": [64, 64]})  # type: ignore[union-attr]
        with pytest.raises(Exception, match="pictures of"):
            await asyncio.to_thread(engine.reconstruct, [window])
        await engine._look()  # the pool is looked at again, and is not what this room began with
        assert "makes pictures of 32x32 pixels now, and made 64x64 before" in engine.lost
    async with RemoteEngine(pool.room(), "right", tiny.feature_space) as engine:
        assert (await asyncio.to_thread(engine.reconstruct, [window]))[0].pixels.any()
    now = await account_of(pool)
    new = Counter(now["refused"]) - Counter(before["refused"])
    assert new == {"token": 1, "version": 1, "body": 1, "content": 8, "size": 1}
    assert now["windows"] == now["pictures"] + now["failed"] + now["abandoned"] + now["in_work"]


async def test_a_room_with_models_goes_on_without_a_pool(pool: Pool, tiny: Models, local: Reconstructor) -> None:
    """With a fallback a session begins and goes on while no pool is there; without one a window fails at once."""
    (window,) = features_of(tiny, 2, 5)[1:]
    nobody = RoomEngineSpec(remote="http://127.0.0.1:1")
    previews: list[Picture] = []
    async with RemoteEngine(nobody, "room", tiny.feature_space, fallback=local) as engine:
        (picture,) = await asyncio.to_thread(engine.reconstruct, [window], previews.extend)
        assert "cannot reach the pool" in engine.lost
        assert engine.backend_name == local.backend_name
    assert (picture.pixels == local.reconstruct([window])[0].pixels).all()
    assert [preview.window_id for preview in previews] == [window.window_id]
    async with RemoteEngine(pool.room(), "room", tiny.feature_space) as engine:
        (theirs,) = await asyncio.to_thread(engine.reconstruct, [window])
        engine.lost = "cannot reach the pool"
        with pytest.raises(PoolLostError, match="cannot reach the pool"):
            await asyncio.to_thread(engine.reconstruct, [window])
    assert (theirs.pixels == picture.pixels).all()


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ({"engine": {"remote": "http://gpu.lab:8000"}}, "would go over the network in clear; use https"),
        ({"engine": {"remote": "gpu.lab"}}, "wanted an address such as"),
        ({"engine": {"half": True}}, "half goes with remote"),
        ({"pool": {"host": "192.0.2.1"}}, "set token_file, certificate and key"),
        ({"pool": {"certificate": "a.pem"}}, "certificate and key go together"),
        ({"pool": {"replicas": 4, "max_replicas": 2}}, "max_replicas 2 is less than replicas 4"),
    ],
)
def test_a_config_that_is_open_to_strangers_is_refused(part: dict[str, Any], line: str) -> None:
    """Clear text to another machine, a door without a lock, and what does not go together: one line each."""
    with pytest.raises(ConfigError) as caught:
        config_for("nobody", **part)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "cores", "each"),
    [
        ({}, 2, 2),
        ({}, None, 1),
        ({"cpus": 0.5}, 2, 0.5),
        ({"replicas": 2}, 2, 1),
        ({"replicas": 8}, 2, 1),
        ({"replicas": 2, "max_replicas": 4}, 9, 2),
    ],
)
def test_replicas_share_the_machine(spec: dict[str, Any], cores: float | None, each: float) -> None:
    """Unless the config says so, engines have all cores among them; on a cluster one each."""
    from minddiffuser.pool.ray_cluster import cpus_of

    assert cpus_of(PoolSpec(**spec), cores) == each


async def test_a_pool_of_another_version_is_not_joined(tiny: Models) -> None:
    """A room tells in one line that the two do not speak the same version, or that it is no pool at all."""

    async def newer(_: web.Request) -> web.Response:
        return web.json_response({"protocol": PROTOCOL + 1, "version": "9.9"})

    app = web.Application()
    app.router.add_get(ABOUT, newer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        with pytest.raises(AppError, match=r"speaks version 2 of the protocol .*9\.9.* and this room 1"):
            await RemoteEngine(RoomEngineSpec(remote=f"http://127.0.0.1:{port}"), "r", "space").__aenter__()
    finally:
        await runner.cleanup()


async def test_a_full_pool_answers_at_once_and_rooms_take_turns(pool: Pool, tiny: Models) -> None:
    """Of many windows at once those beyond the queue are refused; each room gets its share, and all are counted."""
    before = await account_of(pool)
    windows = features_of(tiny, 40, 1)

    async def crowd(name: str, count: int) -> list[object]:
        async with RemoteEngine(pool.room(), name, tiny.feature_space) as engine:
            work = (asyncio.to_thread(engine.reconstruct, [one]) for one in windows[:count])
            return await asyncio.gather(*work, return_exceptions=True)

    async def slow() -> list[Picture]:
        async with RemoteEngine(pool.room(), "slow", tiny.feature_space) as engine:
            return [(await asyncio.to_thread(engine.reconstruct, [one]))[0] for one in windows[:5]]

    fast, patient = await asyncio.gather(crowd("fast", 40), slow())
    assert len(patient) == 5
    full = [one for one in fast if isinstance(one, Exception)]
    assert all("is full: 3 windows of this room wait" in str(one) for one in full)
    now = await account_of(pool)
    assert now["refused"].get("full", 0) - before["refused"].get("full", 0) == len(full)
    assert now["rooms"]["fast"]["pictures"] == 40 - len(full)
    assert now["rooms"]["slow"] == {"windows": 5, "pictures": 5, "failed": 0, "abandoned": 0}
    assert now["in_work"] == 0
    status, text = await ask(pool, METRICS)
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    counted = {sample.labels["fate"]: sample.value for sample in families["pool_windows"].samples if sample.labels}
    assert (status, counted["pictures"]) == (200, now["pictures"])
    assert {"queue", "stage1", "total"} <= {s.labels["step"] for s in families["pool_step_seconds"].samples}


async def test_killed_replicas_and_a_killed_pool_cost_no_account(pool: Pool, tiny: Models, tmp_path: Path) -> None:
    """A live session goes on through a replica's death and the whole pool's; nothing is published twice."""
    async with (
        RemoteEngine(pool.room(timeout_s=20), "live", tiny.feature_space) as engine,
        live(tiny, ["fine"] * 240, tmp_path, engine=engine) as run,
    ):
        account = run.session.account
        await until(lambda: account.published >= 3, 60)
        end(pool.cluster.replicas()[:1])
        published = account.published
        await until(lambda: account.published >= published + 3, 60)
        before = await account_of(pool)
        assert before["windows"] == before["pictures"] + before["failed"] + before["abandoned"] + before["in_work"]
        pool.kill()
        await until(lambda: "engine-lost" in run.states(), 20)
        failed = account.failed
        await until(lambda: account.failed >= failed + 2, 20)
        published = account.published
        await asyncio.to_thread(pool.start)
        back = time.monotonic()
        await until(lambda: account.published > published, AGAIN_S + 1)
        assert time.monotonic() - back < AGAIN_S
        await until(lambda: run.states()[-1] == "running", 10)
        run.stop.set()
        await run.running
    assert closes(account)
    assert account.failed + account.dropped + account.published == account.windows
    pictures = [meta["window_id"] for meta in run.metas("picture")]
    assert len(pictures) == len(set(pictures)) == account.published
    previews = [meta["window_id"] for meta in run.metas("preview")]
    assert len(previews) == len(set(previews))
    reasons = {meta["reason"] for meta in run.metas("abstained") if meta["state"] == "failed"}
    assert any("cannot reach the pool" in reason for reason in reasons)
    meta = run.metas("picture")[-1]
    assert meta["batch"] == 1
    assert {"network", "queue", "handover", "stage1"} <= meta["steps_ms"].keys()
    metrics = [said for kind, said in run.heard if kind == "metrics"][-1]
    assert metrics["steps_ms"]["network"]["p50"] >= 0


def test_a_room_loads_neither_ray_nor_models(cli: Cli) -> None:
    """What a room imports holds no torch, no diffusers and no Ray."""
    code = (
        "import sys, minddiffuser.live.live, minddiffuser.remote.engine; "
        "print([m for m in ('torch', 'diffusers', 'transformers', 'open_clip', 'ray') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=cli.environment
    )
    assert found.stdout.strip() == "[]"
