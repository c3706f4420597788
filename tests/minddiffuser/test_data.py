"""Recordings of one's own as a data set."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mne
import mne_bids
import numpy as np
import pytest
import yaml

from decoder.data.stimuli import StimulusTable, write_stimuli
from decoder.datasets import Dataset, together
from decoder.errors import StimulusError
from minddiffuser.config.spec import Config, DataSpec, load_config, parse_config
from minddiffuser.errors import AppError, ConfigError
from minddiffuser.training.data import Run, check_image_bank, own_recording, record_waves
from minddiffuser.training.training import cut, train_from_file
from minddiffuser.workflows.crossval import evaluate_config
from stream.epochs.ingest import windows_of
from stream.files.formats.mne_files import in_unit
from stream.files.registry import read
from stream.types.recording import RecordedStream, Recording
from stream.types.units import si_unit
from stream.types.windows import Channels
from tests.conftest import ROOT

NAMES = ["Fz", "Cz", "Pz", "Oz", "C3", "C4"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of EEG as BIDS, the second with a bad channel, and the pictures that their events name."""
    root = tmp_path_factory.mktemp("own")
    pictures = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
    write_stimuli(StimulusTable(("face1", "house2", "tree3"), pictures), root / "pictures")
    for run in ("1", "2", "3"):
        noise = np.random.default_rng(int(run)).normal(0, 1e-5, (6, 2000))
        raw = mne.io.RawArray(noise, mne.create_info(NAMES, 250, "eeg"), verbose="error")
        raw.set_annotations(mne.Annotations([1, 3, 5], [0, 0, 0], ["face1", "house2", "tree3"]))
        raw.info["bads"] = ["Cz"] if run == "2" else []
        place = mne_bids.BIDSPath(subject="01", task="see", run=run, datatype="eeg", root=root / "ds")
        mne_bids.write_raw_bids(raw, place, format="BrainVision", allow_preload=True, verbose="error")
    sidecars = (root / "ds").rglob("*run-*_eeg.json")
    for path in sidecars:
        path.write_text(path.read_text("utf-8").replace('"EEGReference": "n/a"', '"EEGReference": "FCz"'), "utf-8")
    return root


def config(tmp_path: Path, **data: Any) -> Config:
    """Give the config for one's own EEG, with another data section."""
    raw = yaml.safe_load((ROOT / "configs" / "own-eeg.yaml").read_text("utf-8"))
    raw |= {"data": {"dataset": "recording", **data}, "filters": {"interpolate": {}}, "window": {"baseline": None}}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(raw), "utf-8")
    return load_config(path)


def test_bids_runs_to_train_and_test_on(data: Path, tmp_path: Path) -> None:
    """Runs of a BIDS folder, chosen in the config, come with their events; a run's bad channel is replaced."""
    runs = [{"bids": str(data / "ds"), "subject": 1, "run": run} for run in (1, 2)]
    made = config(tmp_path, train=runs, live=runs[0] | {"run": 3}, stimuli=str(data / "pictures"))
    dataset = own_recording(made.data)
    assert (dataset.name, dataset.description) == ("sub-01_task-see_run-1_eeg", "EEG of ds")
    assert [run.name for run in dataset.train] == [f"sub-01_task-see_run-{run}_eeg.vhdr" for run in (1, 2)]
    assert dataset.live.name == "sub-01_task-see_run-3_eeg.vhdr"
    assert [event.label for event in dataset.train[0].events] == list(dataset.stimuli.ids)
    assert dataset.train[0].streams[0].channels.montage.reference == "FCz"
    assert dataset.subjects == dict.fromkeys([run.name for run in dataset.train], "01")
    whole, repaired = (cut([run], made, lambda *_: None) for run in dataset.train)
    assert whole[0].channels.montage.reference == "FCz"
    assert {window.quality.interpolated for window in whole} == {()}
    assert {window.quality.interpolated for window in repaired} == {("Cz",)}
    forgiving = made.filters.model_copy(update={"interpolate": None})
    plain = list(windows_of(dataset.train[1], made.window, forgiving))
    assert not np.allclose(plain[0].data[1], repaired[0].data[1])
    np.testing.assert_array_equal(plain[0].data[2], repaired[0].data[2])


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"bids": "ds", "subjct": "01"}, r"data\.train\.subjct: unknown key; did you mean 'subject'"),
        ({"subject": "01"}, r"data\.train\.bids: is missing"),
        ([{"bids": "ds"}, 7], r"data\.train\.1: expected a path, got 7"),
    ],
)
def test_a_wrong_run_is_named_by_its_place(tmp_path: Path, train: Any, said: str) -> None:
    """What is wrong in a run's description is one line with the key."""
    with pytest.raises(ConfigError, match=said) as caught:
        config(tmp_path, train=train)
    assert "\n" not in str(caught.value)


