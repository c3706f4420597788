"""Recordings of one's own as a data set."""

from pathlib import Path
from typing import Any

import mne
import mne_bids
import numpy as np
import pytest
import yaml

from decoder.stimuli import StimulusTable, write_stimuli
from minddiffuser.config import Config, load_config
from minddiffuser.data import own_recording
from minddiffuser.errors import ConfigError
from minddiffuser.training import cut
from stream.formats import in_unit
from stream.ingest import windows_of
from stream.recordings import RecordedStream, Recording
from stream.units import si_unit
from stream.windows import Channels
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
        ({"bids": "ds", "subjct": "01"}, r"data\.train\.0\.bids\.subjct: unknown key; did you mean 'subject'"),
        ({"subject": "01"}, r"data\.train\.0\.bids\.bids: Field required"),
        ([{"bids": "ds"}, 7], r"data\.train\.1\.file: .*path"),
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
