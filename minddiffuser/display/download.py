"""A session as a zip file, made while it is sent."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime


class _Sent(io.RawIOBase):
    """Takes what a writer writes, and gives it on; it cannot go back, so `zipfile` writes straight ahead."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """Return what was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def zipped(files: Iterable[tuple[str, bytes]], folder: str) -> Iterator[bytes]:
    """Yield the bytes of a zip file that holds `files` in a folder.

    Parameters
    ----------
    files : iterable of (str, bytes)
        Name and content; read one at a time.
    folder : str
        Name of the folder that all of them lie in.
    """
    sent = _Sent()
    now = datetime.now(UTC).timetuple()[:6]
    with zipfile.ZipFile(sent, "w") as archive:
        for name, content in files:
            entry = zipfile.ZipInfo(f"{folder}/{name}", now)
            # Picture files do not get smaller.
            entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith((".json", ".csv")) else zipfile.ZIP_STORED
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, content)
            yield sent.taken()
    yield sent.taken()
