"""Tables of text out of any program: their encoding, delimiter, header and cells, by rules that do not guess twice."""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stream.errors import RecordingError
from stream.types.labels import quote

MISSING = frozenset({"", "n/a", "na", "n.a.", "nan", "null", "none", "#n/a", "#null!", "<na>", "nil"})
"""What programs write where there is nothing, in lower case."""
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DELIMITERS = "\t;,"
"""The first that parts the header into all that is needed, else into the most columns; blanks where no other does."""
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""What files of Excel itself begin with."""
PREAMBLE = 5
"""Lines before the header that a program may write (E-DataAid: its file's path)."""
SIZE_LIMIT = 256 * 2**20
"""Bytes; a table of events or pictures is far smaller."""
_LINE = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text.

    Attributes
    ----------
    path : Path
    columns : dict of str to str
        Each column as the file writes it, by its name in lower case with '_' for what is no letter or digit.
    rows : list of dict of str to str
        Cells by column name, without blanks around them; a cell that is not there is empty.
    lines : list of int
        The line on which each row is, from 1.
    warnings : list of str
        What whoever uses it should know, in plain words.
    """

    path: Path
    columns: dict[str, str]
    rows: list[dict[str, str]]
    lines: list[int]
    warnings: list[str]

    def column(self, names: Sequence[str], what: str) -> str:
        """Find the first of some columns that the table has.

        Raises
        ------
        RecordingError
            It has none of them.
        """
        matching = next((name for name in map(column_name, names) if name in self.columns), None)
        if matching is None:
            has = ", ".join(quote(head) for head in list(self.columns.values())[:40]) or "none"
            candidates = repr(names[0]) if len(names) == 1 else f"of {what} ({', '.join(names)})"
            raise RecordingError(f"{self.path}: no column {candidates}; it has {has}")
        return matching


def column_name(header: str) -> str:
    """Return a column's name in lower case, with '_' for what is no letter or digit: of ' Stim.File' 'stim_file'."""
    return re.sub(r"[\W_]+", "_", header.casefold()).strip("_")


def is_missing(cell: str) -> bool:
    """Return whether a cell says that there is nothing: 'n/a', 'NA', 'NULL', 'None' or no text."""
    return cell.casefold() in MISSING


def number(cell: str) -> float:
    """Return the number that a cell holds, with a decimal point or comma.

    Raises
    ------
    ValueError
        It holds none.
    """
    point, comma = cell.rfind("."), cell.rfind(",")
    if comma > point:
        return float(cell.replace(".", "").replace(",", "."))
    return float(cell.replace(",", ""))


def read_table(path: Path, needed: Sequence[str] = (), *, multiline: bool = False) -> Table:
    """Read a table with a header.

    The encoding is what the byte-order mark says, else UTF-8, else Windows' Latin-1. Cells are parted by tabs,
    semicolons or commas. A quote that is not closed is a letter. Rows without any text are left out.

    Parameters
    ----------
    path : Path
    needed : sequence of str
        Columns that must be there.
    multiline : bool
        Whether a quoted cell may hold line breaks.

    Raises
    ------
    RecordingError
        No such file, no text, a needed column is not there, or a row has more cells than there are columns.
    """
    text, warnings = read_text(path)
    required = {column_name(name) for name in needed}
    lines = _LINE.split(text.replace("\0", ""))
    if lines[0].lower().startswith("sep=") and len(lines[0]) == len("sep=;"):
        lines[0] = ""  # Excel's own hint, said again by the header
    at, delimiter = _header(lines, required)
    heads = [cell.strip() for cell in _cells(lines[at], delimiter)] if at < len(lines) else []
    numbered = _whole(lines, at, delimiter) if multiline else None
    if numbered is None:
        numbered = [(line, _cells(text, delimiter, len(heads))) for line, text in enumerate(lines[at + 1 :], at + 2)]
    filled = [(line, cells) for line, cells in numbered if any(cells)]
    if delimiter != ",":  # between commas, decimal ones look the same
        quoted = all(lines[line - 1].lstrip().startswith('"') for line, _ in filled)
        heads = _with_row_names(heads, filled, quoted=quoted, warnings=warnings)
    columns = _columns(heads, warnings)
    table = Table(path, columns, [], [], warnings)
    for name in needed:
        table.column((name,), name)
    _fill(table, [column_name(head) for head in heads], filled, delimiter)
    return table


def read_text(path: Path) -> tuple[str, list[str]]:
    """Read a file of text; returns it with what to know of how, in plain words.

    Raises
    ------
    RecordingError
        No such file, a workbook, or bytes that are not what their byte-order mark says.
    """
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise RecordingError(f"{path}: larger than {SIZE_LIMIT} bytes; this is no table")
        data = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror})") from None
    if data.startswith(WORKBOOKS):
        raise RecordingError(f"{path}: a workbook, not a table of text; save it as CSV (UTF-8)")
    encoding = next((name for mark, name in BOMS if data.startswith(mark)), None)
    if encoding is None:
        # Letters of most languages have an empty high byte: which of two bytes is empty tells the order.
        low, high = (data[place:4096:2].count(0) for place in (1, 0))
        if max(low, high) > len(data[:4096]) // 8:
            encoding = "utf-16-le" if low >= high else "utf-16-be"
    try:
        return data.decode(encoding or "utf-8"), []
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise RecordingError(f"{path}: cannot be read as {encoding} ({error.reason}); save it as UTF-8") from None
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text, ["is not UTF-8 and was read as Latin-1; save it as UTF-8 if letters look wrong"]


