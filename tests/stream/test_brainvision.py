"""BrainVision headers as they are found: units, doubled names, files cut short, trigger channels."""

from pathlib import Path

import mne
import numpy as np
import pytest

from stream.files.registry import read

DATA = np.random.default_rng(0).normal(0, 100, (400, 3)).round().astype("<i2")


def written(folder: Path, *channels: str, points: int = 400, encoding: str = "utf-8") -> Path:
    """Write 400 samples at 200 Hz of 16 bits, a channel to each entry of [Channel Infos]."""
    (folder / "x.eeg").write_bytes(DATA[:, : len(channels)].tobytes())
    listed = "\n".join(f"Ch{i}={entry}" for i, entry in enumerate(channels, start=1))
    (folder / "x.vhdr").write_text(
        f"Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=x.eeg\n"
        f"MarkerFile=x.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels={len(channels)}\n"
        f"DataPoints={points}\nSamplingInterval=5000\n[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\n{listed}\n",
        encoding=encoding,
    )
    (folder / "x.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=x.eeg\n"
        "[Marker Infos]\nMk1=New Segment,,1,1,0,20181106153757758000\nMk2=Stimulus,S  3,101,1,0\n"
        "Mk3=Bad Interval,Bad,201,20,0\nMk4=Stimulus,S128,301,1,0\nMk5=New Segment,,351,1,0,20181106153757758000\n"
        "Mk6=Response,R  3,390,1,0\n"
    )
    return folder / "x.vhdr"


def test_marks_and_codes(tmp_path: Path) -> None:
    """Markers have their text as label and its number as code; bad intervals and segments are no events."""
    recording = read(written(tmp_path, "Cz,,0.5,µV", "Pz,,0.5,µV"))
    assert [(event.time, event.label, event.code) for event in recording.events] == [
        (0.5, "S  3", 3), (1.5, "S128", 128), (pytest.approx(389 / 200), "R  3", 3),
    ]  # fmt: skip
    assert [(each.start, each.length) for each in recording.streams[0].bad] == [(1.0, pytest.approx(0.1)), (1.75, 0.0)]


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("µV", 1e-6), ("uv", 1e-6), ("UV", 1e-6), ("mV", 1e-3), ("MV", 1e-3), ("nV", 1e-9), ("V", 1), ("", 1e-6)],
)
def test_unit_of_any_spelling(tmp_path: Path, unit: str, factor: float) -> None:
    """The resolution times the unit as the header writes it; microvolts where it writes none."""
    (stream,) = read(written(tmp_path, f"Cz,,0.5,{unit}", "Pz,,0.5,µV")).streams
    assert (stream.channels.kinds, stream.channels.units) == (("eeg", "eeg"), ("V", "V"))
    assert stream.units_given == (unit or "µV", "µV")
    np.testing.assert_allclose(stream.data[:, 0], DATA[:, 0] * 0.5 * factor, rtol=1e-6)


def test_other_quantities_and_unknown_units(tmp_path: Path) -> None:
    """Conductance is no EEG; a text that is no unit makes plain numbers, and both are named."""
    recording = read(written(tmp_path, "GSR,,0.5,µS", "Sound,,0.5,dB", "Cz,,0.5,xyz"))
    (stream,) = recording.streams
    assert stream.channels.kinds == ("gsr", "misc", "eeg")
    assert stream.channels.units == ("count", "count", "count")
    np.testing.assert_allclose(stream.data, DATA * 0.5)
    (line,) = [line for line in recording.warnings if "no known unit" in line]
    assert "GSR ('µS'), Sound ('dB'), Cz ('xyz')" in line


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_channels_of_one_name(tmp_path: Path, encoding: str) -> None:
    """Doubled names are numbered as in every other form, and said; data, markers and units are what they are."""
    recording = read(written(tmp_path, "Cz,,0.5,µV", "Cz,,0.5,mV", "Pz,,0.5,µV", encoding=encoding))
    (stream,) = recording.streams
    assert stream.channels.names == ("Cz-0", "Cz-1", "Pz")
    np.testing.assert_allclose(stream.data, DATA * 0.5 * np.array([1e-6, 1e-3, 1e-6]), rtol=1e-6)
    assert [event.label for event in recording.events] == ["S  3", "S128", "R  3"]
    assert "channels of the same name are numbered: Cz" in recording.warnings


def test_data_cut_short(tmp_path: Path) -> None:
    """Fewer samples than the header tells, and markers beyond them, are said."""
    path = written(tmp_path, "Cz,,0.5,µV")
    (tmp_path / "x.eeg").write_bytes(DATA[:200, 0].tobytes())
    recording = read(path)
    assert any("400 samples, and the data hold 200" in line for line in recording.warnings)
    assert any("outside data range" in line for line in recording.warnings)


@pytest.mark.parametrize("form", ["vhdr", "set", "edf"])
def test_trigger_channel_of_each_form(tmp_path: Path, form: str) -> None:
    """A channel called as a trigger holds codes whatever unit the form makes of it, and is no channel of the data."""
    if form == "vhdr":
        path = written(tmp_path, "Cz,,0.5,µV", "Trigger,,1,µV")
        data = DATA[:, :2].copy()
        data[:, 1] = 0
        data[100:120, 1], data[300:310, 1] = 7, 9
        (tmp_path / "x.eeg").write_bytes(data.tobytes())
        (tmp_path / "x.vmrk").write_text("Brain Vision Data Exchange Marker File, Version 1.0\n[Marker Infos]\n")
    else:
        path = tmp_path / f"x.{form}"
        values = np.zeros((2, 400))
        values[0] = DATA[:, 0] * 5e-7
        values[1, 100:120], values[1, 300:310] = 7e-6, 9e-6
        raw = mne.io.RawArray(values, mne.create_info(["Cz", "Trigger"], 200, "eeg"), verbose="error")
        raw.export(path, verbose="error")
    recording = read(path)
    assert [(event.time, event.code) for event in recording.events] == [(0.5, 7), (1.5, 9)]
    assert recording.streams[0].channels.names == ("Cz",)
