"""Reading recordings of every kind, whole and broken."""

import gzip
from pathlib import Path

import mne
import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.errors import RecordingError
from stream.files.formats.npz import write_npz
from stream.files.registry import read
from stream.files.xdf_writer import XdfWriter
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels


@pytest.fixture
def raw() -> mne.io.RawArray:
    """Four seconds of 3 channels at 250 Hz in volts, with two annotations and one bad segment."""
    data = np.random.default_rng(0).normal(0, 20e-6, (3, 1000))
    made = mne.io.RawArray(data, mne.create_info(["Cz", "Pz", "EOG"], 250, ["eeg", "eeg", "eog"]), verbose="error")
    made.set_annotations(mne.Annotations([0.4, 2.0, 3.0], [0, 0, 0.5], ["stim_001", "7", "BAD_blink"]))
    return made


def test_fif(raw: mne.io.RawArray, tmp_path: Path) -> None:
    """FIF comes back in volts with its annotations on the right samples and mne's bad segments left out."""
    raw.save(tmp_path / "x_raw.fif", verbose="error")
    recording = read(tmp_path / "x_raw.fif")
    (stream,) = recording.streams
    assert (stream.sfreq, stream.type, stream.channels.kinds) == (250, "EEG", ("eeg", "eeg", "eog"))
    np.testing.assert_allclose(stream.data, raw.get_data().T, rtol=1e-5)
    assert recording.events == (Event(0.4, "stim_001"), Event(2.0, "7", 7))


def test_cropped_fif_keeps_events_on_their_samples(raw: mne.io.RawArray, tmp_path: Path) -> None:
    """In a file that begins late, an event still falls on the sample it fell on."""
    raw.set_meas_date(1e9)
    raw.crop(0.2).save(tmp_path / "x_raw.fif", verbose="error")
    assert [event.time for event in read(tmp_path / "x_raw.fif").events] == pytest.approx([0.2, 1.8])


def test_brainvision(tmp_path: Path) -> None:
    """BrainVision: microvolts become volts and markers fall on their samples."""
    values = (np.arange(20, dtype="<i2").reshape(10, 2) * 10).astype("<i2")
    (tmp_path / "x.eeg").write_bytes(values.tobytes())
    (tmp_path / "x.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=x.eeg\n"
        "MarkerFile=x.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels=2\n"
        "SamplingInterval=4000\n[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\nCh1=Cz,,0.5,µV\nCh2=Pz,,0.5,µV\n"
    )
    (tmp_path / "x.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=x.eeg\n"
        "[Marker Infos]\nMk1=Stimulus,S  3,6,1,0\n"
    )
    recording = read(tmp_path / "x.vhdr")
    np.testing.assert_allclose(recording.streams[0].data, values * 0.5e-6, rtol=1e-6)
    assert [event.time for event in recording.events] == pytest.approx([5 / 250])


def test_stim_channel_steps(tmp_path: Path) -> None:
    """Without annotations, the steps of a stim channel are the events, large codes included."""
    data = np.zeros((2, 500))
    data[1, 100:110], data[1, 110:120], data[1, 300] = 5, 70000, 5
    info = mne.create_info(["Cz", "STI"], 100, ["eeg", "stim"])
    mne.io.RawArray(data, info, verbose="error").save(tmp_path / "x_raw.fif", verbose="error")
    recording = read(tmp_path / "x_raw.fif")
    assert recording.events == (Event(1.0, "5", 5), Event(1.1, "70000", 70000), Event(3.0, "5", 5))
    assert recording.streams[0].channels.names == ("Cz",)


