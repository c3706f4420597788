"""Recordings: what a file holds, in SI units and on one time line."""

import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordingError
from stream.events import Event
from stream.file_signatures import check_signature
from stream.montage import restored, stored
from stream.sources import StreamSelector
from stream.units import UNIT_OF_KIND
from stream.windows import Channels

if TYPE_CHECKING:
    from stream.bids import BidsRun
    from stream.labels import LabelMatcher

logger = logging.getLogger(__name__)
TYPE_OF_KIND = {"eeg": "EEG", "mag": "MEG", "grad": "MEG", "seeg": "iEEG", "ecog": "iEEG", "dbs": "iEEG"}
"""What a stream of channels of a kind is called."""
RATE_OFF = 0.02
"""Declared and measured rates that differ by more than this share are not one."""


@dataclass(frozen=True, slots=True)
class BadStretch:
    """A stretch of a recording that is not to be trusted: marked by whoever recorded it, or a joint of two parts.

    Attributes
    ----------
    start : float
        Seconds from the recording's start.
    length : float
        Seconds; 0 for a joint, after which the signal begins anew.
    label : str
        As the file has it ('BAD_blink', 'boundary', 'New Segment').
    """

    start: float
    length: float
    label: str


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """One stream of a recording.

    Attributes
    ----------
    name, type, source_id : str
        As LSL has them; type is 'EEG', 'MEG', 'fMRI', 'spikes', ...
    channels : Channels
    sfreq : float
        Samples a second; 0 for an irregular stream.
    times : ndarray, shape (n_samples,), float64
        Seconds from the recording's start.
    data : ndarray, shape (n_samples, n_channels), float32
        In the channels' units.
    bad : tuple of BadStretch
        In order; see `sent`.
    units_given : tuple of str
        Each channel's unit as the file writes it; empty where the file does not say of any.
    """

    name: str
    type: str
    source_id: str
    channels: Channels
    sfreq: float
    times: NDArray[np.float64]
    data: NDArray[np.float32]
    bad: tuple[BadStretch, ...] = ()
    units_given: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.data.shape != (len(self.times), len(self.channels)):
            raise RecordingError(
                f"stream {self.name!r}: data of shape {self.data.shape} do not fit {len(self.times)} times "
                f"and {len(self.channels)} channels"
            )

    @property
    def sent(self) -> NDArray[np.float32]:
        """The samples as a replay sends them and a window is cut from them: NaN in all channels where a stretch is bad.

        A joint takes its first sample. Whoever reads a row without any number takes it for lost: filters begin anew
        after it, windows over it are flagged.
        """
        if not self.bad:
            return self.data
        out = self.data.copy()
        for stretch in self.bad:
            after = self.times >= stretch.start  # timestamps may step back
            inside = after & (self.times < stretch.start + stretch.length)
            out[inside if inside.any() else np.flatnonzero(after)[:1]] = np.nan
        return out

    def until(self, start: int, time: float) -> int:
        """Place of the first sample from `start` on that is later than `time`; real timestamps may step back."""
        late = np.flatnonzero(self.times[start:] > time)
        return start + int(late[0]) if len(late) else len(self.times)


def measured_rate(times: NDArray[np.float64]) -> float:
    """Measure the rate of samples by their times; holes are no part of it.

    Parameters
    ----------
    times : ndarray, shape (n,)
        In seconds.

    Returns
    -------
    float
        Samples a second; 0 where the times tell none.
    """
    steps = np.diff(times)
    # Stamps are often rounded, or of whole chunks: their middle step is not the period.
    middle = float(np.median(steps)) if len(steps) else 0.0
    if middle == 0 and (steps > 0).any():  # whole chunks: the last one's samples have no chunk behind them
        steps = steps[: np.flatnonzero(steps > 0)[-1] + 1]
    inside = steps[steps < 5 * middle] if middle > 0 else steps
    total = float(inside.sum())
    return len(inside) / total if total > 0 and np.isfinite(total) else 0.0