def _header(lines: list[str], needed: set[str]) -> tuple[int, str]:
    """Find the header's line and what parts its cells: the first line that has what is needed, else the first."""
    filled = [i for i, line in enumerate(lines) if line.strip(DELIMITERS + " ")][:PREAMBLE]
    for at in filled if needed else ():
        for delimiter in DELIMITERS + " ":
            if needed <= {column_name(cell) for cell in _cells(lines[at], delimiter)}:
                return at, delimiter
    if not filled:
        return len(lines), "\t"
    return filled[0], max(DELIMITERS, key=lambda delimiter: len(_cells(lines[filled[0]], delimiter)))


def _cells(line: str, delimiter: str, n_columns: int = 0) -> list[str]:
    """Split a line; a delimiter within quotes splits nothing, where the line has more cells than there are columns."""
    parts = [part.strip() for part in line.split(delimiter)]
    if len(parts) > n_columns and '"' in line:
        parts = _joined([part.strip(" ") for part in line.split(delimiter)], delimiter)
    return [_unquoted(part) for part in parts]


def _joined(parts: list[str], delimiter: str) -> list[str]:
    out: list[str] = []
    place = 0
    while place < len(parts):
        end = place
        if parts[place].startswith('"') and not _closed(parts[place]):
            rest = range(place + 1, len(parts))
            # A cell with quotes of its own is not the end of another one.
            close = next((i for i in rest if parts[i].startswith('"') or _ends(parts[i])), None)
            end = close if close is not None and not _closed(parts[close]) and _ends(parts[close]) else place
        out.append(delimiter.join(parts[place : end + 1]).strip())
        place = end + 1
    return out


def _ends(cell: str) -> bool:
    """Return whether a quote closes at the end of a cell; doubled-up ones are letters."""
    quotes = len(cell) - len(cell.rstrip('"'))
    return quotes % 2 == 1


def _closed(cell: str) -> bool:
    return len(cell) > 1 and cell.startswith('"') and (_ends(cell[1:]) or cell == '""')


def _unquoted(cell: str) -> str:
    r"""Take the quotes off a cell; within, R writes them as \" and others as ""."""
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return re.sub(r'""|\\"', '"', cell[1:-1]).strip()
    return cell


def _whole(lines: list[str], at: int, delimiter: str) -> list[tuple[int, list[str]]] | None:
    """Read rows whose quoted cells may hold line breaks; None where the quotes do not close as they should."""
    reader = csv.reader(io.StringIO("\n".join(lines[at + 1 :]), newline=""), delimiter=delimiter, strict=True,
                        skipinitialspace=True)  # fmt: skip
    rows: list[tuple[int, list[str]]] = []
    line = at + 2
    try:
        for row in reader:
            rows.append((line, [cell.strip() for cell in row]))
            line = at + 2 + reader.line_num
    except csv.Error:
        return None
    return rows


def _with_row_names(
    heads: list[str], filled: list[tuple[int, list[str]]], *, quoted: bool, warnings: list[str]
) -> list[str]:
    """Add a name for the column of row names that R writes without a header: texts in quotes, or 1, 2, 3 ..."""
    names = [cells[0] for _, cells in filled]
    counted = len(names) > 1 and names == [str(i) for i in range(1, len(names) + 1)]
    one_more = all(len(cells) == len(heads) + 1 for _, cells in filled) and any(cells[-1] for _, cells in filled)
    if one_more and (counted or quoted) and len(set(names)) == len(names):
        warnings.append("rows have one cell more than there are columns: the first is taken for R's row names")
        return ["row_names", *heads]
    return heads


def _columns(heads: list[str], warnings: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for head in heads:
        name = column_name(head)
        if name in columns:
            warnings.append(f"has two columns {head!r}; the first is read")
        elif name:
            columns[name] = head
    return columns


def _fill(table: Table, names: list[str], filled: list[tuple[int, list[str]]], delimiter: str) -> None:
    """Return the cells by column.

    Raises
    ------
    RecordingError
        A row has more cells than there are columns, so that nobody knows which cell is of which.
    """
    for line, cells in filled:
        if any(cells[len(names) :]):
            raise RecordingError(
                f"{table.path}: line {line} has {len(cells)} cells parted by {delimiter!r} for {len(names)} columns; "
                "put cells that hold it in double quotes, and write numbers with a point"
            )
        row = dict.fromkeys(table.columns, "")
        for name, cell in zip(reversed(names), reversed((cells + [""] * len(names))[: len(names)]), strict=True):
            if name:
                row[name] = cell
        table.rows.append(row)
        table.lines.append(line)
