"""Reading recordings: the format of a file by its suffix, or a run of a BIDS data set."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stream.errors import RecordingError
from stream.files import bids
from stream.files.file_format import FileFormat
from stream.files.formats import FORMATS
from stream.files.signatures import known_form
from stream.types.recording import Recording, measured_rate
from stream.types.units import UNIT_OF_KIND

logger = logging.getLogger(__name__)
RATE_OFF = 0.02
"""Declared and measured rates that differ by more than this share are not one."""


def read(where: Path | bids.BidsRun) -> Recording:
    """Read a recording by its suffix, or as part of a BIDS data set.

    `stream.files.formats` has a module for each format. A folder, and a file that BIDS names in a data set, are read
    with all that the data set states of them.

    Raises
    ------
    RecordingError
        The file is missing, of no known kind, or broken; the folder holds no run, or several.
    """
    path = where.bids if isinstance(where, bids.BidsRun) else Path(where)
    run = where if isinstance(where, bids.BidsRun) else bids.run_at(path)
    try:
        recording = bids.read_run(run) if run else _reader(path)(path)
    except (RecordingError, KeyboardInterrupt):
        raise
    except Exception as error:  # what a broken file makes of a foreign parser cannot be listed
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RecordingError(
            f"{path}: cannot be read; it may be cut short, still being written, or damaged ({reason})"
        ) from error
    recording = replace(recording, warnings=(*recording.warnings, *_rate_doubts(recording)))
    for line in recording.warnings:
        logger.warning("%s: %s", path, line)
    return recording


def _rate_doubts(recording: Recording) -> list[str]:
    """Return a warning for each stream whose samples come at another rate than is declared."""
    doubts = []
    for stream in recording.streams:
        measured = measured_rate(stream.times)
        if len(stream.times) > 1 and (stream.times == stream.times[0]).all():
            doubts.append(f"{stream.name}: all {len(stream.times)} samples are stamped with the same time")
        if stream.sfreq and measured and abs(measured / stream.sfreq - 1) > RATE_OFF:
            doubts.append(
                f"{stream.name}: {stream.sfreq:g} Hz are declared, and samples come at {measured:.5g} Hz; "
                "state source.sfreq"
            )
        elif not stream.sfreq and measured and not UNIT_OF_KIND.keys().isdisjoint(stream.channels.kinds):
            doubts.append(
                f"{stream.name}: no rate is declared, and samples come at {measured:.5g} Hz; state source.sfreq"
            )
    return doubts


def _reader(path: Path) -> Callable[[Path], Recording]:
    name = path.name.lower()
    file_format = next((each for suffix, each in FORMATS.items() if name.endswith(suffix) and each.read), None)
    if file_format is None or file_format.read is None:
        suffixes = ", ".join(suffix for suffix, each in FORMATS.items() if each.read)
        raise RecordingError(f"{path}: not a recording I can read; known are {suffixes}, and BIDS folders")
    if not path.is_file():
        raise RecordingError(f"{path}: no such file" + ("" if path.is_absolute() else f" in {Path.cwd()}"))
    _check_beginning(path, file_format)
    return file_format.read


def _check_beginning(path: Path, file_format: FileFormat) -> None:
    """Check that a file is not empty, and begins as its suffix demands."""
    with path.open("rb") as file:
        begin = file.read(32)
    if not begin:
        raise RecordingError(f"{path}: the file is empty (0 bytes); copy it anew, or wait until it is written")
    if file_format.beginnings and not begin.startswith(file_format.beginnings):
        is_text = all(byte >= 32 or byte in b"\t\r\n" for byte in begin)
        what = known_form(begin) or ("text" if is_text else "something else")
        raise RecordingError(
            f"{path}: is named {file_format.suffix}, and holds {what}; give it the ending of what it is"
        )
