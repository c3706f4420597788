"""The archive of a session: its pictures, their metadata and its config in one folder, within limits.

Layout of a session's folder
    session.json                 format, session, when it began and ended (ISO 8601 with zone), participant, what the
                                 pictures are made from, config, versions, problems seen, its account, what was removed
    windows.csv                  a line a window: what became of it and why, what was told, how long it took, its files
    notes.csv                    a line a note of the experimenter: LSL time, date, text
    <window>.<stage>.jpg         original, retrieved, preview and picture of a window (.png, .webp, .gif), as published
    <window>.<stage>.json        the metadata that came with each; `abstained` has no picture
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minddiffuser.archive.framefiles import file_stem, picture_names, save
from minddiffuser.archive.pictures import decode
from minddiffuser.archive.windowtable import (
    NOTE_COLUMNS,
    NOTES,
    WINDOW_COLUMNS,
    WINDOWS,
    append,
    note_line,
    window_line,
)
from minddiffuser.errors import AppError
from stream.atomic import write_whole
from stream.errors import WireError
from stream.mqtt.messages import MAX_NESTING, to_json
from stream.mqtt.refusals import EVERY_S
from stream.mqtt.topics import MAX_JSON, MAX_PICTURE, STAGES, topic_of
from stream.mqtt.wire_models import STATES, read_json

if TYPE_CHECKING:
    from minddiffuser.config.spec import ArchiveSpec
    from stream.mqtt.frames import Frame

logger = logging.getLogger(__name__)

ABOUT = "session.json"
TABLES = (WINDOWS, NOTES)
FORMAT = {"format": "minddiffuser-session", "version": 1}
_OURS = re.compile(rf"(.+)\.({'|'.join(STAGES)})\.(jpg|png|webp|gif|json)")
MAX_PROBLEMS = 200
"""Different problems of a session that are kept; more say nothing new."""
_FIGURE = re.compile(r"\d[\d.,]*(e[+-]?\d+)?")


def now_with_zone() -> str:
    """Return date and time of day with the zone, ISO 8601."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


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

    The limits hold for all sessions in `spec.folder` together. What is no archive of ours is never touched. What cannot
    be written costs itself only: it is counted and named in the log, and the next frame is tried again.

    Parameters
    ----------
    spec : ArchiveSpec
        `folder` is set.
    session : str
    about : mapping
        What `session.json` says beside the format: data, participant, config, versions.

    Attributes
    ----------
    session : str
    folder : Path
        Of this session.
    kept, failed : int
        Frames that were written, and frames that could not be.
    removed : int
        Windows that a limit has cost, of this session and earlier ones.
    lost : int
        Pictures that were published and never came here; known at the end.

    Raises
    ------
    AppError
        The folder cannot be written.
    PublishError
        No session may be called so.
    """

    def __init__(self, spec: ArchiveSpec, session: str, about: Mapping[str, Any]) -> None:
        assert spec.folder is not None
        topic_of(session, "status")
        self._spec, self._root, self.session = spec, spec.folder, session
        started = datetime.now().astimezone()
        self.folder = self._root / f"{session}-{started.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"
        self.kept = self.failed = self.removed = self.lost = 0
        self._about = {**FORMAT, "session": session, "started": started.isoformat(), **about}
        self._made_root = not self._root.exists()
        self._lock = threading.Lock()  # frames come from another thread than notes and problems
        self._seen: dict[str, dict[str, str]] = {}  # problems by their words without figures
        self._gone_here = 0
        self._next_word = 0.0
        try:
            self._kept = deque(_scan(self._root))
            self._size = sum(kept.size for kept in self._kept)
            self._describe()
        except OSError as error:
            raise AppError(f"cannot keep an archive in {self._root}: {error}") from error
        self._trim()

    def add(self, frame: Frame) -> None:
        """Write a frame that was published since the archive began; what cannot be written is counted and logged."""
        if not frame.retained:
            with self._lock:
                self._add(frame)

    def note(self, note: Mapping[str, Any]) -> None:
        """Write an experimenter's note: `time` (LSL), `wall`, `text`; what cannot be written is counted and logged."""
        with self._lock:
            self._append(NOTES, NOTE_COLUMNS, note_line(note), f"the note {note['text'][:80]!r}")

    def made_from(self, data: str) -> None:
        """Write what the pictures are made from, where that is known only later."""
        with self._lock:
            self._about |= {"data": data}
            self._describe_again()

    def problems(self, lines: Iterable[str]) -> None:
        """Add what is wrong at present to the problems seen, each once, whatever its figures, as it began."""
        with self._lock:
            before = len(self._seen)
            for line in lines:
                if (kind := _FIGURE.sub("#", line)) not in self._seen and len(self._seen) < MAX_PROBLEMS:
                    self._seen[kind] = {"since": now_with_zone(), "problem": line}
            if len(self._seen) > before:
                self._describe_again()

    def finish(self, account: Mapping[str, Any]) -> None:
        """Write when the session ended, and its account."""
        with self._lock:
            self._about |= {"ended": now_with_zone(), "account": dict(account)}
            self._describe_again()

    def discard_if_empty(self) -> None:
        """Remove the folder of a session that failed before it had anything to keep, and its parent, if it made it."""
        ingest = self._about.get("account", {}).get("ingest", {})
        with self._lock, contextlib.suppress(OSError):
            if self._seen or ingest.get("samples") or {path.name for path in self.folder.iterdir()} != {ABOUT}:
                return
            (self.folder / ABOUT).unlink()
            self.folder.rmdir()
            if self._made_root:
                self._root.rmdir()

    def _describe_again(self) -> None:
        """Describe the session anew, where its folder is still there."""
        try:
            if (self.folder / ABOUT).exists():
                self._describe()
        except OSError as error:
            self._say(f"{self.folder / ABOUT} cannot be brought up to date: {error.strerror or error}")

    def _add(self, frame: Frame) -> None:
        try:
            if not (self.folder / ABOUT).exists():
                self._begin_anew()
            files = save(frame, self.folder)
            size = sum(path.stat().st_size for path in files)
        except (AppError, OSError) as error:
            self.failed += 1
            self._say(f"{frame.stage} of window {frame.window_id[:80]!r} is not archived: {error}")
            return
        self.kept += 1
        stem = file_stem(frame.window_id)
        if not self._kept or (self._kept[-1].folder, self._kept[-1].stem) != (self.folder, stem):
            self._kept.append(_Kept(self.folder, stem, time.time()))
        self._kept[-1].size += size
        self._kept[-1].names += [path.name for path in files]
        self._size += size
        if frame.stage in ("picture", "abstained"):
            names = {kind: name for kind, name in picture_names(frame).items() if (self.folder / name).exists()}
            self._append(WINDOWS, WINDOW_COLUMNS, window_line(frame, names), f"window {frame.window_id[:80]!r}")
        self._trim()

    def _append(self, name: str, columns: Sequence[str], line: bytes, what: str) -> None:
        try:
            if not (self.folder / ABOUT).exists():
                self._begin_anew()
            append(self.folder / name, columns, line)
        except OSError as error:
            self.failed += 1
            self._say(f"{what} is missing from {self.folder / name}: {error.strerror or error}")

    def account(self) -> dict[str, int]:
        """Return what became of the frames: kept, failed, removed and lost."""
        return {"kept": self.kept, "failed": self.failed, "removed": self.removed, "lost": self.lost}

    def _begin_anew(self) -> None:
        """Create the session's folder anew, which somebody removed by hand."""
        self._describe()
        logger.warning("archive %s was removed: it begins anew", self.folder)
        self._kept = deque(kept for kept in self._kept if kept.folder != self.folder)
        self._size = sum(kept.size for kept in self._kept)

    def _describe(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {**self._about, "problems": list(self._seen.values()), "removed": self._gone_here}
        write_whole(self.folder / ABOUT, to_json(about))

    def _say(self, words: str) -> None:
        """Log an error: the first at once, then one line in `EVERY_S` at most."""
        if (now := time.monotonic()) >= self._next_word:
            more = f" ({self.failed} so far)" if self.failed > 1 else ""
            logger.error("archive: %s%s", words, more)
            self._next_word = now + EVERY_S

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
            try:
                for name in kept.names:
                    (kept.folder / name).unlink(missing_ok=True)
            except OSError as error:
                self._say(f"the old window {kept.stem} in {kept.folder} cannot be removed: {error.strerror or error}")
            gone[kept.folder] += 1
        if gone and not self.removed:
            logger.warning("archive %s is full: its oldest windows are removed from now on", self._root)
        self.removed += gone.total()
        for folder, count in gone.items():
            try:
                self._subtract(folder, count)
            except (AppError, OSError) as error:
                self._say(f"{folder} does not say that {count} of its windows are gone: {error}")

    def _subtract(self, folder: Path, count: int) -> None:
        """Write to a session's own folder how many of its windows are gone; remove one that is empty."""
        if folder == self.folder:
            self._gone_here += count
            self._describe()
        elif folder.is_dir():  # else somebody removed it by hand
            about = read_about(folder)
            before = about.get("removed", 0)
            before = before if isinstance(before, int) else 0
            write_whole(folder / ABOUT, to_json({**about, "removed": before + count}))
            if {path.name for path in folder.iterdir()} <= {ABOUT, *TABLES}:
                for name in (*TABLES, ABOUT):
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()


def _scan(root: Path) -> list[_Kept]:
    """Find the windows of earlier sessions, oldest first; a folder that goes away meanwhile is left out."""
    kept: list[_Kept] = []
    for about in sorted(root.glob(f"*/{ABOUT}")):
        try:
            read_about(about.parent)
            kept += _windows_of(about.parent)
        except (AppError, FileNotFoundError):
            continue
    return sorted(kept, key=lambda one: one.written)


def _windows_of(folder: Path) -> list[_Kept]:
    windows: dict[str, _Kept] = {}
    for path in folder.iterdir():
        if (match := _OURS.fullmatch(path.name)) and path.is_file():
            status = path.stat()
            kept = windows.setdefault(match[1], _Kept(folder, match[1], status.st_mtime))
            kept.size += status.st_size
            kept.names.append(path.name)
            kept.written = max(kept.written, status.st_mtime)
    return list(windows.values())


def is_session_folder(folder: Path) -> bool:
    """Check whether a folder is an archive of a session."""
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
        label = event.get("label") if isinstance(event, dict) else event
        return label if isinstance(label, str) else ""


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


def fates_of(folder: Path) -> dict[str, int]:
    """Count what became of the windows of a session; metadata that do not say so are of windows abstained.

    Raises
    ------
    AppError
        A file is broken.
    """
    counts: dict[str, int] = {**dict.fromkeys(STATES, 0), "published": count_of(folder, "picture")}
    for stem in _stems(folder, "abstained"):
        state = _read_json(folder / f"{stem}.abstained.json").get("state")
        counts[state if state in STATES else "abstained"] += 1
    return counts


def count_of(folder: Path, stage: str) -> int:
    """Count the windows of a folder that have a stage."""
    return len(_stems(folder, stage))


def entries(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of an archived session by name; one that is removed meanwhile is left out."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        logger.warning("archive %s cannot be read: %s", folder, error.strerror)
        return
    for path in paths:
        if path.name in (ABOUT, *TABLES) or _OURS.fullmatch(path.name):
            try:
                yield path.name, path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                logger.warning("%s is left out of the download: %s", path, error.strerror)


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
        return decode(_read(path, MAX_PICTURE))
    except AppError as error:
        raise error if str(path) in str(error) else AppError(f"{path}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(_read(path, MAX_JSON), str(path), depth=MAX_NESTING)
    except WireError as error:
        raise AppError(str(error)) from error
