"""A run written as BIDS has it, by mne-bids, so that `stream.files.bids` reads the same windows from it, bit for bit.

EEG becomes BrainVision and MEG FIF, both in float32 and in SI units: other units or whole numbers would round. A file
has one grid of samples: each sample goes to its place on the stream's own (`stream.signal.clock`), lost ones are NaN
and marked as bad, and events keep their place among the samples.
"""

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordingError
from stream.files.bids import DESCRIPTION, BidsRun, read_run, root_of
from stream.signal.clock import SampleClock
from stream.types.events import Event
from stream.types.recording import BadSegment, RecordedStream, Recording

logger = logging.getLogger(__name__)

LOST = "BAD_lost"
"""Marks samples that never came."""
NOTHING = "n/a"
NO_VOLTAGE = {"misc", "stim"}
MOST_SAMPLES = 1 << 31
"""Of all channels: a stream whose clock went astray would be holes without end."""
OWN_COLUMNS = ("onset", "duration", "trial_type", "stim_file", "value")


@dataclass(frozen=True, slots=True)
class RunName:
    """What a run is called.

    Attributes
    ----------
    subject, task : str
    session, run : str or None
    """

    subject: str
    task: str
    session: str | None = None
    run: str | None = None


@dataclass(frozen=True, slots=True)
class ExportedRun:
    """A run that was written.

    Attributes
    ----------
    file : str
        Under the data set's folder.
    samples, lost, events, pictures : int
        `lost` are samples that never came; `pictures` are files that its events name.
    left_out : tuple of str
        What the form cannot hold, in plain words.
    """

    file: str
    samples: int
    lost: int
    events: int
    pictures: int
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """A stream's samples on its own grid.

    Attributes
    ----------
    data : ndarray, shape (n_places, n_channels), float32
        NaN where a sample is lost.
    places : ndarray, shape (n_samples,)
        Where each sample lies.
    times : ndarray, shape (n_samples,)
        Of each sample, without jitter.
    doubtful : int
        Samples whose time stamps are in doubt.
    """

    data: NDArray[np.float32]
    places: NDArray[np.int64]
    times: NDArray[np.float64]
    doubtful: int


def _on_grid(stream: RecordedStream) -> _Grid:
    """Place a stream's samples on its own grid.

    Raises
    ------
    RecordingError
        It has no rate, its time stamps step back, or it holds hours of nothing.
    """
    if not stream.sfreq:
        raise RecordingError(f"stream {stream.name!r} has no rate: BIDS holds regular samples")
    stamped = SampleClock(stream.sfreq).feed(stream.times, last=True)
    places = stamped.index - stamped.index[0]
    if (np.diff(places) < 1).any():
        raise RecordingError(f"stream {stream.name!r}: its time stamps step back, so its samples have no one order")
    n = int(places[-1]) + 1
    if n * len(stream.channels) > MOST_SAMPLES:
        raise RecordingError(f"stream {stream.name!r} is {n / stream.sfreq / 3600:.0f} h long by its time stamps")
    data = np.full((n, len(stream.channels)), np.nan, np.float32)
    data[places] = stream.data
    doubts = np.zeros(len(places), dtype=bool)
    for begin, end, _ in stamped.doubts:
        doubts[begin:end] = True
    return _Grid(data, places, stamped.times, int(doubts.sum()))


def export_run(
    recording: Recording,
    stream: RecordedStream,
    events: Sequence[Event],
    name: RunName,
    root: Path,
    *,
    pictures: Mapping[str, Path] | None = None,
    columns: Mapping[int, Mapping[str, str]] | None = None,
) -> ExportedRun:
    """Write a run into a BIDS data set, and read it back.

    Parameters
    ----------
    recording : Recording
    stream : RecordedStream
        The one of its streams that is written.
    events : sequence of Event
        With the labels that they are to have.
    name : RunName
    root : Path
        The data set's folder, there already; a run of that name is not.
    pictures : mapping of str to Path, optional
        File of each picture, by the label of its events; copied to `stimuli`.
    columns : mapping of int to mapping of str to str, optional
        More that is known of an event, by its number among `events`: columns of events.tsv.

    Raises
    ------
    RecordingError
        It is neither EEG nor MEG, cannot be laid on a grid, another picture bears a file's name, or what is read back
        is not what was to be written.
    """
    import mne_bids

    kind = datatype(stream)
    grid = _on_grid(stream)
    bad = [*_bad_on_grid(stream, grid.places), *_lost(grid.places, stream.sfreq)]
    onsets = _places_of([event.time for event in events], grid.times, grid.places) / stream.sfreq
    target = mne_bids.BIDSPath(
        subject=name.subject, session=name.session, task=name.task, run=name.run, datatype=kind, root=root
    )
    with tempfile.TemporaryDirectory(prefix="minddiffuser-") as scratch, _quiet():
        raw = _raw(stream, grid.data, kind, Path(scratch))
        if recording.begun is not None:
            raw.set_meas_date(datetime.fromtimestamp(recording.begun + float(stream.times[0]), UTC))
        written = mne_bids.write_raw_bids(raw, target, format="auto", verbose="error")
    file = Path(written.fpath)
    copied = _copy_pictures(events, pictures or {}, root / "stimuli")
    _write_events(file, events, onsets, bad, copied, columns or {})
    _describe(file, recording, stream)
    _read_back(file, name, grid.data, stream.channels.names, events)
    return ExportedRun(
        file=file.relative_to(root).as_posix(),
        samples=len(grid.data),
        lost=len(grid.data) - len(grid.places),
        events=len(events),
        pictures=len(set(copied.values())),
        left_out=tuple(_left_out(recording, stream, kind, grid.doubtful)),
    )


