"""Raw traces and notes for pages of the session's own machine: what is taken, from whom, and where it goes."""

import asyncio
import csv
import logging
import os
import stat
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minddiffuser.archive.archive import Archive
from minddiffuser.archive.windowtable import NOTES as NOTES_TABLE
from minddiffuser.config.spec import ArchiveSpec
from minddiffuser.display import neighbours, running
from minddiffuser.display.local import MOST_AGO_S, MOST_TEXT, Access, Local, answering, note_of
from minddiffuser.display.neighbours import Elsewhere, Neighbours, findable
from minddiffuser.display.server import Display
from minddiffuser.display.traces import Traces
from minddiffuser.errors import AppError
from stream.epochs.ingest import WindowSpec
from stream.files.registry import read
from stream.lsl.discovery import load_lsl, only
from stream.lsl.live import LiveIngest, SourceSpec
from stream.lsl.notes import NOTES, NoteOutlet
from stream.lsl.tap import Tap
from stream.mqtt.broker import EmbeddedBroker
from stream.mqtt.messages import lsl_clock
from stream.mqtt.publisher import Publisher
from stream.recording.record import record
from stream.signal.filters import FilterSpec
from stream.types.source_spec import StreamSelector
from stream.types.windows import Channels, Window
from tests.minddiffuser.test_display import Page, broker, until
from tests.stream.amp import Amp, markers, outlet

__all__ = ["broker"]

CHANNELS = Channels(("Cz", "Pz"), ("eeg", "eeg"), ("V", "V"))


def watched(session: str = "lab", archive: Archive | None = None) -> tuple[Local, Tap]:
    """Return a session's end with a tap to feed."""
    local, tap = Local(session, archive), Tap()
    tap.sfreq = 100.0
    local.tracer = Traces(tap, CHANNELS)
    return local, tap


