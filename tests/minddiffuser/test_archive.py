"""The archive of a session: what is kept, what goes when it is full, and what others may have left there."""

import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from minddiffuser.archive.archive import ABOUT, Archive, entries, read_about, read_received
from minddiffuser.archive.framefiles import file_stem, save
from minddiffuser.archive.windowtable import WINDOWS
from minddiffuser.config.spec import ArchiveSpec
from minddiffuser.errors import AppError
from minddiffuser.workflows.evaluate_session import evaluate_session
from stream.mqtt.frames import Frame

KINDS = ("original", "preview", "picture")


def picture(value: int) -> bytes:
    """Make a PNG whose pattern follows from a number."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def frames_of(window: int, **meta: object) -> list[Frame]:
    """All frames of one window: the final picture is the original, the preview another picture."""
    files = {"original": picture(window), "preview": picture(1000 + window), "picture": picture(window)}
    digests = {kind: hashlib.sha256(data).hexdigest() for kind, data in files.items()}
    about = {"window_id": f"{window:05d}-x", "event": {"label": f"label {window}"}, "sha256": digests, **meta}
    return [Frame("lab", f"{window:05d}-x", kind, {**about, "stage": kind}, files) for kind in KINDS]


def fill(archive: Archive, windows: int, first: int = 0) -> None:
    """Archive some windows."""
    for window in range(first, first + windows):
        for frame in frames_of(window):
            archive.add(frame)


def windows_in(folder: Path) -> list[str]:
    """Windows whose final picture is in a folder."""
    return sorted(path.name.split(".")[0] for path in folder.glob("*.picture.json"))


def test_an_archive_is_what_evaluate_reads(tmp_path: Path) -> None:
    """Scores from the archive alone: a final picture that is the original is perfect, the preview is not."""
    archive = Archive(ArchiveSpec(folder=tmp_path), "lab", {"data": "simulated EEG", "config": {"name": "demo"}})
    fill(archive, 6)
    archive.add(Frame("lab", "00009-x", "abstained", {"window_id": "00009-x", "stage": "abstained", "sha256": {}}))
    answer = evaluate_session(archive.folder).answer
    assert (answer["pictures"], answer["abstained"], answer["removed"]) == (6, 1, 0)
    assert (answer["data"], answer["config"], answer["n"]) == ("simulated EEG", "demo", 6)
    assert answer["stage2"]["pixcorr"] == 1.0
    assert answer["stage2"]["two_way"] == 1.0
    assert abs(answer["stage1"]["pixcorr"]) < 0.5
    assert {"mean_image", "chance"} <= set(answer)
    json.dumps(answer)


def test_what_was_published_is_what_is_kept(tmp_path: Path) -> None:
    """Every file holds the bytes that were published, and what the broker kept from an earlier session is left out."""
    archive = Archive(ArchiveSpec(folder=tmp_path), "lab", {})
    fill(archive, 1)
    (stale, *_) = frames_of(7)
    archive.add(Frame("lab", stale.window_id, stale.stage, stale.meta, stale.pictures, retained=True))
    assert windows_in(archive.folder) == ["00000-x"]
    assert (archive.folder / "00000-x.picture.png").read_bytes() == picture(0)
    assert json.loads((archive.folder / "00000-x.picture.json").read_text())["event"] == {"label": "label 0"}
    assert not list(archive.folder.glob("*.part"))


@pytest.mark.parametrize("limits", [{"max_windows": 3}, {"max_megabytes": 3.9 * 3 * 3500 / 1e6}])
def test_the_oldest_windows_go_first(tmp_path: Path, limits: dict[str, float]) -> None:
    """Beyond a limit on count or bytes the oldest windows go, whole, and the folder says how many."""
    archive = Archive(ArchiveSpec.model_validate({"folder": tmp_path, **limits}), "lab", {})
    fill(archive, 10)
    assert windows_in(archive.folder) == ["00007-x", "00008-x", "00009-x"]
    assert len(list(archive.folder.glob("0000[0-6]*"))) == 0
    assert archive.removed == read_about(archive.folder)["removed"] == 7


def test_limits_hold_over_sessions_and_spare_strangers(tmp_path: Path) -> None:
    """Earlier sessions go first, an empty one goes whole, and nothing that is not ours is ever removed."""
    first = Archive(ArchiveSpec(folder=tmp_path), "old", {})
    fill(first, 2)
    second = Archive(ArchiveSpec(folder=tmp_path), "newer", {})
    fill(second, 2, first=2)
    strange = tmp_path / "thesis"
    strange.mkdir()
    (strange / "chapter.picture.png").write_text("mine")
    (second.folder / "notes.txt").write_text("mine too")
    for age, archive in ((300, first), (200, second)):
        for path in archive.folder.iterdir():
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    third = Archive(ArchiveSpec(folder=tmp_path, max_windows=3), "newest", {})
    fill(third, 2, first=4)
    assert not first.folder.exists()
    assert windows_in(second.folder) == ["00003-x"]
    assert read_about(second.folder)["removed"] == 1
    fill(third, 2, first=6)
    assert windows_in(second.folder) == []
    assert (second.folder / "notes.txt").exists()
    assert (strange / "chapter.picture.png").read_text() == "mine"


def test_old_windows_go_by_age(tmp_path: Path) -> None:
    """What is older than `max_days` goes when the next session begins."""
    old = Archive(ArchiveSpec(folder=tmp_path), "old", {})
    fill(old, 2)
    for path in old.folder.glob("00000*"):
        os.utime(path, (0, path.stat().st_mtime - 3 * 86400))
    Archive(ArchiveSpec(folder=tmp_path, max_days=2), "new", {})
    assert windows_in(old.folder) == ["00001-x"]


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    """An archive that cannot be written is refused with its name."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AppError, match=r"cannot keep an archive in .*file"):
        Archive(ArchiveSpec(folder=tmp_path / "file"), "lab", {})


