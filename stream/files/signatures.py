"""What a file is by its first bytes, for errors about files that are something else."""

import struct

_KNOWN = {
    b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"%PDF": "a PDF", b"\x89HDF": "an HDF5 file",
    b"PK": "a ZIP archive", b"\x1f\x8b": "a gzip archive", b"XDF:": "an XDF recording",
    b"Brain": "a BrainVision header",
    b"MATLAB": "a MATLAB file", b"\xffBIOSEMI": "a BDF recording", b"0       ": "an EDF recording",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself", b"GIF8": "a GIF picture",
    struct.pack(">i", 100): "a FIF file",
}  # fmt: skip


def known_form(begin: bytes) -> str:
    """Return what a file is by its first bytes ('an XDF recording'); '' where that is not known."""
    return next((words for magic, words in _KNOWN.items() if begin.startswith(magic)), "")
