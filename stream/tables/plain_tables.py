"""A BIDS run beside tables that mne-bids can read, whatever program wrote the data set's own."""

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stream.errors import RecordingError
from stream.tables.delimited import number, read_table, read_text
from stream.tables.rows import read_rows

_FIRST = {"events": "onset", "channels": "name", "electrodes": "name"}
"""The column by which the header of a table is found."""


@contextmanager
def plain_tables(path: Path, root: Path, tables: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield a run and its data set whose tables are split by tabs, in UTF-8, and name columns as BIDS does.

    Where all tables are so, that is the data set itself; else a temporary one of links and rewritten tables.

    Parameters
    ----------
    path, root : Path
        Of the run's file, and of the data set that holds it.
    tables : sequence of Path
        Tables that mne-bids reads with the run: events, channels, electrodes, scans, participants.

    Yields
    ------
    path, root : Path
    """
    if all(_is_plain(table) for table in tables):
        yield path, root
        return
    with tempfile.TemporaryDirectory(prefix="minddiffuser-bids-") as scratch:
        top, below = Path(scratch), path.parent.resolve().relative_to(root.resolve())
        for depth in range(len(below.parts) + 1):
            here = root.joinpath(*below.parts[:depth])
            place = top.joinpath(*below.parts[:depth])
            place.mkdir(exist_ok=True)
            for entry in here.iterdir():
                if entry.is_file() or depth == len(below.parts):
                    _put(entry, place / entry.name)
        yield top / below / path.name, top


def _put(entry: Path, place: Path) -> None:
    """Make a link to a file, or a plain copy of a table that is not plain."""
    if entry.suffix == ".tsv" and not _is_plain(entry):
        place.write_text(_rewritten(entry), "utf-8")
        return
    try:
        place.symlink_to(entry.resolve(), target_is_directory=entry.is_dir())
    except OSError:  # Windows lets not everybody make links
        (shutil.copytree if entry.is_dir() else shutil.copyfile)(entry, place)


def _is_plain(table: Path) -> bool:
    """Return whether a table is written as the standard has it."""
    try:
        text, delimiter = read_text(table)
        wide = b"\0" in table.read_bytes()  # UTF-16
        return not delimiter and not wide and "\n".join(text.splitlines()).rstrip("\n") + "\n" == _rewritten(table)
    except RecordingError:
        return False


def _rewritten(table: Path) -> str:
    needed = tuple(name for kind, name in _FIRST.items() if table.stem.endswith(kind))
    rows, columns = read_rows(table, needed), read_table(table, needed).columns
    if table.name.endswith("events.tsv"):
        rows = [
            {**row, **{name: _plain_number(row.get(name, "n/a")) for name in ("onset", "duration")}} for row in rows
        ]
        rows = [row for row in rows if row["onset"] != "n/a"]
    lines = [list(rows[0]) if rows else list(columns)]
    lines += [[" ".join(cell.split()) for cell in row.values()] for row in rows]
    return "".join("\t".join(line) + "\n" for line in lines)


def _plain_number(cell: str) -> str:
    """Return a number with a point; one that has no comma as it stands, 'n/a' for what is none."""
    try:
        value = number(cell)
    except ValueError:
        return "n/a"
    return (f"{value:.12g}" if "," in cell else cell) if math.isfinite(value) else "n/a"
