"""The pictures that were shown, under the labels by which events name them."""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decoder.errors import StimulusError

CAPTION_SEPARATOR = " | "


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
    """

    ids: tuple[str, ...]
    images: NDArray[np.uint8]
    captions: tuple[tuple[str, ...], ...] | None = None
    groups: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()

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
        """Give the sub-table of some pictures, in the order asked for."""
        rows = self.rows(ids)
        captions = None if self.captions is None else tuple(self.captions[row] for row in rows)
        groups, concepts = (tuple(own[row] for row in rows) if own else () for own in (self.groups, self.concepts))
        return StimulusTable(tuple(ids), self.images[rows], captions, groups, concepts)

    def joined(self, other: "StimulusTable") -> "StimulusTable":
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
        )

    def content_hash(self) -> str:
        """Hash pictures and captions, not their ids: what targets are computed from."""
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).tobytes())
        for captions in self.captions or ():
            digest.update(repr(captions).encode())
        return digest.hexdigest()


def read_stimuli(folder: Path) -> StimulusTable:
    """Read a folder of pictures described by its `stimuli.csv`.

    The file has a header; `file` is required, `id` (default: the file's name without its suffix), `caption`
    (several parted by ' | '), `group` and `concept` are optional, and other columns are let be. Pictures have one size.

    Raises
    ------
    StimulusError
        If the file or a picture is missing, or the pictures differ in size.
    """
    from PIL import Image

    path = folder / "stimuli.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise StimulusError(f"cannot read {path}: {error.strerror}; a stimulus folder holds stimuli.csv") from None
    if not rows or "file" not in rows[0]:
        raise StimulusError(f"{path} has no 'file' column or no rows; give one row a picture")
    images = []
    for row in rows:
        try:
            with Image.open(folder / row["file"]) as image:
                images.append(np.asarray(image.convert("RGB")))
        except OSError as error:
            raise StimulusError(f"cannot read picture {folder / row['file']}: {error}") from None
    if len({image.shape for image in images}) > 1:
        raise StimulusError(f"the pictures of {folder} differ in size; resize them to one")
    captions = tuple(tuple(filter(None, (row.get("caption") or "").split(CAPTION_SEPARATOR))) for row in rows)
    concepts = tuple(row.get("concept") or "" for row in rows)
    return StimulusTable(
        ids=tuple(row.get("id") or Path(row["file"]).stem for row in rows),
        images=np.stack(images),
        captions=captions if all(captions) else None,
        groups=tuple(row.get("group") or row.get("id") or Path(row["file"]).stem for row in rows),
        concepts=concepts if all(concepts) else (),
    )


def write_stimuli(stimuli: StimulusTable, folder: Path) -> None:
    """Write pictures (PNG) and `stimuli.csv` to a folder that `read_stimuli` reads back."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stimuli.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "file", "group", "caption", "concept"])
        for row, (name, group) in enumerate(zip(stimuli.ids, stimuli.groups, strict=True)):
            picture = f"{row:05d}.png"
            Image.fromarray(stimuli.images[row]).save(folder / picture, compress_level=1)
            captions = stimuli.captions[row] if stimuli.captions else ()
            concept = stimuli.concepts[row] if stimuli.concepts else ""
            table.writerow([name, picture, group, CAPTION_SEPARATOR.join(captions), concept])
