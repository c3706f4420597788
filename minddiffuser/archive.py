"""The archive of a session: its pictures, their metadata and its config in one folder, within limits.

Layout of a session's folder
    session.json                 format, session, what the pictures are made from, config, versions, what was removed
    <window>.<stage>.jpg         original, preview and picture of a window (.png, .webp, .gif), as published
    <window>.<stage>.json        the metadata that came with each; `abstained` has no picture
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minddiffuser.errors import AppError
from minddiffuser.pictures import decode
from stream.messages import MAX_JSON, MAX_PAYLOAD, content_type, to_json

if TYPE_CHECKING:
    from minddiffuser.config import ArchiveSpec
    from stream.frames import Frame

log = logging.getLogger(__name__)

ABOUT = "session.json"
FORMAT = {"format": "minddiffuser-session", "version": 1}
SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/gif": ".gif"}
_OURS = re.compile(r"(.+)\.(original|preview|picture|abstained)\.(jpg|png|webp|gif|json)")


def file_stem(window_id: str) -> str:
    """Turn a window's id, which comes from outside, into a file name that stays in its folder and stays unique."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", window_id)[:80]
    return plain if plain == window_id else f"{plain}-{hashlib.sha256(window_id.encode()).hexdigest()[:8]}"


def files_of(frame: Frame) -> dict[str, bytes]:
    """Give the files of a frame by name: its own picture, where it has one, and its meta."""
    base = f"{file_stem(frame.window_id)}.{frame.stage}"
    files = {f"{base}.json": to_json(frame.meta)}
    if (payload := frame.pictures.get(frame.stage)) is not None:
        files = {base + SUFFIXES[content_type(payload)]: payload, **files}
    return files


def save(frame: Frame, folder: Path) -> list[Path]:
    """Write a frame's own picture and its meta; a file is there whole or not at all.

    Raises
    ------
    AppError
        The folder or a file cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files_of(frame).items():
            _write(folder / name, content)
            written.append(folder / name)
    except OSError as error:
        raise AppError(f"cannot save pictures in {folder}: {error}") from error
    return written


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


@dataclass(slots=True)
class _Kept:
    """The files of one window in an archive."""

    folder: Path
    stem: str
    written: float
    size: int = 0
    names: list[str] = field(default_factory=list)


class Archive:
    """Keeps what was published, and lets the oldest windows go where a limit is reached.

    The limits hold for all sessions in `spec.folder` together. What is no archive of ours is never touched.

    Parameters
    ----------
    spec : ArchiveSpec
        `folder` is set.
    session : str
    about : mapping
        What `session.json` says beside the format: data, config, versions.

    Attributes
    ----------
    session : str
    folder : Path
        Of this session.
    removed : int
        Windows that a limit has cost, of this session and earlier ones.

    Raises
    ------
    AppError
        The folder cannot be written.
    """

    def __init__(self, spec: ArchiveSpec, session: str, about: Mapping[str, Any]) -> None:
        assert spec.folder is not None
        self._spec, self._root, self.session = spec, spec.folder, session
        started = datetime.now(UTC)
        self.folder = self._root / f"{session}-{started:%Y%m%dT%H%M%S.%fZ}"
        self.removed = 0
        try:
            self._kept = deque(_scan(self._root))
            self._size = sum(kept.size for kept in self._kept)
            self.folder.mkdir(parents=True)
            _write(
                self.folder / ABOUT, to_json({**FORMAT, "session": session, "started": started.isoformat(), **about})
            )
        except OSError as error:
            raise AppError(f"cannot keep an archive in {self._root}: {error}") from error
        self._trim()

    def add(self, frame: Frame) -> None:
        """Write a frame that was published since the archive began.

        Raises
        ------
        AppError
            It cannot be written.
        """
        if frame.retained:
            return
        files = save(frame, self.folder)
        size = sum(path.stat().st_size for path in files)
        stem = file_stem(frame.window_id)
        if not self._kept or (self._kept[-1].folder, self._kept[-1].stem) != (self.folder, stem):
            self._kept.append(_Kept(self.folder, stem, time.time()))
        self._kept[-1].size += size
        self._kept[-1].names += [path.name for path in files]
        self._size += size
        self._trim()

    def _trim(self) -> None:
        oldest_allowed = time.time() - self._spec.max_days * 86400
        gone: Counter[Path] = Counter()
        while self._kept and (
            len(self._kept) > self._spec.max_windows
            or self._size > self._spec.max_megabytes * 1e6
            or self._kept[0].written < oldest_allowed
        ):
            kept = self._kept.popleft()
            self._size -= kept.size
            for name in kept.names:
                (kept.folder / name).unlink(missing_ok=True)
            gone[kept.folder] += 1
        if gone and not self.removed:
            log.warning("archive %s is full: its oldest windows are removed from now on", self._root)
        self.removed += gone.total()
        for folder, count in gone.items():
            self._account(folder, count)

    def _account(self, folder: Path, count: int) -> None:
        """Say in a session's own folder how many of its windows are gone; one that is empty goes as a whole."""
        about = read_about(folder)
        _write(folder / ABOUT, to_json({**about, "removed": int(about.get("removed", 0)) + count}))
        if folder != self.folder and [path.name for path in folder.iterdir()] == [ABOUT]:
            (folder / ABOUT).unlink()
            folder.rmdir()


