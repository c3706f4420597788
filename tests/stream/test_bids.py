"""Runs out of BIDS data sets: written by mne-bids, or by hand in the standard's layout."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import mne
import mne_bids
import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.errors import RecordingError
from stream.files.bids import BidsRun, find_run
from stream.files.registry import read
from stream.tables.rows import read_events
from stream.types.events import Event


def made(seconds: float = 4.0, kinds: tuple[str, ...] = ("eeg", "eeg", "eog")) -> mne.io.RawArray:
    """Noise at 100 Hz with two annotations."""
    scale = np.array([1e-12 if kind in {"mag", "grad"} else 2e-5 for kind in kinds])[:, None]
    data = np.random.default_rng(0).normal(size=(len(kinds), round(seconds * 100))) * scale
    info = mne.create_info(["Cz", "Pz", "VEOG"][: len(kinds)], 100, list(kinds))
    raw = mne.io.RawArray(data, info, verbose="error")
    raw.set_meas_date(1.7e9)
    raw.set_annotations(mne.Annotations([0.5, 2.0], [0.1, 0.1], ["face1", "house2"]))
    raw.info["line_freq"] = 50
    return raw


def write(
    root: Path, subject: str, run: str, raw: mne.io.RawArray, kind: str = "eeg", fmt: str = "BrainVision"
) -> Path:
    """Write a run as mne-bids does; give its file."""
    place = mne_bids.BIDSPath(subject=subject, task="faces", run=run, datatype=kind, suffix=kind, root=root)
    raw.info["bads"] = ["Pz"] if "Pz" in raw.ch_names else []
    written = mne_bids.write_raw_bids(raw, place, format=fmt, allow_preload=True, overwrite=True, verbose="error")
    return Path(written.fpath)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects of EEG, the first with two runs."""
    root = tmp_path_factory.mktemp("ds")
    for subject, run in (("01", "01"), ("01", "02"), ("02", "01")):
        write(root, subject, run, made())
    return root


@pytest.mark.parametrize("fmt", ["BrainVision", "EDF", "BDF", "EEGLAB"])
def test_eeg_run(tmp_path: Path, fmt: str) -> None:
    """A run in each of EEG's formats: volts, kinds from channels.tsv, events of events.tsv on their samples."""
    raw = made()
    write(tmp_path, "01", "01", raw, fmt=fmt)
    channels = next(tmp_path.rglob("*_channels.tsv"))
    channels.write_text(channels.read_text("utf-8-sig").replace("\tVEOG\t", "\tMISC\t", 1), "utf-8")
    recording = read(BidsRun(bids=tmp_path, subject="01"))
    (stream,) = recording.streams
    assert (stream.channels.names, stream.type, stream.sfreq) == (("Cz", "Pz", "VEOG"), "EEG", 100)
    assert (stream.channels.kinds[:2], stream.channels.units[:2]) == (("eeg", "eeg"), ("V", "V"))
    np.testing.assert_allclose(stream.data[:400, :2], raw.get_data()[:2].T, atol=2e-9)
    assert recording.events == (Event(0.5, "face1"), Event(2.0, "house2"))


@pytest.mark.parametrize("fmt", ["BrainVision", "EDF"])
def test_marks_of_a_run_are_no_events(tmp_path: Path, fmt: str) -> None:
    """Bad segments and joints in events.tsv are marked in the data, as long as the table says, and are no events."""
    write(tmp_path, "01", "01", made(), fmt=fmt)
    table = next(tmp_path.rglob("*_events.tsv"))
    table.write_text(
        "onset\tduration\ttrial_type\n0.5\t0.1\tface1\n1.0\t0.5\tBAD_blink\n2.0\t0.1\thouse2\n3.0\t0\tboundary\n"
    )
    recording = read(BidsRun(bids=tmp_path, subject="01"))
    assert [event.label for event in recording.events] == ["face1", "house2"]
    assert [(one.start, one.length, one.label) for one in recording.streams[0].bad] == [
        (1.0, 0.5, "BAD_blink"), (3.0, 0.0, "boundary"),
    ]  # fmt: skip


