"""Runs of a BIDS data set whose tables were edited in Excel or written by R."""

import re
from collections.abc import Callable
from pathlib import Path

import mne_bids
import numpy as np
import pytest

from stream.files.registry import read
from stream.types.recording import Recording
from tests.stream.test_bids import made, write

DIALECTS: dict[str, Callable[[str], bytes]] = {
    "byte-order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "Latin-1": lambda text: text.encode("latin-1"),
    "semicolons": lambda text: text.replace("\t", ";").encode(),
    "decimal commas": lambda text: re.sub(r"(\d)\.(\d)", r"\1,\2", text.replace("\t", ";")).encode(),
    "line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "old line ends": lambda text: text.replace("\n", "\r").encode(),
    "upper case": lambda text: (text.split("\n")[0].upper() + text[text.index("\n") :]).encode(),
    "NA": lambda text: text.replace("n/a", "NA").encode(),
    "trailing tabs": lambda text: (text.replace("\n", "\t\n") + "\t\t\n\n").encode(),
    "quotes": lambda text: "\n".join(
        "\t".join(f'"{cell}"' for cell in line.split("\t")) for line in text.strip().split("\n")
    ).encode(),
    "row names": lambda text: "\n".join(
        line if not place else f'"{place}"\t{line}' for place, line in enumerate(text.strip().split("\n"))
    ).encode(),
}


def alike(one: Recording, other: Recording) -> bool:
    """Return whether two recordings hold the same channels, samples, bad segments and events."""
    (a,), (b,) = one.streams, other.streams
    bads = a.channels.montage.bads == b.channels.montage.bads
    same = (a.channels, a.bad, one.events, one.begun) == (b.channels, b.bad, other.events, other.begun)
    return bads and same and np.array_equal(a.data, b.data)


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@pytest.mark.parametrize("fmt", ["BrainVision", "EDF"])
def test_tables_in_any_dialect_describe_the_same_run(tmp_path: Path, dialect: str, fmt: str) -> None:
    """Events, bad segments, kinds, units and bad channels are those of the tables as the standard has them."""
    raw = made()
    raw.annotations.append(1.0, 0.25, "BAD_blink")
    write(tmp_path, "01", "01", raw, fmt=fmt)
    plain = read(tmp_path)
    assert [event.label for event in plain.events] == ["face1", "house2"]
    assert "Pz" in plain.streams[0].channels.montage.bads
    assert plain.streams[0].bad
    for kind in ("events", "channels", "scans", "participants"):
        for table in tmp_path.rglob(f"*{kind}.tsv"):
            table.write_bytes(DIALECTS[dialect](table.read_text("utf-8-sig")))
    assert alike(read(tmp_path), plain)


def test_events_without_a_duration_or_onset(tmp_path: Path) -> None:
    """A table that lacks the durations, and a row that lacks its onset, cost nothing else."""
    write(tmp_path, "01", "01", made())
    table = next(tmp_path.rglob("*_events.tsv"))
    table.write_text("onset\ttrial_type\n0.5\tcat\nNA\tdog\n2.0\tcow\n", "utf-8")
    recording = read(tmp_path)
    assert [(event.time, event.label) for event in recording.events] == [(0.5, "cat"), (2.0, "cow")]
    assert any("1 of 3 rows have no onset" in line for line in recording.warnings)


def test_blanks_between_quoted_cells(tmp_path: Path) -> None:
    """A table as R's write.table leaves it by itself: row names, quotes, blanks between the cells, NA."""
    write(tmp_path, "01", "01", made())
    table = next(tmp_path.rglob("*_events.tsv"))
    table.write_text(
        '"onset" "duration" "trial_type" "stim_file"\n"1" 0.5 0.1 "go" "images/cat 1.png"\n'
        '"2" 1 NA "go" "images/don\'t.png"\n"3" NA NA NA NA\n',
        "utf-8",
    )
    assert [(event.time, event.label) for event in read(tmp_path).events] == [(0.5, "cat 1"), (1.0, "don't")]


@pytest.mark.filterwarnings("error")
def test_a_table_of_no_events(tmp_path: Path) -> None:
    """A header without rows is a run without events, not a broken one."""
    write(tmp_path, "01", "01", made())
    next(tmp_path.rglob("*_events.tsv")).write_text("onset\tduration\ttrial_type\n", "utf-8")
    recording = read(tmp_path)
    assert recording.events == ()
    assert len(recording.streams[0].times)


def test_the_data_set_itself_stays_as_it_is(tmp_path: Path) -> None:
    """Reading writes nothing into the data set."""
    write(tmp_path, "01", "01", made())
    table = next(tmp_path.rglob("*_channels.tsv"))
    table.write_bytes(DIALECTS["semicolons"](table.read_text("utf-8-sig")))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    read(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert mne_bids.get_entity_vals(tmp_path, "subject") == ["01"]