def test_muse_csv(tmp_path: Path) -> None:
    """muse-lsl's CSV: volts, jittered stamps as they are, a marker on each row that has one."""
    times = 1e5 + np.arange(1000) / 256
    table = np.zeros((1000, 5))
    table[:, 0], table[:, 1], table[:, 2] = times, 12.0, -3.0
    table[100, 3], table[101, 3], table[500, 4] = 1, 1, 45
    with gzip.open(tmp_path / "run.csv.gz", "wt") as file:
        file.write("timestamps,TP9,Right AUX,Marker0,Marker1\n")
        np.savetxt(file, table, delimiter=",")
    recording = read(tmp_path / "run.csv.gz")
    (stream,) = recording.streams
    assert (stream.sfreq, stream.channels.kinds) == (256, ("eeg", "misc"))
    np.testing.assert_allclose(stream.data[0], [12e-6, -3e-6], rtol=1e-6)
    assert [(event.label, event.time) for event in recording.events] == [
        ("1", pytest.approx(100 / 256)), ("1", pytest.approx(101 / 256)), ("Marker1=45", pytest.approx(500 / 256)),
    ]  # fmt: skip


def test_nifti_with_events_and_mask(tmp_path: Path) -> None:
    """NIfTI: voxels in the mask become channels, volumes samples, rows of events.tsv events."""
    volumes = np.random.default_rng(1).normal(100, 5, (3, 4, 2, 6)).astype(np.float32)
    image = nibabel.Nifti1Image(volumes, np.eye(4))
    image.header.set_zooms((3, 3, 3, 2.0))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, tmp_path / "sub-01_bold.nii.gz")
    mask = np.zeros((3, 4, 2), np.uint8)
    mask[1, 2, 0] = mask[2, 3, 1] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "sub-01_mask.nii.gz")
    (tmp_path / "sub-01_events.tsv").write_text("onset\tduration\ttrial_type\n4.0\t1\tn\n0.5\t1\tu\n")
    recording = read(tmp_path / "sub-01_bold.nii.gz")
    (stream,) = recording.streams
    assert (stream.sfreq, stream.channels.names) == (0.5, ("v1-2-0", "v2-3-1"))
    np.testing.assert_array_equal(stream.data[:, 1], volumes[2, 3, 1])
    assert recording.events == (Event(0.5, "u"), Event(4.0, "n"))


