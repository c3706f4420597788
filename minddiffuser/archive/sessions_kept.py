"""Where a kept session lies: in its own folder, in an archive beside others, or in the zip that the page gives."""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from minddiffuser.archive.archive import is_session_folder
from minddiffuser.errors import AppError
from stream.mqtt.topics import MAX_JSON, MAX_PICTURE

MOST_FILES = 400_000
"""Files of a zip: more than the largest archive holds."""
_FILE = re.compile(r"[\w.-]+\.(?:json|csv|jpg|png|webp|gif)")
"""Names of a session's files, which are plain on every system; others are left where they are."""


@contextmanager
def session_folder(where: Path) -> Iterator[Path]:
    """Return the folder of a kept session while the block runs: a zip is unpacked for so long.

    Raises
    ------
    AppError
        It is no session, several, or a file of it is broken.
    """
    if where.is_dir():
        yield _only_session(where)
        return
    with tempfile.TemporaryDirectory(prefix="minddiffuser-zip-") as scratch:
        try:
            with zipfile.ZipFile(where) as archive:
                _unpack(archive, Path(scratch), where)
        except OSError as error:
            raise AppError(f"{error.filename or where}: {error.strerror or error}") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise AppError(f"{where}: not a zip of a session, or a broken one ({error}); download it again") from None
        if not is_session_folder(Path(scratch)):
            raise AppError(f"{where}: holds no session.json, and so is no session that the page has given")
        yield Path(scratch)


def _only_session(folder: Path) -> Path:
    """Return a session's own folder, be it this one or the only one in it."""
    if is_session_folder(folder):
        return folder
    sessions = sorted(path for path in folder.iterdir() if is_session_folder(path))
    if not sessions:
        raise AppError(f"{folder}: holds neither a bundle nor a session")
    if len(sessions) > 1:
        names = ", ".join(str(path) for path in sessions[-5:])
        raise AppError(f"{folder}: an archive of {len(sessions)} sessions; name one, such as the newest: {names}")
    return sessions[0]


def _unpack(archive: zipfile.ZipFile, folder: Path, where: Path) -> None:
    """Write the files of a zip side by side, whatever folders they lie in; none larger than a session has.

    The sizes that a zip states may be lies, so only so much of each is read.
    """
    members = [one for one in archive.infolist() if not one.is_dir()]
    if len(members) > MOST_FILES:
        raise AppError(f"{where}: {len(members)} files are more than a session has")
    for member in members:
        name = PurePosixPath(member.filename).name
        if not _FILE.fullmatch(name):
            continue
        limit = MAX_PICTURE if name.endswith((".jpg", ".png", ".webp", ".gif", ".csv")) else MAX_JSON
        with archive.open(member) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise AppError(f"{where}: {name[:80]} is larger than {limit} bytes, and so not a file of a session")
        (folder / name).write_bytes(content)


def holds_sessions(where: Path) -> bool:
    """Check whether a path is a session's folder, an archive of sessions, or a zip."""
    if where.is_dir():
        return is_session_folder(where) or any(is_session_folder(path) for path in where.iterdir())
    return where.suffix.lower() == ".zip" or (where.is_file() and zipfile.is_zipfile(where))
