"""One's own calibration recordings: that they are complete, and hold what training needs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from minddiffuser.errors import AppError
from stream.files.formats.xdf import is_unfinished

if TYPE_CHECKING:
    from stream.files.bids import BidsRun
    from stream.types.recording import Recording
    from stream.types.source_spec import SourceSpec

logger = logging.getLogger(__name__)

WATCHED_S = 2.0
"""How long a file that was not closed is watched: recorders write at least once a second."""


@contextmanager
def complete(path: Path) -> Iterator[None]:
    """Read a recording that nobody is still writing to.

    An XDF file that was not closed is watched for a moment; one that was cut short is read as far as it goes.

    Raises
    ------
    AppError
        It grew or shrank, before or while it was read.
    """
    size = _size(path)
    begin = time.monotonic()
    while is_unfinished(path) and time.monotonic() - begin < WATCHED_S and _size(path) == size:
        time.sleep(0.05)
    if _size(path) == size:
        yield
        if is_unfinished(path):
            logger.warning("%s: was not closed by its recorder: cut short? It is read as far as it goes", path)
    if (now := _size(path)) != size:
        change = f"grew by {now - size}" if now > size else f"shrank by {size - now}"
        raise AppError(
            f"{path}: is still being written ({change} bytes in {time.monotonic() - begin:.1f} s); end the recording "
            "(Ctrl-C in `minddiffuser record`, Stop in LabRecorder), then run this again"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def check_markers(recording: Recording, where: Path | BidsRun, source: SourceSpec) -> None:
    """Check that a calibration recording holds markers, which name the pictures.

    Raises
    ------
    AppError
        It holds none; names the streams that are in it.
    stream.errors.StreamError
        `source` does not tell its streams apart.
    """
    from stream.markers.choice import select_events
    from stream.types.recording import choose_streams

    own = choose_streams(recording, source)[0]
    events = (*recording.events, *(recording.other_events if source.markers else ()))
    if select_events(events, source.markers, own):
        return
    streams = ", ".join(
        f"{stream.name} ({stream.type}, {len(stream.channels)} channels, {stream.sfreq:g} Hz)"
        for stream in recording.streams
    )
    empty = "; ".join(line for line in recording.warnings if line.startswith("no samples of"))
    raise AppError(
        f"{where}: no markers, which name the pictures; in it are {streams}{f'; {empty}' if empty else ''}; start the "
        "program that shows the pictures before recording, or name a trigger channel as source.markers: {channel: NAME}"
    )