def test_xdf_channels_of_one_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Channels that a file names alike are numbered, as mne does it, and the log says so."""
    entries = "".join(f"<channel><label>{label}</label><unit>V</unit></channel>" for label in ("Cz", "Pz", "Cz"))
    head = (
        '<?xml version="1.0"?><info><name>amp</name><type>EEG</type><channel_count>3</channel_count>'
        "<nominal_srate>10</nominal_srate><channel_format>float32</channel_format><source_id>a</source_id>"
        f"<desc><channels>{entries}</channels></desc></info>"
    )
    with XdfWriter(tmp_path / "x.xdf") as file:
        file.samples(file.stream(head), np.arange(4) / 10, np.zeros((4, 3), np.float32))
    assert read(tmp_path / "x.xdf").streams[0].channels.names == ("Cz-0", "Pz", "Cz-1")
    assert "amp: channels of the same name are numbered: Cz" in caplog.text


def test_npz_round_trip(tmp_path: Path) -> None:
    """What is written as NPZ is read back the same, two streams and events with codes beyond 16 bit."""
    rng = np.random.default_rng(2)
    fast = RecordedStream(
        "cap", "EEG", "s1", Channels(("a", "b"), ("eeg", "eog"), ("V", "V")), 250.0,
        np.arange(100) / 250, rng.normal(size=(100, 2)).astype(np.float32),
    )  # fmt: skip
    slow = RecordedStream(
        "array", "spikes", "s2", Channels(("n1",), ("unit",), ("count",)), 0.0,
        np.sort(rng.random(7)), rng.normal(size=(7, 1)).astype(np.float32),
    )  # fmt: skip
    want = Recording(
        "both", "macaque V4 spikes", (fast, slow), (Event(0.1, "pic µ", None), Event(0.2, "123456789", 123456789))
    )
    write_npz(want, tmp_path / "x.npz")
    got = read(tmp_path / "x.npz")
    assert (got.name, got.description, got.events) == (want.name, want.description, want.events)
    for a, b in zip(got.streams, want.streams, strict=True):
        assert (a.name, a.type, a.source_id, a.channels, a.sfreq) == (b.name, b.type, b.source_id, b.channels, b.sfreq)
        np.testing.assert_array_equal(a.times, b.times)
        np.testing.assert_array_equal(a.data, b.data)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_pickled_npz_is_refused(tmp_path: Path) -> None:
    """An NPZ that would have to be unpickled is an error, not an execution."""
    np.savez(tmp_path / "x.npz", header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(RecordingError, match="not a recording"):
        read(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["gone.fif", "gone.npz", "notes.txt", "folder.csv"])
def test_missing_and_unknown_files(name: str, tmp_path: Path) -> None:
    """A file that is missing or of no known kind is named in one line."""
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(RecordingError) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x_raw.fif", b"", "the file is empty (0 bytes)"),
        ("x.edf", b"", "the file is empty (0 bytes)"),
        ("x.csv", b"", "the file is empty (0 bytes)"),
        ("x.npz", PNG, "is named .npz, and holds a PNG picture"),
        ("x_raw.fif", PNG, "is named .fif, and holds a PNG picture"),
        ("x.edf", b"time,Cz\n0,1\n0.1,2\n", "is named .edf, and holds text"),
        ("x.xdf", b"PK\x03\x04" + bytes(40), "is named .xdf, and holds a ZIP archive"),
        ("x.vhdr", b"XDF:" + bytes(40), "is named .vhdr, and holds an XDF recording"),
        ("x.set", b"\x00\x01" * 20, "is named .set, and holds something else"),
        ("x.nii.gz", b"plain text of a page" * 4, "is named .nii.gz, and holds text"),
        ("x.bdf", b"version https://git-lfs.github.com/spec/v1", "holds a Git LFS pointer: fetch the file itself"),
    ],
)
def test_files_that_are_something_else(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    """A file that is empty, or not what its ending says, is told in one line of ours."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        read(tmp_path / name)
    assert said in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_warnings_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a reader has to say of a file is in the log, with the file's name."""
    (tmp_path / "x.csv").write_text("time,Cz\n" + "".join(f"{i / 100},{i % 7}\n" for i in range(200)))
    recording = read(tmp_path / "x.csv")
    assert recording.warnings
    assert all(f"x.csv: {line}" in caplog.text for line in recording.warnings)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Write a small good file of each kind; give their bytes."""
    folder = tmp_path_factory.mktemp("good")
    raw = mne.io.RawArray(np.ones((2, 200)), mne.create_info(2, 100, "eeg"), verbose="error")
    raw.save(folder / "a_raw.fif", verbose="error")
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((2, 2, 2, 3)), np.eye(4)), folder / "a.nii")
    stream = RecordedStream(
        "s", "EEG", "s", Channels(("a",), ("eeg",), ("V",)), 10.0, np.arange(5) / 10, np.zeros((5, 1), np.float32)
    )
    write_npz(Recording("r", "d", (stream,), ()), folder / "a.npz")
    (folder / "a.csv").write_text("timestamps,TP9,Marker0\n" + "".join(f"{i / 256},1,0\n" for i in range(20)))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(
    st.sampled_from(["a_raw.fif", "a.nii", "a.npz", "a.csv", "b.xdf", "b.edf", "b.bdf", "b.set", "b.vhdr", "b.csv.gz"]),
    st.integers(0, 400),
    st.binary(max_size=60),
    st.booleans(),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_broken_files_give_recording_error(
    whole_files: dict[str, bytes], tmp_path: Path, name: str, at: int, junk: bytes, shorten: bool
) -> None:
    """A file that is cut short or overwritten gives a recording or RecordingError, and nothing else."""
    good = whole_files.get(name, b"XDF:" if name.endswith("xdf") else b"")
    broken = good[:at] + junk + (b"" if shorten else good[at + len(junk) :])
    (tmp_path / name).write_bytes(broken)
    message = ""
    try:
        read(tmp_path / name)
    except RecordingError as error:
        message = str(error)
    assert "\n" not in message
