"""A frame's files: its own picture and its metadata, under names that stay in their folder."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from minddiffuser.errors import AppError
from stream.atomic import write_whole
from stream.mqtt.messages import content_type, to_json
from stream.mqtt.topics import is_device_name

if TYPE_CHECKING:
    from stream.mqtt.frames import Frame

SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/gif": ".gif"}
_HASHED = re.compile(r"-[0-9a-f]{16}")


def file_stem(window_id: str) -> str:
    """Turn a window's id, which comes from outside, into a file name that stays in its folder and stays unique.

    An id that is a plain name on every system stays as it is; any other loses what is not plain and gets its digest.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]|^-", "_", window_id)[:80]
    if plain == window_id and plain and not is_device_name(plain) and not _HASHED.fullmatch(plain[-17:]):
        return plain
    return f"{plain}-{hashlib.sha256(window_id.encode(errors='surrogatepass')).hexdigest()[:16]}"


def files_of(frame: Frame) -> dict[str, bytes]:
    """Return the files of a frame by name: its own picture, where it has one, and its meta."""
    base = f"{file_stem(frame.window_id)}.{frame.stage}"
    files = {f"{base}.json": to_json(frame.meta)}
    if (payload := frame.pictures.get(frame.stage)) is not None:
        files = {base + SUFFIXES[content_type(payload)]: payload, **files}
    return files


def picture_names(frame: Frame) -> dict[str, str]:
    """Return what the files of a window's pictures are called, by stage, as far as the frame has them."""
    stem = file_stem(frame.window_id)
    return {kind: f"{stem}.{kind}{SUFFIXES[content_type(payload)]}" for kind, payload in frame.pictures.items()}


def save(frame: Frame, folder: Path) -> list[Path]:
    """Write a frame's own picture and its meta; a frame is there whole or not at all.

    Raises
    ------
    AppError
        The folder or a file cannot be written; nothing of the frame stays behind.
    """
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files_of(frame).items():
            write_whole(folder / name, content)
            written.append(folder / name)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise AppError(f"cannot save pictures in {folder}: {error.strerror or error}") from error
    return written
