"""`evaluate` takes what the page promises it takes: a session's folder, an archive, and the zip of a download."""

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from engine.models.loading import Models
from minddiffuser.archive.archive import Archive, entries
from minddiffuser.archive.sessions_kept import holds_sessions, session_folder
from minddiffuser.cli.commands import app
from minddiffuser.config.spec import ArchiveSpec
from minddiffuser.display.download import zipped
from minddiffuser.errors import AppError
from minddiffuser.report.answers import evaluation
from minddiffuser.report.tables import text_of
from minddiffuser.workflows.evaluate_session import evaluate_session
from tests.minddiffuser.test_archive import fill


def session_of(folder: Path, models_folder: str, **about: object) -> Archive:
    """Archive six windows of a simulated session that was made with some models."""
    config = {"name": "demo", "engine": {"models": {"folder": models_folder}}}
    kept = Archive(ArchiveSpec(folder=folder), "lab", {"data": "simulated EEG", "config": config, **about})
    fill(kept, 6)
    return kept


@pytest.fixture
def archive(tmp_path: Path, tiny: Models) -> Archive:
    """Archive six windows of a simulated session."""
    return session_of(tmp_path / "archive", tiny.spec.folder)


def test_the_pages_zip_is_scored_as_the_folder_is(archive: Archive, tmp_path: Path) -> None:
    """Folder, archive of one session and zip give the same figures; the verdict and the report name what was given."""
    zip_file = tmp_path / "lab.zip"
    zip_file.write_bytes(b"".join(zipped(entries(archive.folder), "lab")))
    of_folder = evaluate_session(archive.folder).answer
    assert of_folder["stage2"]["two_way"] == of_folder["stage2"]["two_way_clip"] == 1.0
    assert of_folder["stage1"]["two_way_clip"] < 1.0
    assert of_folder["verdict"]["word"] == "Works"
    found = evaluate_session(zip_file, page=True)
    same = {key: found.answer[key] for key in of_folder if key != "verdict"}
    assert same == {key: value for key, value in of_folder.items() if key != "verdict"}
    assert found.answer["verdict"]["reason"] == of_folder["verdict"]["reason"]
    assert str(zip_file) in found.answer["verdict"]["next_step"]
    assert found.page is not None
    assert f"minddiffuser evaluate {zip_file}" in found.page
    assert "6 published, 0 rejected" in " ".join(found.page.split())
    examples = found.answer["examples"]
    assert [one["group"] for one in examples] == ["best"] * 2 + ["median"] * 2 + ["worst"] * 2
    assert len({one["window"] for one in examples}) == len(examples)
    assert holds_sessions(zip_file)
    assert holds_sessions(tmp_path / "archive")
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "archive")])
    assert result.exit_code == 0, result.exception
    assert "Session lab: simulated EEG" in result.stdout
    assert "Works: 3 of 3 measures above chance" in result.stdout


@pytest.mark.parametrize(
    ("folder", "versions", "reason"),
    [
        ("nobody/has-these-models", {}, "no folder and no reachable hub model 'nobody/has-these-models'"),
        ("", {"models": "f" * 64}, "are not those that the session was made with"),
    ],
    ids=["not here", "others"],
)
def test_where_the_models_are_not_at_hand_pixels_are_scored_and_it_is_said(
    tmp_path: Path, tiny: Models, folder: str, versions: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the session's models there are no figures by CLIP, with the reason; nothing is fetched for them."""

    def connect(*_: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("socket.socket.connect", connect)
    kept = session_of(tmp_path / "archive", folder or tiny.spec.folder, versions=versions)
    answer = evaluate_session(kept.folder).answer
    assert reason in answer["without_clip"]
    assert answer["stage2"]["two_way"] == 1.0
    assert "two_way_clip" not in answer["stage2"]
    text = text_of(evaluation(answer))
    assert f"No figures by CLIP: {answer['without_clip']}." in " ".join(text.split())
    assert "Works: 2 of 2 measures above chance" in text


def test_of_several_sessions_one_must_be_named(archive: Archive, tmp_path: Path) -> None:
    """An archive of two sessions lists them; a folder of none says so."""
    other = Archive(ArchiveSpec(folder=tmp_path / "archive"), "room", {})
    with (
        pytest.raises(AppError, match="an archive of 2 sessions; name one") as caught,
        session_folder(tmp_path / "archive"),
    ):
        pass
    assert str(other.folder) in str(caught.value)
    assert not holds_sessions(tmp_path)


def zip_of(**files: bytes) -> bytes:
    """Make a zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a zip of a session"),
        (b"PK\x03\x04 and then nothing", "not a zip of a session"),
        (zip_of(readme=b"hello"), "holds no session.json"),
        (zip_of(**{"lab/session.json": b"0" * (9 * 2**20)}), "session.json is larger than"),
        (zip_of(**{"lab/session.json": b"{"}), "session.json"),
    ],
    ids=["empty", "broken", "other", "bomb", "no JSON"],
)
def test_another_zip_is_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    """What is no session, or a trap, is named with its file."""
    (tmp_path / "some.zip").write_bytes(content)
    with pytest.raises(AppError, match=words) as caught:
        evaluate_session(tmp_path / "some.zip")
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=20)  # each writes files
@given(
    st.lists(
        st.sampled_from(
            ["../../escaped.json", "/etc/escaped.json", "lab/..", "lab/a.picture.jpg", "a\\..\\b.json", "x.sh"]
        )
    )
)
def test_nothing_of_a_zip_lands_outside_its_folder(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """Whatever its members are called, only plain names are unpacked, side by side, and all goes at the end."""
    place = tmp_path_factory.mktemp("zips")
    (place / "some.zip").write_bytes(zip_of(**{"lab/session.json": b"{}"}, **dict.fromkeys(names, b"{}")))
    with session_folder(place / "some.zip") as folder:
        inside = {path.name for path in folder.iterdir()}
        assert inside <= {"session.json", "escaped.json", "a.picture.jpg"}
        assert "session.json" in inside
    assert not folder.exists()
    assert [path.name for path in place.iterdir()] == ["some.zip"]
