"""The reader of NSD, on small files in the layout in which it is published."""

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from decoder.datasets import Selection, load
from decoder.errors import DatasetError
from stream.epochs.ingest import FilterSpec, WindowSpec, windows_of
from stream.types.recording import Recording
from tests.decoder.datasets.published import write_nsd

FIRST = Selection(sessions=1)
BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.hdf5"


@pytest.fixture(scope="module")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Write two sessions of a participant once; gives the folder and what was written."""
    root = tmp_path_factory.mktemp("published")
    return root, write_nsd(root, sessions=2)


def vectors(recording: Recording) -> dict[str, list[np.ndarray]]:
    """Give the vectors of each picture, cut as the live loop cuts them."""
    out: dict[str, list[np.ndarray]] = {}
    for window in windows_of(recording, WindowSpec(mode="sample", tmin=0.0, tmax=0.5), FilterSpec()):
        assert window.event is not None
        out.setdefault(window.event.label, []).append(window.data[:, 0])
    return out


def test_voxels_are_those_of_the_region_in_percent_signal_change(nsd: tuple[Path, dict[str, Any]]) -> None:
    """HDF5's axes are turned back to those of the region, the factor 300 is taken out, trials keep their order."""
    root, written = nsd
    inside = written["region"] > 0
    percent = written["percent"][:, inside]
    dataset = load("nsd", root, Selection(sessions=2))
    is_shared = np.isin(written["trials"], sorted(written["shared"]))
    for session, recording in enumerate(dataset.train):
        part = slice(750 * session, 750 * (session + 1))
        own = ~is_shared[part]
        stream = recording.streams[0]
        np.testing.assert_allclose(stream.data, percent[part][own], rtol=1e-5)
        assert [event.label for event in recording.events] == [f"nsd{i:05d}" for i in written["trials"][part][own]]
    names = dataset.live.streams[0].channels.names
    assert names == tuple("v{}-{}-{}".format(*place) for place in np.argwhere(inside).tolist())
    assert set(dataset.live.streams[0].channels.units) == {"percent"}


def test_shared_pictures_are_the_test_and_averaged_over_their_trials(nsd: tuple[Path, dict[str, Any]]) -> None:
    """Training shows none of the pictures that everybody saw; each of those has one vector, its trials' mean."""
    root, written = nsd
    dataset = load("nsd", root, Selection(sessions=2))
    shared = {f"nsd{i:05d}" for i in written["shared"]}
    trained = {event.label for recording in dataset.train for event in recording.events}
    tested = vectors(dataset.live)
    assert (len(trained), len(tested)) == (40, 8)
    assert not trained & shared
    assert set(tested) <= shared
    percent = written["percent"][:, written["region"] > 0]
    for label, (vector,) in tested.items():
        np.testing.assert_allclose(
            vector, percent[written["trials"] == int(label[3:])].mean(axis=0), rtol=1e-3, atol=1e-4
        )


def test_fewer_repeats_are_the_first_ones(nsd: tuple[Path, dict[str, Any]]) -> None:
    """With one repeat, a shared picture has the vector of its first trial."""
    root, written = nsd
    percent = written["percent"][:, written["region"] > 0]
    for label, (vector,) in vectors(load("nsd", root, Selection(sessions=1, repeats=1)).live).items():
        first = np.flatnonzero(written["trials"] == int(label[3:]))[0]
        np.testing.assert_allclose(vector, percent[first], rtol=1e-5)


def test_sessions_are_z_scored_by_their_training_trials(nsd: tuple[Path, dict[str, Any]]) -> None:
    """Each voxel has mean 0 and deviation 1 over a session's training trials, and says so in its unit."""
    dataset = load("nsd", nsd[0], Selection(sessions=2, per_session="zscore"))
    for recording in dataset.train:
        data = recording.streams[0].data
        np.testing.assert_allclose(data.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(data.std(axis=0), 1, atol=1e-4)
    assert set(dataset.live.streams[0].channels.units) == {"z"}


def test_pictures_and_captions_go_with_their_ids(nsd: tuple[Path, dict[str, Any]]) -> None:
    """Row k of the stimuli is nsdId k, and its captions are those of its COCO picture, in either split."""
    root, _ = nsd
    stimuli = load("nsd", root, Selection(sessions=1, side=425)).stimuli
    with h5py.File(root / "nsd/nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        for name, image in zip(stimuli.ids, stimuli.images, strict=True):
            np.testing.assert_array_equal(image, file["imgBrick"][int(name[3:])])
    assert stimuli.captions is not None
    assert {int(name[3:]) % 2 for name in stimuli.ids} == {0, 1}
    for name, captions in zip(stimuli.ids, stimuli.captions, strict=True):
        assert captions == tuple(f"Picture {int(name[3:])} no. {i}." for i in range(2))


@pytest.mark.parametrize(
    "file",
    [
        BETAS,
        "nsddata/experiments/nsd/nsd_expdesign.mat",
        "nsddata/experiments/nsd/nsd_stim_info_merged.csv",
        "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz",
        "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
        "annotations/captions_val2017.json",
    ],
)
def test_data_that_are_half_there_name_the_missing_file(nsd: tuple[Path, dict[str, Any]], file: str) -> None:
    """The message names the path and where the public finds it."""
    path = nsd[0] / "nsd" / file
    aside = path.rename(path.with_name(path.name + ".aside"))
    try:
        with pytest.raises(DatasetError, match=rf"{file} is missing; the data come from naturalscenesdataset\.org"):
            load("nsd", nsd[0], FIRST)
    finally:
        aside.rename(path)


def test_a_session_that_was_done_but_is_not_there_is_missing(nsd: tuple[Path, dict[str, Any]]) -> None:
    """Without a choice of sessions, all that the participant did must be there."""
    with pytest.raises(DatasetError, match=r"betas_session03\.hdf5 is missing"):
        load("nsd", nsd[0])


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(subject=9), "participants 1 to 8, not 9"),
        (Selection(subject=4, sessions=31), "participant 4 did 30"),
        (Selection(sessions=1, per_session="whiten"), "set data.per_session to zscore or none"),
        (Selection(sessions=1, region="V1"), r"V1\.nii\.gz is missing"),
    ],
)
def test_what_there_is_not_is_refused(nsd: tuple[Path, dict[str, Any]], selection: Selection, message: str) -> None:
    """A participant, a number of sessions, a normalisation or a region that NSD does not have."""
    with pytest.raises(DatasetError, match=message):
        load("nsd", nsd[0], selection)


def test_betas_of_another_shape_are_refused(tmp_path: Path) -> None:
    """Betas that do not go with the region are named with both shapes."""
    write_nsd(tmp_path)
    (tmp_path / "nsd" / BETAS).unlink()
    with h5py.File(tmp_path / "nsd" / BETAS, "w") as file:
        file["betas"] = np.zeros((750, 7, 6, 5), np.int16)
    with pytest.raises(DatasetError, match=r"\(750, 7, 6, 5\), the region wants \(750, 5, 6, 7\)"):
        load("nsd", tmp_path, FIRST)


def test_without_h5py_the_way_out_is_said(nsd: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DatasetError, match=r"pip install 'minddiffuser\[nsd\]'"):
        load("nsd", nsd[0], FIRST)
