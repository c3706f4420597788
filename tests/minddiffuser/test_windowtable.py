"""The tables of an archived session: a line a window and a note, whatever is in them."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minddiffuser.archive.archive import ABOUT, Archive, entries
from minddiffuser.archive.windowtable import (
    NOTE_COLUMNS,
    NOTES,
    WINDOW_COLUMNS,
    WINDOWS,
    append,
    note_line,
    table,
    window_line,
)
from minddiffuser.config.spec import ArchiveSpec
from minddiffuser.display.viewers import Memory
from stream.mqtt.frames import Frame
from stream.mqtt.messages import to_json
from stream.mqtt.topics import read
from stream.mqtt.wire_models import STATES
from tests.minddiffuser.test_archive import files_end_at, fill, frames_of

META: dict[str, Any] = {
    "window_id": "00007-bell", "stage": "picture", "sha256": {}, "event": {"label": "bell", "code": 7, "time": 12.5},
    "confidence": 0.4567, "names": ["bell", "pepper"], "truth": "bell", "right": True, "repeats": 2, "samples_lost": 3,
    "interpolated": ["Oz", "TP9"], "seed": "9223372036854775807", "backend": "torch",
    "retrieved": {"pictures": 9, "likeliest": [
        {"name": "bell, 7", "probability": 0.5}, {"name": "drum", "probability": 0}
    ]},
    "times": {"acquired": 13.0, "ready": 13.004, "taken": 13.005, "decoded": 13.02, "stage1": 13.1, "stage2": 13.2,
              "preview_published": 13.11, "published": 13.21},
}  # fmt: skip


def line_of(meta: dict[str, Any], files: dict[str, str] | None = None) -> bytes:
    """Return the line of a window with some metadata."""
    return window_line(Frame("lab", meta["window_id"], meta["stage"], meta), files or {})


def rows(content: bytes) -> list[dict[str, str]]:
    """Read a table as any program does."""
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def test_a_windows_line_says_all_of_it() -> None:
    """Each column holds its value, latencies in milliseconds, names in their order."""
    (row,) = rows(
        table(WINDOW_COLUMNS, [line_of(META, {kind: f"00007-bell.{kind}.jpg" for kind in ("picture", "retrieved")})])
    )
    assert row == {
        "window": "00007-bell", "event_time_s": "12.5", "label": "bell", "state": "published", "reason": "",
        "confidence": "0.4567", "names": "bell; pepper", "truth": "bell", "right": "yes", "repeats": "2",
        "samples_lost": "3", "interpolated": "Oz; TP9", "window_ready_ms": "4.0", "waited_ms": "1.0",
        "decoded_ms": "16.0", "stage1_ms": "80.0", "stage2_ms": "100.0", "published_ms": "10.0", "preview_ms": "106.0",
        "picture_ms": "206.0", "total_ms": "210.0", "seed": "9223372036854775807", "backend": "torch",
        "original_file": "", "preview_file": "", "picture_file": "00007-bell.picture.jpg",
        "retrieved": "bell, 7; drum", "retrieved_file": "00007-bell.retrieved.jpg",
    }  # fmt: skip


@pytest.mark.parametrize("state", STATES[1:])
def test_a_window_without_a_picture_has_its_state_and_reason(state: str) -> None:
    """What stands in place of a picture is told apart by its state; an older session's is abstained."""
    meta = {
        "window_id": "w",
        "stage": "abstained",
        "sha256": {},
        "state": state,
        "reason": "Oz over 180 uV",
        "right": False,
    }
    (row,) = rows(table(WINDOW_COLUMNS, [line_of(meta)]))
    assert (row["state"], row["reason"], row["right"], row["total_ms"]) == (state, "Oz over 180 uV", "no", "")
    (row,) = rows(table(WINDOW_COLUMNS, [line_of({**meta, "state": None, "event": "cat"})]))
    assert (row["state"], row["label"]) == ("abstained", "cat")


HOSTILE = st.one_of(
    st.text(),
    st.sampled_from(
        ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1", " =1", "a,b", 'a"b', "a\nb", "a\r\n=1", "\x00", "\u2028=1", "'"]
    ),
)


@given(text=HOSTILE, names=st.lists(HOSTILE, max_size=3))
@example(text="\ud800", names=["=cmd|' /C calc'!A0"])
def test_whatever_a_text_holds_it_is_one_cell_and_no_formula(text: str, names: list[str]) -> None:
    """A label, reason, name or note of any text is one cell of one line that no spreadsheet takes for a formula."""
    meta = {**META, "window_id": text, "event": {"label": text}, "reason": text, "truth": text, "names": names}
    for columns, line in (
        (WINDOW_COLUMNS, line_of(meta, {"original": text})),
        (NOTE_COLUMNS, note_line({"time": 1.0, "wall": "2026-01-01", "text": text})),
    ):
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        (row,) = rows(table(columns, [line]))
        assert list(row) == list(columns)
        for cell in row.values():
            assert not cell.lstrip().startswith(("=", "+", "-", "@"))
            assert cell.isprintable()