def _scan(root: Path) -> list[_Kept]:
    """Find the windows of earlier sessions, oldest first."""
    found: list[_Kept] = []
    for about in sorted(root.glob(f"*/{ABOUT}")):
        try:
            read_about(about.parent)
        except AppError:
            continue
        windows: dict[str, _Kept] = {}
        for path in about.parent.iterdir():
            if (match := _OURS.fullmatch(path.name)) and path.is_file():
                status = path.stat()
                kept = windows.setdefault(match[1], _Kept(about.parent, match[1], status.st_mtime))
                kept.size += status.st_size
                kept.names.append(path.name)
                kept.written = max(kept.written, status.st_mtime)
        found += windows.values()
    return sorted(found, key=lambda kept: kept.written)


def is_session(folder: Path) -> bool:
    """Tell whether a folder is an archive of a session."""
    return (folder / ABOUT).is_file()


def read_about(folder: Path) -> dict[str, Any]:
    """Read a session's own account of itself.

    Raises
    ------
    AppError
        There is none, or it is not one of ours.
    """
    about = _read_json(folder / ABOUT)
    if {key: about.get(key) for key in FORMAT} != FORMAT:
        raise AppError(f"{folder / ABOUT} does not describe a session that this version knows")
    return about


@dataclass(frozen=True, slots=True)
class Received:
    """One window's pictures, as an independent subscriber got them.

    Attributes
    ----------
    meta : dict
        Of the final picture.
    stages : dict of str to ndarray, (height, width, 3) uint8
        'preview' (stage 1), 'picture' (stage 2) and, where it was known and asked for, 'original'.
    """

    meta: dict[str, Any]
    stages: dict[str, NDArray[np.uint8]]

    @property
    def label(self) -> str:
        """The event's label, which names the stimulus; '' without an event."""
        event = self.meta.get("event")
        return str(event.get("label", "")) if isinstance(event, dict) else ""


def read_received(folder: Path, stages: tuple[str, ...] = ("preview", "picture")) -> list[Received]:
    """Read what was saved, in the order of the windows; windows without a final picture are left out.

    Raises
    ------
    AppError
        A file is broken or larger than any that was published.
    """
    files: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    for path in folder.iterdir():
        if (match := _OURS.fullmatch(path.name)) and match[2] in stages and match[3] != "json":
            files[match[1]][match[2]] = path
    return [
        Received(
            _read_json(folder / f"{stem}.picture.json"),
            {stage: _read_picture(path) for stage, path in files[stem].items()},
        )
        for stem in _stems(folder, "picture")
    ]


def count_of(folder: Path, stage: str) -> int:
    """Count the windows of a folder that have a stage."""
    return len(_stems(folder, stage))


def entries(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Give the files of an archived session by name; one that a limit removes meanwhile is left out."""
    for path in sorted(folder.iterdir()):
        if path.name == ABOUT or _OURS.fullmatch(path.name):
            try:
                yield path.name, path.read_bytes()
            except FileNotFoundError:
                continue


def _stems(folder: Path, stage: str) -> list[str]:
    ending = f".{stage}.json"
    return [path.name.removesuffix(ending) for path in sorted(folder.glob(f"*{ending}"))]


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise AppError(f"{path}: {error.strerror}") from error
    if len(content) > limit:
        raise AppError(f"{path}: larger than {limit} bytes, and so not a file of a session")
    return content


def _read_picture(path: Path) -> NDArray[np.uint8]:
    try:
        return decode(_read(path, MAX_PAYLOAD))
    except AppError as error:
        raise error if str(path) in str(error) else AppError(f"{path}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(path, MAX_JSON))
    except (ValueError, RecursionError) as error:
        raise AppError(f"{path}: not JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(value, dict):
        raise AppError(f"{path}: a JSON object is expected")
    return value
