"""Recordings that mne reads (FIF, EDF, BDF, BrainVision, EEGLAB): kinds, units and times as the files mean them."""

import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.annotations import Marks, sort_marks, with_triggers
from stream.brainvision import read_header, with_distinct_names
from stream.edf import EdfFile, read_edf
from stream.errors import RecordingError
from stream.events import Event, event_of
from stream.levels import unlikely
from stream.markers import STATUS_BITS, triggers_of
from stream.mne_channels import RawFile, raw_channels, raw_file
from stream.recordings import TYPE_OF_KIND, BadStretch, RecordedStream, Recording
from stream.triggers import Triggers
from stream.units import UNIT_OF_KIND, UNKNOWN, is_known, listed, si_unit
from stream.windows import Channels

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

    options, problems, ending = {}, [], path.suffix.lower()
    if ending in {".edf", ".bdf"}:
        read_edf(path)
        # An annotation that is not UTF-8 would make the whole file unreadable; `read_edf` reads them.
        options = {"encoding": "latin1"}
    header = read_header(path) if ending == ".vhdr" else None
    with warnings.catch_warnings(record=True) as caught, TemporaryDirectory(prefix="minddiffuser-") as scratch:
        warnings.simplefilter("always")
        file = path
        if header and len(set(header.names)) < len(header.names):
            file = with_distinct_names(path, header, Path(scratch))
            doubled = {name for name in header.names if header.names.count(name) > 1}
            problems.append(f"channels of the same name are numbered: {', '.join(sorted(doubled))}")
        try:
            raw = mne.io.read_raw(file, preload=True, verbose="warning", **options)
        except (TypeError, ValueError) as error:
            if any(words in str(error) for words in ("number of trials", "No raw data")):
                raise RecordingError(f"{path}: {_NOT_RAW}") from error
            raise
    if header and header.samples and header.samples != raw.n_times:
        problems.append(f"the header tells of {header.samples} samples, and the data hold {raw.n_times}: cut short?")
    # What mne leaves out of an EDF file's annotations is read by `read_edf`.
    said = [str(each.message) for each in caught if issubclass(each.category, RuntimeWarning)]
    said = [text for text in said if not (options and text.startswith("Omitted"))]
    return from_raw(raw, path, said=(*problems, *_plain(said)))


def from_raw(
    raw: Any,
    path: Path,
    *,
    units: Mapping[str, str] | None = None,
    reference: str = "",
    typed: bool = False,
    events: tuple[Event, ...] | None = None,
    said: Sequence[str] = (),
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
        Of a table beside the file (BIDS), which then has made the annotations too: these mark bad stretches only, and
        triggers are `Recording.other_events`.
    said : sequence of str
        Warnings of reading it.
    """
    sfreq = float(raw.info["sfreq"])
    file = raw_file(raw, path)
    channels, factors, given, problems = raw_channels(raw, file, units or {}, typed=typed, reference=reference)
    times = file.edf.times(raw.n_times, sfreq) if file.edf else np.arange(raw.n_times) / sfreq
    values = raw.get_data() * factors[:, None]
    edf = file.edf if events is None else None
    annotations = _annotations(raw, edf, times, sfreq)
    if file.form == "EEGLAB":  # whose numeric types mne writes as it has read them: '7', or '7.0' of MATLAB 7.3
        annotations = [(onset, length, _POINT.sub(b"", text)) for onset, length, text in annotations]
    marks = sort_marks(annotations)
    triggers = _triggers(raw, channels, values, times, file)
    keep = [i for i, kind in enumerate(channels.kinds) if kind != "stim"] or list(range(len(channels)))
    kept = channels.subset(keep)
    data = np.ascontiguousarray(values[keep].T, dtype=np.float32)
    fill = _fill(data, file, sfreq, times)
    kind = next((TYPE_OF_KIND[kind] for kind in kept.kinds if kind in TYPE_OF_KIND), "misc")
    stream = RecordedStream(
        path.name, kind, f"replay-{path.name}", kept, sfreq, times, data,
        bad=tuple(sorted([*marks.bad, *fill], key=lambda stretch: stretch.start)),
        units_given=() if file.form == "EEGLAB" else tuple(given[i] for i in keep),
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
    told = (*said, *problems, *marks.warnings, *unlikely(kept, data, sfreq))
    description = str(raw.info["description"] or f"{kind} recording")
    return Recording(path.name, description, (stream,), events, begun, warnings=told, other_events=others)


def _both(marks: Marks, triggers: _Found, sfreq: float, problems: list[str]) -> tuple[Event, ...]:
    """Put the events of annotations and of trigger channels together, and say so."""
    events = with_triggers(marks.events, triggers.events, max(1.5 / sfreq, 0.002))
    problems += triggers.warnings
    if marks.events and triggers.events:
        same = len(marks.events) + len(triggers.events) - len(events)
        problems.append(
            f"{len(marks.events)} annotations and {len(triggers.events)} triggers of "
            f"{listed(sorted({event.stream for event in triggers.events}))} are read; {same} of them tell the same"
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
    """Take the times of the nearest samples where these are within half a period."""
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
    wanted = [name for name in configured if name in by_channel]
    wanted = wanted or [name for name in ("STI101", "STI 014") if name in by_channel][:1]
    if not any(by_channel[name] for name in wanted):
        wanted = list(by_channel)
    events = [event for name in wanted for event in by_channel[name]]
    counted = {name: len(found) for name, found in by_channel.items() if found}
    read = [f"{name} ({n})" for name, n in counted.items() if name in wanted]
    left = [f"{name} ({n})" for name, n in counted.items() if name not in wanted]
    if len(read) > 1:
        problems.append(f"several trigger channels are read, {listed(read)}; say which as source.markers")
    if left:
        problems.append(f"triggers are read of {listed(read)} and not of {listed(left)}; say which as source.markers")
    others = [event for name, found in by_channel.items() if name not in wanted for event in found]
    key = lambda event: event.time  # noqa: E731 (used twice)
    return _Found(tuple(sorted(events, key=key)), tuple(sorted(others, key=key)), tuple(problems))


def _fill(data: NDArray[np.float32], file: RawFile, sfreq: float, times: NDArray[np.float64]) -> list[BadStretch]:
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
    return [BadStretch(start, float(times[-1]) + 1 / sfreq - start, "end of the last record")]


def _plain(said: Sequence[str]) -> list[str]:
    """Shorten mne's warnings to their first sentence's line; leave out what we say ourselves or what is no matter."""
    ours = (
        "No coordinate information", "Not setting positions of", "This filename",
        "The data contains 'boundary'", "Limited",
    )  # fmt: skip
    lines = [" ".join(text.split()) for text in said if not text.startswith(ours)]
    return [f"mne: {line[:300]}" for line in dict.fromkeys(lines)]


def in_unit(recording: Recording, unit: str | None) -> Recording:
    """Take the numbers of channels whose file states no unit ('count') to be in `unit`; spikes and voxels stay.

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
