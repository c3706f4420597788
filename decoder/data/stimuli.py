"""The pictures that were shown, under the labels by which events name them."""

import csv
import hashlib
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decoder.data.picture_files import GREY, Colour, PictureFolder, one_size
from decoder.errors import StimulusError
from stream.atomic import write_whole
from stream.errors import RecordingError
from stream.tables.delimited import read_table
from stream.types.labels import name_of, quote

logger = logging.getLogger(__name__)

CAPTION_SEPARATOR = " | "
FILES = ("file", "filename", "file_name", "stim_file", "image", "image_file", "imagefile", "picture", "picture_file")
"""Columns that may name the pictures' files: ours, then those of conditions files of stimulus programs."""


@dataclass(frozen=True, slots=True, eq=False)
class StimulusTable:
    """Pictures by id.

    Attributes
    ----------
    ids : tuple of str
        One a picture, unique; an event's label is the id of the picture it announces.
    images : ndarray, shape (n, height, width, 3), uint8, RGB
    captions : tuple of tuple of str, or None
        At least one caption a picture; None where nobody described the pictures.
    groups : tuple of str
        Pictures of one group never lie on both sides of a split. Left empty: every picture is its own group.
    concepts : tuple of str
        What each picture shows, in a word that CLIP can be asked for; empty where nobody said.
    files : tuple of str
        Each picture's file, by which markers may name it too; empty where there are none.
    """

    ids: tuple[str, ...]
    images: NDArray[np.uint8]
    captions: tuple[tuple[str, ...], ...] | None = None
    groups: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.groups:
            object.__setattr__(self, "groups", self.ids)
        n = len(self.ids)
        if len(set(self.ids)) != n:
            doubled = next(i for i in self.ids if self.ids.count(i) > 1)
            raise StimulusError(f"stimulus id {doubled!r} occurs more than once; give every picture its own id")
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise StimulusError(
                f"stimulus images are {self.images.dtype} {self.images.shape}; wanted uint8 (n, height, width, 3)"
            )
        lengths = {"images": len(self.images), "groups": len(self.groups)}
        if self.captions is not None:
            lengths["captions"] = len(self.captions)
            if not all(self.captions):
                raise StimulusError(f"stimulus {self.ids[self.captions.index(())]!r} has no caption; give it one")
        if self.concepts:
            lengths["concepts"] = len(self.concepts)
        if self.files:
            lengths["files"] = len(self.files)
        for name, length in lengths.items():
            if length != n:
                raise StimulusError(f"{n} stimulus ids but {length} {name}; give one a stimulus")

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: Iterable[str]) -> NDArray[np.intp]:
        """Find pictures by id.

        Parameters
        ----------
        ids : iterable of str

        Returns
        -------
        rows : ndarray of int, one an id, in the order asked for

        Raises
        ------
        StimulusError
            If an id is not in the table.
        """
        place = {name: row for row, name in enumerate(self.ids)}
        try:
            return np.array([place[name] for name in ids], dtype=np.intp)
        except KeyError as error:
            raise StimulusError(
                f"no stimulus is called {error.args[0]!r} (the table holds {len(self)}, such as {self.ids[:2]})"
            ) from None

    def select(self, ids: Sequence[str]) -> "StimulusTable":
        """Return the sub-table of some pictures, in the order asked for."""
        rows = self.rows(ids)
        captions = None if self.captions is None else tuple(self.captions[row] for row in rows)
        groups, concepts, files = (
            tuple(own[row] for row in rows) if own else () for own in (self.groups, self.concepts, self.files)
        )
        return StimulusTable(tuple(ids), self.images[rows], captions, groups, concepts, files)

    def union(self, other: "StimulusTable") -> "StimulusTable":
        """Add the pictures of another table whose ids are new.

        Raises
        ------
        StimulusError
            If an id stands for one picture here and for another there.
        """
        known = set(self.ids)
        shared = [name for name in other.ids if name in known]
        for name, mine, theirs in zip(shared, self.rows(shared), other.rows(shared), strict=True):
            if not np.array_equal(self.images[mine], other.images[theirs]):
                raise StimulusError(f"stimulus id {name!r} stands for two different pictures; give each its own id")
        if len(shared) == len(other):
            return self
        new = other.select([name for name in other.ids if name not in known])
        both = self.captions is not None and new.captions is not None
        return StimulusTable(
            self.ids + new.ids,
            np.concatenate([self.images, new.images]),
            (self.captions or ()) + (new.captions or ()) if both else None,
            self.groups + new.groups,
            self.concepts + new.concepts if self.concepts and new.concepts else (),
            self.files + new.files if self.files and new.files else (),
        )

    def without(self, other: "StimulusTable") -> "StimulusTable":
        """Return the sub-table of pictures that another table has not, by content."""
        known = set(other.digests())
        return self.select([name for name, own in zip(self.ids, self.digests(), strict=True) if own not in known])

    def digests(self) -> list[str]:
        """Hash each picture's content."""
        return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in self.images]

    def content_hash(self) -> str:
        """Hash pictures and captions, not their ids: what targets are computed from."""
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).tobytes())
        for captions in self.captions or ():
            digest.update(repr(captions).encode())
        return digest.hexdigest()


