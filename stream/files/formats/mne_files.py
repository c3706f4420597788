"""Recordings that mne reads (FIF, EDF, BDF, BrainVision, EEGLAB): kinds, units and times as the files mean them."""

import logging
import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordingError
from stream.files.annotations import Marks, sort_marks, with_triggers
from stream.files.brainvision import read_header, with_distinct_names
from stream.files.edf import EdfFile, read_edf
from stream.files.file_format import GZIP, Description, FileFormat
from stream.files.mne_channels import RawFile, raw_channels, raw_file
from stream.markers.markers import STATUS_BITS, triggers_of
from stream.markers.triggers import Triggers
from stream.types.channel_names import configured_names
from stream.types.events import Event, event_of
from stream.types.levels import unlikely
from stream.types.recording import TYPE_OF_KIND, BadSegment, RecordedStream, Recording, choose_streams
from stream.types.source_spec import ReadingSpec
from stream.types.units import UNIT_OF_KIND, UNKNOWN, is_known, listing, si_unit
from stream.types.windows import Channels

logger = logging.getLogger(__name__)
_FEW = 4
"""A channel that is a trigger channel by its name alone changes at fewer than one sample of so many."""

_NOT_RAW = "holds single trials or averages, and a recording is wanted that was not cut yet"
_POINT = re.compile(rb"(?<=[0-9])\.0$")


@dataclass(frozen=True, slots=True)
class _Found:
    """Events of the trigger channels that were chosen and of the others, and what there is to say of it."""

    events: tuple[Event, ...]
    others: tuple[Event, ...]
    warnings: tuple[str, ...]


def read_mne(path: Path) -> Recording:
    """Read a file by mne; what mne warns of becomes the recording's warnings.

    Raises
    ------
    RecordingError
        An EDF or BDF file holds no whole record; the file holds trials or averages.
    """
    import mne

    problems, ending = [], path.suffix.lower()
    options = reading_options(path)
    if options:
        read_edf(path)
    header = read_header(path) if ending == ".vhdr" else None
    with warnings.catch_warnings(record=True) as caught, TemporaryDirectory(prefix="minddiffuser-") as scratch:
        warnings.simplefilter("always")
        file = path
        if header and len(set(header.names)) < len(header.names):
            file = with_distinct_names(path, header, Path(scratch))
            duplicates = {name for name in header.names if header.names.count(name) > 1}
            problems.append(f"channels of the same name are numbered: {', '.join(sorted(duplicates))}")
        try:
            raw = mne.io.read_raw(file, preload=True, verbose="warning", **options)
        except (TypeError, ValueError) as error:
            if any(words in str(error) for words in ("number of trials", "No raw data")):
                raise RecordingError(f"{path}: {_NOT_RAW}") from error
            raise
    if header and header.samples and header.samples != raw.n_times:
        problems.append(f"the header tells of {header.samples} samples, and the data hold {raw.n_times}: cut short?")
    # What mne leaves out of an EDF file's annotations is read by `read_edf`.
    messages = [str(each.message) for each in caught if issubclass(each.category, RuntimeWarning)]
    messages = [text for text in messages if not (options and text.startswith("Omitted"))]
    return from_raw(raw, path, notes=(*problems, *_plain(messages)))


def reading_options(path: Path) -> dict[str, str]:
    """Return what mne's reader must be told of a file.

    An annotation of an EDF or BDF file that is not UTF-8 would make the whole file unreadable; `read_edf` reads them.
    """
    return {"encoding": "latin1"} if path.suffix.lower() in {".edf", ".bdf"} else {}


