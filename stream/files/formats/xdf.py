"""XDF files: streams and markers, also of files that are damaged, incomplete, or still being written."""

import gzip
import io
import logging
import struct
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordingError
from stream.files.file_format import Description, FileFormat
from stream.files.xdf_writer import BOUNDARY_UUID, CLOCK_OFFSET, FILE_HEADER, SAMPLES, STREAM_FOOTER, STREAM_HEADER
from stream.markers.markers import MarkerColumns, triggers_of
from stream.types.channel_names import name_channels
from stream.types.events import Event, text_of
from stream.types.levels import unlikely
from stream.types.montage import montage_of
from stream.types.recording import RecordedStream, Recording
from stream.types.source_spec import NOTES, is_marker_type
from stream.types.units import channel_kind, listing, number_name, si_units
from stream.types.windows import Channels

_FORMATS = {"float32", "double64", "string", "int8", "int16", "int32", "int64"}
"""Formats of samples."""
LONGEST = 200
"""Characters of a description."""
TAIL = 1 << 18
"""Bytes at the end of a file among which its streams' footers lie."""
_SIZES = {1: "<B", 4: "<I", 8: "<Q"}


def read_xdf(path: Path) -> Recording:
    """Read an XDF file: numeric streams become streams, markers of any shape events; pyxdf synchronises the clocks."""
    import pyxdf

    whole = _whole(path)
    warnings = whole.warnings
    with _said_by_pyxdf(warnings):
        # Smoothing is left to our own clock: pyxdf's would hide the file's holes from it.
        entries, header = pyxdf.load_xdf(io.BytesIO(whole.content), dejitter_timestamps=False, verbose=False)
    for entry in entries:
        _drop_not_finite(entry, warnings)
    empty = [_text(entry["info"], "name") for entry in entries if not len(entry["time_stamps"])]
    if len(empty) < len(entries) and (missed := [name for name in empty if name != NOTES]):
        warnings.append(f"no samples of {listing(missed)}")
    entries = [entry for entry in entries if len(entry["time_stamps"])]
    if not entries:
        raise RecordingError(f"{path}: holds no samples")
    start = min(float(np.min(entry["time_stamps"])) for entry in entries)
    events: list[Event] = []
    columns: list[Event] = []
    texts: list[Event] = []
    descriptions: list[str] = []
    streams: list[RecordedStream] = []
    for entry in entries:
        times = np.asarray(entry["time_stamps"], dtype=np.float64) - start
        if entry["info"]["channel_format"][0] == "string" or is_marker_type(_text(entry["info"], "type")):
            # What the experimenter noted is nothing that was shown.
            notes = _text(entry["info"], "name") == NOTES
            (texts if notes else events).extend(_markers(entry, times, warnings))
        else:
            streams.append(_stream(entry, times, warnings))
            descriptions.append(" ".join(_text(entry["info"], "desc", "description").split())[:LONGEST])
            columns += _columns(streams[-1], warnings)
    markers = Counter(event.stream for event in events)
    if len(markers) > 1:
        counted = listing([f"{name} ({n})" for name, n in markers.items()])
        warnings.append(f"{len(markers)} marker streams are read, {counted}; say which as source.markers")
    if columns and events:
        warnings.append(f"{len(columns)} triggers of {listing(sorted({each.stream for each in columns}))} are not read "
                        "beside the markers; say which as source.markers")  # fmt: skip
    kind = streams[0].type if streams else "marker"
    description = next(filter(None, descriptions), f"{kind} recording")
    return Recording(
        path.name, description, tuple(streams), _in_order(events or columns), _date(header), start,
        tuple(warnings), _in_order(texts + (columns if events else [])),
    )  # fmt: skip


