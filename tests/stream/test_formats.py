"""Formats of recordings have one registry, filled from one module each."""

from pathlib import Path

import pytest

from stream.errors import RecordingError
from stream.files import formats
from stream.files.file_format import FileFormat
from stream.files.registry import read
from stream.types.recording import Recording

ROOT = Path(__file__).resolve().parents[2]


def test_no_suffix_belongs_to_two_formats() -> None:
    """Each module's entries are there, and no module takes another's suffix."""
    entries = [
        entry.suffix
        for path in Path(formats.__file__).parent.glob("[!_]*.py")
        for entry in __import__(f"stream.files.formats.{path.stem}", fromlist=["FORMATS"]).FORMATS
    ]
    assert sorted(entries) == sorted(formats.FORMATS)


def test_an_entry_is_all_that_a_format_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a new entry is read by its reader, and refused where it begins otherwise than the entry says."""
    entry = FileFormat(".abc", lambda path: Recording(path.name, "test", (), ()), (b"ABC",))
    monkeypatch.setitem(formats.FORMATS, ".abc", entry)
    (tmp_path / "x.abc").write_bytes(b"ABC of samples")
    assert read(tmp_path / "x.abc").name == "x.abc"
    (tmp_path / "y.abc").write_bytes(b"text, and no samples")
    with pytest.raises(RecordingError, match=r"is named \.abc, and holds text"):
        read(tmp_path / "y.abc")


def test_nothing_else_lists_suffixes() -> None:
    """No module outside the formats names two suffixes of recordings in one line."""
    lines = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "stream").rglob("*.py")
        if path.parent.name != "formats"
        for line in path.read_text("utf-8").splitlines()
        if sum(f'"{suffix}"' in line for suffix in formats.FORMATS) > 1
    ]
    assert not lines, lines
