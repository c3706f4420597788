"""What a module of `stream.files.formats` states of the files that it reads."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stream.types.recording import Recording

GZIP = b"\x1f\x8b"
"""First bytes of a gzip archive."""


@dataclass(frozen=True, slots=True)
class Description:
    """What people must know of files of a form: what it is called, and where events and units are from."""

    title: str
    events: str
    units: str


@dataclass(frozen=True, slots=True)
class FileFormat:
    """Files of one suffix.

    Attributes
    ----------
    suffix : str
        End of the file's name in lower case, with every dot ('.nii.gz').
    read : callable or None
        Takes the path and returns the recording; None: read as part of a BIDS data set only.
    beginnings : tuple of bytes
        A file begins with one of these; empty: with anything.
    bids : tuple of str
        BIDS suffixes (what stands behind a name's last underscore, 'eeg') of runs in this format.
    description : Description or None
        Its row in the documentation's table, one for all suffixes that share it; None: it is not read on its own.
    """

    suffix: str
    read: Callable[[Path], Recording] | None
    beginnings: tuple[bytes, ...] = ()
    bids: tuple[str, ...] = ()
    description: Description | None = None
