"""Markers of every kind of file lie on the samples that they were set at."""

from collections.abc import Callable
from pathlib import Path

import mne
import nibabel
import numpy as np
import pytest

from stream.epochs.ingest import FilterSpec, WindowSpec, windows_of
from stream.files.formats.npz import write_npz
from stream.files.registry import read
from stream.files.xdf_writer import XdfWriter
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels

SFREQ = 200.0
PLACES = (137, 138, 400, 641)  # two on neighbouring samples, the rest at odd places
LABELS = ("face", "house", "7", "face")


def impulses() -> np.ndarray:
    """One channel in volts, 0 but for the samples that markers are set at."""
    data = np.zeros(800)
    data[list(PLACES)] = 1e-4
    return data


def raw() -> mne.io.RawArray:
    """Return the same as mne has it, with noise in a second channel."""
    data = np.stack([impulses(), np.random.default_rng(0).normal(0, 1e-5, 800)])
    made = mne.io.RawArray(data, mne.create_info(["Cz", "Pz"], SFREQ, "eeg"), verbose="error")
    made.set_annotations(mne.Annotations(np.array(PLACES) / SFREQ, np.zeros(4), list(LABELS)))
    return made


def by_mne(name: str) -> Callable[[Path], Path]:
    """Write with the exporter that mne has for a suffix."""

    def write(folder: Path) -> Path:
        path = folder / name
        if path.suffix == ".fif":
            raw().save(path, verbose="error")
        else:
            raw().export(path, verbose="error")
        return path

    return write


def npz(folder: Path) -> Path:
    """Write our own format."""
    channels = Channels(("Cz",), ("eeg",), ("V",))
    data = impulses().astype(np.float32)[:, None]
    stream = RecordedStream("s", "EEG", "s", channels, SFREQ, np.arange(800) / SFREQ, data)
    events = tuple(Event(at / SFREQ, label) for at, label in zip(PLACES, LABELS, strict=True))
    write_npz(Recording("r", "d", (stream,), events), folder / "x.npz")
    return folder / "x.npz"


def xdf(folder: Path) -> Path:
    """Write two streams, as LabRecorder does, in the LSL clock of a machine that has run for a day."""
    head = (
        '<?xml version="1.0"?><info><name>{}</name><type>{}</type><channel_count>1</channel_count><nominal_srate>{}'
        "</nominal_srate><channel_format>{}</channel_format><source_id>{}</source_id><desc>{}</desc></info>"
    )
    channel = "<channels><channel><label>Cz</label><unit>microvolts</unit></channel></channels>"
    with XdfWriter(folder / "x.xdf") as file:
        number = file.stream(head.format("amp", "EEG", SFREQ, "double64", "a", channel))
        marks = file.stream(head.format("marks", "Markers", 0, "string", "m", ""))
        file.samples(number, 86400 + np.arange(800) / SFREQ, impulses()[:, None] * 1e6)
        words = np.array([[label.encode()] for label in LABELS], dtype=object)
        file.samples(marks, 86400 + np.array(PLACES) / SFREQ, words)
    return folder / "x.xdf"


def csv(folder: Path) -> Path:
    """Write muse-lsl's table, whose markers are numbers."""
    table = np.stack([1.5e9 + np.arange(800) / SFREQ, impulses() * 1e6, np.zeros(800)], axis=1)
    table[list(PLACES), 2] = [1, 2, 7, 1]
    np.savetxt(folder / "x.csv", table, delimiter=",", header="timestamps,Cz (uV),Marker0", comments="", fmt="%.6f")
    return folder / "x.csv"


def nifti(folder: Path) -> Path:
    """Write volumes of one voxel that varies, with a table of events."""
    image = nibabel.Nifti1Image(impulses().astype(np.float32)[None, None, None], np.eye(4))
    image.header.set_zooms((1, 1, 1, 1 / SFREQ * 100))  # 0.5 s a volume
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, folder / "x_bold.nii.gz")
    rows = [f"{at * 0.5}\t1\t{label}" for at, label in zip(PLACES, LABELS, strict=True)]
    (folder / "x_events.tsv").write_text("\n".join(["onset\tduration\ttrial_type", *rows]))
    return folder / "x_bold.nii.gz"


WRITERS = {
    "FIF": by_mne("x_raw.fif"), "EDF": by_mne("x.edf"), "BDF": by_mne("x.bdf"), "EEGLAB": by_mne("x.set"),
    "BrainVision": by_mne("x.vhdr"), "NPZ": npz, "XDF": xdf, "CSV": csv, "NIfTI": nifti,
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_a_marker_is_on_its_sample(kind: str, tmp_path: Path) -> None:
    """A window cut at a marker begins with the sample that the marker was set at, in every format."""
    recording = read(WRITERS[kind](tmp_path))
    labels = {"CSV": ("1", "2", "7", "1")}
    assert tuple(event.label for event in recording.events) == labels.get(kind, LABELS)
    (stream,) = recording.streams
    window = WindowSpec(tmin=0.0, tmax=3 / stream.sfreq)
    windows = list(windows_of(recording, window, FilterSpec(channels=(stream.channels.names[0],))))
    want = [impulses()[at : at + 3] for at in PLACES]
    np.testing.assert_allclose([one.data[0] for one in windows], want, atol=5e-9)
