"""Recordings in our own format: a JSON header and plain arrays in an NPZ file."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.atomic import whole_file
from stream.errors import RecordingError
from stream.files.file_format import Description, FileFormat
from stream.types.events import Event
from stream.types.montage import from_plain, to_plain
from stream.types.recording import BadSegment, RecordedStream, Recording
from stream.types.windows import Channels


def write_npz(recording: Recording, path: Path) -> None:
    """Write a recording as NPZ: a JSON header and plain arrays, nothing pickled.

    The file appears under its name only when it is whole.
    """
    header = {
        "format": "minddiffuser-recording",
        "version": 1,
        "name": recording.name,
        "description": recording.description,
        "streams": [
            {
                "name": stream.name,
                "type": stream.type,
                "source_id": stream.source_id,
                "sfreq": stream.sfreq,
                "channels": [stream.channels.names, stream.channels.kinds, stream.channels.units],
                "montage": to_plain(stream.channels.montage),
                "units_given": stream.units_given,
                "bad": [[segment.start, segment.length, segment.label] for segment in stream.bad],
            }
            for stream in recording.streams
        ],
        "events": [_stored_event(event) for event in recording.events],
        "other_events": [_stored_event(event) for event in recording.other_events],
        "warnings": recording.warnings,
        "begun": recording.begun,
        "lsl_begun": recording.lsl_begun,
    }
    arrays: dict[str, NDArray[np.generic]] = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)}
    for i, stream in enumerate(recording.streams):
        arrays[f"times_{i}"], arrays[f"data_{i}"] = stream.times, stream.data
    with whole_file(Path(path)) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_npz(path: Path) -> Recording:
    """Read what `write_npz` wrote.

    Raises
    ------
    RecordingError
        The file holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            if header["format"] != "minddiffuser-recording":
                raise RecordingError(f"{path}: an NPZ file, but not a recording written by minddiffuser")
            streams = tuple(
                RecordedStream(
                    name=str(stream["name"]),
                    type=str(stream["type"]),
                    source_id=str(stream["source_id"]),
                    channels=_channels(stream),
                    sfreq=float(stream["sfreq"]),
                    times=file[f"times_{i}"].astype(np.float64),
                    data=file[f"data_{i}"].astype(np.float32),
                    bad=tuple(BadSegment(float(a), float(b), str(label)) for a, b, label in stream.get("bad", ())),
                    units_given=tuple(map(str, stream.get("units_given", ()))),
                )
                for i, stream in enumerate(header["streams"])
            )
        begun, lsl_begun = (header.get(key) for key in ("begun", "lsl_begun"))
        return Recording(
            str(header["name"]), str(header["description"]), streams, _events(header["events"]), begun, lsl_begun,
            tuple(map(str, header.get("warnings", ()))), _events(header.get("other_events", ())),
        )  # fmt: skip
    except (OSError, EOFError, KeyError, IndexError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise RecordingError(f"{path}: not a recording written by minddiffuser ({error})") from error


def _stored_event(event: Event) -> list[Any]:
    return [event.time, event.label, event.code, event.stream, event.columns]


def _events(rows: Sequence[Sequence[Any]]) -> tuple[Event, ...]:
    """Make events of the rows of a header; older files hold time, label and code alone."""
    events = []
    for row in rows:
        time, label, code, stream, columns = row if len(row) > 3 else (*row, "", ())
        pairs = tuple((str(name), str(text)) for name, text in columns)
        events.append(Event(float(time), str(label), code, str(stream), pairs))
    return tuple(events)


def _channels(stream: dict[str, Any]) -> Channels:
    names, kinds, units = (tuple(map(str, entries)) for entries in stream["channels"])
    return Channels(names, kinds, units, from_plain(stream.get("montage", {})))


NPZ = Description("NPZ, our own", "in the file", "in the file")
FORMATS = (FileFormat(".npz", read_npz, (b"PK",), description=NPZ),)
