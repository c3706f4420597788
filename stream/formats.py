"""Readers of other people's files, each giving a `Recording`."""

import csv
import gzip
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordingError, StreamError
from stream.events import Event, event_of
from stream.montage import montage_of, montage_of_raw
from stream.recordings import RecordedStream, Recording
from stream.triggers import Triggers
from stream.units import UNIT_OF_KIND, channel_kind, number_name, si_unit
from stream.windows import Channels

LOG = logging.getLogger(__name__)
MUSE_SFREQ = 256.0
POSIX_SINCE = 1e9  # stamps above are POSIX time (2001 and later); an LSL clock counts from the machine's start
SCALED_BY_MNE = {"V", "mV", "uV", "µV"}
TYPE_OF_KIND = {"eeg": "EEG", "mag": "MEG", "grad": "MEG", "seeg": "iEEG", "ecog": "iEEG", "dbs": "iEEG"}


def read_mne(path: Path) -> Recording:
    """FIF, EDF, BDF, BrainVision, EEGLAB: annotations become events (else the stim channel's steps do)."""
    import mne

    raw = mne.io.read_raw(path, preload=True, verbose="error")
    return from_raw(raw, path.name)


def from_raw(raw: Any, name: str, units: Mapping[str, str] | None = None, reference: str = "") -> Recording:
    """Make a recording of what mne has read.

    Parameters
    ----------
    raw : mne.io.BaseRaw
    name : str
        Of the recording and its stream.
    units : mapping of str to str, optional
        By channel, for what the file itself does not say.
    reference : str
        What EEG was recorded against.
    """
    sfreq = float(raw.info["sfreq"])
    events = _annotations(raw, sfreq) or _stim_steps(raw, sfreq)
    if "stim" in raw.get_channel_types() and set(raw.get_channel_types()) != {"stim"}:
        raw.drop_channels(
            [name for name, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True) if kind == "stim"]
        )
    kinds = tuple(raw.get_channel_types())
    si, factors = _units(raw, kinds, units or {})
    kind = next((TYPE_OF_KIND[kind] for kind in kinds if kind in TYPE_OF_KIND), "misc")
    data = np.ascontiguousarray((raw.get_data() * factors[:, None]).T, dtype=np.float32)
    description = str(raw.info["description"] or f"{kind} recording")
    channels = Channels(tuple(raw.ch_names), kinds, si, montage_of_raw(raw, reference))
    times = np.arange(len(data)) / sfreq
    stream = RecordedStream(name, kind, f"replay-{name}", channels, sfreq, times, data)
    date = raw.info["meas_date"]
    return Recording(name, description, (stream,), events, date and date.timestamp() + raw.first_time)