@dataclass(frozen=True, slots=True)
class Recording:
    """Streams and events of one session.

    Attributes
    ----------
    name : str
    description : str
        What it is ('simulated EEG', 'macaque V4 spikes'); shown wherever the data are shown.
    streams : tuple of RecordedStream
    events : tuple of Event
        Times in seconds from the recording's start, in order.
    begun : float or None
        When its time 0 was: POSIX time, where the file says.
    lsl_begun : float or None
        The same in the LSL clock of the machine that recorded (XDF).
    warnings : tuple of str
        What whoever uses it should know of how it was read, in plain words; `read` logs them, `inspect` shows them.
    other_events : tuple of Event
        Of trigger channels that were not chosen; they lead to windows only where a config names their channel.
    labels : LabelMatcher or None
        What finds the pictures that the events name, where somebody knows the pictures; left out of comparisons.
    """

    name: str
    description: str
    streams: tuple[RecordedStream, ...]
    events: tuple[Event, ...]
    begun: float | None = None
    lsl_begun: float | None = None
    warnings: tuple[str, ...] = ()
    other_events: tuple[Event, ...] = ()
    labels: "LabelMatcher | None" = field(default=None, compare=False, repr=False)


def chosen(
    recording: Recording, source: StreamSelector | None, extra: Sequence[StreamSelector] = ()
) -> list[RecordedStream]:
    """Find the streams of a recording that a live session would take, by name, type and source id.

    Parameters
    ----------
    recording : Recording
    source : StreamSelector, optional
        Where the recording holds one stream, that one is the source whatever it is called.
    extra : sequence of StreamSelector

    Returns
    -------
    list of RecordedStream
        The source, then the extras.

    Raises
    ------
    RecordingError
        A selector matches no stream, several, or one that is taken already.
    """
    streams = recording.streams
    first = streams[0] if len(streams) == 1 else _only(recording, source or StreamSelector())
    found = [first, *(_only(recording, selector) for selector in extra)]
    if len({id(stream) for stream in found}) < len(found):
        raise RecordingError(
            f"recording {recording.name!r}: two of source and extra are one stream; it has {_listed(recording)}"
        )
    return found


def _only(recording: Recording, selector: StreamSelector) -> RecordedStream:
    wanted = {key: value for key in ("name", "type", "source_id") if (value := getattr(selector, key)) is not None}
    matching = [
        stream for stream in recording.streams if all(getattr(stream, key) == value for key, value in wanted.items())
    ]
    if len(matching) != 1:
        raise RecordingError(
            f"recording {recording.name!r} has {len(matching) or 'no'} streams with {selector}; say which by name or "
            f"type; it has {_listed(recording)}"
        )
    return matching[0]


def _listed(recording: Recording) -> str:
    return ", ".join(f"{stream.name} ({stream.type})" for stream in recording.streams) or "no stream"


def read(where: "Path | BidsRun") -> Recording:
    """Read a recording by its suffix, or as part of a BIDS data set.

    FIF, EDF, BDF, BrainVision (.vhdr) and EEGLAB (.set) by mne, XDF by pyxdf, muse-lsl's CSV (.csv, .csv.gz), our
    own NPZ, and NIfTI (.nii, .nii.gz) with its events.tsv. A folder, and a file that BIDS names in a data set, are
    read with all that the data set says of them.

    Raises
    ------
    RecordingError
        The file is missing, of no known kind, or broken; the folder holds no run, or several.
    """
    from stream import bids

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
    """Name the streams whose samples come at another rate than is declared."""
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
    from stream import csv_files, formats, nifti, xdf

    readers: dict[str, Callable[[Path], Recording]] = {
        ".fif": formats.read_mne, ".fif.gz": formats.read_mne, ".edf": formats.read_mne, ".bdf": formats.read_mne,
        ".vhdr": formats.read_mne, ".set": formats.read_mne, ".xdf": xdf.read_xdf, ".xdfz": xdf.read_xdf,
        ".csv": csv_files.read_csv, ".csv.gz": csv_files.read_csv, ".npz": read_npz,
        ".nii": nifti.read_nifti, ".nii.gz": nifti.read_nifti,
    }  # fmt: skip
    reader = next((reader for suffix, reader in readers.items() if path.name.lower().endswith(suffix)), None)
    if reader is None:
        raise RecordingError(f"{path}: not a recording I can read; known are {', '.join(readers)}, and BIDS folders")
    if not path.is_file():
        raise RecordingError(f"{path}: no such file")
    check_signature(path)
    return reader


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
                "montage": stored(stream.channels.montage),
                "units_given": stream.units_given,
                "bad": [[stretch.start, stretch.length, stretch.label] for stretch in stream.bad],
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
    path = Path(path)
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


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
                    bad=tuple(BadStretch(float(a), float(b), str(label)) for a, b, label in stream.get("bad", ())),
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
    return Channels(names, kinds, units, restored(stream.get("montage", {})))
