"""Watching a session without a browser."""

import asyncio
import hashlib
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minddiffuser.errors import AppError
from minddiffuser.subscribe import Numbers, percentiles, saver, subscribe
from stream.broker import BrokerSpec, EmbeddedBroker
from stream.errors import PublishError
from stream.mqtt import Publisher


def picture(number: int) -> bytes:
    """Make a small PNG, another for every number."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 255 - number)).save(buffer, "PNG")
    return buffer.getvalue()


async def test_saves_and_counts_what_was_published(tmp_path: Path) -> None:
    """Each picture is saved as published beside a meta that names its digest, and the account adds up."""
    ready = asyncio.Event()
    async with EmbeddedBroker() as broker, Publisher(broker.spec, "lab", data="simulated EEG") as publisher:
        publisher.picture(picture(200), {"window_id": "before"})
        await publisher.flush()
        watching = asyncio.create_task(
            subscribe(broker.spec, "lab", keep=saver(tmp_path / "new", "lab"), count=10, seconds=30, on_ready=ready.set)
        )
        await ready.wait()
        for i in range(10):
            publisher.original(picture(3 * i), {"window_id": f"w{i}"})
            publisher.preview(picture(3 * i + 1), {"window_id": f"w{i}"})
            publisher.picture(picture(3 * i + 2), {"window_id": f"w{i}"})
        summary = await watching
    assert (summary.pictures, summary.previews, summary.originals, summary.retained) == (10, 10, 10, 1)
    assert (summary.lost, summary.out_of_order, summary.duplicates, summary.bad) == (0, 0, 0, 0)
    assert summary.data == "simulated EEG"
    assert 0 <= summary.latency_ms["picture"]["p50"] <= summary.latency_ms["picture"]["p99"]
    for i in range(10):
        meta = json.loads((tmp_path / "new" / f"w{i}.picture.json").read_text())
        saved = (tmp_path / "new" / f"w{i}.picture.png").read_bytes()
        assert saved == picture(3 * i + 2)
        assert meta["sha256"]["picture"] == hashlib.sha256(saved).hexdigest()
    assert not list(tmp_path.rglob("*.part"))  # noqa: ASYNC240  nothing else runs any more


async def test_every_session_gets_its_folder(tmp_path: Path) -> None:
    """With session '+', the same window id in two sessions does not overwrite."""
    ready = asyncio.Event()
    async with (
        EmbeddedBroker() as broker,
        Publisher(broker.spec, "a") as first,
        Publisher(broker.spec, "b") as second,
    ):
        watching = asyncio.create_task(
            subscribe(broker.spec, "+", keep=saver(tmp_path, "+"), count=2, on_ready=ready.set)
        )
        await ready.wait()
        first.picture(picture(1), {"window_id": "w"})
        second.picture(picture(2), {"window_id": "w"})
        async with asyncio.timeout(20):
            summary = await watching
    assert summary.lost == 0
    assert (tmp_path / "a" / "w.picture.png").read_bytes() == picture(1)
    assert (tmp_path / "b" / "w.picture.png").read_bytes() == picture(2)


async def test_ends_when_told() -> None:
    """Setting `stop` ends it with an account of nothing."""
    stop = asyncio.Event()
    async with EmbeddedBroker() as broker:
        summary = await subscribe(broker.spec, "lab", on_ready=stop.set, stop=stop)
    assert summary.pictures == 0
    assert summary.latency_ms == {}


async def test_no_broker_and_no_folder_are_errors(tmp_path: Path) -> None:
    """A broker that is not there and a folder that cannot be made end it with one line."""
    with pytest.raises(PublishError, match="cannot be reached"):
        await subscribe(BrokerSpec(host="127.0.0.1", port=1), "lab")
    (tmp_path / "file").write_text("in the way")
    async with EmbeddedBroker() as broker, Publisher(broker.spec, "lab") as publisher:
        publisher.picture(picture(1), {"window_id": "w"})
        with pytest.raises(AppError, match="cannot save pictures in"):
            await subscribe(broker.spec, "lab", keep=saver(tmp_path / "file" / "x", "lab"), seconds=20)


@given(st.lists(st.integers(1, 30), unique=True, min_size=1))
def test_holes_are_what_never_came(numbers: list[int]) -> None:
    """Numbers that come in order and skip some: exactly the skipped ones are lost."""
    account = Numbers()
    for number in sorted(numbers):
        account.add(number)
    assert account.lost == max(numbers) - min(numbers) + 1 - len(numbers)
    assert account.out_of_order == 0


def test_late_numbers_fill_their_hole_and_a_restart_is_none() -> None:
    """What comes late is out of order and not lost; a publisher that begins again at 1 has lost nothing."""
    account = Numbers()
    for number in (4, 5, 8, 6, 9, 1, 2, 4):
        account.add(number)
    assert account.out_of_order == 1
    assert account.lost == 2  # 7 of the first run, 3 of the second


def test_percentiles_of_known_values() -> None:
    """Nearest rank: of 1 to 100, the 50th and the 99th."""
    assert percentiles([float(v) for v in range(100, 0, -1)]) == {"p50": 50.0, "p99": 99.0, "max": 100.0, "n": 100}
