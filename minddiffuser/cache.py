"""The folder for things that can be made again: prepared demos, targets, trained bundles."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("stream", "decoder", "engine")
"""Packages whose code decides what a prepared folder holds."""


def cache_dir() -> Path:
    """Return the cache folder: MINDDIFFUSER_CACHE, or minddiffuser/ in the user's cache folder."""
    if own := os.environ.get("MINDDIFFUSER_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minddiffuser"


def code_hash() -> str:
    """Hash the source of the packages that prepare data, so that what older code made is not taken for new."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `target` only if the block succeeds.

    An earlier `target` is replaced. Where two processes make the same folder, one good one is left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield scratch
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_older(newest: Path, name: str) -> None:
    """Remove what earlier settings or code left beside `newest` under the same name and another key."""
    key = newest.name.removeprefix(f"{name}-")
    for folder in newest.parent.glob(f"{name}-{'?' * len(key)}"):
        if folder != newest and folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def made_once(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """Give a prepared folder; if it is not there, `make` fills a new one, and those of other keys are removed."""
    folder = cache_dir() / "prepared" / f"{name}-{key}"
    if not folder.exists():
        with written_whole(folder) as scratch:
            make(scratch)
        _remove_older(folder, name)
    return folder