def from_raw(
    raw: Any,
    path: Path,
    *,
    units: Mapping[str, str] | None = None,
    reference: str = "",
    typed: bool = False,
    events: tuple[Event, ...] | None = None,
    notes: Sequence[str] = (),
) -> Recording:
    """Make a recording of what mne has read.

    Parameters
    ----------
    raw : mne.io.BaseRaw
    path : Path
        Names the recording and its stream; read again for what mne leaves out.
    units : mapping of str to str, optional
        By channel, for what the file itself does not say.
    reference : str
        What EEG was recorded against.
    typed : bool
        Channel types were stated beside the file (BIDS), not made up by mne.
    events : tuple of Event, optional
        Of a table beside the file (BIDS), which then has made the annotations too: these mark bad segments only, and
        triggers are `Recording.other_events`.
    notes : sequence of str
        Warnings of reading it.
    """
    sfreq = float(raw.info["sfreq"])
    file = raw_file(raw, path)
    channels, factors, unit_texts, problems = raw_channels(raw, file, units or {}, typed=typed, reference=reference)
    times = file.edf.times(raw.n_times, sfreq) if file.edf else np.arange(raw.n_times) / sfreq
    values = raw.get_data() * factors[:, None]
    edf = file.edf if events is None else None
    annotations = _annotations(raw, edf, times, sfreq)
    if file.form == "EEGLAB":  # whose numeric types mne writes as it has read them: '7', or '7.0' of MATLAB 7.3
        annotations = [(onset, length, _POINT.sub(b"", text)) for onset, length, text in annotations]
    marks = sort_marks(annotations)
    triggers = _triggers(raw, channels, values, times, file)
    keep = [i for i, kind in enumerate(channels.kinds) if kind != "stim"] or list(range(len(channels)))
    signals = channels.subset(keep)
    data = np.ascontiguousarray(values[keep].T, dtype=np.float32)
    fill = _fill(data, file, sfreq, times)
    kind = next((TYPE_OF_KIND[kind] for kind in signals.kinds if kind in TYPE_OF_KIND), "misc")
    stream = RecordedStream(
        path.name, kind, f"replay-{path.name}", signals, sfreq, times, data,
        bad=tuple(sorted([*marks.bad, *fill], key=lambda segment: segment.start)),
        units_given=() if file.form == "EEGLAB" else tuple(unit_texts[i] for i in keep),
    )  # fmt: skip
    if fill:
        problems.append(f"the last {fill[0].length:.3g} s hold one value in each channel: the last record's fill, bad")
    holes = np.diff(times)[np.diff(times) > 1.5 / sfreq]
    if len(holes):
        problems.append(f"{len(holes)} holes between the records, {holes.sum() - len(holes) / sfreq:.6g} s in all")
    if (np.diff(times) <= 0).any():
        problems.append("its records overlap in time: samples lie where their records say")
    if events is None:
        events, others = _both(marks, triggers, sfreq, problems), triggers.others
    else:
        others = (*triggers.events, *triggers.others)
    date = raw.info["meas_date"]
    begun = date and date.timestamp() + raw.first_time + (file.edf.offset if file.edf else 0.0)
    doubts = (*notes, *problems, *marks.warnings, *unlikely(signals, data, sfreq))
    description = str(raw.info["description"] or f"{kind} recording")
    return Recording(path.name, description, (stream,), events, begun, warnings=doubts, other_events=others)


def _both(marks: Marks, triggers: _Found, sfreq: float, problems: list[str]) -> tuple[Event, ...]:
    """Merge the events of annotations and of trigger channels, with a warning for each choice."""
    events = with_triggers(marks.events, triggers.events, max(1.5 / sfreq, 0.002))
    problems += triggers.warnings
    if marks.events and triggers.events:
        same = len(marks.events) + len(triggers.events) - len(events)
        problems.append(
            f"{len(marks.events)} annotations and {len(triggers.events)} triggers of "
            f"{listing(sorted({event.stream for event in triggers.events}))} are read; {same} of them tell the same"
        )
    if not events:
        problems.append("no events: the file holds no annotation of one, and no trigger")
    return events


