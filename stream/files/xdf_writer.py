"""XDF files, chunk by chunk (specification: github.com/sccn/xdf/wiki/Specifications)."""

import contextlib
import os
import struct
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordingError

FILE_HEADER, STREAM_HEADER, SAMPLES, CLOCK_OFFSET, BOUNDARY, STREAM_FOOTER = range(1, 7)
BOUNDARY_UUID = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")


class XdfWriter:
    """Writes one XDF file; what a call has written is a whole chunk, readable whatever happens next.

    Nothing is buffered here: a killed process leaves every chunk behind, a machine that loses power those before the
    last `flush`. A chunk that could not be written whole (disk full) is taken back, so the file stays well-formed.

    Parameters
    ----------
    path : Path
        Must not exist yet.

    Attributes
    ----------
    size : int
        Bytes of whole chunks.

    Raises
    ------
    RecordingError
        The file exists, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._streams = 0
        try:
            self._file = path.open("xb", buffering=0)
        except FileExistsError:
            raise RecordingError(f"{path}: exists already; choose another name") from None
        except OSError as error:
            raise RecordingError(f"{path}: cannot be written ({error.strerror})") from None
        begun = datetime.now().astimezone().isoformat(timespec="milliseconds")
        header = f'<?xml version="1.0"?><info><version>1.0</version><datetime>{begun}</datetime></info>'
        try:
            self._put(b"XDF:")
            self._chunk(FILE_HEADER, header.encode())
        except RecordingError:  # no room for the beginning: there is nothing worth keeping
            self._file.close()
            path.unlink(missing_ok=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def stream(self, header: str) -> int:
        """Begin a stream; `header` is its XML as LSL gives it. Returns its id in the file."""
        self._streams += 1
        self._chunk(STREAM_HEADER, struct.pack("<I", self._streams) + header.encode())
        return self._streams

    def samples(self, stream: int, stamps: NDArray[np.float64], data: NDArray[Any]) -> None:
        """Append samples of a stream.

        Parameters
        ----------
        stream : int
        stamps : ndarray, shape (n,)
            As the source stamped them, in its own clock.
        data : ndarray, shape (n, n_channels)
            Numbers in the stream's own format, or bytes objects (UTF-8).
        """
        if not len(stamps):
            return
        body = _strings(stamps, data) if data.dtype == object else _numbers(stamps, data)
        self._chunk(SAMPLES, struct.pack("<I", stream) + _varlen(len(stamps)) + body)

    def offset(self, stream: int, collected: float, value: float) -> None:
        """Note what must be added to a stream's stamps.

        Parameters
        ----------
        stream : int
        collected : float
            When this was measured, in the source's clock.
        value : float
            Seconds.
        """
        self._chunk(CLOCK_OFFSET, struct.pack("<Idd", stream, collected, value))

    def footer(
        self, stream: int, first: float, last: float, count: int, offsets: Sequence[tuple[float, float]]
    ) -> None:
        """End a stream: first and last stamp, number of samples, and all its clock offsets once more."""
        info = Element("info")
        SubElement(info, "first_timestamp").text = repr(first)
        SubElement(info, "last_timestamp").text = repr(last)
        SubElement(info, "sample_count").text = str(count)
        SubElement(info, "measured_srate").text = repr((count - 1) / (last - first) if last > first else 0.0)
        listed = SubElement(info, "clock_offsets")
        for collected, value in offsets:
            entry = SubElement(listed, "offset")
            SubElement(entry, "time").text = repr(collected)
            SubElement(entry, "value").text = repr(value)
        xml = b'<?xml version="1.0"?>' + tostring(info)
        self._chunk(STREAM_FOOTER, struct.pack("<I", stream) + xml)

    def boundary(self) -> None:
        """Set a mark by which a reader finds its way again in a damaged file."""
        self._chunk(BOUNDARY, BOUNDARY_UUID)

    def flush(self) -> None:
        """Have the disk keep what was written.

        Raises
        ------
        RecordingError
            It does not.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RecordingError(f"{self.path}: cannot be written any further ({error.strerror})") from None

    def _chunk(self, tag: int, content: bytes) -> None:
        self._put(_varlen(len(content) + 2) + struct.pack("<H", tag) + content)

    def _put(self, block: bytes) -> None:
        rest = memoryview(block)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self.size)
            raise RecordingError(f"{self.path}: cannot be written any further ({error.strerror})") from None
        self.size += len(block)


def _varlen(n: int) -> bytes:
    return struct.pack("<BI", 4, n) if n < 2**32 else struct.pack("<BQ", 8, n)


def _numbers(stamps: NDArray[np.float64], data: NDArray[Any]) -> bytes:
    row = np.dtype([("size", "u1"), ("stamp", "<f8"), ("values", data.dtype.newbyteorder("<"), (data.shape[1],))])
    table = np.empty(len(stamps), row)
    table["size"], table["stamp"], table["values"] = 8, stamps, data
    return table.tobytes()


def _strings(stamps: NDArray[np.float64], data: NDArray[Any]) -> bytes:
    return b"".join(
        struct.pack("<Bd", 8, stamp) + b"".join(_varlen(len(value)) + value for value in row)
        for stamp, row in zip(stamps.tolist(), data.tolist(), strict=True)
    )
