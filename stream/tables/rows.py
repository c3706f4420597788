"""BIDS tables: events and channels, as they come out of any program."""

import logging
import math
import re
from pathlib import Path

from stream.errors import RecordingError
from stream.tables.delimited import Table, is_missing, number, read_table
from stream.types.events import Event, event_of
from stream.types.labels import name_of, quote

logger = logging.getLogger(__name__)
EMPTY = frozenset({"n/a"})
"""What `read_rows` makes of a cell that says nothing."""
LABELS = ("trial_type", "stim_file", "value")
"""Columns of events.tsv that may name an event, the first that does so first."""
_WHOLE = re.compile(r"[+-]?[0-9]+[.,]0*")
"""A code that a program has made a number with a point of."""


def read_events(path: Path, label: str | None = None, warnings: list[str] | None = None) -> tuple[Event, ...]:
    """Read an events.tsv; times are seconds from the run's first sample.

    Parameters
    ----------
    path : Path
    label : str, optional
        Column that names the events; rows that have nothing there are left out, and counted in a warning. By default
        the first of trial_type, stim_file and value that is filled, else 'event'; a column that says the same wherever
        a later one differs from row to row comes after that one. A file is named without folder and ending, and a
        number by its digits: '5.0' is '5'.
    warnings : list of str, optional
        Gets what is to be known of how the table was read, a line each; left out, that goes to the log.

    Raises
    ------
    RecordingError
        No column 'onset' or `label`, or an onset that is no number.
    """
    table = read_table(path, ("onset", *([label] if label else [])))
    doubts = list(table.warnings)
    columns = (table.column((label,), label),) if label else _by_information(table, doubts)
    numbered = [row["onset"] for row in table.rows if not is_missing(row["onset"])]
    if any("," in onset for onset in numbered) and any("." in onset and "," not in onset for onset in numbered):
        raise RecordingError(f"{path}: column 'onset' has decimal commas and points; write all with a point")
    events = []
    for row in table.rows:
        text = _label(row, columns)
        if is_missing(row["onset"]) or (label and not text):
            continue
        value = number(text) if _WHOLE.fullmatch(text) else text or "event"
        if event := event_of(_seconds(row["onset"], path), value):
            events.append(event)
    if left := len(table.rows) - len(events):
        doubts.append(f"{left} of {len(table.rows)} rows have no onset or name and are left out")
    if events and all(event.label == "event" for event in events):
        doubts.append(f"no column names the events, all are called 'event'; say which does as label: {_named(table)}")
    for line in doubts:
        if warnings is None:
            logger.warning("%s: %s", path.name, line)
        else:
            warnings.append(f"{path.name}: {line}")
    return tuple(sorted(events, key=lambda event: event.time))


def read_units(path: Path) -> dict[str, str]:
    """Read from a channels.tsv the unit of each channel that has one."""
    rows = read_rows(path, ("name",))
    return {row["name"]: row["units"] for row in rows if row.get("units", "n/a") != "n/a"}


def read_rows(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    """Read a table with a header; what is missing is 'n/a', however the table says so.

    Raises
    ------
    RecordingError
        As `stream.tables.delimited.read_table`.
    """
    rows = read_table(path, needed).rows
    return [{name: "n/a" if is_missing(cell) else cell for name, cell in row.items()} for row in rows]


def _by_information(table: Table, warnings: list[str]) -> tuple[str, ...]:
    """Order the columns that may name events: one that differs from row to row before one that does not there."""
    columns = [name for name in LABELS if name in table.columns]
    for place, name in enumerate(columns):
        said = [(row[columns[0]], row[name]) for row in table.rows if not is_missing(row[name])]
        constant = {first for first, _ in said}
        if place and len(constant) == 1 and len({text for _, text in said}) > 1:
            first = constant.pop()
            if not is_missing(first):
                warnings.append(
                    f"{columns[0]} says {quote(first)} wherever {name} differs: events are named by {name}; "
                    f"set label to go by another of {_named(table)}"
                )
            return (name, *columns[:place], *columns[place + 1 :])
    return tuple(columns)


def _named(table: Table) -> str:
    return ", ".join(repr(head) for head in table.columns.values())


def _seconds(onset: str, path: Path) -> float:
    try:
        if math.isfinite(seconds := number(onset)):
            return seconds
    except ValueError:
        pass
    raise RecordingError(f"{path}: onset {quote(onset)} is no number of seconds")


def _label(row: dict[str, str], columns: tuple[str, ...]) -> str:
    column = next((column for column in columns if not is_missing(row[column])), None)
    if column is None:
        return ""
    return name_of(row[column]) if column == "stim_file" else row[column]
