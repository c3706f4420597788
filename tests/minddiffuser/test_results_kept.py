"""What was worked for outlives a disk that is full in the end: it lies in the temporary folder, and that is said."""

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from decoder.data.stimuli import StimulusTable, write_stimuli
from decoder.models.bundle import Bundle
from engine.models.loading import Models
from minddiffuser.cli.commands import app
from minddiffuser.errors import AppError
from stream.errors import OutputError
from stream.files.formats.npz import read_npz, write_npz
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels
from tests.disks import small_disk
from tests.minddiffuser.tinybundle import write_tiny_bundle

PICTURES, REPEATS, SFREQ = 12, 6, 100.0


@pytest.fixture(scope="module")
def config(tiny: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a recording of noise, the pictures it was recorded to, and a config that trains in seconds."""
    folder, rng = tmp_path_factory.mktemp("kept"), np.random.default_rng(0)
    names = tuple(f"picture-{k:02d}" for k in range(PICTURES))
    images = rng.integers(0, 256, (PICTURES, tiny.image_size, tiny.image_size, 3), np.uint8)
    captions = tuple((f"a picture of {k}",) for k in range(PICTURES))
    write_stimuli(StimulusTable(names, images, captions), folder / "pictures")
    shown = rng.permutation(np.tile(np.arange(PICTURES), REPEATS))
    times = np.arange(int((len(shown) + 2) * 0.5 * SFREQ)) / SFREQ
    channels = Channels(("O1", "O2", "Oz"), ("eeg",) * 3, ("V",) * 3)
    data = rng.normal(0, 1e-5, (len(times), 3)).astype(np.float32)
    stream = RecordedStream("noise", "EEG", "noise", channels, SFREQ, times, data)
    events = tuple(Event(1 + 0.5 * n, names[k]) for n, k in enumerate(shown.tolist()))
    write_npz(Recording("noise", "simulated noise", (stream,), events), folder / "noise.npz")
    raw = {
        "name": "kept",
        "data": {"dataset": "recording", "train": str(folder / "noise.npz"), "stimuli": str(folder / "pictures")},
        "source": {"name": "noise"},
        "window": {"tmin": 0.0, "tmax": 0.3},
        "decoder": {"features": ["c", "z"], "family": "ridge"},
        "engine": {"models": {"folder": tiny.spec.folder}, "device": "cpu", "threads": 1, "backend": "torch"},
    }
    (folder / "kept.yaml").write_text(yaml.safe_dump(raw), "utf-8")
    return folder / "kept.yaml"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a cache and a temporary folder of one's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path / "cache"))
    return folder


def failed(*arguments: object) -> tuple[str, str]:
    """Run a command whose output finds no room; return where that is kept, and what was printed."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(result.exception, OutputError), (result.output, result.exception)
    (where,) = re.findall(r"cannot be written \(No space left on device\); what was made is kept in (\S+)$",
                          str(result.exception))  # fmt: skip
    return where, result.stdout


def test_a_bundle_is_kept(config: Path, tmp_path: Path) -> None:
    """The whole of it lies in the temporary folder and can be loaded; the full disk has no part of it."""
    with small_disk(tmp_path / "disk", 8) as disk:
        where, _ = failed("train", config, "--out", disk / "bundle")
        assert list(disk.iterdir()) == []
    assert Bundle.load(Path(where)).meta["data"] == "simulated noise"


def test_targets_that_find_no_room_in_the_cache_cost_nothing_but_time(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Training ends well, and a warning says that they were not kept."""
    with small_disk(tmp_path / "disk", 8) as disk:
        monkeypatch.setenv("MINDDIFFUSER_CACHE", str(disk / "cache"))
        result = CliRunner().invoke(app, ["train", str(config), "--out", str(tmp_path / "bundle")])
        assert not [path for path in disk.rglob("*") if path.is_file()]
    assert result.exit_code == 0, result.exception
    assert "targets are not kept" in caplog.text
    assert Bundle.load(tmp_path / "bundle").meta["data"] == "simulated noise"


def test_a_report_is_kept_and_the_figures_are_printed(config: Path, tmp_path: Path) -> None:
    """The figures are on stdout, the page lies in the temporary folder, and the disk has no part of it.

    They are of the recording that the decoder was trained on, and say so.
    """
    result = CliRunner().invoke(app, ["train", str(config), "--out", str(tmp_path / "bundle")])
    assert result.exit_code == 0, result.exception
    assert re.search(r"^(Works|Weak|Does not work): \d of 2 measures above chance", result.stdout, re.MULTILINE)
    with small_disk(tmp_path / "disk", 8) as disk:
        where, printed = failed("evaluate", tmp_path / "bundle", "--offline", "--json", "--report", disk / "page.html")
        assert list(disk.iterdir()) == []
    answer = json.loads(printed)
    assert answer["offline"]["n"] == PICTURES * REPEATS
    assert answer["on_training_data"] is True
    assert answer["verdict"]["word"] == "Measured on training data: not a test"
    page = Path(where).read_text("utf-8")
    assert "Evaluation of kept" in page
    assert page.rstrip().endswith("</html>")


def test_maps_are_kept(config: Path, tmp_path: Path) -> None:
    """The page lies in the temporary folder with its figures."""
    result = CliRunner().invoke(app, ["train", str(config), "--out", str(tmp_path / "bundle")])
    assert result.exit_code == 0, result.exception
    with small_disk(tmp_path / "disk", 8) as disk:
        where, _ = failed("maps", tmp_path / "bundle", "--out", disk / "maps")
    assert (Path(where) / "index.html").read_text("utf-8").rstrip().endswith("</html>")
    assert len(list(Path(where).glob("*.png"))) >= 2


def test_a_bundle_is_tested_on_another_recording(config: Path, tmp_path: Path) -> None:
    """`--recording` names a test that the config does not; one without events, or of unknown pictures, is refused."""
    bundle = str(tmp_path / "bundle")
    trained = CliRunner().invoke(app, ["train", str(config), "--out", bundle, "--json"])
    assert trained.exit_code == 0, trained.exception
    assert json.loads(trained.stdout)["tested_by"] is None
    noise = read_npz(config.with_name("noise.npz"))
    (stream,) = noise.streams
    other = np.random.default_rng(1).normal(0, 1e-5, stream.data.shape).astype(np.float32)
    half = tuple(event for event in noise.events if event.label < "picture-06")
    for name, label in (("silent", None), ("strange", "nobody"), ("other", "")):
        events = tuple(replace(event, label=label or event.label) for event in half) if label is not None else ()
        run = replace(noise, name=name, streams=(replace(stream, data=other),), events=events)
        write_npz(run, tmp_path / f"{name}.npz")

    def tested(name: str) -> Result:
        file = str(tmp_path / f"{name}.npz")
        return CliRunner().invoke(app, ["evaluate", bundle, "--recording", file, "--offline", "--json"])

    answer = json.loads(tested("other").stdout)
    assert (answer["offline"]["n"], answer["offline"]["pictures"]) == (len(half), 6)
    assert answer["on_training_data"] is False
    assert answer["overlap"]["pictures"] == 1.0
    assert "Measured on training data" not in answer["verdict"]["word"]
    for name, words in (
        ("silent", "recording silent: none of its 0 events gives a window to evaluate"),
        ("strange", "markers name no picture: 'nobody'; pictures without a marker: 'picture-00'"),
        ("absent", "absent.npz: no such file"),
    ):
        refused = tested(name).exception
        assert isinstance(refused, AppError)
        assert words in str(refused)


def test_a_simulated_participant_has_its_own_test(tiny: Models, tmp_path: Path) -> None:
    """A bundle that was trained on a data set takes no recording of one's own, and says why."""
    write_tiny_bundle(tiny, tmp_path / "bundle", data={"dataset": "simulated-eeg"})
    (tmp_path / "own.xdf").touch()
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "bundle"), "--recording", str(tmp_path / "own.xdf")])
    assert isinstance(result.exception, AppError)
    assert "was trained on simulated-eeg; it goes with bundles" in str(result.exception)
