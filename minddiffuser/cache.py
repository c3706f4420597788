"""The folder for things that can be made again: prepared demos, targets, trained bundles."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from minddiffuser.errors import AppError
from stream.atomic import check_folder, whole_folder
from stream.errors import OutputError

UNUSED_DAYS = 30
"""Prepared folders of other settings or versions are removed when nothing has used them for so long."""

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


def key_of(parts: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that name settings and data; equal ones have equal names, in any checkout.

    Parameters
    ----------
    parts : mapping
        JSON-able: the version of a format, settings, hashes of data and models.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def made_once(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return a prepared folder, and have `make` fill a new one if it is not there.

    Folders of the same name and another key stay for those who use them (another checkout, another version), until
    nobody has for `UNUSED_DAYS`.
    """
    folder = cache_dir() / "prepared" / f"{name}-{key}"
    if not folder.exists():
        with whole_folder(folder) as scratch:
            make(scratch)
        _remove_unused(folder, name)
    with suppress(OSError):  # a cache that can only be read
        os.utime(folder)
    return folder


def _remove_unused(newest: Path, name: str) -> None:
    key = newest.name.removeprefix(f"{name}-")
    oldest = time.time() - UNUSED_DAYS * 86400
    for folder in newest.parent.glob(f"{name}-{'?' * len(key)}"):
        if folder != newest and folder.is_dir() and folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)
