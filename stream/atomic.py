"""Files and folders that are written whole or not at all; whether they can be written is known before the work."""

import contextlib
import io
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from stream.errors import OutputError
from stream.system import sync

T = TypeVar("T")

PROBE = bytes(4096)
"""Written and removed again: a disk without a free block takes an empty file and nothing more."""


SCRATCH = re.compile(r"\.minddiffuser-[0-9a-f]{12}\.part")
"""Names of what an interrupted write leaves."""


def check_file(path: Path, *, new: bool = False) -> None:
    """Check that a file can be written, parent folders included; nothing is left behind.

    Parameters
    ----------
    path : Path
        A device or pipe will do; a link stands for what it points to.
    new : bool
        Whether there must be no such file yet.

    Raises
    ------
    OutputError
        It is a folder, exists already, lies in a file, or its place is read-only, forbidden or full.
    """
    with output_errors(path):
        target = _target(path)
        if target.is_dir():
            raise OutputError(f"{path}: is a folder; name a file")
        if new and target.exists():
            raise OutputError(f"{path}: exists already; choose another name")
        if _special(target):
            if not os.access(target, os.W_OK):
                raise OutputError(f"{path}: cannot be written to (Permission denied)")
            return
        _probe(target.parent)


def check_folder(path: Path) -> None:
    """Check that files can be written to a folder, which need not exist yet; nothing is left behind.

    Raises
    ------
    OutputError
        It is a file, lies in one, or is read-only, forbidden or full.
    """
    with output_errors(path):
        target = _target(path)
        if target.exists() and not target.is_dir():
            raise OutputError(f"{path}: is a file; name a folder")
        _probe(target)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` only if the block succeeds and the disk has all of it.

    Devices and pipes are written to directly. Missing parent folders are made.

    Raises
    ------
    OSError
        It cannot be written; nothing is left of it, and an earlier file stays as it was.
    """
    target = _target(path)
    if _special(target):
        # A pipe cannot be sought in, as some writers do: it gets everything at the end.
        buffer = io.BytesIO()
        yield buffer
        target.write_bytes(buffer.getvalue())
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(_scratch_name())
    try:
        with scratch.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, scratch)
        scratch.replace(target)
        sync(target.parent)
    finally:
        scratch.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file whole; text as UTF-8. See `whole_file`."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Make a scratch folder that becomes `path` only if the block succeeds and the disk has all of it.

    An earlier `path` is replaced. Where two processes make the same folder, one good one is left.

    Raises
    ------
    OSError
        It cannot be written; nothing is left of it, and an earlier folder stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(_scratch_name())
    old = path.with_name(_scratch_name())
    scratch.mkdir()
    try:
        yield scratch
        for file in scratch.rglob("*"):
            sync(file)
        with contextlib.suppress(FileNotFoundError):
            path.rename(old)
        try:
            scratch.rename(path)
        except OSError:
            if not path.exists() and old.exists():
                old.rename(path)
            raise
        sync(path.parent)
    finally:
        for folder in (scratch, old):
            shutil.rmtree(folder, ignore_errors=True)


def write_with_fallback(path: Path, write: Callable[[Path], T]) -> T:
    """Write what took work to make; where `path` fails after all, it is written to the temporary folder.

    Parameters
    ----------
    path : Path
        File or folder.
    write : callable
        Writes to the path it is given; called once more with another one if that raises OSError or OutputError, or an
        error that is due to an OSError.

    Raises
    ------
    OutputError
        `path` could not be written; says where the result is instead.
    """
    try:
        return write(path)
    except Exception as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        if not isinstance(cause, OSError | OutputError):
            raise
        reason = reason_of(cause)
    place = Path(tempfile.mkdtemp(prefix="minddiffuser-kept-")) / (path.name or "result")
    try:
        write(place)
    except (OSError, OutputError) as error:
        shutil.rmtree(place.parent, ignore_errors=True)
        raise OutputError(
            f"{path}: cannot be written ({reason}), nor can the temporary folder ({reason_of(error)}): nothing is kept"
        ) from None
    raise OutputError(f"{path}: cannot be written ({reason}); what was made is kept in {place}")


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what the system says of a path into an OutputError."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise OutputError(f"{path}: cannot be written ({reason_of(error)}); name another place") from None


def reason_of(error: Exception) -> str:
    """Return what the system says went wrong, without path and number."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _target(path: Path) -> Path:
    target = Path(os.path.realpath(path))
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        target.lstat()  # says whether the name is too long for the disk
    return target


def _special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _probe(folder: Path) -> None:
    """Write a little to a folder, or where it will be made, and remove it again."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir():
        raise OutputError(f"{existing}: is a file; no folder can be made in it")
    scratch = existing / _scratch_name()
    try:
        with scratch.open("xb") as file:
            file.write(PROBE)
            file.flush()
            os.fsync(file.fileno())
    finally:
        scratch.unlink(missing_ok=True)


def _scratch_name() -> str:
    """Return a name that is hidden, unique, and short, whatever the length of the file's own."""
    return f".minddiffuser-{secrets.token_hex(6)}.part"