def test_one_file_is_a_list_of_one(tmp_path: Path) -> None:
    """A calibration recording may be named without a list, as a file or as a run."""
    assert config(tmp_path, train="x.xdf").data.train == (Path("x.xdf"),)
    assert config(tmp_path, train={"bids": "ds"}).data.train[0].bids == Path("ds")  # type: ignore[union-attr]
    assert config(tmp_path).data.train == ()


def test_the_sources_unit_holds_for_files_that_state_none() -> None:
    """Numbers without a unit are taken in the one that the config states; those that have one, and spikes, stay."""
    channels = Channels(("a", "b", "c"), ("eeg", "eeg", "unit"), ("count", "V", "count"))
    stream = RecordedStream("s", "EEG", "s", channels, 10.0, np.arange(2) / 10, np.ones((2, 3), np.float32))
    recording = Recording("r", "d", (stream,), ())
    assert in_unit(recording, None) is recording
    (out,) = in_unit(recording, "uV").streams
    assert out.channels.units == ("V", "V", "count")
    np.testing.assert_allclose(out.data[0], [si_unit("uV")[1], 1, 1], rtol=1e-6)


def test_participants_of_one_config_are_side_by_side() -> None:
    """Their recordings are told apart and named by participant; the first one's test recording is the live one."""

    def of(subject: int) -> Dataset:
        pictures = np.full((2, 2, 2, 3), 7, np.uint8)
        run, test = (Recording(name, "simulated EEG", (), ()) for name in ("calibration", "test"))
        return Dataset("s", "simulated EEG", (run,), test, StimulusTable(("shared", f"own{subject}"), pictures))

    both = together({"subject 1": of(1), "subject 3": of(3)})
    assert [run.name for run in both.train] == ["subject 1 calibration", "subject 3 calibration"]
    assert both.live.name == "subject 1 test"
    assert both.stimuli.ids == ("shared", "own1", "own3")
    assert both.subjects[both.train[1].name] == "subject 3"
    assert both.sessions[both.train[1].name] == "subject 3 calibration"
    other = replace(of(3), stimuli=StimulusTable(("shared",), np.zeros((1, 2, 2, 3), np.uint8)))
    with pytest.raises(StimulusError, match="'shared' stands for two"):
        together({"1": of(1), "3": other})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"dataset": "nsd", "subject": [1, 2]}, "channels of their own: name one subject"),
        ({"dataset": "things-eeg2", "subject": [2, 2]}, "names a participant twice"),
        ({"dataset": "things-eeg2", "subject": []}, "data.subject"),
    ],
)
def test_participants_that_do_not_go_together_are_refused(data: dict[str, Any], said: str) -> None:
    """Several of a data set with channels of each one's own, one named twice, or none: one line."""
    raw = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text("utf-8"))
    with pytest.raises(ConfigError, match=said):
        parse_config(raw | {"data": data}, "own.yaml")


def test_simulated_participants_have_heads_and_noise_of_their_own(tmp_path: Path) -> None:
    """Two of one config saw the same pictures, and no channel of one follows the other's."""
    rng = np.random.default_rng(0)
    shown = [
        Run(rng.integers(0, 256, (12, 32, 32, 3), np.uint8), rng.normal(size=(12, 40)).astype(np.float32), labels)
        for labels in ([f"c{row}" for row in range(12)], [f"t{row}" for row in range(12)])
    ]
    made = []
    for subject in (1, 2):
        folder = tmp_path / str(subject)
        folder.mkdir()
        record_waves("eeg", DataSpec(dataset="simulated-eeg", subject=(subject,)), shown, folder)
        made.append(read(folder / "calibration_raw.fif"))
    assert (
        {event.label for event in made[0].events} == {event.label for event in made[1].events} == set(shown[0].labels)
    )
    one, other = (run.streams[0].data for run in made)
    assert abs(np.corrcoef(one[:, 0], other[:, 0])[0, 1]) < 0.3


@pytest.mark.parametrize("work", [partial(train_from_file, out=None), evaluate_config])
def test_a_bank_that_is_not_there_is_told_first(tmp_path: Path, work: Any) -> None:
    """Before models, windows and targets, which take minutes; where nothing learns from it, nobody asks."""
    raw = {"name": "x", "data": {"dataset": "recording", "image_bank": str(tmp_path)}, "source": {}, "window": {}}
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(raw), "utf-8")
    with pytest.raises(AppError, match=r"data\.image_bank .*: no stimuli\.csv in it, or no such folder"):
        work(file, data_dir=None)
    check_image_bank(parse_config({**raw, "decoder": {"features": ["z"]}}, "test"))
