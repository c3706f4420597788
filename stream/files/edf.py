"""What mne leaves out of EDF and BDF files: units as written, when each record was recorded, every annotation."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordingError

_TAL = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?\x14([^\x00]*?)\x14?\x00")
"""A time-stamped list of annotations: onset, duration, texts parted by 0x14."""
CONTIGUOUS_S = 1e-3
"""A record that begins this near to the end of the one before follows it."""
_FIELDS = {"label": 16, "transducer": 80, "unit": 8, "ranges": 32, "prefilter": 80, "samples": 8}
"""Bytes a signal takes in each block of the header."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An annotation: seconds from the first sample, seconds, and its text as the file has it."""

    onset: float
    duration: float
    text: bytes


@dataclass(frozen=True, slots=True)
class EdfFile:
    """What a file's header and annotation signals say.

    Attributes
    ----------
    units : tuple of str
        Physical dimension of each signal that is no annotation, as written.
    rates : tuple of float
        Samples a second of these signals.
    record_s : float
        Length of a record in seconds.
    starts : ndarray, shape (n_records,)
        When each record began, in seconds from the first sample; NaN where the file does not say.
    offset : float
        Seconds of the first sample after the header's date.
    marks : tuple of Mark
        In the file's order, those beyond the last sample too.
    """

    units: tuple[str, ...]
    rates: tuple[float, ...]
    record_s: float
    starts: NDArray[np.float64]
    offset: float
    marks: tuple[Mark, ...]

    def times(self, n: int, sfreq: float) -> NDArray[np.float64]:
        """Compute the times of n samples, with the holes between records.

        Returns
        -------
        ndarray, shape (n,)
            Seconds from the first sample.
        """
        times = np.arange(n) / sfreq
        base, first = 0.0, 0
        for record, start in enumerate(self.starts.tolist()):
            if abs(start - base - (record - first) * self.record_s) > max(CONTIGUOUS_S, 0.5 / sfreq):
                base, first = start, record
                rest = times[round(record * self.record_s * sfreq) :]
                rest[:] = start + np.arange(len(rest)) / sfreq
        return times


def read_edf(path: Path) -> EdfFile:
    """Read the header and the annotation signals.

    Raises
    ------
    RecordingError
        The header is none of EDF or BDF, or no whole record is behind it.
    """
    with path.open("rb") as file:
        head = file.read(256)
        width = 3 if head[:1] == b"\xff" else 2
        try:
            n_header, _, record_s, n_signals = (
                _number(head[start:stop]) for start, stop in ((184, 192), (236, 244), (244, 252), (252, 256))
            )
            head += file.read(256 * int(n_signals))
            fields = _fields(head[256:], int(n_signals))
            counts = [int(_number(text)) for text in fields["samples"]]
        except (ValueError, OverflowError):
            raise RecordingError(f"{path}: has no header of EDF or BDF") from None
    if not counts or path.stat().st_size < n_header + width * sum(counts):
        raise RecordingError(f"{path}: holds no whole record yet: cut short, or still being written")
    labels = [text.decode("latin-1").strip() for text in fields["label"]]
    annotation_signals = [i for i, label in enumerate(labels) if label in {"EDF Annotations", "BDF Annotations"}]
    starts, marks = _annotations(path, int(n_header), [width * count for count in counts], annotation_signals)
    offset = starts[0] if len(starts) and np.isfinite(starts[0]) else 0.0
    record_s = record_s or 1.0  # as mne has it
    signals = [i for i in range(len(labels)) if i not in annotation_signals]
    return EdfFile(
        units=tuple(fields["unit"][i].decode("latin-1").strip() for i in signals),
        rates=tuple(counts[i] / record_s for i in signals),
        record_s=record_s,
        starts=starts - offset,
        offset=offset,
        marks=tuple(Mark(mark.onset - offset, mark.duration, mark.text) for mark in marks),
    )


def _number(text: bytes) -> float:
    return float(text.decode("latin-1").strip("\x00 ").replace(",", "."))


def _fields(head: bytes, n_signals: int) -> dict[str, list[bytes]]:
    """Split the signals' header into its blocks, one entry a signal."""
    fields, place = {}, 0
    for name, width in _FIELDS.items():
        # The four ranges stand in blocks of their own, which are not needed here.
        size = width * n_signals
        fields[name] = [head[place + width * i : place + width * (i + 1)] for i in range(n_signals)]
        place += size
    return fields


def _annotations(
    path: Path, at: int, sizes: list[int], annotation_signals: list[int]
) -> tuple[NDArray[np.float64], list[Mark]]:
    """Read from each record its start, by the first annotation signal, and what the annotation signals hold."""
    if not annotation_signals or not sum(sizes):
        return np.empty(0), []
    content = np.memmap(path, dtype=np.uint8, mode="r")[at:]
    records = content[: len(content) // sum(sizes) * sum(sizes)].reshape(-1, sum(sizes))
    begins = np.concatenate([[0], np.cumsum(sizes)])
    starts = np.full(len(records), np.nan)
    marks: list[Mark] = []
    for row, record in enumerate(records):
        for signal in annotation_signals:
            text = record[begins[signal] : begins[signal + 1]].tobytes() + b"\x00"
            for order, (onset, duration, texts) in enumerate(_TAL.findall(text)):
                words = texts.split(b"\x14")
                if signal == annotation_signals[0] and not order and not words[0]:
                    starts[row] = float(onset)
                marks += [Mark(float(onset), float(duration or 0), word) for word in words if word]
    return starts, marks