def test_marks_of_an_fmri_run_are_no_events(tmp_path: Path) -> None:
    """Volumes in a segment that the table marks as bad count as lost, and the mark is no event."""
    func = tmp_path / "sub-01" / "func"
    func.mkdir(parents=True)
    (tmp_path / "dataset_description.json").write_text('{"Name": "d", "BIDSVersion": "1.10.0"}')
    image = nibabel.Nifti1Image(np.random.default_rng(0).normal(100, 5, (2, 2, 1, 10)).astype(np.float32), np.eye(4))
    image.header.set_zooms((3, 3, 3, 2.0))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, func / "sub-01_task-x_bold.nii.gz")
    (func / "sub-01_task-x_events.tsv").write_text(
        "onset\tduration\ttrial_type\n2.0\t2\tface\n8.0\t4\tBAD_motion\n14.0\tn/a\tboundary\n"
    )
    recording = read(BidsRun(bids=tmp_path))
    assert [event.label for event in recording.events] == ["face"]
    lost = np.isnan(recording.streams[0].masked_data).all(axis=1)
    assert np.flatnonzero(lost).tolist() == [4, 5, 7]


def test_meg_run(tmp_path: Path) -> None:
    """A FIF of magnetometers comes in tesla, under its own name."""
    raw = made(kinds=("mag", "mag", "eog"))
    file = tmp_path / "raw_meg.fif"
    raw.save(file, verbose="error")
    place = mne_bids.BIDSPath(subject="01", task="faces", datatype="meg", root=tmp_path / "ds")
    mne_bids.write_raw_bids(mne.io.read_raw(file, verbose="error"), place, verbose="error")
    (stream,) = read(tmp_path / "ds").streams
    assert (stream.name, stream.type) == ("sub-01_task-faces_meg.fif", "MEG")
    assert stream.channels.units == ("T", "T", "V")
    np.testing.assert_allclose(stream.data, raw.get_data().T, rtol=1e-6)


def test_ieeg_run(tmp_path: Path) -> None:
    """Electrodes in the brain are read in volts, under their own kind."""
    raw = made(kinds=("seeg", "ecog"))
    write(tmp_path, "01", "01", raw, kind="ieeg")
    (stream,) = read(tmp_path).streams
    assert (stream.type, stream.channels.kinds, stream.channels.units) == ("iEEG", ("seeg", "ecog"), ("V", "V"))
    np.testing.assert_allclose(stream.data, raw.get_data().T, atol=2e-9)


def test_a_run_is_found_by_its_entities(dataset: Path) -> None:
    """Subject and run lead to one file, with and without leading zeros, as numbers and in a folder of the data set."""
    want = dataset / "sub-01" / "eeg" / "sub-01_task-faces_run-02_eeg.vhdr"
    for wanted in (
        BidsRun(bids=dataset, subject="01", run="02"),
        BidsRun(bids=dataset, subject="sub-01", task="faces", run="2"),
        BidsRun.model_validate({"bids": str(dataset), "subject": 1, "run": 2}),
        BidsRun(bids=dataset / "sub-01", run="02"),
        BidsRun(bids=want),
    ):
        assert find_run(wanted) == want


@pytest.mark.parametrize(
    ("entities", "said"),
    [
        ({"subject": "07"}, ["no run with subject '07'", "sub-01_task-faces_run-01_eeg.vhdr", "sub-02"]),
        ({"subject": "01"}, ["2 runs with subject '01'", "say which", "run-01", "run-02"]),
        ({"subject": "01", "run": "3"}, ["no run with subject '01', run '3'"]),
        ({}, ["3 runs with anything"]),
    ],
)
def test_none_and_several_list_what_is_there(dataset: Path, entities: dict[str, str], said: list[str]) -> None:
    """No match and several are one line that names what was asked for and what there is."""
    with pytest.raises(RecordingError) as caught:
        find_run(BidsRun(bids=dataset, **entities))
    assert all(part in str(caught.value) for part in said)
    assert "\n" not in str(caught.value)


