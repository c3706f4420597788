"""EDF and BDF files of any header: what mne's exporter would not write."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TAL_BYTES = 120

Annotation = tuple[float, float, str | bytes]


def write_edf(
    path: Path,
    labels: Sequence[str],
    units: Sequence[str],
    data: NDArray[np.integer],
    sfreq: int,
    *,
    starts: Sequence[float] = (),
    annotations: Sequence[Annotation] | None = None,
    whole_bits: bool = True,
) -> Path:
    """Write records of one second, as EDF (16 bit) or BDF (24 bit) by the path's ending.

    Parameters
    ----------
    path : Path
    labels, units : sequence of str
        One a signal, Latin-1.
    data : ndarray, shape (n_signals, n_records * sfreq)
        Digital values; the header says that they are the physical ones.
    sfreq : int
    starts : sequence of float
        When each record begins; makes the file a discontinuous one (EDF+D).
    annotations : sequence of (float, float, str or bytes), optional
        Onset, duration and text; all in the first record. None: no signal of annotations.
    whole_bits : bool
        The digital range is that of the type.
    """
    bdf = path.suffix == ".bdf"
    n_records = data.shape[1] // sfreq
    kind = ("BDF" if bdf else "EDF") + ("+D" if starts else "+C")
    told = annotations is not None or bool(starts)
    bits = 23 if bdf else 15
    low, high = (-(2**bits), 2**bits - 1) if whole_bits else (-1000, 1000)
    names = [*labels, *([f"{kind[:3]} Annotations"] if told else [])]
    width = 3 if bdf else 2
    tal_count = -(-TAL_BYTES // width)

    def field(value: object, size: int) -> bytes:
        return str(value).encode("latin-1")[:size].ljust(size)

    n = len(names)
    head = b"\xffBIOSEMI" if bdf else field("0", 8)
    head += (
        field("X X X X", 80) + field("Startdate 02-JAN-2020 X X X", 80) + field("02.01.20", 8) + field("03.04.05", 8)
    )
    head += field(256 * (n + 1), 8) + field(kind if told else "", 44) + field(n_records, 8) + field(1, 8) + field(n, 4)
    head += b"".join(field(name, 16) for name in names) + b" " * 80 * n
    head += b"".join(field(unit, 8) for unit in [*units, *[""] * told])
    for value in (low, high, low, high):
        head += b"".join(field(value, 8) for _ in names)
    head += b" " * 80 * n
    head += b"".join(field(count, 8) for count in [*[sfreq] * len(labels), *[tal_count] * told]) + b" " * 32 * n

    body = b""
    for record in range(n_records):
        part = data[:, record * sfreq : (record + 1) * sfreq]
        for signal in part:
            raw = signal.astype("<i4").tobytes()
            body += b"".join(raw[i : i + width] for i in range(0, len(raw), 4))
        if told:
            start = starts[record] if starts else float(record)
            text = f"+{start:g}\x14\x14\x00".encode()
            # Each annotation in a record's list where there is room.
            for onset, duration, label in (annotations or [])[record::n_records]:
                length = f"\x15{duration:g}" if duration else ""
                text += f"{onset:+g}{length}\x14".encode() + (label if isinstance(label, bytes) else label.encode())
                text += b"\x14\x00"
            assert len(text) <= width * tal_count
            body += text.ljust(width * tal_count, b"\x00")
    path.write_bytes(head + body)
    return path
