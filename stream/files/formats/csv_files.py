"""CSV files: a column of times, channels, and columns of markers; muse-lsl's, and what other programs write."""

import csv
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordingError
from stream.files.file_format import GZIP, Description, FileFormat
from stream.markers.triggers import Triggers
from stream.types.channel_names import ChannelNames, is_electrode, kind_of, name_channels
from stream.types.events import Event, event_of
from stream.types.levels import unlikely
from stream.types.recording import TYPE_OF_KIND, RecordedStream, Recording, measured_rate
from stream.types.units import is_known, si_unit, si_units
from stream.types.windows import Channels

MUSE_SFREQ = 256.0
MUSE = {"tp9", "af7", "af8", "tp10", "right aux", "left aux", "aux", "fpz"}
"""Columns of muse-lsl's files, whose numbers are microvolts."""
POSIX_SINCE = 1e9
"""Stamps above are POSIX time (2001 and later); an LSL clock counts from the machine's start."""
_TIME = re.compile(
    r"(?:lsl[ _]?)?(?:time[ _]?stamps?|times?|t)(?:[ _]?[\[(]?(s|sec|seconds|ms|us|µs)[\])]?)?", re.IGNORECASE
)
_UNIT = re.compile(
    r"(.*?)\s*(?:[\[(]([^\])]*)[\])]|_([VT])|(?:_|(?<=\s))((?i:[uµμmn]v|microvolts?|millivolts?)|[fp]T))\s*"
)
_SCALE = {"ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_MISSING = {"", "na", "n/a", "nan", "null", "none", "-"}


@dataclass(frozen=True, slots=True)
class _Table:
    """A table as text: names of the columns, and the lines below with their numbers in the file."""

    names: tuple[str, ...]
    numbers: NDArray[np.float64]
    warnings: tuple[str, ...]


def read_csv(path: Path) -> Recording:
    """Read a CSV file whose first column is called timestamps, timestamp or time.

    muse-lsl's columns ('timestamps', then TP9, AF7, AF8, TP10, Right AUX) are in microvolts; others are in what the
    header says behind a name ('Fz (uV)', 'Fz [µV]', 'Fz uV'), else plain numbers. Each row of muse-lsl's columns
    'Marker*' that is not 0 is a marker; elsewhere the onsets of columns named as markers or triggers
    are. Of several such columns each but the first puts its name before: 'Marker2=45'.

    Raises
    ------
    RecordingError
        It is no such table; names the line.
    """
    table = _table(path)
    header = table.names
    is_marker = [name.lower().startswith("marker") or kind_of(_UNIT.sub(r"\1", name)) == "stim" for name in header]
    data = [i for i in range(1, len(header)) if not is_marker[i]]
    muse = header[0].lower() == "timestamps" and {header[i].lower() for i in data} <= MUSE
    problems = list(table.warnings)
    times, begun = _times(path, table, problems)
    named_channels, units, factors, unit_texts = _channels(header, data, muse=muse, problems=problems)
    columns = [i for i in range(1, len(header)) if is_marker[i]]
    events = _events(table, columns, times, muse=muse)
    kind = next((TYPE_OF_KIND[kind] for kind in named_channels.kinds if kind in TYPE_OF_KIND), "misc")
    channels = Channels(named_channels.names, named_channels.kinds, units)
    values = (table.numbers[:, data] * factors).astype(np.float32)
    sfreq = _rate(path, times, muse=muse)
    problems += unlikely(channels, values, sfreq)
    description = "human EEG (Muse headband)" if muse else f"{kind} recording"
    stream = RecordedStream(
        path.name, kind, f"replay-{path.name}", channels, sfreq, times, values, units_given=unit_texts
    )  # fmt: skip
    return Recording(path.name, description, (stream,), events, begun, warnings=tuple(problems))


def _table(path: Path) -> _Table:
    """Read the table, whatever parts its columns and decimals."""
    content = path.read_bytes()
    lines = _decoded(gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()
    first = next((i for i, line in enumerate(lines) if line.strip() and line.lstrip()[0] not in "#%"), len(lines))
    head = lines[first] if first < len(lines) else ""
    delimiter = max(",;\t", key=head.count)
    names = tuple(name.strip() for name in next(csv.reader([head], delimiter=delimiter), []))
    index = bool(names) and not names[0]  # of rows, as pandas writes it
    if index:
        names = names[1:]
    if not names or not _TIME.fullmatch(names[0]):
        raise RecordingError(f"{path}: the first column must be 'timestamps', not {list(names[:1])}")
    if len(names) < 2:
        raise RecordingError(f"{path}: names no column beside {names[0]!r}")
    body = [(number, line) for number, line in enumerate(lines[first + 1 :], first + 2) if line.strip(delimiter + " ")]
    if index:
        body = [(number, line.partition(delimiter)[2]) for number, line in body]
    if delimiter != ",":
        body = [(number, line.replace(",", ".")) for number, line in body]
    warnings = []
    if body and body[-1][1].count(delimiter) < len(names) - 1:
        warnings.append(f"line {body[-1][0]} is cut short and is left out")
        body.pop()
    if len(body) < 2:
        raise RecordingError(f"{path}: holds {len(body)} whole rows below its header")
    try:
        numbers = np.loadtxt([line for _, line in body], delimiter=delimiter, ndmin=2)
    except ValueError:
        numbers = np.array([_row(path, number, line, delimiter, names) for number, line in body])
    if numbers.shape[1] != len(names):
        raise RecordingError(f"{path}: {len(names)} columns are named, and its rows have {numbers.shape[1]}")
    n = len(names)
    while not names[n - 1] and np.isnan(numbers[:, n - 1]).all():  # what ends each line
        n -= 1
    return _Table(names[:n], numbers[:, :n], tuple(warnings))


def _decoded(content: bytes) -> str:
    for encoding in ("utf-16",) if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else ("utf-8-sig",):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")


def _row(path: Path, number: int, line: str, delimiter: str, names: Sequence[str]) -> list[float]:
    """Read a row cell by cell; empty cells are NaN."""
    cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    if len(cells) != len(names):
        raise RecordingError(f"{path}: line {number} has {len(cells)} columns, the header {len(names)}")
    row = []
    for name, cell in zip(names, cells, strict=True):
        try:
            row.append(float("nan") if cell.casefold() in _MISSING else float(cell))
        except ValueError:
            raise RecordingError(f"{path}: line {number}, column {name!r}: {cell[:40]!r} is no number") from None
    return row


def _times(path: Path, table: _Table, problems: list[str]) -> tuple[NDArray[np.float64], float | None]:
    """Return seconds from the first row, and when that was, where the stamps say."""
    stamps = table.numbers[:, 0]
    if not np.isfinite(stamps).all():
        raise RecordingError(f"{path}: a timestamp is not a number")
    matched = _TIME.fullmatch(table.names[0])
    scale = _SCALE.get((matched[1] or "").lower(), 1.0) if matched else 1.0
    if scale == 1.0 and stamps[0] > 1e11:
        # Seconds since 1970 stay below that for three thousand years.
        scale = 1e-3 if stamps[0] < 1e14 else 1e-6
        problems.append(
            f"{table.names[0]} is taken for {'milliseconds' if scale == 1e-3 else 'microseconds'} since 1970"
        )
    begun = float(stamps[0] * scale)
    return (stamps - stamps[0]) * scale, begun if begun > POSIX_SINCE else None


def _channels(
    header: Sequence[str], data: Sequence[int], *, muse: bool, problems: list[str]
) -> tuple[ChannelNames, tuple[str, ...], NDArray[np.float64], tuple[str, ...]]:
    """Return the channels and their units from the header."""
    if muse:
        named_channels = name_channels([header[i] for i in data], [""] * len(data))
        problems += named_channels.warnings
        return named_channels, ("V",) * len(data), np.full(len(data), 1e-6), ()
    parted = [_UNIT.fullmatch(header[i]) for i in data]
    labels = [match[1] if match else header[i] for i, match in zip(data, parted, strict=True)]
    unit_texts = [(match[2] or match[3] or match[4] or "") if match else "" for match in parted]
    named_channels = name_channels(
        labels, [_stated(label, text) for label, text in zip(labels, unit_texts, strict=True)]
    )
    problems += named_channels.warnings
    units, factors, unknown = si_units(named_channels.names, named_channels.kinds, unit_texts)
    problems += [f"{line}, or behind the name in the header ('Fz (uV)')" for line in unknown]
    return named_channels, units, factors, tuple(unit_texts) if any(unit_texts) else ()


def _stated(label: str, unit: str) -> str:
    """Return the kind of a column that its unit tells; one that is in no volts and no electrode is 'misc'."""
    if is_known(unit) and si_unit(unit)[0] in {"V", "T"}:
        return "mag" if si_unit(unit)[0] == "T" else ""
    return "" if is_electrode(label) else "misc"


def _events(table: _Table, columns: Sequence[int], times: NDArray[np.float64], *, muse: bool) -> tuple[Event, ...]:
    events: list[Event] = []
    for order, column in enumerate(columns):
        name = table.names[column]
        values = table.numbers[:, column]
        # muse-lsl writes one row a marker, so two rows with the same code are two markers.
        places = np.flatnonzero(values) if muse else [at for at, _ in Triggers().feed(values)]
        marks = [event for at in places if (event := event_of(float(times[at]), float(values[at]), name))]
        events += [replace(event, label=f"{name}={event.label}") for event in marks] if order else marks
    return tuple(sorted(events, key=lambda event: event.time))


def _rate(path: Path, times: NDArray[np.float64], *, muse: bool) -> float:
    """Return the nominal rate of a table: Muse's where it is near that, else the measured one, rounded."""
    measured = measured_rate(times)
    if not measured:
        raise RecordingError(f"{path}: the timestamps do not increase")
    if muse and abs(measured / MUSE_SFREQ - 1) < 0.02:
        return MUSE_SFREQ
    whole = round(measured)
    return float(whole) if whole and abs(measured / whole - 1) < 2e-3 else float(f"{measured:.4g}")


CSV = Description(
    "CSV",
    "columns called `Marker*`, `Trigger*`, `Status` ...",
    "the header (`Fz (uV)`, `Fz [µV]`); muse-lsl's columns are in microvolts",
)
FORMATS = (FileFormat(".csv", read_csv, description=CSV), FileFormat(".csv.gz", read_csv, (GZIP,), description=CSV))