def datatype(stream: RecordedStream) -> Literal["eeg", "meg"]:
    """Return what a stream is to BIDS.

    Raises
    ------
    RecordingError
        It is neither EEG nor MEG.
    """
    kinds = set(stream.channels.kinds)
    if kinds & {"mag", "grad"}:
        return "meg"
    if "eeg" in kinds:
        return "eeg"
    raise RecordingError(f"stream {stream.name!r} holds {', '.join(sorted(kinds))}: only EEG and MEG are exported")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what mne-bids and pybv say of units and of what nobody knows (landmarks, mains frequency)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _places_of(moments: Sequence[float], times: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return where moments fall on the grid, between samples and before the first and after the last, too."""
    at = np.asarray(moments, dtype=np.float64)
    if len(times) < 2:
        return np.asarray(at - times[0], np.float64)
    row = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(times) - 2)
    share: NDArray[np.float64] = (at - times[row]) / (times[row + 1] - times[row])
    return np.asarray(places[row] + share * (places[row + 1] - places[row]), np.float64)


def _bad_on_grid(stream: RecordedStream, places: NDArray[np.int64]) -> Iterator[BadSegment]:
    """Yield the bad segments, each over the very samples that `RecordedStream.masked_data` takes out for it."""
    for segment in stream.bad:
        rows = np.flatnonzero(np.isnan(replace(stream, bad=(segment,)).masked_data).all(axis=1))
        if len(rows):
            first, last = int(places[rows[0]]), int(places[rows[-1]])
            yield BadSegment(first / stream.sfreq, (last - first + 0.5) / stream.sfreq, segment.label)


def _lost(places: NDArray[np.int64], sfreq: float) -> list[BadSegment]:
    gaps = np.flatnonzero(np.diff(places) > 1)
    return [
        BadSegment((int(places[at]) + 1) / sfreq, (int(places[at + 1] - places[at]) - 1.5) / sfreq, LOST) for at in gaps
    ]


def _raw(stream: RecordedStream, data: NDArray[np.float32], kind: str, scratch: Path) -> Any:
    """Write samples to a file of the form that BIDS takes for their kind, and open it by mne."""
    import mne

    channels = stream.channels
    known = set(mne.io.get_channel_type_constants(include_defaults=True))
    types = [each if each in known else "misc" for each in channels.kinds]
    places = {
        name: np.array(place)
        for name, place in zip(channels.names, channels.montage.places, strict=False)
        if place is not None
    }
    if kind == "meg":
        info = mne.create_info(list(channels.names), stream.sfreq, types)
        for channel in info["chs"]:
            channel["loc"][:3] = places.get(channel["ch_name"], channel["loc"][:3])
        with info._unlock():
            info["dev_head_t"] = mne.transforms.Transform("meg", "head")
        raw = mne.io.RawArray(data.T.astype(np.float64), info, verbose="error")
        raw.info["bads"] = list(channels.montage.bads)
        raw.save(scratch / "run_meg.fif", fmt="single", verbose="error")
        return mne.io.read_raw_fif(scratch / "run_meg.fif", verbose="error")
    from pybv import write_brainvision

    write_brainvision(
        data=data.T.astype(np.float64),
        sfreq=stream.sfreq,
        ch_names=list(channels.names),
        fname_base="run",
        folder_out=str(scratch),
        resolution=1.0,
        unit=[unit if unit == "V" else NOTHING for unit in channels.units],
        fmt="binary_float32",
    )
    raw = mne.io.read_raw_brainvision(scratch / "run.vhdr", verbose="error")
    raw.set_channel_types(dict(zip(channels.names, types, strict=True)), on_unit_change="ignore", verbose="error")
    raw.info["bads"] = list(channels.montage.bads)
    if electrodes := {
        name: places[name] for name, each in zip(channels.names, types, strict=True) if each == "eeg" and name in places
    }:
        montage = mne.channels.make_dig_montage(electrodes, coord_frame="head")
        raw.set_montage(montage, on_missing="ignore", verbose="error")
    return raw


def _copy_pictures(events: Sequence[Event], pictures: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """Copy the files of the pictures that events name; return the name of each under `folder`, by its label."""
    names: dict[str, str] = {}
    for label in dict.fromkeys(event.label for event in events if event.label in pictures):
        source = pictures[label]
        target = folder / source.name
        if target.exists() and target.read_bytes() != source.read_bytes():
            raise RecordingError(f"{target}: another picture bears that name, {source}; rename one")
        folder.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
        names[label] = source.name
    return names


def _write_events(
    file: Path,
    events: Sequence[Event],
    onsets: NDArray[np.float64],
    bad: Sequence[BadSegment],
    pictures: Mapping[str, str],
    columns: Mapping[int, Mapping[str, str]],
) -> None:
    """Write events.tsv and what its columns are: one row an event or a bad segment, in order."""
    more = [name for name in dict.fromkeys(key for row in columns.values() for key in row) if name not in OWN_COLUMNS]
    rows = []
    for number, (event, onset) in enumerate(zip(events, onsets, strict=True)):
        own = columns.get(number, {})
        value = NOTHING if event.code is None else str(event.code)
        first = (own.get("duration", NOTHING), _cell(event.label), pictures.get(event.label, NOTHING), value)
        rows.append((float(onset), (*first, *(_cell(own.get(name, NOTHING)) for name in more))))
    nothing = (NOTHING,) * (2 + len(more))
    rows += [(segment.start, (f"{segment.length:.9g}", _cell(segment.label), *nothing)) for segment in bad]
    lines = ["\t".join((*OWN_COLUMNS, *more))]
    lines += ["\t".join((f"{onset:.9f}", *cells)) for onset, cells in sorted(rows, key=lambda row: row[0])]
    table = file.with_name(file.name.rpartition("_")[0] + "_events.tsv")
    table.write_text("\n".join(lines) + "\n", "utf-8")
    about: dict[str, Any] = {
        "trial_type": {"Description": "The picture that was shown, by its id; BAD_... is a segment not to be trusted"},
        "value": {"Description": "Code of the marker, where it is a number"},
    }
    table.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")


def _cell(text: str) -> str:
    """Return a text as a cell of a table holds it."""
    return " ".join(text.split()) or NOTHING


def _describe(file: Path, recording: Recording, stream: RecordedStream) -> None:
    """Add to the run's sidecar what mne-bids cannot know; it takes BrainVision files for those of the vendor."""
    sidecar = file.with_suffix(".json")
    content = json.loads(sidecar.read_text("utf-8-sig"))
    content |= {"Manufacturer": NOTHING, DESCRIPTION: recording.description}
    if "EEGReference" in content:
        content["EEGReference"] = stream.channels.montage.reference or NOTHING
    sidecar.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _read_back(
    file: Path, name: RunName, data: NDArray[np.float32], channels: Sequence[str], events: Sequence[Event]
) -> None:
    """Check that a reader gets what was to be written."""
    root = root_of(file)
    assert root is not None
    place = BidsRun(bids=root, subject=name.subject, session=name.session, task=name.task, run=name.run)
    recording = read_run(place)
    (stream,) = recording.streams
    columns = [channels.index(each) for each in stream.channels.names if each in channels]
    same = len(columns) == len(stream.channels) and np.array_equal(stream.data, data[:, columns], equal_nan=True)
    if not same or [event.label for event in recording.events] != [_cell(event.label) for event in events]:
        raise RecordingError(f"{file}: what is read back is not what was written; nothing is kept of it")


def _left_out(recording: Recording, stream: RecordedStream, kind: str, doubtful: int) -> Iterator[str]:
    """Yield what of a recording BIDS' formats cannot hold."""
    if others := [each.name for each in recording.streams if each is not stream]:
        yield f"streams beside {stream.name!r}: {', '.join(others)}"
    if doubtful:
        yield f"that the time stamps of {doubtful} samples are in doubt: windows over them are not rejected any more"
    if kind == "meg":
        yield "orientations of MEG sensors, which LSL does not tell"
