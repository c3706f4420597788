"""Watching a session without a browser."""

import asyncio
import hashlib
import io
import json
import tracemalloc
from pathlib import Path

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minddiffuser.errors import AppError
from minddiffuser.viewing.subscribe import Numbers, percentiles, saver, subscribe
from stream.errors import PublishError
from stream.mqtt.broker import BrokerSpec, EmbeddedBroker
from stream.mqtt.frames import Frame
from stream.mqtt.publisher import Publisher
from tests.conftest import Cli
from tests.minddiffuser.test_archive import files_end_at


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


async def test_what_is_under_way_at_the_stop_still_comes(tmp_path: Path) -> None:
    """With a quiet time, windows that are published as it is stopped are taken in; without frames it ends after it."""
    ready, stop = asyncio.Event(), asyncio.Event()
    async with EmbeddedBroker() as broker, Publisher(broker.spec, "lab", queue=100) as publisher:
        keep = saver(tmp_path, "lab")
        watching = asyncio.create_task(
            subscribe(broker.spec, "lab", keep=keep, on_ready=ready.set, stop=stop, quiet_s=1.0)
        )
        await ready.wait()
        for number in range(50):
            publisher.picture(picture(number), {"window_id": f"w{number}"})
        stop.set()
        async with asyncio.timeout(20):
            summary = await watching
    assert summary.pictures == len(list(tmp_path.glob("*.picture.json"))) == 50  # noqa: ASYNC240  nothing else runs


async def test_an_error_of_our_own_costs_its_message(caplog: pytest.LogCaptureFixture) -> None:
    """Should keeping or showing a frame fail as nobody expected, that is counted and logged, and it goes on."""
    ready = asyncio.Event()

    def show(frame: Frame) -> None:
        if frame.window_id == "w0":
            raise RuntimeError("no colours left")

    async with EmbeddedBroker() as broker, Publisher(broker.spec, "lab") as publisher:
        watching = asyncio.create_task(
            subscribe(broker.spec, "lab", on_picture=show, count=2, on_ready=ready.set, seconds=30)
        )
        await ready.wait()
        for number in range(2):
            publisher.picture(picture(number), {"window_id": f"w{number}"})
        summary = await watching
    assert (summary.pictures, summary.failed) == (2, 1)
    assert "RuntimeError: no colours left" in caplog.text


async def test_the_summary_names_what_was_refused_and_moves_no_cursor(tmp_path: Path) -> None:
    """Refused messages are counted by kind and reason, and a publisher's words for its data are plain text."""
    ready = asyncio.Event()
    async with (
        EmbeddedBroker() as broker,
        Publisher(broker.spec, "lab", data="\x1b[2Jsimulated\nEEG") as publisher,
        aiomqtt.Client("127.0.0.1", broker.port) as stranger,
    ):
        watching = asyncio.create_task(subscribe(broker.spec, "lab", count=1, on_ready=ready.set, seconds=30))
        await ready.wait()
        await stranger.publish("minddiffuser/lab/meta", b"{}", qos=1)
        await stranger.publish("minddiffuser/lab/preview", b"<svg/>", qos=1)
        await stranger.publish("minddiffuser/lab/meta", b"[" * 5000, qos=1)
        publisher.picture(picture(1), {"window_id": "w"})
        summary = await watching
    assert summary.refusals == {"meta: depth": 1, "meta: window_id": 1, "preview: no picture": 1}
    assert (summary.bad, summary.pictures, summary.data) == (2, 1, "?[2Jsimulated?EEG")


async def test_a_disk_that_is_full_ends_saving_with_an_error(tmp_path: Path) -> None:
    """Where a picture cannot be written, subscribe ends with one line, and half a file is not left."""
    ready = asyncio.Event()
    async with EmbeddedBroker() as broker, Publisher(broker.spec, "lab") as publisher:
        keep = saver(tmp_path, "lab")
        watching = asyncio.create_task(subscribe(broker.spec, "lab", keep=keep, on_ready=ready.set, seconds=30))
        await ready.wait()
        with files_end_at(50):
            publisher.picture(picture(1), {"window_id": "w"})
            with pytest.raises(AppError, match=r"cannot save pictures in .*: File too large"):
                await watching
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240  nothing else runs any more


def test_huge_numbers_take_no_memory() -> None:
    """One meta with a number of any size costs no memory, and the count of what never came is exact."""
    account = Numbers()
    account.add(1)
    tracemalloc.start()
    account.add(10**9)
    account.add(2**53)
    for number in range(2, 5000, 2):
        account.add(number)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1_000_000
    assert account.lost == 2**53 - 3 - len(range(2, 5000, 2))
    assert account.out_of_order == len(range(2, 5000, 2))


@given(st.lists(st.integers(1, 60), max_size=80))
def test_holes_are_those_of_a_plain_count(numbers: list[int]) -> None:
    """Intervals give what a set of all missing numbers gives, in any order and with repeats."""
    account, missing, highest, earlier, late = Numbers(), set[int](), None, 0, 0
    for number in numbers:
        account.add(number)
        if highest is None or (number == 1 and 1 not in missing):
            earlier, missing, highest = earlier + len(missing), set(), number
        elif number > highest:
            missing |= set(range(highest + 1, number))
            highest = number
        elif number in missing:
            missing.discard(number)
            late += 1
    assert (account.lost, account.out_of_order) == (earlier + len(missing), late)


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


@pytest.mark.timeout(120)
async def test_the_command_among_strangers_ends_well(cli: Cli, tmp_path: Path) -> None:
    """On an ASCII terminal, among non-pictures, bottomless JSON and half characters: one picture, exit code 0."""
    program = Cli(cli.environment | {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"})
    about = {"window_id": "\ud800", "stage": "abstained", "sha256": {}, "data": "\ud800"}
    digest = hashlib.sha256(b"hello").hexdigest()
    false = {**about, "window_id": "w", "stage": "picture", "sha256": {"picture": digest}, "data": "x"}
    async with (
        EmbeddedBroker() as broker,
        Publisher(broker.spec, "lab", data="simulated EEG") as publisher,
        aiomqtt.Client("127.0.0.1", broker.port) as stranger,
    ):
        arguments = [
            "--broker",
            f"127.0.0.1:{broker.port}",
            "--count",
            "1",
            "--save",
            str(tmp_path),
            "--show",
            "--json",
        ]
        process = program.start("subscribe", *arguments, "--seconds", "60")
        try:
            assert process.stdout
            assert json.loads(await asyncio.to_thread(process.stdout.readline)) == {"ready": True}
            for kind, payload in (
                ("meta", json.dumps(about).encode()),
                (
                    "meta",
                    b'{"window_id": "w", "stage": "abstained", "sha256": {}, "x":' + b"[" * 900 + b"]" * 900 + b"}",
                ),
                ("picture", b"hello"),
                ("meta", json.dumps(false).encode()),
            ):
                await stranger.publish(f"minddiffuser/lab/{kind}", payload, qos=1)
            publisher.picture(picture(1), {"window_id": "Größe", "event": {"label": "Größe"}})
            out, err = await asyncio.to_thread(process.communicate, timeout=60)
        finally:
            process.kill()
    summary = json.loads(out.splitlines()[-1])
    assert process.returncode == 0, err
    assert (summary["pictures"], summary["failed"], summary["bad"]) == (1, 0, 2)
    assert "Traceback" not in err
    assert "Gr??e" in err
    (saved,) = (tmp_path / "lab").glob("*.png")
    assert saved.read_bytes() == picture(1)