def test_folders_that_hold_no_run(tmp_path: Path) -> None:
    """An empty folder, one that is not there, and a file of another kind are errors that name it."""
    (tmp_path / "x.xdf").write_bytes(b"")
    for folder in (tmp_path, tmp_path / "gone", tmp_path / "x.xdf"):
        with pytest.raises(RecordingError, match=str(folder)):
            read(BidsRun(bids=folder))


def test_derivatives_and_later_parts_are_no_runs(dataset: Path, tmp_path: Path) -> None:
    """What was computed from a run, and the later parts of a split file, do not make the choice ambiguous."""
    root = tmp_path / "ds"
    shutil.copytree(dataset / "sub-02", root / "sub-02")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    copy = root / "derivatives" / "clean" / "sub-02" / "eeg"
    copy.mkdir(parents=True)
    for name in ("derivatives/clean/sub-02/eeg/sub-02_task-faces_run-01_eeg.vhdr", "sub-02/sub-02_split-02_meg.fif"):
        (root / name).write_bytes(b"")
    assert find_run(BidsRun(bids=root)).parent == root / "sub-02" / "eeg"


def test_a_file_in_a_data_set_is_read_with_its_tables(dataset: Path, tmp_path: Path) -> None:
    """Events come from events.tsv even when the file itself is named, whatever its own markers say."""
    shutil.copytree(dataset, tmp_path / "ds")
    folder = tmp_path / "ds" / "sub-02" / "eeg"
    (folder / "sub-02_task-faces_run-01_events.tsv").write_text(
        "onset\tduration\ttrial_type\tstim_file\n1.0\t0\tcat\timages/cat_7.png\nn/a\t0\tdog\tx.png\n3.5\t0\tn/a\tn/a\n"
    )
    file = folder / "sub-02_task-faces_run-01_eeg.vhdr"
    assert read(file).events == (Event(1.0, "cat"), Event(3.5, "event"))
    assert read(BidsRun(bids=file, label="stim_file")).events == (Event(1.0, "cat_7"),)
    with pytest.raises(RecordingError, match="no column 'picture'; it has 'onset', 'duration'"):
        read(BidsRun(bids=file, label="picture"))


def test_events_are_inherited(dataset: Path, tmp_path: Path) -> None:
    """A table higher up in the data set holds for all runs of its task that have none of their own."""
    root = tmp_path / "ds"
    shutil.copytree(dataset, root)
    (root / "sub-02" / "eeg" / "sub-02_task-faces_run-01_events.tsv").unlink()
    (root / "task-other_events.tsv").write_text("onset\tduration\ttrial_type\n9\t0\tnot mine\n")
    (root / "task-faces_events.tsv").write_text("onset\tduration\tvalue\n0.25\t0\t70000\n")
    assert read(BidsRun(bids=root, subject="02")).events == (Event(0.25, "70000", 70000),)


