"""Files that take long to make and can be made again: exported networks and built engines.

Each entry is a folder named by the hash of everything it depends on. It is written beside its place and moved there
whole; a manifest holds the hash of every file, and a file that does not match is made again.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from engine.errors import CacheError
from stream.system import user_id

logger = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
_CHUNK = 1 << 22
_GIB = 1024**3
_ELSEWHERE = "name another folder with MINDDIFFUSER_CACHE"

Key = Mapping[str, str | int]
"""What an entry depends on, by name; any difference makes another entry."""


class EngineCache:
    """A folder of entries, readable by its owner only.

    Parameters
    ----------
    folder : Path
        Made when the first entry is.

    Attributes
    ----------
    given : dict of Path to bool
        Folders of the entries that were given out, and whether they were built for it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.given: dict[Path, bool] = {}

    def path(self, key: Key) -> Path:
        """Where the entry of a key is, or would be."""
        digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / f"{key.get('kind', 'entry')}-{digest}"

    def find(self, key: Key) -> Path | None:
        """Folder of an entry whose files are all as they were written, or None."""
        entry = self.path(key)
        if not entry.is_dir() or _fault(entry, key) is not None:
            return None
        self.given.setdefault(entry, False)
        return entry

    def remove(self, key: Key) -> None:
        """Remove an entry, if it is there."""
        shutil.rmtree(self.path(key), ignore_errors=True)

    def key_of(self, entry: Path) -> Key:
        """Key of an entry that was given out."""
        key: Key = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))["key"]
        return key

    def get(self, key: Key, build: Callable[[Path], None], *, room: int) -> Path:
        """Folder of an entry; built where it is missing or damaged.

        Of several processes that want the same entry one builds it and the others wait; what a builder that was
        killed left behind is removed.

        Parameters
        ----------
        key : mapping of str to str or int
        build : callable
            Writes the entry's files into the empty folder it is given.
        room : int
            Bytes that must be free on the disk before anything is built.

        Raises
        ------
        CacheError
            If there is no room, or the folder cannot be written or belongs to somebody else.
        """
        self._prepare()
        entry = self.path(key)
        try:
            with FileLock(entry.with_name(f".{entry.name}.lock"), mode=0o600):
                self.given[entry] = self._ensure(entry, key, build, room)
        except OSError as error:
            msg = f"engine cache {self.folder}: {error.strerror or error}; {_ELSEWHERE}"
            raise CacheError(msg) from error
        return entry

    def _ensure(self, entry: Path, key: Key, build: Callable[[Path], None], room: int) -> bool:
        """Build an entry where there is no good one, and say whether that was so; its lock is held."""
        if entry.exists():
            fault = _fault(entry, key)
            if fault is None:
                return False
            logger.warning("engine cache: %s %s; it is made again", entry.name, fault)
            shutil.rmtree(entry)
        for left in self.folder.glob(f".{entry.name}-*"):
            shutil.rmtree(left)
        self._check_room(room)
        scratch = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=self.folder))
        try:
            build(scratch)
            _seal(scratch, key)
            scratch.rename(entry)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return True

    def _prepare(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if user_id() not in {None, self.folder.stat().st_uid}:
                msg = f"engine cache {self.folder} belongs to another user: {_ELSEWHERE}"
                raise CacheError(msg)
            self.folder.chmod(0o700)
        except OSError as error:
            msg = f"engine cache {self.folder}: {error.strerror}; {_ELSEWHERE}"
            raise CacheError(msg) from error

    def _check_room(self, room: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < room:
            msg = (
                f"engine cache {self.folder}: {room / _GIB:.1f} GiB are needed and {free / _GIB:.1f} GiB are free; "
                f"make room, or {_ELSEWHERE}"
            )
            raise CacheError(msg)


def file_hash(path: Path) -> str:
    """sha256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _seal(folder: Path, key: Key) -> None:
    """Take everybody else's rights away, and write the manifest last: without one an entry counts as damaged."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        path.chmod(0o600)
    manifest = {"key": dict(key), "files": {str(path.relative_to(folder)): file_hash(path) for path in files}}
    target = folder / _MANIFEST
    target.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    target.chmod(0o600)


def _fault(entry: Path, key: Key) -> str | None:
    """Return what is wrong with an entry, or None."""
    try:
        manifest: dict[str, Any] = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["key"] != dict(key):
            return "was made for something else"
        for name, digest in manifest["files"].items():
            if file_hash(entry / name) != digest:
                return f"is damaged ({name})"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"cannot be read ({type(error).__name__})"
    return None
