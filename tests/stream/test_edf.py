"""EDF and BDF as devices write them: units, holes, marks, trigger words, ends."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.epochs.ingest import FilterSpec, WindowSpec, windows_of
from stream.errors import RecordingError
from stream.files.registry import read
from tests.stream.edf_files import write_edf

SFREQ = 100
FOLDERS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def noise(n_signals: int, seconds: int, spread: float = 20) -> np.ndarray:
    """Draw digital values about 0."""
    return np.random.default_rng(0).normal(0, spread, (n_signals, seconds * SFREQ)).round().astype(int)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("uV", 1e-6), ("UV", 1e-6), ("uv", 1e-6), ("µV", 1e-6), ("uVolts", 1e-6), ("mV", 1e-3), ("mv", 1e-3), ("nV", 1e-9),
     ("NV", 1e-9), ("V", 1.0), ("v", 1.0), ("[uV]", 1e-6)],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["edf", "bdf"])
def test_unit_as_the_header_writes_it(tmp_path: Path, unit: str, factor: float, ending: str) -> None:
    """Whatever the spelling and case, numbers become volts; the text is kept."""
    data = noise(2, 2)
    path = write_edf(tmp_path / f"x.{ending}", ["Cz", "Pz"], [unit, "uV"], data, SFREQ)
    (stream,) = read(path).streams
    assert stream.channels.units == ("V", "V")
    assert stream.units_given == (unit, "uV")
    np.testing.assert_allclose(stream.data[:, 0], data[0] * factor, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(stream.data[:, 1], data[1] * 1e-6, rtol=1e-5, atol=1e-12)


def test_unknown_unit_is_named(tmp_path: Path) -> None:
    """Channels whose unit is not known are plain numbers; a warning names them, the text and the way out."""
    data = noise(3, 2)
    path = write_edf(tmp_path / "x.edf", ["Cz", "Pz", "Fz"], ["uV", "xyz", ""], data, SFREQ)
    recording = read(path)
    (stream,) = recording.streams
    assert stream.channels.units == ("V", "count", "count")
    np.testing.assert_allclose(stream.data[:, 1], data[1], atol=1e-3)
    (line,) = [line for line in recording.warnings if "unit" in line]
    assert "Pz ('xyz'), Fz:" in line
    assert "source.unit" in line


def test_level_that_no_eeg_has_is_said(tmp_path: Path) -> None:
    """Microvolts that a header calls volts are told by their level; the others are not named."""
    data = noise(3, 4)
    data[0] += 5000  # an offset is no level
    path = write_edf(tmp_path / "x.edf", ["Cz", "Pz", "Fz"], ["uV", "V", "V"], data, SFREQ)
    (line,) = [line for line in read(path).warnings if "rms" in line]
    assert line.startswith("Pz, Fz: 19 V rms, which no EEG has: taken for volts, written in microvolts?")


def test_status_word_is_sixteen_bits(tmp_path: Path) -> None:
    """Of a BDF's Status word the low 16 bits are triggers; flags above, and their changes, are none."""
    data = np.concatenate([noise(1, 3), np.zeros((1, 3 * SFREQ), int)])
    data[1] += 1 << 20  # 'CM in range', all along
    data[1, 150:] += 1 << 19
    data[1, 40:45] |= 7
    data[1, 200:220] |= 0x1234
    path = write_edf(tmp_path / "x.bdf", ["Cz", "Status"], ["uV", "Boolean"], data, SFREQ)
    recording = read(path)
    assert [(event.time, event.code) for event in recording.events] == [(0.4, 7), (2.0, 0x1234)]
    assert recording.streams[0].channels.names == ("Cz",)


def test_trigger_channel_of_any_name(tmp_path: Path) -> None:
    """A signal called as a trigger is one, with its numbers as written; noise of such a name is not."""
    data = noise(3, 3)
    data[1] = 0
    data[1, 40:45] = 7
    path = write_edf(tmp_path / "x.edf", ["Cz", "TRIG1", "Marker"], ["uV", "uV", "uV"], data, SFREQ)
    recording = read(path)
    assert [(event.time, event.code) for event in recording.events] == [(0.4, 7)]
    assert any("Marker changes at" in line for line in recording.warnings)