def read_stimuli(folder: Path, background: Colour = GREY, size: tuple[int, int] | None = None) -> StimulusTable:
    """Read a folder of pictures described by its `stimuli.csv`.

    The file has a header; `file` is required, `id` (default: the file's name without its suffix), `caption`
    (several parted by ' | '), `group` and `concept` are optional, and other columns are let be. Pictures have one size.
    It may come out of any program (see `stream.tables.delimited`). A picture that is listed again under its id is one
    picture, with the captions of all its rows.

    Parameters
    ----------
    folder : Path
    background : tuple of int
        RGB that shows through where a picture is transparent.
    size : (int, int), optional
        Width and height to which pictures of another size are fitted.

    Raises
    ------
    StimulusError
        If the file or a picture is missing, an id stands for two pictures, or the pictures differ in size.
    """
    path = folder / "stimuli.csv"
    try:
        table = read_table(path, multiline=True)
        column = table.column(FILES, "pictures")
    except RecordingError as error:
        raise StimulusError(f"{error}; a stimulus folder holds stimuli.csv, with the column 'file'") from None
    warnings = list(table.warnings)
    pictures, files = PictureFolder(folder, background, size), dict[str, Path]()
    rows: dict[str, list[dict[str, str]]] = {}
    for row, line in zip(table.rows, table.lines, strict=True):
        if not row[column]:
            warnings.append(f"line {line} names no picture and is left out")
            continue
        name, file = _given(row, "id") or name_of(row[column]), pictures.find(row[column])
        if files.setdefault(name, file) != file:
            raise StimulusError(
                f"{path}: stimulus id {quote(name)} occurs more than once, for {files[name].relative_to(folder)} and "
                f"for {file.relative_to(folder)}; give every picture its own id"
            )
        rows.setdefault(name, []).append(row)
    if not rows:
        raise StimulusError(f"{path} has no rows; give one row a picture")
    if again := sum(len(own) - 1 for own in rows.values()):
        warnings.append(f"{again} rows name a picture again; their captions are put together")
    images = one_size(tuple(rows), [pictures.read(file) for file in files.values()], folder)
    captions = tuple(_captions(own) for own in rows.values())
    concepts = tuple(_given(own[0], "concept") for own in rows.values())
    warnings += _gaps("caption", rows, captions) + _gaps("concept", rows, concepts)
    warnings += [f"{times} of {len(images)} pictures are {remark}" for remark, times in pictures.remarks.items()]
    for warning in warnings:
        logger.warning("%s: %s", path, warning)
    return StimulusTable(
        ids=tuple(rows),
        images=images,
        captions=captions if all(captions) else None,
        groups=tuple(_given(own[0], "group") or name for name, own in rows.items()),
        concepts=concepts if all(concepts) else (),
        files=tuple(file.relative_to(folder).as_posix() for file in files.values()),
    )


def _given(row: dict[str, str], column: str) -> str:
    cell = row.get(column, "")
    return "" if cell.casefold() == "n/a" else cell


def _captions(rows: Sequence[dict[str, str]]) -> tuple[str, ...]:
    """Return what the rows of a picture say of it; a row that says the same again adds nothing."""
    out: list[str] = []
    for row in rows:
        texts = filter(None, (text.strip() for text in _given(row, "caption").split(CAPTION_SEPARATOR)))
        out += [text for text in texts if row is rows[0] or text not in out]
    return tuple(out)


def _gaps(column: str, names: Iterable[str], values: Sequence[str | tuple[str, ...]]) -> list[str]:
    """Name the pictures that lack what others have, so that nobody's is used."""
    empty = [name for name, value in zip(names, values, strict=True) if not value]
    if not empty or len(empty) == len(values):
        return []
    few = ", ".join(map(quote, empty[:2]))
    return [
        f"{len(empty)} of {len(values)} pictures have no {column} ({few} ...), so none is used; fill in all or none"
    ]


def write_stimuli(stimuli: StimulusTable, folder: Path) -> None:
    """Write pictures (PNG) and `stimuli.csv` to a folder that `read_stimuli` reads back.

    The table is there only while all its pictures are: an earlier one is removed first, the new one comes last.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stimuli.csv").unlink(missing_ok=True)
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["id", "file", "group", "caption", "concept"])
    for row, (name, group) in enumerate(zip(stimuli.ids, stimuli.groups, strict=True)):
        picture = f"{row:05d}.png"
        Image.fromarray(stimuli.images[row]).save(folder / picture, compress_level=1)
        captions = stimuli.captions[row] if stimuli.captions else ()
        concept = stimuli.concepts[row] if stimuli.concepts else ""
        table.writerow([name, picture, group, CAPTION_SEPARATOR.join(captions), concept])
    write_whole(folder / "stimuli.csv", text.getvalue())
