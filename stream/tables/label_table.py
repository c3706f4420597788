"""A table of codes and the pictures they stand for, in a config or in a file of any program."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from stream.errors import RecordingError
from stream.tables.delimited import Table, column_name, is_missing, read_table, read_text
from stream.types.labels import clean, name_of, quote

logger = logging.getLogger(__name__)

CODES = ("code", "marker", "trigger", "value", "trigger_code", "marker_code", "event_code", "marker_value", "triggers",
         "label", "event")  # fmt: skip
PICTURES = ("picture", "stim_file", "image", "image_file", "imagefile", "picture_file", "stimulus", "stim", "file",
            "filename", "file_name", "id", "stim_id", "picture_id", "stimulus_id")  # fmt: skip
E_PRIME = "*** LogFrame Start ***"
"""Begins a trial in E-Prime's own text log, whose lines are 'Name: value'."""


class LabelSpec(BaseModel):
    """Which picture each code stands for: a table's path, `{file, code, picture}`, or the codes themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    file: Path | None = None
    """Table with a header, parted by tabs, semicolons or commas, such as a PsychoPy log; or E-Prime's text log."""
    code: str | None = None
    """Column of the codes; left out, the first of code, marker, trigger, value ... that is there."""
    picture: str | None = None
    """Column of the pictures' ids or files; left out, the first of picture, stim_file, image, file, id ..."""
    codes: dict[str, str] = {}
    """Picture by code."""

    @model_validator(mode="before")
    @classmethod
    def _of_any_form(cls, value: object) -> object:
        if isinstance(value, str | Path):
            return {"file": value}
        if not isinstance(value, Mapping):
            return value
        if isinstance(value.get("codes"), Mapping):
            return {**value, "codes": _texts(value["codes"])}
        return dict(value) if "file" in value else {"codes": _texts(value)}

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if bool(self.codes) == (self.file is not None):
            raise ValueError("labels names a table's file, or a picture for each code, such as {7: cat-01}")
        _refuse_doubles(self.codes.items(), "labels")
        return self


def read_labels(spec: LabelSpec) -> dict[str, str]:
    """Return the picture that each code stands for, as the table writes both.

    Raises
    ------
    RecordingError
        The table cannot be read, lacks a column, or has two pictures for one code.
    """
    if spec.file is None:
        return dict(spec.codes)
    table = _e_prime(spec.file) or read_table(spec.file, [name for name in (spec.code, spec.picture) if name])
    codes = table.column((spec.code,) if spec.code else CODES, "codes")
    others = (spec.picture,) if spec.picture else tuple(name for name in PICTURES if column_name(name) != codes)
    pictures = table.column(others, "pictures")
    pairs = [(row.get(codes, ""), row.get(pictures, "")) for row in table.rows]
    given = [(code, picture) for code, picture in pairs if not is_missing(code) and not is_missing(picture)]
    for line in table.warnings:
        logger.warning("%s: %s", spec.file, line)
    if left := len(pairs) - len(given):
        logger.warning("%s: %d of %d rows have no code or no picture and are left out", spec.file, left, len(pairs))
    if not given:
        raise RecordingError(
            f"{spec.file}: no row has a code in column {table.columns[codes]!r} and a picture in "
            f"{table.columns[pictures]!r}; say in labels which columns hold them"
        )
    try:
        _refuse_doubles(given, str(spec.file))
    except ValueError as error:
        raise RecordingError(str(error)) from None
    return dict(given)


def _texts(codes: Mapping[Any, Any]) -> dict[str, str]:
    """Check codes that YAML has read; it takes 'on' and 'no' for true and false."""
    for each in (part for pair in codes.items() for part in pair):
        if isinstance(each, bool) or not isinstance(each, str | int | float):
            raise ValueError(f"{each!r} is no code and no picture; write each in quotes, such as {{'7': 'cat-01'}}")
    return {str(code): str(picture) for code, picture in codes.items()}


def _refuse_doubles(pairs: Any, origin: str) -> None:
    known: dict[str, str] = {}
    for code, picture in pairs:
        same = re.sub(r"^([0-9]+)[.,]0*$", r"\1", clean(code))
        if name_of(known.setdefault(same, picture)) != name_of(picture):
            raise ValueError(
                f"{origin}: code {quote(code)} stands for two pictures, {quote(known[same])} and {quote(picture)}"
            )


def _e_prime(path: Path) -> Table | None:
    """Read E-Prime's own log, a frame a row; None where the file is another."""
    text, warnings = read_text(path)
    table = Table(path, {}, [], [], warnings)
    for frame in text.split(E_PRIME)[1:]:
        pairs = [line.partition(":") for line in frame.partition("*** LogFrame End ***")[0].splitlines()]
        for name, colon, _ in pairs:
            if colon and column_name(name):
                table.columns.setdefault(column_name(name), name.strip())
        table.rows.append({column_name(name): value.strip() for name, colon, value in pairs if colon})
    return table if table.rows else None