async def test_a_note_is_a_marker_at_the_time_of_the_press_and_in_file_log_and_archive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The LSL stream carries it with its time, so does our recording, and no session takes it for an event."""
    caplog.set_level(logging.INFO)
    name, path = f"amp-{uuid.uuid4().hex[:8]}", tmp_path / "run.xdf"
    source, marks, stop = outlet(name), markers(f"{name}-marks"), threading.Event()
    archive = Archive(ArchiveSpec(folder=tmp_path / "archive"), "lab", {})
    local = Local("lab", archive, NoteOutlet("lab"))
    selectors = [StreamSelector(name=each) for each in (name, f"{name}-marks", NOTES)]
    windows: list[Window] = []
    ingest = LiveIngest(SourceSpec(name=name, timeout_s=10), WindowSpec(tmin=0, tmax=0.1), FilterSpec(), windows.append)
    with Amp(source):
        recording = asyncio.create_task(asyncio.to_thread(record, path, selectors, stop=stop))
        await asyncio.to_thread(ingest.start)
        local.watch(ingest, ("Pz",), ())
        assert await local.traces() is None
        await until(lambda: path.exists() and marks.have_consumers(), 20)
        marks.push_sample(["picture-1"])
        before = lsl_clock()
        note = await local.note("  moved\nhis head, =1+1 ", ago=2.5)
        assert before - 2.5 <= note["time"] <= lsl_clock() - 2.5
        await until(lambda: windows, 20)
        frame = await local.traces()
        assert frame is not None
        assert frame["channels"] == ["Pz"]
        assert len(frame["data"][0]) > 5
        assert abs(frame["t"] - lsl_clock()) < 2.0
        stop.set()
        account = await recording
        await asyncio.to_thread(ingest.stop)
    assert [window.event.label for window in windows if window.event] == ["picture-1"]
    assert {stream.name: stream.samples for stream in account.streams}[NOTES] == 1
    recorded = read(path)
    assert [event.label for event in recorded.events] == ["picture-1"]
    (noted,) = [event for event in recorded.other_events if event.stream == NOTES]
    assert noted.label == "moved his head, =1+1"
    picture = recorded.events[0].time
    assert noted.time - picture == pytest.approx(-2.5, abs=0.5)
    assert "note: moved his head, =1+1" in caplog.text
    with (archive.folder / NOTES_TABLE).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["time_s"]) == pytest.approx(note["time"], abs=1e-5)
    assert row["text"] == "moved his head, =1+1"
    assert datetime.fromisoformat(row["wall"]).tzinfo is not None
    assert local.metrics() == {"count": 1, "time": note["time"], "text": "moved his head, =1+1"}


def test_a_stream_of_notes_is_chosen_only_by_its_name() -> None:
    """Whoever asks for any marker stream gets none where there are notes only; by name they are found."""
    session = f"alone-{uuid.uuid4().hex[:8]}"
    held = NoteOutlet(session)
    lsl = load_lsl()
    deadline = time.monotonic() + 20
    found: list[Any] = []
    while not found and time.monotonic() < deadline:
        found = [info for info in lsl.resolve_streams(1.0) if info.name() == NOTES and session in info.source_id()]
    assert len(found) == 1
    assert only(found, StreamSelector(type="Markers"), lsl=lsl) is None
    assert only(found, StreamSelector(name=NOTES), lsl=lsl) is not None
    del held


ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text(), max_size=2))


@given(text=ANYTHING, ago=ANYTHING)
@example(text="x" * (MOST_TEXT + 1), ago=0)
@example(text="\ud800\x1b[2J", ago=0)
def test_a_note_is_one_printable_line_or_refused(text: object, ago: object) -> None:
    """What is taken down is one bounded line of text, at a time that has been; else one line says why it is not."""
    before = lsl_clock()
    fits = isinstance(text, str) and len(text.split()) > 0 and len(" ".join(text.split())) <= MOST_TEXT
    since = not isinstance(ago, bool) and isinstance(ago, int | float) and 0 <= ago <= MOST_AGO_S
    if not (fits and since):
        with pytest.raises(AppError) as caught:
            note_of(text, ago)
        assert len(str(caught.value)) < 200
        assert "\n" not in str(caught.value)
        return
    note = note_of(text, ago)
    assert note.text.isprintable()
    assert 1 <= len(note.text) <= MOST_TEXT
    assert isinstance(ago, int | float)
    assert note.time == pytest.approx(before - ago, abs=1.0)


async def test_another_process_asks_with_the_token_only(tmp_path: Path) -> None:
    """With the token of the run file traces and notes pass as they are; without it, or for another host, none."""
    archive = Archive(ArchiveSpec(folder=tmp_path), "lab", {})
    local, tap = watched(archive=archive)
    async with answering(local) as address, aiohttp.ClientSession() as client:
        elsewhere = Elsewhere(address)
        assert await elsewhere.traces() is None
        tap.feed(np.full((10, 2), 1e-5), np.arange(10) / 100)
        frame = await elsewhere.traces()
        assert frame is not None
        assert (frame["next"], frame["data"]) == (10, [[1e-5] * 10] * 2)
        again = await elsewhere.traces(10)
        assert again is not None
        assert again["data"] == [[], []]
        assert (await elsewhere.note("blinked", 1.0))["text"] == "blinked"
        assert (local.notes, local.last and local.last.text) == (1, "blinked")
        with pytest.raises(AppError, match="a note is a text"):
            await elsewhere.note("  ")
        url = f"http://127.0.0.1:{address.port}"
        good = {"Authorization": f"Bearer {address.token}"}
        others = [{}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer \xe9"}, {**good, "Host": "evil.example"}]
        for headers in others:
            async with client.get(f"{url}/traces", headers=headers) as answer:
                assert answer.status == 403
            async with client.post(f"{url}/note", headers=headers, json={"text": "x"}) as answer:
                assert answer.status == 403
        for body in (b"", b"[]", b"\xff", b'{"text": 3}', b"[" * 4000):
            async with client.post(f"{url}/note", headers=good, data=body) as answer:
                assert answer.status == 400
                assert "\n" not in (await answer.text()).strip()
        async with client.post(f"{url}/note", headers=good, data=b"x" * 10_000) as answer:
            assert answer.status == 413
        assert local.notes == 1
    with pytest.raises(AppError, match="the session does not answer"):
        await elsewhere.traces()


async def test_a_session_is_found_by_its_users_programs_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name and broker, while it runs; its token is readable for its user alone; what is left behind is removed."""
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path))
    monkeypatch.setattr(neighbours, "LOOK_EVERY_S", 0.0)
    local, _ = watched()
    here, elsewhere = Neighbours("127.0.0.1:1883"), Neighbours("127.0.0.1:1884")
    assert here.find("lab") is None
    dead = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await dead.wait()
    left = running.folder() / f"{dead.pid}.local"
    left.parent.mkdir(parents=True)
    left.write_text('{"session": "old", "broker": "127.0.0.1:1883", "port": 1, "token": "x"}')
    (running.folder() / "1.local").write_text("[")
    async with answering(local) as address:
        with findable("lab", "127.0.0.1:1883", address):
            (file,) = [path for path in running.folder().iterdir() if path.name == f"{os.getpid()}.local"]
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            found = here.find("lab")
            assert found is not None
            assert (await found.note("hello"))["text"] == "hello"
            assert (here.find("other"), here.find("old"), elsewhere.find("lab")) == (None, None, None)
            assert not left.exists()
        assert here.find("lab") is None
    assert local.notes == 1


