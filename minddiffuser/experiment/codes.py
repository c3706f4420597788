"""Trigger codes for amplifiers that take numbers of 8 bits: a table of codes and the pictures they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minddiffuser.config.experiment import MOST_CODES
from minddiffuser.errors import AppError
from stream.atomic import check_file, write_whole
from stream.tables.delimited import is_missing, read_table
from stream.tables.label_table import CODES, PICTURES
from stream.types.labels import LabelMatcher, quote


def codes_for(path: Path, ids: Sequence[str], files: Sequence[str]) -> dict[str, int]:
    """Return each picture's code: as an existing table has it, else numbered from 1 in the order of the pictures.

    Parameters
    ----------
    path : Path
        The table; `write_codes` writes one where there is none.
    ids, files : sequence of str
        Of the pictures.

    Raises
    ------
    AppError, stream.errors.StreamError
        More pictures than codes; or the table has a hole, a code or a picture twice, or a code out of range.
    """
    if len(ids) > MOST_CODES:
        raise AppError(
            f"{len(ids)} pictures, and 8-bit triggers have {MOST_CODES} codes: show fewer, or take experiment.codes "
            "out, and markers name the pictures"
        )
    if not path.exists():
        check_file(path)
        return {name: code for code, name in enumerate(ids, 1)}
    table = read_table(path)
    code_column, picture_column = table.column(CODES, "codes"), table.column(PICTURES, "pictures")
    matcher = LabelMatcher(ids, files)
    codes: dict[str, int] = {}
    for row, line in zip(table.rows, table.lines, strict=True):
        code, picture = row.get(code_column, ""), row.get(picture_column, "")
        where = f"{path}, line {line}"
        if is_missing(code) or is_missing(picture):
            raise AppError(f"{where}: a hole: {'no code' if is_missing(code) else 'no picture'} in this row")
        if not code.isdecimal() or not 1 <= int(code) <= MOST_CODES:
            raise AppError(f"{where}: code {quote(code)} is no whole number from 1 to {MOST_CODES}")
        if (name := matcher.match(picture)) is None:
            raise AppError(f"{where}: code {code} stands for {quote(picture)}, and no picture is called so")
        if codes.get(name) == int(code):
            continue  # a log has a row for each trial
        if name in codes:
            raise AppError(f"{where}: picture {quote(name)} has two codes, {codes[name]} and {code}; take one out")
        if int(code) in codes.values():
            other = next(each for each, own in codes.items() if own == int(code))
            raise AppError(f"{where}: code {code} stands for two pictures, {quote(other)} and {quote(name)}")
        codes[name] = int(code)
    if missing := [name for name in ids if name not in codes]:
        raise AppError(
            f"{path}: a hole: {len(missing)} of {len(ids)} pictures have no code, such as {quote(missing[0])}; add "
            "them, or move the table away to have a new one written"
        )
    return codes


def write_codes(path: Path, codes: dict[str, int]) -> None:
    """Write the table, unless there is one."""
    if not path.exists():
        write_whole(path, "".join(["code\tpicture\n", *(f"{code}\t{name}\n" for name, code in codes.items())]))