def _annotations(
    raw: Any, edf: EdfFile | None, times: NDArray[np.float64], sfreq: float
) -> list[tuple[float, float, bytes]]:
    """List annotations, each on its sample where it falls on one."""
    if edf:
        found = [(mark.onset, mark.duration, mark.text) for mark in edf.marks]
        labels = {name.encode() for name in raw.ch_names}
        # 'text@@channel' is of one channel alone.
        found = [
            (onset, length, text.rpartition(b"@@")[0] if text.rpartition(b"@@")[2] in labels else text)
            for onset, length, text in found
        ]
    else:
        places = raw.time_as_index(raw.annotations.onset, use_rounding=True, origin=raw.annotations.orig_time)
        found = [
            (place / sfreq, float(length), str(text).encode())
            for place, length, text in zip(
                places.tolist(), raw.annotations.duration, raw.annotations.description, strict=True
            )
        ]
    onsets = _on_samples(np.array([onset for onset, _, _ in found]), times, sfreq)
    return [(onset, length, text) for onset, (_, length, text) in zip(onsets.tolist(), found, strict=True)]


def _on_samples(onsets: NDArray[np.float64], times: NDArray[np.float64], sfreq: float) -> NDArray[np.float64]:
    """Return the times of the nearest samples where these are within half a period."""
    if not len(times) or not len(onsets):
        return onsets
    order = np.argsort(times, kind="stable")  # the records of a file may overlap
    places = np.searchsorted(times[order], onsets)
    around = times[order][np.clip([places - 1, places], 0, len(times) - 1)]
    near = np.where(np.abs(around[0] - onsets) < np.abs(around[1] - onsets), around[0], around[1])
    return np.where(np.abs(near - onsets) <= 0.5001 / sfreq, near, onsets)


def _triggers(
    raw: Any, channels: Channels, values: NDArray[np.float64], times: NDArray[np.float64], file: RawFile
) -> _Found:
    """Find the steps of the trigger channels, of those that mne would take."""
    told = [i for i, kind in enumerate(channels.kinds) if kind == "stim"]
    by_channel: dict[str, tuple[Event, ...]] = {}
    problems = []
    for i in told:
        name = channels.names[i]
        # In EDF and BDF every trigger signal is 16 bits wide; what is above in a word of 24 are flags.
        steps = (Triggers(STATUS_BITS) if file.form == "EDF" else triggers_of(name)).feed(values[i])
        if raw.get_channel_types()[i] != "stim" and len(steps) * _FEW > len(times):
            problems.append(f"{name} changes at {len(steps)} of {len(times)} samples: no trigger channel, left out")
            continue
        by_channel[name] = tuple(
            event for at, code in steps if (event := event_of(float(times[at]), float(code), name))
        )
    return _chosen(by_channel, problems)


def _chosen(by_channel: Mapping[str, tuple[Event, ...]], problems: list[str]) -> _Found:
    """Choose trigger channels as mne.find_events does; say which others hold triggers."""
    import mne

    configured = [mne.get_config("MNE_STIM_CHANNEL"), *(mne.get_config(f"MNE_STIM_CHANNEL_{n}") for n in range(1, 9))]
    selection = [name for name in configured if name in by_channel]
    selection = selection or [name for name in ("STI101", "STI 014") if name in by_channel][:1]
    if not any(by_channel[name] for name in selection):
        selection = list(by_channel)
    events = [event for name in selection for event in by_channel[name]]
    counted = {name: len(onsets) for name, onsets in by_channel.items() if onsets}
    read = [f"{name} ({n})" for name, n in counted.items() if name in selection]
    left = [f"{name} ({n})" for name, n in counted.items() if name not in selection]
    if len(read) > 1:
        problems.append(f"several trigger channels are read, {listing(read)}; say which as source.markers")
    if left:
        problems.append(f"triggers are read of {listing(read)} and not of {listing(left)}; say which as source.markers")
    others = [event for name, onsets in by_channel.items() if name not in selection for event in onsets]
    key = lambda event: event.time  # noqa: E731 (used twice)
    return _Found(tuple(sorted(events, key=key)), tuple(sorted(others, key=key)), tuple(problems))