def test_units_that_only_the_table_states(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An EDF whose header states no unit is taken in channels.tsv's; without one, numbers are claimed to be nothing."""
    raw = made(kinds=("eeg", "eeg"))
    file = write(tmp_path, "01", "01", raw, fmt="EDF")
    content = bytearray(file.read_bytes())
    at = 256 + 3 * 96  # two channels and the annotations: 16 bytes of label, 80 of transducer each
    assert content[at : at + 16].split() == [b"uV", b"uV"]
    content[at : at + 16] = b" " * 16
    file.write_bytes(bytes(content))
    (stream,) = read(tmp_path).streams
    assert stream.channels.units == ("V", "V")
    np.testing.assert_allclose(stream.data[:400], raw.get_data().T, atol=2e-9)
    table = next(tmp_path.rglob("*_channels.tsv"))
    table.write_text(table.read_text("utf-8-sig").replace("µV", "n/a").replace("\tV\t", "\tn/a\t"), "utf-8")
    with caplog.at_level(logging.WARNING):
        (stream,) = read(tmp_path).streams
    assert stream.channels.units == ("count", "count")
    assert "no known unit is stated for Cz, Pz" in caplog.text


@pytest.fixture
def bold(tmp_path: Path) -> Callable[..., NDArray[np.float32]]:
    """Write an fMRI run by hand, with the repetition time in a sidecar at the top; give its volumes."""

    def make(name: str = "sub-01/func/sub-01_task-nback_run-1_bold", folder: str = "ds") -> NDArray[np.float32]:
        root = tmp_path / folder
        path = root / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        volumes = np.random.default_rng(3).normal(100, 5, (3, 4, 2, 6)).astype(np.float32)
        image = nibabel.Nifti1Image(volumes, np.diag([3, 3, 3, 1]))
        image.header.set_zooms((3, 3, 3, 1.0))
        nibabel.save(image, path)
        (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
        return volumes

    return make


def mask(path: Path, *places: tuple[int, int, int], shape: tuple[int, ...] = (3, 4, 2)) -> None:
    """Write a mask on the grid of the runs here."""
    inside = np.zeros(shape, np.uint8)
    for place in places:
        inside[place] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(inside, np.diag([3, 3, 3, 1])), path)


def test_fmri_run(bold: Callable[..., NDArray[np.float32]], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The sidecar's repetition time rules over the header's, aloud; the derivatives' mask on the grid picks voxels."""
    volumes, root = bold(), tmp_path / "ds"
    (root / "task-nback_bold.json").write_text(json.dumps({"RepetitionTime": 9.0, "TaskName": "nback"}))
    (root / "sub-01" / "func" / "sub-01_task-nback_run-1_bold.json").write_text('{"RepetitionTime": 2.0}')
    (root / "sub-01" / "func" / "sub-01_task-nback_run-1_events.tsv").write_text(
        "onset\tduration\ttrial_type\n4.0\t1\tn\n0.5\t1\tu\n"
    )
    prep = root / "derivatives" / "prep" / "sub-01" / "func"
    mask(prep / "sub-01_task-nback_run-1_desc-brain_mask.nii.gz", (1, 2, 0), (2, 3, 1))
    mask(prep / "sub-01_task-nback_run-1_space-MNI_desc-brain_mask.nii.gz", (0, 0, 0), shape=(5, 5, 5))
    mask(prep / "sub-01_task-nback_run-2_desc-brain_mask.nii.gz", (0, 0, 0))
    recording = read(BidsRun(bids=root, subject="1", task="nback"))
    (stream,) = recording.streams
    assert (stream.sfreq, stream.channels.names) == (0.5, ("v1-2-0", "v2-3-1"))
    np.testing.assert_array_equal(stream.times, np.arange(6) * 2.0)
    np.testing.assert_array_equal(stream.data[:, 1], volumes[2, 3, 1])
    assert recording.events == (Event(0.5, "u"), Event(4.0, "n"))
    assert recording.description == "fMRI of x"
    assert recording.begun is None
    assert "2 s in the sidecar rules over 1 s" in caplog.text
    mask(tmp_path / "mine.nii", (0, 1, 1))
    assert read(BidsRun(bids=root, mask=tmp_path / "mine.nii")).streams[0].channels.names == ("v0-1-1",)
    mask(prep / "sub-01_task-nback_run-1_desc-grey_mask.nii.gz", (0, 0, 0))
    with pytest.raises(RecordingError, match=r"several masks, .*desc-brain.*desc-grey.*say which"):
        read(root)


def test_a_mask_of_one_volume_is_found(bold: Callable[..., NDArray[np.float32]], tmp_path: Path) -> None:
    """A mask that its program wrote as a run of one volume picks the voxels as any other."""
    bold()
    name = "sub-01_task-nback_run-1_desc-brain_mask.nii.gz"
    mask(tmp_path / "ds" / "derivatives" / "prep" / "sub-01" / "func" / name, (1, 2, 0), shape=(3, 4, 2, 1))
    assert read(tmp_path / "ds").streams[0].channels.names == ("v1-2-0",)


def test_when_a_run_was_begun(bold: Callable[..., NDArray[np.float32]], tmp_path: Path) -> None:
    """The subject's scans.tsv says when an fMRI run was begun, so that it can be put beside another recording."""
    bold()
    scans = tmp_path / "ds" / "sub-01" / "sub-01_scans.tsv"
    rows = ["func/other_bold.nii.gz\t1999-01-01T00:00:00", "func/sub-01_task-nback_run-1_bold.nii.gz\t{}"]
    scans.write_text("\n".join(["filename\tacq_time", *rows]).format("2001-09-09T01:46:40.25Z"))
    assert read(tmp_path / "ds").begun == 1e9 + 0.25
    scans.write_text("\n".join(["filename\tacq_time", *rows]).format("noon"))
    with pytest.raises(RecordingError, match="acq_time 'noon' is no date"):
        read(tmp_path / "ds")


def test_a_derivatives_run_has_the_raw_runs_events(bold: Callable[..., NDArray[np.float32]], tmp_path: Path) -> None:
    """A preprocessed run is read with the events and repetition time that stand in the raw data set."""
    bold()
    name = "sub-01/func/sub-01_task-nback_run-1_space-T1w_desc-preproc_bold"
    bold(name, folder="ds/derivatives/prep")
    root = tmp_path / "ds"
    (root / "sub-01" / "func" / "sub-01_task-nback_run-1_events.tsv").write_text(
        "onset\tduration\ttrial_type\n2\t1\ta\n"
    )
    (root / "task-nback_bold.json").write_text('{"VolumeTiming": [0, 2, 4, 8, 10, 12]}')
    recording = read(root / "derivatives" / "prep")
    assert recording.events == (Event(2.0, "a"),)
    assert recording.streams[0].times.tolist() == [0, 2, 4, 8, 10, 12]
    assert recording.streams[0].sfreq == 0


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("task-nback_bold.json", "{", "not JSON"),
        ("task-nback_bold.json", "[]", "no object"),
        ("task-nback_bold.json", '{"RepetitionTime": "soon"}', "no number"),
        ("task-nback_bold.json", '{"RepetitionTime": 0}', "repetition time"),
        ("task-nback_bold.json", '{"VolumeTiming": [0, 1]}', "6 volumes but times of 2"),
        ("task-nback_events.tsv", "start\tduration\n1\t2\n", "no column 'onset'"),
        ("task-nback_events.tsv", "onset\tduration\nlate\t2\n", "no number of seconds"),
        ("task-nback_events.tsv", "", "it has none"),
    ],
)
def test_broken_sidecars(
    bold: Callable[..., NDArray[np.float32]], tmp_path: Path, file: str, text: str, said: str
) -> None:
    """A sidecar or table that makes no sense is an error that names it, in one line."""
    bold()
    (tmp_path / "ds" / file).write_text(text)
    with pytest.raises(RecordingError, match=said) as caught:
        read(tmp_path / "ds")
    assert "\n" not in str(caught.value)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.sampled_from([None, "trial_type", "b"]))
@settings(deadline=None)
def test_any_table_gives_events_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str, label: str | None
) -> None:
    """Whatever stands in an events.tsv, it is read in order of time or refused in one line."""
    path = tmp_path_factory.getbasetemp() / "any_events.tsv"
    path.write_text("onset\ttrial_type\n" + text, "utf-8")
    message = ""
    try:
        events = read_events(path, label)
        assert [event.time for event in events] == sorted(event.time for event in events)
    except RecordingError as error:
        message = str(error)
    assert "\n" not in message