@pytest.fixture
async def page(broker: EmbeddedBroker) -> AsyncIterator[tuple[Display, Local, Tap]]:
    """Serve a display on loopback whose machine runs the session 'lab'."""
    local, tap = watched()
    async with Display(broker.spec, own="lab", find=local.find) as display:
        yield display, local, tap


async def test_the_page_of_this_machine_gets_traces_and_others_do_not(page: tuple[Display, Local, Tap]) -> None:
    """A frame for the page itself; none through a proxy, for another site, or of a session that is not here."""
    display, _, tap = page
    traces = f"{display.url}sessions/lab/traces"
    async with aiohttp.ClientSession() as client:
        async with client.get(traces) as answer:
            assert answer.status == 204
        tap.feed(np.full((10, 2), 1e-5), np.arange(10) / 100)
        async with client.get(f"{traces}?after=4") as answer:
            assert answer.status == 200
            assert (await answer.json())["data"] == [[1e-5] * 6] * 2
            assert answer.headers["Cache-Control"] == "no-store"
        for headers in (
            {"X-Forwarded-For": "192.0.2.1"}, {"Via": "1.1 proxy"}, {"Forwarded": "for=192.0.2.1"},
            {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"},
        ):  # fmt: skip
            async with client.get(traces, headers=headers) as answer:
                assert answer.status == 403, headers
        async with client.get(f"{display.url}sessions/other/traces") as answer:
            assert answer.status == 404


async def test_the_page_takes_notes_for_sessions_of_this_machine(page: tuple[Display, Local, Tap]) -> None:
    """A note goes to its session; another site, another session and what is no note are turned away in one line."""
    display, local, _ = page
    url = f"{display.url}note"
    async with aiohttp.ClientSession() as client:
        async with client.post(url, json={"session": "lab", "text": "<b>hi</b>", "ago": 0.5}) as answer:
            assert answer.status == 200
            assert (await answer.json())["text"] == "<b>hi</b>"
        refused = [
            ({"session": "lab", "text": "x"}, {"Origin": "http://evil.example"}, 403),
            ({"session": "lab", "text": "x"}, {"Sec-Fetch-Site": "cross-site"}, 403),
            ({"session": "other", "text": "x"}, {}, 404),
            ({"session": ["lab"], "text": "x"}, {}, 404),
            ({"session": "lab", "text": "x" * (MOST_TEXT + 1)}, {}, 400),
            ({"session": "lab", "text": "x", "ago": -1}, {}, 400),
            ({"session": "lab", "text": "x" * 9000}, {}, 413),
        ]
        for body, headers, status in refused:
            async with client.post(url, json=body, headers=headers) as answer:
                assert answer.status == status, (body, headers)
    assert local.notes == 1


async def test_a_page_for_the_network_asks_for_its_token(broker: EmbeddedBroker) -> None:
    """Notes need the token on every address; with it traces go to a loopback name of this machine only."""
    local, tap = watched()
    async with (
        Display(broker.spec, host="0.0.0.0", own="lab", find=local.find) as display,  # noqa: S104  as a user may ask
        aiohttp.ClientSession() as client,
    ):
        base = f"http://127.0.0.1:{display.port}"
        note = {"session": "lab", "text": "x"}
        good = {"Authorization": f"Bearer {display.token}"}
        async with client.post(f"{base}/note", json=note) as answer:
            assert answer.status == 401
        async with client.get(f"{base}/sessions/lab/traces") as answer:
            assert answer.status == 401
        await local.traces()
        tap.feed(np.full((10, 2), 1e-5), np.arange(10) / 100)
        async with client.get(f"{base}/sessions/lab/traces", headers=good) as answer:
            assert answer.status == 200
        async with client.get(f"{base}/sessions/lab/traces", headers=good | {"Host": "lab.example"}) as answer:
            assert answer.status == 403
        async with client.post(f"{base}/note", json=note, headers=good) as answer:
            assert answer.status == 200


async def test_the_display_says_which_sessions_run_here(broker: EmbeddedBroker) -> None:
    """A page learns for which of the sessions it may ask for traces and send notes."""
    here: dict[str, Access] = {"lab": Local("lab")}
    async with (
        Display(broker.spec, find=here.get) as display,
        Page(display) as page,
        aiohttp.ClientSession() as client,
        Publisher(broker.spec, "lab"),
        Publisher(broker.spec, "away"),
    ):
        await until(lambda: any(set(note.get("sessions", ())) == {"lab", "away"} for note in page.notes))
        last = [note for note in page.notes if note["type"] == "display"][-1]
        assert last["local"] == ["lab"]
        async with client.get(f"{display.url}sessions/away/traces") as answer:
            assert answer.status == 404
