"""Readers, clock and windows on recordings of real amplifiers (skipped where they are not there)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stream.epochs.ingest import FilterSpec, Ingest, WindowSpec, windows_of
from stream.errors import StreamError
from stream.files.bids import BidsRun
from stream.files.registry import read
from stream.types.recording import Recording
from tests.datafolder import data_set

CATEGORIES = {"bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe"}
pytestmark = pytest.mark.real


def ingest_of(recording: Recording) -> tuple[Ingest, int]:
    """Run a whole recording through; give the ingest and the number of windows."""
    (stream,) = recording.streams
    ingest = Ingest(stream.channels, stream.sfreq, WindowSpec(tmin=-0.1, tmax=0.8), FilterSpec())
    for event in recording.events:
        ingest.event(event)
    return ingest, len(ingest.samples(stream.data, stream.times))


@pytest.mark.parametrize("task", ["N170", "left-right", "spatial_freq"])
def test_muse(task: str) -> None:
    """Bluetooth chunks that overlap by 16 ms are jitter and no gap; every marker that fits gives a window in volts."""
    path = min((data_set("muse_eeg_visual") / task / "subject1" / "session1").glob("*.csv.gz"))
    recording = read(path)
    (stream,) = recording.streams
    assert stream.sfreq == 256
    assert 1e-5 < float(np.median(np.abs(stream.data[:, 0]))) < 2e-3
    ingest, windows = ingest_of(recording)
    stats = ingest.account()
    assert stats.gap_count == 0
    assert windows + stats.incomplete + stats.duplicates == len(recording.events)
    assert windows > 0.97 * len(recording.events)


def test_xdf_with_clock_resets() -> None:
    """The rate is another one than declared, which is said; with it the hole of a restart is found once, by length."""
    recording = read(data_set("xdf_example_files") / "clock_resets.xdf")
    assert len(recording.events) == 175
    assert recording.streams[0].data.shape == (27815, 8)
    with pytest.raises(StreamError, match=r"100 Hz but sends 9[23][.\d]* samples a second.*source\.sfreq: 9[23]"):
        ingest_of(recording)
    (stream,) = recording.streams
    ingest, _ = ingest_of(replace(recording, streams=(replace(stream, sfreq=92.8),)))
    (gap,) = [gap for gap in ingest.account().gaps if gap.length > 1]
    assert gap.length == pytest.approx(273.6, abs=0.1)


def test_minimal_xdf() -> None:
    """int16 samples and string markers come back as they were written."""
    recording = read(data_set("xdf_example_files") / "minimal.xdf")
    (stream,) = recording.streams
    assert stream.data[:2].tolist() == [[192, 255, 238], [12, 22, 32]]
    assert [event.label for event in recording.events][1:5] == ["Hello", "World", "from", "LSL"]


def test_exo_fif() -> None:
    """A FIF of eight occipital channels at 256 Hz is read whole."""
    path = min((data_set("ssvep_exo_kalunga2016") / "subject03").glob("*_raw.fif"))
    (stream,) = read(path).streams
    assert (len(stream.channels), stream.sfreq, stream.data.shape) == (8, 256, (59040, 8))


def test_haxby_runs_as_bids(tmp_path: Path) -> None:
    """Two runs of human fMRI, linked into a BIDS layout as archives do, come with their blocks and mask."""
    source = data_set("haxby2001_pymvpa_slice") / "haxby2001_sub001"
    root, func = tmp_path / "ds", tmp_path / "ds" / "sub-001" / "func"
    masks = root / "derivatives" / "masks" / "sub-001" / "func"
    for folder in (func, masks):
        folder.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "Haxby 2001", "BIDSVersion": "1.10.0"}')
    (root / "task-objects_bold.json").write_text('{"TaskName": "objects", "RepetitionTime": 2.5}')
    (masks / "sub-001_task-objects_desc-brain_mask.nii.gz").symlink_to(source / "masks" / "25mm" / "brain.nii.gz")
    for run in (1, 2):
        files, stem = source / "BOLD" / f"task001_run00{run}", f"sub-001_task-objects_run-0{run}"
        (func / f"{stem}_bold.nii.gz").symlink_to(files / "bold_25mm.nii.gz")
        (func / f"{stem}_events.tsv").symlink_to(files / "bold_events.tsv")
    recording = read(BidsRun(bids=root, subject="001", run="2"))
    (stream,) = recording.streams
    assert (stream.sfreq, stream.data.shape[0], len(recording.events)) == (0.4, 121, 8)
    assert {event.label for event in recording.events} == CATEGORIES
    assert 50 < len(stream.channels) < 600
    windows = list(windows_of(recording, WindowSpec(mode="mean", tmin=5.0, tmax=22.5), FilterSpec()))
    assert len(windows) == 8