class _Collector(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def _said_by_pyxdf(warnings: list[str]) -> Iterator[None]:
    """Collect what pyxdf logs of broken chunks as warnings."""
    log = logging.getLogger("pyxdf.pyxdf")
    handler = _Collector(logging.WARNING)
    log.addHandler(handler)
    propagated, log.propagate = log.propagate, False
    try:
        # It divides by the length of a stream whose stamps are all the same.
        with np.errstate(divide="ignore", invalid="ignore"):
            yield
    finally:
        log.propagate = propagated
        log.removeHandler(handler)
        lines = dict.fromkeys(" ".join(record.getMessage().split()) for record in handler.records)
        # It says so of every file whose stamps it is not asked to smooth.
        warnings += [f"pyxdf: {line}" for line in lines if "Segments and clock-segments differ" not in line]


def _in_order(events: list[Event]) -> tuple[Event, ...]:
    return tuple(sorted(events, key=lambda event: event.time))


def _drop_not_finite(entry: dict[str, Any], warnings: list[str]) -> None:
    stamps = np.asarray(entry["time_stamps"], dtype=np.float64)
    finite = np.isfinite(stamps)
    if not finite.all():
        name = _text(entry["info"], "name")
        warnings.append(f"{name}: {int((~finite).sum())} of {len(stamps)} samples without a finite time are left out")
        series = entry["time_series"]
        entry["time_stamps"] = stamps[finite]
        entry["time_series"] = (
            series[finite] if isinstance(series, np.ndarray) else [series[i] for i in np.flatnonzero(finite)]
        )


def _markers(entry: dict[str, Any], times: NDArray[np.float64], warnings: list[str]) -> list[Event]:
    info = entry["info"]
    name = _text(info, "name")
    n = int(info["channel_count"][0])
    described = _described(info, n)
    columns = MarkerColumns(name, [_text(channel, "label") for channel in described], float(info["nominal_srate"][0]))
    events = columns.feed(entry["time_series"], times)
    if columns.bad:
        warnings.append(f"{name}: {columns.bad} of {len(times)} markers hold no text or no finite number: left out")
    return events


def _columns(stream: RecordedStream, warnings: list[str]) -> list[Event]:
    """Find the triggers that come as columns of a data stream."""
    events = []
    for i, (name, kind) in enumerate(zip(stream.channels.names, stream.channels.kinds, strict=True)):
        steps = triggers_of(name).feed(stream.data[:, i].astype(np.float64)) if kind == "stim" else []
        if len(steps) * 4 > len(stream.times):
            warnings.append(f"{name} of {stream.name} changes at {len(steps)} samples: no trigger channel")
        else:
            events += [Event(float(stream.times[at]), str(code), code, name) for at, code in steps]
    return events


def _stream(entry: dict[str, Any], times: NDArray[np.float64], warnings: list[str]) -> RecordedStream:
    info = entry["info"]
    name, stream_type = _text(info, "name"), _text(info, "type")
    series = np.asarray(entry["time_series"], dtype=np.float64)
    described = _described(info, series.shape[1])
    labels = [_text(channel, "label") or number_name(stream_type, i) for i, channel in enumerate(described)]
    unit_texts = [_text(channel, "unit") for channel in described]
    kind = channel_kind(stream_type)
    named_channels = name_channels(
        labels, [channel_kind(stated) if (stated := _text(each, "type")) else kind for each in described]
    )
    units, factors, unknown = si_units(named_channels.names, named_channels.kinds, unit_texts)
    warnings += [f"{name}: {line}" for line in unknown]
    warnings += [f"{name}: {line}" for line in named_channels.warnings]
    montage = montage_of(
        named_channels.names,
        lambda i, key: _text(described[i], key),
        lambda i, axis: _text(described[i], "location", axis),
        _text(info, "desc", "reference", "label"),
    )
    order = np.argsort(times, kind="stable")
    channels = Channels(named_channels.names, named_channels.kinds, units, montage)
    sfreq = float(info["nominal_srate"][0])
    data = (series * factors)[order].astype(np.float32)
    warnings += [f"{name}: {line}" for line in unlikely(channels, data, sfreq)]
    return RecordedStream(
        name=name,
        type=stream_type or "misc",
        source_id=_text(info, "source_id") or f"replay-{name}",
        channels=channels,
        sfreq=sfreq,
        times=times[order],
        data=data,
        units_given=tuple(unit_texts) if any(unit_texts) else (),
    )


def _date(header: Any) -> float | None:
    """Return when the recording was begun, as LabRecorder and our own recorder write it."""
    try:
        return datetime.fromisoformat(header["info"]["datetime"][0]).timestamp()
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _described(info: dict[str, Any], n: int) -> list[dict[str, Any]]:
    """List the entries of n channels; empty ones where the file describes another number."""
    desc = (info.get("desc") or [None])[0]
    channels = (desc.get("channels") or [None])[0] if isinstance(desc, dict) else None
    entries = channels.get("channel", []) if isinstance(channels, dict) else []
    return [each if isinstance(each, dict) else {} for each in entries] if len(entries) == n else [{}] * n


def _text(node: Any, *path: str) -> str:
    """Return the text of an entry of a stream's metadata, '' where there is none; pyxdf has each XML node as a list."""
    for key in path:
        node = (node.get(key) or [None])[0] if isinstance(node, dict) else None
    return node.strip() if isinstance(node, str) else ""


@dataclass(slots=True)
class _Whole:
    """A file's whole chunks, their headers complete, and what is wrong with the rest."""

    content: bytes = b""
    warnings: list[str] = field(default_factory=list)


def _whole(path: Path) -> _Whole:
    """Keep what pyxdf can read: it gives up a file over one empty element, or a chunk that was cut short."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    whole = _Whole()
    parts = [content[:4]]
    known: dict[bytes, bool] = {}
    texts: dict[bytes, _Texts] = {}
    for tag, chunk in _chunks(content, whole.warnings):
        number = chunk[:4]
        if tag == STREAM_HEADER:
            head = _completed(chunk[4:], int.from_bytes(number, "little"), whole.warnings)
            known[number] = head is not None
            parts += [_chunk(tag, number + head)] if head is not None else []
            info = _xml(head) if head is not None else None
            if info is not None and info.findtext("channel_format") == "string":
                texts[number] = _Texts(info.findtext("name") or "", int(info.findtext("channel_count") or 0))
        elif tag in {SAMPLES, CLOCK_OFFSET, STREAM_FOOTER}:
            if tag == SAMPLES and number in texts:
                chunk = texts[number].in_utf8(chunk)  # noqa: PLW2901 (the same samples)
            parts += [_chunk(tag, chunk)] if known.get(number) else []
            if number not in known:
                known[number] = False
                whole.warnings.append(f"samples of a stream without a header ({int.from_bytes(number, 'little')})")
        elif tag == FILE_HEADER:
            parts += [_chunk(tag, chunk)] if _xml(chunk) is not None else []
    whole.content = b"".join(parts)
    whole.warnings += [
        f"{each.name}: {each.foreign} texts are not UTF-8, and are read as Latin-1"
        for each in texts.values()
        if each.foreign
    ]
    return whole


@dataclass(slots=True)
class _Texts:
    """A stream of texts: those that are not UTF-8 are read as a live stream's are.

    Attributes
    ----------
    name : str
    n_channels : int
    foreign : int
        Texts so far that are not UTF-8.
    """

    name: str
    n_channels: int
    foreign: int = 0

    def in_utf8(self, chunk: bytes) -> bytes:
        """Return a chunk of samples with its texts in UTF-8; as it is where it is not laid out as it should be."""
        try:
            n, place = _length_at(chunk, 4)
            out = [chunk[:place]]
            for _ in range(n):
                begin, place = place, place + 1 + chunk[place]
                out.append(chunk[begin:place])
                for _ in range(self.n_channels):
                    size, start = _length_at(chunk, place)
                    place = start + size
                    text = text_of(raw := chunk[start:place]).encode()
                    self.foreign += text != raw
                    out.append(b"\x04" + struct.pack("<I", len(text)) + text)
        except (IndexError, KeyError, struct.error):
            return chunk
        return b"".join(out)


def _length_at(chunk: bytes, place: int) -> tuple[int, int]:
    """Return a length of variable size, and where it ends."""
    (length,) = struct.unpack_from(_SIZES[chunk[place]], chunk, place + 1)
    return int(length), place + 1 + chunk[place]


def _chunk(tag: int, content: bytes) -> bytes:
    return b"\x08" + struct.pack("<QH", len(content) + 2, tag) + content


def _chunks(content: bytes, warnings: list[str]) -> Iterator[tuple[int, bytes]]:
    """Yield the chunks; where one is broken, go on behind the next boundary."""
    place = 4
    while place < len(content):
        size = content[place]
        head = place + 1 + size
        try:
            (length,) = struct.unpack_from(_SIZES[size], content, place + 1)
            (tag,) = struct.unpack_from("<H", content, head)
        except (KeyError, struct.error):
            length, tag = 0, 0
        end = head + length
        if 1 <= tag <= STREAM_FOOTER and length >= 2 and end <= len(content):
            yield tag, content[head + 2 : end]
            place = end
            continue
        boundary = content.find(BOUNDARY_UUID, place)
        after = boundary + len(BOUNDARY_UUID) if boundary >= 0 else len(content)
        where = "at the end (cut short, or still being written)" if after == len(content) else f"at byte {place}"
        warnings.append(f"{after - place} bytes {where} are no whole chunk and are left out")
        place = after


def _completed(text: bytes, number: int, warnings: list[str]) -> bytes | None:
    """Fill in what a stream's header leaves empty; None where its samples cannot be read without."""
    info = _xml(text)
    if info is None:
        warnings.append(f"stream {number}: its header is no XML; it is left out")
        return None
    values = {key: (info.findtext(key) or "").strip() for key in ("name", "type", "nominal_srate", "channel_count")}
    name = values["name"] or f"stream-{number}"
    form = (info.findtext("channel_format") or "").strip().lower().removeprefix("cf_")
    if form not in _FORMATS or not values["channel_count"].isdecimal():
        warnings.append(
            f"stream {name}: channel_format {form!r} and channel_count {values['channel_count']!r} do not say "
            "how its samples are laid out; it is left out"
        )
        return None
    try:
        rate = float(values["nominal_srate"].replace(",", ".") or 0)
    except ValueError:
        rate = -1.0
    if not (np.isfinite(rate) and rate >= 0):
        warnings.append(f"stream {name}: nominal_srate {values['nominal_srate']!r} is no rate; taken as irregular")
        rate = 0.0
    if not values["name"]:
        warnings.append(f"stream {number} has no name; it is called {name}")
    for key, value in {"name": name, "nominal_srate": repr(rate), "channel_format": form}.items():
        node = info.find(key)
        node = ET.SubElement(info, key) if node is None else node
        node.text = value
    return bytes(ET.tostring(info, encoding="utf-8"))


def _xml(text: bytes) -> ET.Element | None:
    try:
        return ET.fromstring(text.decode("utf-8", "replace").lstrip("\ufeff \r\n\t"))  # noqa: S314 (no entities of others' are fetched)
    except ET.ParseError:
        return None


def is_unfinished(path: Path) -> bool:
    """Check if a path is an XDF file that lacks the streams' footers, which its recorder writes when it ends."""
    if path.suffix.lower() != ".xdf" or not path.is_file():
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return b"<sample_count>" not in file.read()


XDF = Description(
    "XDF of LabRecorder and `minddiffuser record`",
    "marker streams, else trigger columns of the data",
    "stream metadata",
)
FORMATS = (
    FileFormat(".xdf", read_xdf, (b"XDF:",), description=XDF),
    FileFormat(".xdfz", read_xdf, description=XDF),
)
