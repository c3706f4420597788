"""Tables of an archived session, as spreadsheets and pandas read them: a line a window, and a line a note.

Text cells that a spreadsheet would take for a formula begin with an apostrophe, and what is not printable is '?'. The
texts as they were are in the metadata beside the pictures and in `session.json`.
"""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minddiffuser.archive.latency import STEPS
from stream.mqtt.topics import PICTURES
from stream.mqtt.wire_models import STATES, printable

if TYPE_CHECKING:
    from stream.mqtt.frames import Frame

WINDOWS, NOTES = "windows.csv", "notes.csv"
LATENCIES = tuple(step for step in STEPS if step != "broker")
"""Steps of a window's way that its metadata tell; when the broker took the picture is known only after it was sent."""
WINDOW_COLUMNS = (
    "window", "event_time_s", "label", "state", "reason", "confidence", "names", "truth", "right", "repeats",
    "samples_lost", "interpolated", *(f"{step}_ms" for step in LATENCIES), "seed", "backend",
    "original_file", "preview_file", "picture_file", "retrieved", "retrieved_file",
)  # fmt: skip
AS_THEY_ARE = ("reason", "confidence", "truth", "repeats", "samples_lost", "seed", "backend")
NOTE_COLUMNS = ("time_s", "wall", "text")
MOST = 2000
"""Characters of a cell."""
_FORMULA = ("=", "+", "-", "@")
"""What begins a formula in a spreadsheet (OWASP, CSV injection); tabs and line ends are never written."""


def state_of(frame: Frame) -> str:
    """Return what became of a window: one of `STATES`; where its last frame does not say, it was abstained."""
    if frame.stage == "picture":
        return "published"
    state = frame.meta.get("state")
    return state if state in STATES[1:] else "abstained"


def table(columns: Sequence[str], lines: Iterable[bytes]) -> bytes:
    """Return a whole table."""
    return b"".join([_line(columns), *lines])


def append(path: Path, columns: Sequence[str], line: bytes) -> None:
    """Add a line to a table, which is begun where there is none; a line is there whole or not at all.

    Raises
    ------
    OSError
        It cannot be written; the table is as it was.
    """
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        content = line if size else table(columns, [line])
        try:
            if file.write(content) < len(content):  # the disk is full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(size)
            raise


def window_line(frame: Frame, files: Mapping[str, str]) -> bytes:
    """Return the line of a window whose fate is known.

    Parameters
    ----------
    frame : Frame
        Its final picture, or what stands in its place; the meta is held to `stream.mqtt.wire_models`.
    files : mapping of str to str
        Names of its picture files, by stage.
    """
    meta = frame.meta
    event = meta.get("event")
    event = event if isinstance(event, Mapping) else {"label": event}
    times, retrieved = meta.get("times") or {}, meta.get("retrieved") or {}
    cells = {
        "window": frame.window_id,
        "event_time_s": _number(event.get("time"), 6),
        "label": event.get("label"),
        "state": state_of(frame),
        "interpolated": _listed(meta.get("interpolated")),
        "names": _listed(meta.get("names")),
        "right": {True: "yes", False: "no", None: None}[meta.get("right")],
        **{key: meta.get(key) for key in AS_THEY_ARE},
        **{f"{step}_ms": _between(times, *STEPS[step]) for step in LATENCIES},
        "retrieved": _listed([one["name"] for one in retrieved.get("likeliest", ())]),
        **{f"{stage}_file": files.get(stage) for stage in PICTURES},
    }
    return _line([cells[column] for column in WINDOW_COLUMNS])


def note_line(note: Mapping[str, Any]) -> bytes:
    """Return the line of an experimenter's note: LSL time, date and text."""
    return _line([_number(note["time"], 6), note["wall"], note["text"]])


def _line(cells: Sequence[object]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([_cell(cell) for cell in cells])
    return buffer.getvalue().encode(errors="replace")


def _cell(value: object) -> object:
    """Return a value as a cell that is no formula and stays on its line."""
    if value is None or isinstance(value, float | int):
        return value
    text = printable(str(value), MOST)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _listed(values: object) -> str | None:
    return "; ".join(map(str, values)) if isinstance(values, Sequence) and not isinstance(values, str) else None


def _number(value: object, digits: int) -> float | None:
    return round(value, digits) if isinstance(value, float | int) else None


def _between(times: Mapping[str, Any], start: str, end: str) -> float | None:
    before, after = times.get(start), times.get(end)
    return None if before is None or after is None else round((after - before) * 1e3, 3)