def _units(raw: Any, kinds: Sequence[str], stated: Mapping[str, str]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Name each channel's SI unit, and the factor that takes mne's numbers there.

    Of EDF and BDF, mne takes every unit but V, mV and uV for volts, the absent one too.
    """
    si, factors, unknown = [], [], []
    for name, kind in zip(raw.ch_names, kinds, strict=True):
        unit, factor = UNIT_OF_KIND.get(kind, "count"), 1.0
        if raw.__class__.__name__ in {"RawEDF", "RawBDF"} and raw._orig_units.get(name) not in SCALED_BY_MNE:
            try:
                unit, factor = si_unit(stated.get(name) or raw._orig_units.get(name, ""), kind)
            except StreamError:
                unknown += [name] if unit == "V" else []
                unit = "count"
        si.append(unit)
        factors.append(factor)
    if unknown:
        LOG.warning("no known unit is stated for %s: taken as plain numbers ('count')", ", ".join(unknown))
    return tuple(si), np.array(factors)


def _annotations(raw: Any, sfreq: float) -> tuple[Event, ...]:
    """Each annotation on its sample; mne's own marks of bad stretches and file joins are left out."""
    import mne

    wanted = [text for text in set(raw.annotations.description) if not text.upper().startswith(("BAD", "EDGE"))]
    if not wanted:
        return ()
    numbers = {text: i + 1 for i, text in enumerate(sorted(wanted))}
    rows, used = mne.events_from_annotations(raw, event_id=numbers, verbose="error")
    labels = {number: str(text) for text, number in used.items()}
    return _made(((row[0] - raw.first_samp) / sfreq, labels[row[2]]) for row in rows)


def _stim_steps(raw: Any, sfreq: float) -> tuple[Event, ...]:
    kinds = raw.get_channel_types()
    if "stim" not in kinds:
        return ()
    steps = Triggers().feed(raw.get_data(picks=kinds.index("stim"))[0])
    return _made((at / sfreq, code) for at, code in steps)


def _made(pairs: Iterable[tuple[float, Any]]) -> tuple[Event, ...]:
    """Make events of times and labels or numbers."""
    return tuple(event for time, value in pairs if (event := event_of(time, value)))


def read_csv(path: Path) -> Recording:
    """muse-lsl's CSV: a `timestamps` column, channels in uV, and columns named Marker* that are 0 between markers.

    One marker column gives labels '1', '2'; of several, each but the first puts its name before: 'Marker2=45'.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="", encoding="utf-8") as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
        if not header or header[0].lower() not in {"timestamps", "timestamp", "time"}:
            raise RecordingError(f"{path}: the first column must be 'timestamps', not {header[:1]}")
        table = np.loadtxt(file, delimiter=",", ndmin=2)
    if len(table) < 2 or table.shape[1] != len(header):
        raise RecordingError(f"{path}: {len(header)} columns are named, the table is {table.shape}")
    if not np.isfinite(table[:, 0]).all():
        raise RecordingError(f"{path}: a timestamp is not a number")
    marker = [i for i, name in enumerate(header) if name.lower().startswith("marker")]
    data = [i for i in range(1, len(header)) if i not in marker]
    times = table[:, 0] - table[0, 0]
    events = []
    for order, column in enumerate(marker):
        prefix = f"{header[column]}=" if order else ""
        # muse-lsl writes one row a marker, so two rows with the same code are two markers.
        rows = np.flatnonzero(table[:, column])
        labels = _made((times[row], table[row, column]) for row in rows)
        events += [replace(event, label=prefix + event.label) if prefix else event for event in labels]
    names = tuple(header[i] for i in data)
    kinds = tuple("misc" if "aux" in name.lower() else "eeg" for name in names)
    channels = Channels(names, kinds, ("V",) * len(names))
    volts = (table[:, data] * 1e-6).astype(np.float32)
    name = path.name
    stream = RecordedStream(name, "EEG", f"replay-{name}", channels, _rate(times), times, volts)
    in_order = tuple(sorted(events, key=lambda event: event.time))
    begun = float(table[0, 0]) if table[0, 0] > POSIX_SINCE else None
    return Recording(name, "human EEG (Muse headband)", (stream,), in_order, begun)


def _rate(times: NDArray[np.float64]) -> float:
    """Nominal rate of a table: Muse's where it is near that, else the measured one, rounded."""
    measured = (len(times) - 1) / (times[-1] - times[0])
    if not np.isfinite(measured) or measured <= 0:
        raise RecordingError("the timestamps do not increase")
    return MUSE_SFREQ if abs(measured / MUSE_SFREQ - 1) < 0.02 else float(round(measured, 1))


def read_xdf(path: Path) -> Recording:
    """XDF: numeric streams become streams, string streams (and type 'Markers') events; clocks synchronised by pyxdf."""
    import pyxdf

    # Smoothing is left to our own clock: pyxdf's would hide the file's holes from it.
    found, header = pyxdf.load_xdf(path, dejitter_timestamps=False, verbose=False)
    found = [entry for entry in found if len(entry["time_stamps"])]
    if not found:
        raise RecordingError(f"{path}: holds no samples")
    start = min(float(np.min(entry["time_stamps"])) for entry in found)
    events: list[Event] = []
    streams: list[RecordedStream] = []
    for entry in found:
        times = np.asarray(entry["time_stamps"], dtype=np.float64) - start
        marker = entry["info"]["type"][0] in {"Markers", "Marker", "StringMarker", "Events"}
        if entry["info"]["channel_format"][0] == "string" or (
            marker and np.asarray(entry["time_series"]).shape[1] == 1
        ):
            events += _made((time, row[0]) for time, row in zip(times, entry["time_series"], strict=True))
        else:
            streams.append(_xdf_stream(entry, times))
    events.sort(key=lambda event: event.time)
    kind = streams[0].type if streams else "marker"
    return Recording(path.name, f"{kind} recording", tuple(streams), tuple(events), _xdf_date(header), start)


def _xdf_date(header: Any) -> float | None:
    """When the recording was begun, as LabRecorder and our own recorder write it."""
    try:
        return datetime.fromisoformat(header["info"]["datetime"][0]).timestamp()
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _xdf_stream(entry: dict[str, Any], times: NDArray[np.float64]) -> RecordedStream:
    info = entry["info"]
    series = np.asarray(entry["time_series"], dtype=np.float64)
    kind = channel_kind(info["type"][0])
    described = _xdf_channels(info)
    if len(described) != series.shape[1]:
        described = [{} for _ in range(series.shape[1])]
    names, kinds, units, factors = [], [], [], []
    for i, channel in enumerate(described):
        names.append(_text(channel, "label") or number_name(info["type"][0] or "", i))
        kinds.append(channel_kind(stated) if (stated := _text(channel, "type")) else kind)
        try:
            unit, factor = si_unit(_text(channel, "unit"), kinds[-1])
        except StreamError:
            unit, factor = "count", 1.0  # the file does not say; 'count' claims nothing
        units.append(unit)
        factors.append(factor)
    if len(set(names)) < len(names):
        LOG.warning("stream %s has channels of the same name; they are numbered", info["name"][0])
        names = [f"{name}-{names[:i].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)]
    montage = montage_of(
        names,
        lambda i, key: _text(described[i], key),
        lambda i, axis: _text(described[i], "location", axis),
        _text(info, "desc", "reference", "label"),
    )
    order = np.argsort(times, kind="stable")
    return RecordedStream(
        name=info["name"][0],
        type=info["type"][0] or "misc",
        source_id=_text(info, "source_id") or f"replay-{info['name'][0]}",
        channels=Channels(tuple(names), tuple(kinds), tuple(units), montage),
        sfreq=float(info["nominal_srate"][0]),
        times=times[order],
        data=(series * factors)[order].astype(np.float32),
    )


def _xdf_channels(info: dict[str, Any]) -> list[dict[str, Any]]:
    desc = (info.get("desc") or [None])[0]
    channels = (desc.get("channels") or [None])[0] if isinstance(desc, dict) else None
    entries = channels.get("channel", []) if isinstance(channels, dict) else []
    return [one if isinstance(one, dict) else {} for one in entries]


def _text(node: Any, *path: str) -> str:
    """Text of an entry of a stream's metadata, empty where there is none; pyxdf gives each XML node as a list."""
    for key in path:
        node = (node.get(key) or [None])[0] if isinstance(node, dict) else None
    return node if isinstance(node, str) else ""


def in_unit(recording: Recording, unit: str | None) -> Recording:
    """Take the numbers of channels whose file states no unit ('count') to be in `unit`; spikes and voxels stay.

    Raises
    ------
    StreamError
        The unit is not known.
    """
    if unit is None:
        return recording
    return replace(recording, streams=tuple(_in_unit(stream, unit) for stream in recording.streams))


def _in_unit(stream: RecordedStream, unit: str) -> RecordedStream:
    channels, factors, units = stream.channels, np.ones(len(stream.channels)), list(stream.channels.units)
    for i, (kind, had) in enumerate(zip(channels.kinds, channels.units, strict=True)):
        if had == "count" and kind in UNIT_OF_KIND:
            units[i], factors[i] = si_unit(unit, kind)
    stated = replace(channels, units=tuple(units))
    return replace(stream, channels=stated, data=(stream.data * factors).astype(np.float32))