def test_plain_texts_stay_as_they_are() -> None:
    """Commas and quotes come back as they were; a formula is its text behind an apostrophe."""
    for text, cell in (('a, "b"', 'a, "b"'), ("übel", "übel"), ("=1", "'=1"), ("-left", "'-left"), ("a=b", "a=b")):
        (row,) = rows(table(NOTE_COLUMNS, [note_line({"time": 1.5, "wall": "w", "text": text})]))
        assert row == {"time_s": "1.5", "wall": "w", "text": cell}


def test_an_archive_keeps_a_line_a_window_while_it_runs(tmp_path: Path) -> None:
    """After each window the table on disk is whole, and it names files that are there; the download holds it."""
    archive = Archive(ArchiveSpec(folder=tmp_path, max_windows=2), "lab", {"participant": "01"})
    for window in range(3):
        fill(archive, 1, first=window)
        table_now = rows((archive.folder / WINDOWS).read_bytes())
        assert [row["window"] for row in table_now] == [f"{w:05d}-x" for w in range(window + 1)]
        assert all(
            (archive.folder / table_now[-1][f"{stage}_file"]).exists() for stage in ("original", "preview", "picture")
        )
    rejected = {"window_id": "00003-x", "stage": "abstained", "sha256": {}, "state": "rejected", "reason": "gap"}
    archive.add(Frame("lab", "00003-x", "abstained", rejected))
    archive.note({"time": 3.25, "wall": "2026-01-01T00:00:00+01:00", "text": "blinked"})
    content = dict(entries(archive.folder))
    assert [row["state"] for row in rows(content[WINDOWS])] == ["published"] * 3 + ["rejected"]
    assert rows(content[NOTES]) == [{"time_s": "3.25", "wall": "2026-01-01T00:00:00+01:00", "text": "blinked"}]


def test_a_session_says_what_was_wrong_once_and_how_it_ended(tmp_path: Path) -> None:
    """A problem whose figures change is one problem, with the time since when; the account comes at the end."""
    archive = Archive(ArchiveSpec(folder=tmp_path), "lab", {"participant": "01"})
    archive.problems([])
    archive.problems(["12 samples lost", "Oz is flat"])
    archive.problems(["250.5 samples lost"])
    about = json.loads((archive.folder / ABOUT).read_text())
    assert [one["problem"] for one in about["problems"]] == ["12 samples lost", "Oz is flat"]
    assert about["participant"] == "01"
    assert "ended" not in about
    archive.finish({"windows": 5, "published": 4})
    about = json.loads((archive.folder / ABOUT).read_text())
    assert about["account"] == {"windows": 5, "published": 4}
    for time in (about["started"], about["ended"], about["problems"][0]["since"]):
        assert time[10] == "T"
        assert time[-6] in "+-"  # the zone


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    """A line that does not fit is not there at all, and the next one begins a line of its own."""
    path = tmp_path / WINDOWS
    for _ in range(3):
        append(path, WINDOW_COLUMNS, line_of(META))
    before = path.read_bytes()
    with files_end_at(len(before) + 10), pytest.raises(OSError, match=r"large|space"):
        append(path, WINDOW_COLUMNS, line_of(META))
    assert path.read_bytes() == before
    append(path, WINDOW_COLUMNS, line_of(META))
    assert len(rows(path.read_bytes())) == 4


def test_a_download_without_an_archive_holds_the_table_too() -> None:
    """What the display remembers has a line a window, naming the files that are in the download."""
    memory = Memory()
    for frame in frames_of(1):
        memory.add(frame)
    status = {"state": "running", "participant": "01", "started": "2026-01-01T00:00:00+01:00", "versions": {}}
    content = dict(memory.entries("lab", status))
    about = json.loads(content[ABOUT])
    assert {key: about[key] for key in ("participant", "started", "versions")} == {
        key: status[key] for key in ("participant", "started", "versions")
    }
    assert "state" not in about
    (row,) = rows(content[WINDOWS])
    assert {row["original_file"], row["preview_file"], row["picture_file"]} <= set(content)
    assert row["window"] == "00001-x"


def test_what_the_table_reads_is_on_the_wire() -> None:
    """Metadata with all that the table reads pass the wire's model."""
    assert read("meta", to_json({**META, "state": "published"}), "x")["names"] == ["bell", "pepper"]
