"""What a file's first bytes say it is, so that a wrong ending or an empty file is told in one line."""

import struct
from pathlib import Path

from stream.errors import RecordingError

_GZIP, _ZIP = b"\x1f\x8b", b"PK"
_BEGINNINGS: dict[str, tuple[bytes, ...]] = {
    ".npz": (_ZIP,),
    ".edf": (b"0",),
    ".bdf": (b"\xff",),
    ".xdf": (b"XDF:",),
    ".vhdr": (b"Brain", b"\xef\xbb\xbfBrain", b";"),
    ".set": (b"MATLAB", b"\x89HDF"),
    ".fif": (struct.pack(">i", 100),),
    ".nii": (struct.pack("<i", 348), struct.pack(">i", 348), struct.pack("<i", 540), struct.pack(">i", 540)),
    ".gz": (_GZIP,),
}
"""By ending: how a file of that form begins."""
_KNOWN = {
    b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"%PDF": "a PDF", b"\x89HDF": "an HDF5 file",
    _ZIP: "a ZIP archive", _GZIP: "a gzip archive", b"XDF:": "an XDF recording", b"Brain": "a BrainVision header",
    b"MATLAB": "a MATLAB file", b"\xffBIOSEMI": "a BDF recording", b"0       ": "an EDF recording",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself", b"GIF8": "a GIF picture",
    struct.pack(">i", 100): "a FIF file",
}  # fmt: skip


def check_signature(path: Path) -> None:
    """Check that a recording begins as its ending says.

    Raises
    ------
    RecordingError
        It is empty, or something else.
    """
    with path.open("rb") as file:
        begin = file.read(32)
    if not begin:
        raise RecordingError(f"{path}: the file is empty (0 bytes); copy it anew, or wait until it is written")
    name = path.name.lower()
    ending = next((each for each in (".gz", *_BEGINNINGS) if name.endswith(each)), "")
    if ending in _BEGINNINGS and not begin.startswith(_BEGINNINGS[ending]):
        known = next((words for magic, words in _KNOWN.items() if begin.startswith(magic)), "")
        what = known or ("text" if all(byte >= 32 or byte in b"\t\r\n" for byte in begin) else "something else")
        raise RecordingError(f"{path}: is named {ending}, and holds {what}; give it the ending of what it is")