@given(
    st.sampled_from([ABOUT, "00000-x.picture.json", "00000-x.picture.png", "00001-x.original.png"]),
    st.binary(max_size=200),
    st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_broken_archives_are_one_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, junk: bytes, keep_start: bool
) -> None:
    """Whatever a file of an archive holds, evaluating it gives figures or one line, and nothing else."""
    archive = Archive(ArchiveSpec(folder=tmp_path_factory.mktemp("archive")), "lab", {})
    fill(archive, 2)
    path = archive.folder / name
    path.write_bytes((path.read_bytes()[:40] if keep_start else b"") + junk)
    message = name
    try:
        evaluate_session(archive.folder)
    except AppError as error:
        message = str(error)
    assert name in message
    assert "\n" not in message


def test_a_picture_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    """A small file that would unpack to gigabytes is not unpacked."""
    archive = Archive(ArchiveSpec(folder=tmp_path), "lab", {})
    fill(archive, 1)
    path = archive.folder / "00000-x.picture.png"
    content = bytearray(path.read_bytes())
    content[16:24] = (60000).to_bytes(4) * 2
    path.write_bytes(content)
    with pytest.raises(AppError, match=r"00000-x.picture.png"):
        read_received(archive.folder)


def test_entries_are_the_archive_and_nothing_else(tmp_path: Path) -> None:
    """A download holds the session's files, not what lies beside them."""
    archive = Archive(ArchiveSpec(folder=tmp_path), "lab", {})
    fill(archive, 1)
    (archive.folder / ".secret").write_text("x")
    names = {name for name, _ in entries(archive.folder)}
    assert names == {ABOUT, WINDOWS, *(f"00000-x.{kind}.{suffix}" for kind in KINDS for suffix in ("png", "json"))}


IDS = st.one_of(
    st.text(min_size=1),
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=3),
    st.sampled_from(
        ["..", ".", "../../x", "/etc/passwd", "CON", "nul", "-rf", "a/b", "x" * 500, "x" * 501, "w.picture"]
    ),
)


@given(IDS, IDS)
def test_file_names_stay_in_their_folder_and_apart(one: str, other: str) -> None:
    """Whatever a window is called, its file lies in the folder, and two windows never share one."""
    assert Path(file_stem(one)).name == file_stem(one)
    assert file_stem(one) not in {".", ".."}
    assert (file_stem(one) == file_stem(other)) == (one == other)