@FOLDERS
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.25, 2.0, 3.37, 60.0]), min_size=3, max_size=6),
    st.lists(st.floats(0, 0.99), min_size=3, max_size=6),
    st.sampled_from(["edf", "bdf"]),
    st.sampled_from([0.0, 0.37]),
)
def test_holes_between_records_are_kept(
    tmp_path: Path, holes: list[float], places: list[float], ending: str, offset: float
) -> None:
    """EDF+D: samples lie at their records' times, events on their samples, also behind every hole."""
    n = min(len(holes), len(places))
    starts = offset + np.cumsum([0.0, *[1.0 + hole for hole in holes[: n - 1]]])
    rows = [record * SFREQ + int(place * SFREQ) for record, place in enumerate(places[:n])]
    onsets = [round(starts[row // SFREQ] + row % SFREQ / SFREQ, 4) for row in rows]
    path = write_edf(
        tmp_path / f"x.{ending}", ["Cz"], ["uV"], noise(1, n), SFREQ,
        starts=starts.round(4).tolist(), annotations=[(onset, 0, f"e{i}") for i, onset in enumerate(onsets)],
    )  # fmt: skip
    recording = read(path)
    (stream,) = recording.streams
    want = (starts - offset).repeat(SFREQ) + np.tile(np.arange(SFREQ) / SFREQ, n)
    np.testing.assert_allclose(stream.times, want, atol=1e-3)
    assert [event.label for event in recording.events] == [f"e{i}" for i in range(n)]
    np.testing.assert_array_equal([event.time for event in recording.events], stream.times[rows])
    assert any("holes" in line for line in recording.warnings) == any(holes[: n - 1])


def test_windows_over_a_hole_are_flagged(tmp_path: Path) -> None:
    """Of three windows the one that a hole cuts through is rejected, the one behind it holds its own samples."""
    data = noise(1, 6)
    path = write_edf(
        tmp_path / "x.edf", ["Cz"], ["uV"], data, SFREQ,
        starts=[0, 1, 2, 7, 8, 9], annotations=[(1.0, 0, "a"), (2.8, 0, "b"), (8.5, 0, "c")],
    )  # fmt: skip
    windows = list(windows_of(read(path), WindowSpec(tmin=0, tmax=0.4), FilterSpec()))
    assert [(w.event.label, bool(w.quality.rejected)) for w in windows if w.event] == [
        ("a", False), ("b", True), ("c", False),
    ]  # fmt: skip
    np.testing.assert_allclose(windows[2].data[0], data[0, 450:490] * 1e-6, atol=1e-9)


def test_annotations_in_latin1_and_of_one_channel(tmp_path: Path) -> None:
    """A text that is not UTF-8 is read as Latin-1; '@@channel' is no part of a label."""
    annotations = [(0.5, 0, "Häuser".encode("latin-1")), (1.5, 0, "größe"), (1.7, 0, "spike@@Cz")]
    path = write_edf(tmp_path / "x.edf", ["Cz"], ["uV"], noise(1, 3), SFREQ, annotations=annotations)
    assert [event.label for event in read(path).events] == ["Häuser", "größe", "spike"]


def test_fill_of_the_last_record_is_bad(tmp_path: Path) -> None:
    """What a writer repeats to fill the last record is marked bad, and said."""
    data = noise(2, 3)
    data[:, 250:] = data[:, 249:250]
    recording = read(write_edf(tmp_path / "x.edf", ["Cz", "Pz"], ["uV", "uV"], data, SFREQ))
    (segment,) = recording.streams[0].bad
    assert (segment.start, segment.length) == (2.5, pytest.approx(0.5))
    assert any("fill" in line for line in recording.warnings)
    assert any("no events" in line for line in recording.warnings)


def test_file_that_is_still_written(tmp_path: Path) -> None:
    """A file cut within a record gives the whole records, and says so."""
    data = noise(2, 4)
    path = write_edf(tmp_path / "x.edf", ["Cz", "Pz"], ["uV", "uV"], data, SFREQ, annotations=[(0.5, 0, "a")])
    path.write_bytes(path.read_bytes()[:-100])
    recording = read(path)
    assert len(recording.streams[0].times) == 3 * SFREQ
    assert any("does not match the file size" in line for line in recording.warnings)


@pytest.mark.parametrize("prefix", ["EEG ", "EEG  ", "eeg "])
def test_labels_of_edf(tmp_path: Path, prefix: str) -> None:
    """EDF's labels give the electrodes' names and the channels' kinds."""
    labels = [f"{prefix}Fp1-REF", f"{prefix}Fp2-Ref", "Cz.", "EKG1", "EOG left", "EMG chin"]
    (stream,) = read(write_edf(tmp_path / "x.edf", labels, ["uV"] * 6, noise(6, 2), SFREQ)).streams
    assert stream.channels.names == ("Fp1", "Fp2", "Cz", "EKG1", "EOG left", "EMG chin")
    assert stream.channels.kinds == ("eeg", "eeg", "eeg", "ecg", "eog", "emg")


@pytest.mark.parametrize("labels", [("Cz", "Pz", "Cz"), ("EEG Cz-REF", "EEG Pz-REF", "EEG Cz-REF")])
def test_channels_of_one_name(tmp_path: Path, labels: tuple[str, ...]) -> None:
    """Doubled names are numbered as in every other form, and said."""
    recording = read(write_edf(tmp_path / "x.edf", labels, ["uV"] * 3, noise(3, 2), SFREQ))
    assert recording.streams[0].channels.names == ("Cz-0", "Pz", "Cz-1")
    assert any("Applying running numbers for duplicates" in line for line in recording.warnings)


@pytest.mark.parametrize("cut", [0, 100, 256, 800])
def test_a_file_without_a_whole_record_is_refused_in_one_line(tmp_path: Path, cut: int) -> None:
    """A file that has only begun is told as such."""
    path = write_edf(tmp_path / "x.edf", ["Cz", "Pz"], ["uV", "uV"], noise(2, 2), SFREQ)
    path.write_bytes(path.read_bytes()[: cut or 700])
    with pytest.raises(RecordingError, match=r"x\.edf: (holds no whole record yet|has no header of EDF or BDF)"):
        read(path)
