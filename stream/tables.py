"""BIDS tables: events and channels, as text parted by tabs."""

import csv
import logging
import math
from pathlib import Path, PurePosixPath

from stream.errors import RecordingError
from stream.events import Event, event_of

LOG = logging.getLogger(__name__)
EMPTY = {"", "n/a", "nan", "NaN"}
LABELS = ("trial_type", "stim_file", "value")
"""Columns of events.tsv that may name an event, the first that does so first."""


def read_events(path: Path, label: str | None = None) -> tuple[Event, ...]:
    """Read an events.tsv; times are seconds from the run's first sample.

    Parameters
    ----------
    path : Path
    label : str, optional
        Column that names the events; rows that have nothing there are left out, with a log line. By default the first
        of trial_type, stim_file and value that is filled, else 'event'. A file is named without folder and ending.

    Raises
    ------
    RecordingError
        No column 'onset' or `label`, or an onset that is no number.
    """
    rows = read_rows(path, ("onset", *([label] if label else [])))
    events = []
    for row in rows:
        text = _label(row, (label,) if label else LABELS)
        if row["onset"] in EMPTY or (label and not text):
            continue
        if event := event_of(_seconds(row["onset"], path), text or "event"):
            events.append(event)
    if left := len(rows) - len(events):
        LOG.warning("%s: %d of %d rows have no onset or name and are left out", path.name, left, len(rows))
    return tuple(sorted(events, key=lambda event: event.time))


def read_units(path: Path) -> dict[str, str]:
    """Read from a channels.tsv the unit of each channel that has one."""
    rows = read_rows(path, ("name",))
    return {row["name"]: row["units"] for row in rows if row.get("units", "n/a") not in EMPTY}


def read_rows(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    """Read a table with a header; what is missing at a row's end is 'n/a'.

    Raises
    ------
    RecordingError
        No such file, no text, or a needed column is not there.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t", restval="n/a")
            rows = [{key: value.strip() for key, value in row.items() if isinstance(value, str)} for row in reader]
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(f"{path}: cannot be read ({error})") from None
    for column in needed:
        if column not in columns:
            raise RecordingError(f"{path}: no column {column!r}; it has {', '.join(map(repr, columns)) or 'none'}")
    return rows


def _seconds(onset: str, path: Path) -> float:
    try:
        if math.isfinite(seconds := float(onset)):
            return seconds
    except ValueError:
        pass
    raise RecordingError(f"{path}: onset {onset!r} is no number of seconds")


def _label(row: dict[str, str], columns: tuple[str, ...]) -> str:
    column = next((column for column in columns if row.get(column, "") not in EMPTY), None)
    if column is None:
        return ""
    return PurePosixPath(row[column]).stem if column == "stim_file" else row[column]