@given(IDS)
def test_file_names_are_plain_on_every_system(window_id: str) -> None:
    """No name is an option, hidden, a device of Windows or too long, and no id can be made that takes another's."""
    stem = file_stem(window_id)
    assert stem.upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1"}
    assert not stem.startswith(("-", "."))
    assert len(f"{stem}.picture.json.part") <= 130
    assert file_stem(stem) == stem if stem == window_id else file_stem(stem) != stem


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Let the system refuse to write files beyond a size, half-way, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_no_stump_and_costs_what_it_could_not_take(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What breaks off half-way is removed, counted and named; once there is room again the archive goes on."""
    archive = Archive(ArchiveSpec(folder=tmp_path), "lab", {})
    fill(archive, 1)
    before = sorted(path.name for path in archive.folder.iterdir())
    with files_end_at(2000):  # the metas fit, the pictures do not
        fill(archive, 2, first=1)
    assert sorted(path.name for path in archive.folder.iterdir()) == before
    assert "original of window '00001-x' is not archived: cannot save pictures in" in caplog.text
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    fill(archive, 1, first=3)
    assert windows_in(archive.folder) == ["00000-x", "00003-x"]
    assert archive.account() == {"kept": 6, "failed": 6, "removed": 0, "lost": 0}


def test_a_meta_that_cannot_be_written_takes_its_picture_along(tmp_path: Path) -> None:
    """A frame is there whole or not at all: where the meta breaks off, the picture written before goes too."""
    (frame, *_) = frames_of(1, note="x" * 10_000)
    with files_end_at(8000), pytest.raises(AppError, match="cannot save pictures in"):
        save(frame, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_old_sessions_folder_removed_by_hand_is_no_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The running session's frames are all kept when its limit reaches for a folder that is gone."""
    spec = ArchiveSpec(folder=tmp_path, max_windows=3)
    old = Archive(spec, "old", {})
    fill(old, 3)
    new = Archive(spec, "new", {})
    shutil.rmtree(old.folder)
    fill(new, 3, first=10)
    assert windows_in(new.folder) == ["00010-x", "00011-x", "00012-x"]
    assert (new.failed, new.removed) == (0, 3)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_an_old_session_that_cannot_be_described_is_no_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An old session whose account is rubbish, or a folder now, loses its windows as the limit wants, and says so."""
    spec = ArchiveSpec(folder=tmp_path, max_windows=2)
    for name in ("one", "two"):
        fill(Archive(spec, name, {}), 1)
    new = Archive(spec, "new", {})
    for path in tmp_path.glob("one-*"):
        (path / ABOUT).write_text('{"x":' + "[" * 5000)
    for path in tmp_path.glob("two-*"):
        (path / ABOUT).unlink()
        (path / ABOUT).mkdir()
    fill(new, 2, first=10)
    assert windows_in(new.folder) == ["00010-x", "00011-x"]
    assert new.failed == 0
    assert "does not say that 1 of its windows are gone" in caplog.text


def test_the_sessions_own_folder_removed_by_hand_begins_anew(tmp_path: Path) -> None:
    """Frames after it are kept in a folder that is an archive again, and the limits count what is there."""
    archive = Archive(ArchiveSpec(folder=tmp_path, max_windows=3), "lab", {"data": "simulated EEG"})
    fill(archive, 3)
    shutil.rmtree(archive.folder)
    fill(archive, 3, first=3)
    assert windows_in(archive.folder) == ["00003-x", "00004-x", "00005-x"]
    assert read_about(archive.folder)["data"] == "simulated EEG"
    assert archive.removed == 0


def test_a_download_of_a_folder_that_is_gone_is_empty(tmp_path: Path) -> None:
    """An archive that was removed, or holds what cannot be read, gives what there is and no error."""
    archive = Archive(ArchiveSpec(folder=tmp_path), "lab", {})
    fill(archive, 1)
    (archive.folder / "00001-x.picture.png").mkdir()
    assert len(list(entries(archive.folder))) == 8
    shutil.rmtree(archive.folder)
    assert list(entries(archive.folder)) == []


@pytest.mark.parametrize("kept", ["nothing", "window", "note", "problem", "samples"])
def test_a_session_that_kept_nothing_leaves_no_folder(tmp_path: Path, kept: str) -> None:
    """A failed start leaves nothing behind; whatever came or was wrong stays, and other sessions' folders do."""
    root = tmp_path / "archive"
    archive = Archive(ArchiveSpec(folder=root), "lab", {})
    if kept == "window":
        fill(archive, 1)
    elif kept == "note":
        archive.note({"time": 1.0, "wall": "2026-01-01T00:00:00Z", "text": "hello"})
    elif kept == "problem":
        archive.problems(["the stream is lost"])
    archive.finish({"ingest": {"samples": 250 if kept == "samples" else 0}})
    archive.discard_if_empty()
    assert archive.folder.exists() is root.exists() is (kept != "nothing")
    other = Archive(ArchiveSpec(folder=root), "other", {})
    fill(other, 1)
    Archive(ArchiveSpec(folder=root), "failed", {}).discard_if_empty()
    assert sorted(path.name for path in root.iterdir()) == sorted(
        [other.folder.name, *([archive.folder.name] if kept != "nothing" else [])]
    )
