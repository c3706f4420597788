"""Files and folders are written whole or not at all, it is known before whether they can be, and nothing is lost."""

import os
import re
import stat
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.atomic import check_file, check_folder, whole_file, whole_folder, write_whole, write_with_fallback
from stream.errors import OutputError, RecordingError
from stream.files.xdf_writer import XdfWriter
from tests.disks import read_only, small_disk


def left(folder: Path) -> list[str]:
    """List all that lies in a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_good_place_passes_and_nothing_is_left_there(tmp_path: Path) -> None:
    """New and existing files and folders, missing parents, links and devices all pass."""
    (tmp_path / "old.html").write_text("old")
    (tmp_path / "link.html").symlink_to(tmp_path / "target.html")
    before = left(tmp_path)
    for name in ("new.html", "old.html", "link.html", "a/b/new.html", "n" * 255):
        check_file(tmp_path / name)
    check_file(Path(os.devnull))
    check_folder(tmp_path)
    check_folder(tmp_path / "a" / "b")
    assert left(tmp_path) == before


def test_a_bad_place_is_named_with_the_reason(tmp_path: Path) -> None:
    """A folder for a file, a file for a folder, one inside a file, one that exists, and a name that cannot be."""
    (tmp_path / "file").write_text("x")
    refused = {
        "is a folder": lambda: check_file(tmp_path),
        "exists already": lambda: check_file(tmp_path / "file", new=True),
        "is a file; name a folder": lambda: check_folder(tmp_path / "file"),
        "file: is a file; no folder": lambda: check_file(tmp_path / "file" / "deep" / "x"),
        "is a file; no folder can": lambda: check_folder(tmp_path / "file" / "deep"),
        "File name too long": lambda: check_file(tmp_path / ("n" * 256)),
        "null": lambda: check_file(tmp_path / "a\0b"),
        "cannot be written": lambda: check_file(Path("/proc/report.html")),
    }
    for reason, check in refused.items():
        with pytest.raises(OutputError, match=reason) as caught:
            check()
        assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    """Read-only folders and full disks are told from those that will do."""
    with read_only(tmp_path / "ro") as folder:
        for check, path in ((check_file, folder / "x"), (check_folder, folder), (check_file, folder / "a" / "b" / "x")):
            with pytest.raises(OutputError, match=r"cannot be written \((Read-only file system|Permission denied)\)"):
                check(path)
    with small_disk(tmp_path / "small", 16) as folder:
        check_file(folder / "x")
        (folder / "big").write_bytes(bytes(16 * 1024))
        with pytest.raises(OutputError, match="No space left on device"):
            check_file(folder / "x")
        assert left(folder) == ["big"]


@given(old=st.none() | st.binary(max_size=50), new=st.binary(max_size=50), fails=st.booleans())
def test_a_file_is_the_old_one_or_the_new_one(
    tmp_path_factory: pytest.TempPathFactory, old: bytes | None, new: bytes, fails: bool
) -> None:
    """Whatever happens on the way, the file holds all of the old or all of the new, and nothing lies beside it."""
    path = tmp_path_factory.mktemp("whole") / "deep" / "file"
    if old is not None:
        write_whole(path, old)
    try:
        with whole_file(path) as file:
            file.write(new)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    expected = old if fails else new
    assert left(path.parent) == ([] if expected is None else ["file"])
    assert expected is None or path.read_bytes() == expected


def test_modes_and_links_stay(tmp_path: Path) -> None:
    """A new file has the user's rights, an old one keeps its own, a link goes on pointing where it did."""
    mask = os.umask(0o027)
    try:
        write_whole(tmp_path / "new", "text é")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert (tmp_path / "new").read_text("utf-8") == "text é"
    (tmp_path / "new").chmod(0o604)
    (tmp_path / "link").symlink_to("new")
    write_whole(tmp_path / "link", b"second")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new").read_bytes() == b"second"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604


def test_a_device_or_a_pipe_is_written_to_and_stays_what_it_is(tmp_path: Path) -> None:
    """Nothing is put in the place of /dev/null or a named pipe."""
    write_whole(Path(os.devnull), b"nobody reads this")
    assert Path(os.devnull).is_char_device()
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"through the pipe")
    reader.join(30)
    assert got == [b"through the pipe"]
    assert pipe.is_fifo()


def test_a_full_disk_leaves_no_stump_and_the_old_file(tmp_path: Path) -> None:
    """What does not fit leaves the disk as it was."""
    with small_disk(tmp_path / "disk", 32) as folder:
        write_whole(folder / "report", "old")
        with pytest.raises(OSError, match="No space left"):
            write_whole(folder / "report", bytes(100_000))

        def fill() -> None:
            with whole_folder(folder / "bundle") as scratch:
                (scratch / "weights").write_bytes(bytes(100_000))

        with pytest.raises(OSError, match="No space left"):
            fill()
        assert left(folder) == ["report"]
        assert (folder / "report").read_text() == "old"


def test_what_was_made_is_kept_elsewhere_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the place fails after all, the message says where the result lies, whole; else nothing is written twice."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    page = "x" * 100_000
    assert write_with_fallback(tmp_path / "good", lambda path: write_whole(path, page)) is None
    assert left(tmp_path / "temporary") == []
    with small_disk(tmp_path / "disk", 32) as folder:
        with pytest.raises(OutputError, match=r"report\.html: cannot be written \(No space left on device\)") as caught:
            write_with_fallback(folder / "report.html", lambda path: write_whole(path, page))
        assert left(folder) == []
    (where,) = re.findall(r"kept in (\S+)", str(caught.value))
    assert Path(where).read_text() == page


def test_where_nothing_can_be_kept_both_reasons_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the temporary folder is full too, it is said that nothing is kept, and no stump stays."""
    with small_disk(tmp_path / "disk", 32) as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with pytest.raises(OutputError, match="nothing is kept"):
            write_with_fallback(folder / "report.html", lambda path: write_whole(path, bytes(100_000)))
        assert left(folder) == []


def test_a_recording_without_room_to_begin_leaves_no_stump(tmp_path: Path) -> None:
    """An XDF file whose first chunk does not fit is taken back, and the error names it."""
    with small_disk(tmp_path / "disk", 4) as folder:
        (folder / "fill").write_bytes(bytes(4096))
        with pytest.raises(
            RecordingError, match=r"new\.xdf: cannot be written any further \(No space left on device\)"
        ):
            XdfWriter(folder / "new.xdf")
        assert left(folder) == ["fill"]
