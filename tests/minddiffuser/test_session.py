"""What a live session says of itself, heard by an independent subscriber."""

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.reconstructor import Reconstructor
from engine.spec import EngineSpec, StructureSpec
from minddiffuser.archive.latency import EDGES_MS
from minddiffuser.config.spec import Config, QueueSpec
from minddiffuser.live.engines import ready_engine
from minddiffuser.live.session import Account, Session, counts
from stream.epochs.ingest_stats import IngestStats
from stream.mqtt.broker import EmbeddedBroker
from stream.mqtt.messages import lsl_clock
from stream.mqtt.publisher import Publisher
from stream.mqtt.subscriber import Subscriber
from stream.mqtt.wire_models import FORMER_NAMES, Ingest
from tests.soak.chaos import Source
from tests.soak.live import NOISE, LiveProgram, plan_of

PICTURES = 6
LIMIT_S = 120.0
WAY = ("acquired", "ready", "taken", "decoded", "stage1", "preview_published", "stage2", "published")


@pytest.fixture
def hurried(program: LiveProgram, tmp_path: Path) -> Iterator[Config]:
    """Send a marker every tenth of a second, several for each picture, and give a config that reads them."""
    plan = plan_of(program, f"hurried-{uuid.uuid4().hex[:8]}", 600, 0, tmp_path / "source")
    source = Source(plan := replace(plan, marker_every=25), plan.write())
    try:
        source.start_sender()
        source.go(lsl_clock())
        spec = program.config.source.model_copy(update={"name": plan.name, "type": None, "timeout_s": 30.0})
        filters = program.config.filters.model_copy(update={**NOISE, "channels": program.bundle.channels.names})
        publish = program.config.publish.model_copy(update={"abstain_below": 0.0})
        yield program.config.model_copy(update={"source": spec, "filters": filters, "publish": publish})
    finally:
        source.close()


async def run(
    config: Config, program: LiveProgram, engine: Reconstructor
) -> tuple[Account, list[dict[str, Any]], list[dict[str, Any]]]:
    """Run a session until some pictures are out; give its account, and all it said: metas and metrics."""
    said: dict[str, list[dict[str, Any]]] = {"meta": [], "metrics": [], "status": []}
    stop = asyncio.Event()
    async with (
        asyncio.timeout(LIMIT_S),
        EmbeddedBroker(0) as broker,
        Publisher(broker.spec, "hurried") as publisher,
        Subscriber(broker.spec, "hurried") as messages,
    ):
        running = asyncio.create_task(Session(config, program.bundle, engine, publisher).run(stop))
        async for message in messages:
            if message.kind in said:
                said[message.kind].append(message.json())
            if sum(meta["stage"] == "picture" for meta in said["meta"]) >= PICTURES:
                stop.set()
            if said["status"] and said["status"][-1]["state"] == "ended":
                break
        return await running, said["meta"], said["metrics"]


@pytest.mark.slow
async def test_every_dropped_window_is_in_the_metadata_and_the_metrics(hurried: Config, program: LiveProgram) -> None:
    """With either policy each picture says how many windows were dropped before it, and metrics and account agree."""
    # Pictures of the defaults take longer than it is from marker to marker.
    slow = EngineSpec(structure=StructureSpec(check=False))
    engine = await asyncio.to_thread(ready_engine, slow, program.bundle)
    for queue in (QueueSpec(policy="latest"), QueueSpec(policy="every", length=2)):
        account, metas, metrics = await run(hurried.model_copy(update={"queue": queue}), program, engine)
        assert account.dropped
        last = metrics[-1]
        # A window's id begins with its number: each one before it is a picture, said to be left out, or dropped; the
        # first ones may have begun before the stream, and are counted as incomplete.
        pictures = [meta for meta in metas if meta["stage"] == "picture"]
        left_out = [number(meta) for meta in metas if meta["stage"] == "abstained" and meta["state"] != "dropped"]
        dropped = [number(meta) for meta in metas if meta.get("state") == "dropped"]
        assert len(dropped) == account.dropped
        assert [meta["index"] for meta in pictures] == [number(meta) + 1 for meta in pictures]
        assert len(pictures) == account.published >= PICTURES
        for before, meta in enumerate(pictures):
            known = before + sum(n < number(meta) for n in left_out) + last["ingest"]["incomplete"]
            assert number(meta) == known + meta["dropped"]
        drops = last["drops"]
        assert (last["windows"], last["published"]) == (account.windows, account.published)
        assert drops["dropped"] == account.dropped
        assert last["windows"] == last["published"] + sum(
            drops[kind] for kind in ("dropped", "rejected", "abstained", "failed")
        )
        assert max(one["queues"]["windows"] for one in metrics) <= (queue.length if queue.policy == "every" else 1)
        the_way_of_each_picture_is_complete(pictures, last)


def number(meta: dict[str, Any]) -> int:
    """Give the number of a meta's window."""
    return int(meta["window_id"].partition("-")[0])


def the_way_of_each_picture_is_complete(pictures: list[dict[str, Any]], metrics: dict[str, Any]) -> None:
    """Each picture carries all its times, in order; the histograms hold each picture once at every step."""
    for meta in pictures:
        times = [meta["times"][step] for step in WAY]
        assert all(earlier <= later for earlier, later in pairwise(times)), meta["times"]
    counts = metrics["latency_histogram"]["counts"]
    assert metrics["latency_histogram"]["edges_ms"] == list(EDGES_MS)
    assert set(counts) == set(metrics["latency_ms"])
    assert {step: sum(bins) for step, bins in counts.items() if step != "broker"} == dict.fromkeys(
        counts.keys() - {"broker"}, len(pictures)
    )
    assert sum(counts["broker"]) >= len(pictures) - 1  # the last may still be on its way when the metrics are


def test_counts_are_told_under_their_former_names_too() -> None:
    """Displays of the last release read what a session publishes, and this one's model takes what they wrote."""
    numbers = counts(IngestStats(incomplete=2, duplicates=3, unmatched=4))
    assert [numbers[former] for former in FORMER_NAMES.values()] == [numbers[name] for name in FORMER_NAMES]
    assert {numbers[name] for name in FORMER_NAMES} == {2, 3, 4}
    assert set(FORMER_NAMES.values()) <= set(Ingest.model_fields)