def _fill(data: NDArray[np.float32], file: RawFile, sfreq: float, times: NDArray[np.float64]) -> list[BadSegment]:
    """Find the end of the last EDF record where nothing was recorded: every channel keeps one value."""
    if not file.edf or not len(data):
        return []
    record = data[-max(1, round(file.edf.record_s * sfreq)) :]
    differing = np.flatnonzero((record != record[-1]).any(axis=1))
    n = len(record) - 1 - int(differing[-1]) if len(differing) else 0
    if n < max(8, 0.05 * sfreq):
        return []
    # It repeats the last value that was recorded, which is the first of these.
    start = float(times[len(data) - n + 1])
    return [BadSegment(start, float(times[-1]) + 1 / sfreq - start, "end of the last record")]


def _plain(notes: Sequence[str]) -> list[str]:
    """Return the first sentence of each of mne's warnings, without those that are repeated or harmless here."""
    ours = (
        "No coordinate information", "Not setting positions of", "This filename",
        "The data contains 'boundary'", "Limited",
    )  # fmt: skip
    lines = [" ".join(text.split()) for text in notes if not text.startswith(ours)]
    return [f"mne: {line[:300]}" for line in dict.fromkeys(lines)]


def apply_reading_spec(recording: Recording, source: ReadingSpec) -> Recording:
    """Apply to a recording's columns what its config states and the file does not: their names, and their unit.

    Raises
    ------
    StreamError
        `source` names more or fewer columns than its stream has, or its unit is not known.
    """
    if source.channel_names:
        stream = choose_streams(recording, source)[0]
        named_channels = configured_names(source.channel_names, stream.channels.kinds, stream.name)
        channels = replace(stream.channels, names=named_channels.names, kinds=named_channels.kinds)
        streams = tuple(replace(stream, channels=channels) if each is stream else each for each in recording.streams)
        recording = replace(recording, streams=streams)
    return in_unit(recording, source.unit)


def in_unit(recording: Recording, unit: str | None) -> Recording:
    """Convert channels whose file states no unit ('count') as if they were in `unit`; spikes and voxels stay.

    Raises
    ------
    StreamError
        The unit is not known.
    """
    if unit is None:
        return recording
    if not any(is_known(unit, kind) for kind in ("eeg", "mag", "grad")):
        si_unit(unit)
    streams = tuple(_in_unit(stream, unit) for stream in recording.streams)
    told = tuple(line for line in recording.warnings if UNKNOWN not in line)
    levels = [
        line
        for new, old in zip(streams, recording.streams, strict=True)
        if new is not old
        for line in unlikely(new.channels, new.data, new.sfreq)
        if line not in told
    ]
    for line in levels:
        logger.warning("%s: %s", recording.name, line)
    return replace(recording, streams=streams, warnings=(*told, *levels))


def _in_unit(stream: RecordedStream, unit: str) -> RecordedStream:
    channels, factors, units = stream.channels, np.ones(len(stream.channels)), list(stream.channels.units)
    for i, (kind, had) in enumerate(zip(channels.kinds, channels.units, strict=True)):
        if had == "count" and kind in UNIT_OF_KIND:
            units[i], factors[i] = si_unit(unit, kind)
    if tuple(units) == channels.units:
        return stream
    stated = replace(channels, units=tuple(units))
    return replace(stream, channels=stated, data=(stream.data * factors).astype(np.float32))


FILES = Description(
    "FIF, EDF/BDF, BrainVision, EEGLAB",
    "annotations and trigger channels",
    "the header as written; FIF is in SI, EEGLAB in microvolts",
)
FORMATS = (
    FileFormat(".fif", read_mne, (struct.pack(">i", 100),), bids=("meg",), description=FILES),
    FileFormat(".fif.gz", read_mne, (GZIP,), description=FILES),
    FileFormat(".ds", None, bids=("meg",)),
    FileFormat(".edf", read_mne, (b"0",), bids=("eeg", "ieeg"), description=FILES),
    FileFormat(".bdf", read_mne, (b"\xff",), bids=("eeg",), description=FILES),
    FileFormat(".vhdr", read_mne, (b"Brain", b"\xef\xbb\xbfBrain", b";"), bids=("eeg", "ieeg"), description=FILES),
    FileFormat(".set", read_mne, (b"MATLAB", b"\x89HDF"), bids=("eeg", "ieeg"), description=FILES),
)
