"""The folder for things that can be made again: prepared demos, targets, trained bundles."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from minddiffuser.errors import AppError
from stream.atomic import check_folder, whole_folder
from stream.errors import OutputError

PACKAGES = ("stream", "decoder", "engine")
"""Packages whose code decides what a prepared folder holds."""

ELSEWHERE = "set MINDDIFFUSER_CACHE to a folder that can be written"


def cache_dir() -> Path:
    """Return the cache folder: MINDDIFFUSER_CACHE, or minddiffuser/ in the user's cache folder.

    Raises
    ------
    AppError
        Nothing says where the user's home is.
    """
    try:
        if own := os.environ.get("MINDDIFFUSER_CACHE"):
            return Path(own).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minddiffuser"
    except RuntimeError as error:
        raise AppError(f"no folder for the cache ({error}); {ELSEWHERE}") from None


def check_cache() -> None:
    """Check that the cache can be written, before anything is computed that goes there.

    Raises
    ------
    AppError
        It cannot; names the folder and how to choose another.
    """
    folder = cache_dir()
    try:
        check_folder(folder)
    except OutputError as error:
        raise AppError(f"cache {error}: {ELSEWHERE}") from None


def code_hash() -> str:
    """Hash the source of the packages that prepare data, so that what older code made is not taken for new."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


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
        with whole_folder(folder) as scratch:
            make(scratch)
        _remove_older(folder, name)
    return folder
