"""CSV files: whose they are is told by their header, and nothing is taken for a Muse that is none."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.errors import RecordingError
from stream.files.formats.mne_files import in_unit
from stream.files.registry import read
from stream.types.recording import Recording

N = 200


def written(folder: Path, header: str, *columns: np.ndarray, encoding: str = "utf-8") -> Recording:
    """Write a table of 100 Hz, and read it."""
    rows = zip(np.arange(N) / 100, *columns, strict=True)
    text = "\n".join([header, *(",".join(f"{value:.10g}" for value in row) for row in rows)])
    (folder / "x.csv").write_text(text + "\n\n", encoding=encoding)
    return read(folder / "x.csv")


NOISE = np.random.default_rng(0).normal(0, 20, N)


def test_meg_is_no_muse(tmp_path: Path) -> None:
    """A table of MEG without a unit holds plain numbers, which is said, until its unit is stated."""
    recording = written(tmp_path, "time,MLC11,MLC12", NOISE * 1e-14, NOISE * 1e-14)
    (stream,) = recording.streams
    assert (stream.type, stream.channels.kinds, stream.channels.units) == ("MEG", ("mag", "mag"), ("count", "count"))
    assert "Muse" not in recording.description
    np.testing.assert_allclose(stream.data[:, 0], NOISE * 1e-14, rtol=1e-5)
    assert any("MLC11, MLC12" in line and "source.unit" in line for line in recording.warnings)
    stated = in_unit(recording, "T")
    assert stated.streams[0].channels.units == ("T", "T")
    np.testing.assert_allclose(stated.streams[0].data[:, 0], NOISE * 1e-14, rtol=1e-5)
    assert not any("no known unit" in line for line in stated.warnings)
    assert any("rms" in line for line in in_unit(recording, "fT").warnings)


def test_a_table_of_something_else(tmp_path: Path) -> None:
    """Columns that are no electrodes and in no volts are not called EEG; numbered channels are."""
    recording = written(tmp_path, "time,x,pupil (mm),ch1", NOISE, NOISE, NOISE)
    assert recording.streams[0].channels.kinds == ("misc", "misc", "eeg")
    recording = written(tmp_path, "time,x,pupil (mm)", NOISE, NOISE)
    assert (recording.streams[0].type, recording.description) == ("misc", "misc recording")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["timestamps", "Timestamp", "time", "Time (s)", "time [sec]"]),
    st.sampled_from([("uV", 1e-6), ("µV", 1e-6), ("UV", 1e-6), ("mV", 1e-3), ("V", 1.0), ("microvolts", 1e-6)]),
    st.sampled_from(["{} ({})", "{} [{}]", "{}({})"]),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.booleans(),
)
def test_headers_of_any_spelling(
    tmp_path: Path, time: str, unit: tuple[str, float], form: str, delimiter: str, encoding: str, comma: bool
) -> None:
    """Whatever parts columns, decimals and names from units, and in any encoding, the same volts are read."""
    header = delimiter.join([time, form.format("Fz", unit[0]), form.format("EOG", unit[0])])
    rows = [[f"{i / 100:.2f}", f"{NOISE[i]:.6f}", f"{-NOISE[i]:.6f}"] for i in range(N)]
    if comma and delimiter != ",":
        rows = [[cell.replace(".", ",") for cell in row] for row in rows]
    text = "\r\n".join([header, *(delimiter.join(row) for row in rows), "", ""])
    (tmp_path / "x.csv").write_bytes(text.encode(encoding))
    (stream,) = read(tmp_path / "x.csv").streams
    assert (stream.channels.names, stream.channels.kinds) == (("Fz", "EOG"), ("eeg", "eog"))
    assert (stream.channels.units, stream.sfreq) == (("V", "V"), 100.0)
    np.testing.assert_allclose(stream.data[:, 0], NOISE * unit[1], rtol=1e-5, atol=1e-6 * unit[1])


@pytest.mark.parametrize(
    ("header", "name", "unit", "factor"),
    [("Oz µV", "Oz", "V", 1e-6), ("Oz UV", "Oz", "V", 1e-6), ("Oz_mV", "Oz", "V", 1e-3),
     ("Oz microvolts", "Oz", "V", 1e-6), ("Oz_V", "Oz", "V", 1.0), ("EOG V", "EOG V", "count", 1.0)],
)  # fmt: skip
def test_units_without_brackets(tmp_path: Path, header: str, name: str, unit: str, factor: float) -> None:
    """A unit behind a blank is none of the name, where it cannot be anything else."""
    (stream,) = written(tmp_path, f"time,{header},Fz", NOISE, NOISE).streams
    assert (stream.channels.names[0], stream.channels.units[0]) == (name, unit)
    np.testing.assert_allclose(stream.data[:, 0], NOISE * factor, rtol=1e-5)


def test_latin1_header(tmp_path: Path) -> None:
    """A micro sign of Latin-1 is one."""
    stream = written(tmp_path, "time,Fz (µV)", NOISE, encoding="latin-1").streams[0]
    assert stream.channels.units == ("V",)
    np.testing.assert_allclose(stream.data[:, 0], NOISE * 1e-6, rtol=1e-5)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_delimiter_behind_each_line(tmp_path: Path, delimiter: str) -> None:
    """What ends each line makes no channel without a name."""
    rows = [delimiter.join([f"{i / 100:.2f}", f"{NOISE[i]:.6f}", ""]) for i in range(N)]
    (tmp_path / "x.csv").write_text("\n".join([delimiter.join(["time", "Fz (uV)", ""]), *rows]))
    (stream,) = read(tmp_path / "x.csv").streams
    assert stream.channels.names == ("Fz",)
    np.testing.assert_allclose(stream.data[:, 0], NOISE * 1e-6, rtol=1e-5)


@pytest.mark.parametrize("factor", [1e3, 1e6])
def test_stamps_in_other_units(tmp_path: Path, factor: float) -> None:
    """Milliseconds and microseconds since 1970 are told by their size, and named in the header by their unit."""
    stamps = (1.6e9 + np.arange(N) / 100) * factor
    lines = [f"{stamp:.0f},{value:.6f}" for stamp, value in zip(stamps, NOISE, strict=True)]
    (tmp_path / "x.csv").write_text("\n".join(["timestamps,Cz (uV)", *lines]))
    recording = read(tmp_path / "x.csv")
    assert (recording.streams[0].sfreq, recording.begun) == (100.0, pytest.approx(1.6e9))
    assert any("seconds since 1970" in line for line in recording.warnings)


def test_trigger_column_and_gaps(tmp_path: Path) -> None:
    """A held trigger is one event, muse-lsl's rows are one each, and an empty cell is no number."""
    trigger = np.zeros(N)
    trigger[50:60] = 5
    recording = written(tmp_path, "time,Cz (uV),Trigger", NOISE, trigger)
    assert [(event.time, event.code) for event in recording.events] == [(0.5, 5)]
    recording = written(tmp_path, "timestamps,TP9,Marker0", NOISE, trigger)
    assert len(recording.events) == 10
    text = (tmp_path / "x.csv").read_text().splitlines()
    text[10] = text[10].split(",")[0] + ",,0"
    (tmp_path / "x.csv").write_text("\n".join(text))
    data = read(tmp_path / "x.csv").streams[0].data
    assert np.flatnonzero(np.isnan(data[:, 0])).tolist() == [9]


def test_table_of_pandas(tmp_path: Path) -> None:
    """A column of row numbers without a name, and quoted cells, are no hindrance."""
    lines = [f'{i},"{i / 100}","{NOISE[i]:.6f}"' for i in range(N)]
    (tmp_path / "x.csv").write_text("\n".join([',"time","Fz (uV)"', *lines]))
    stream = read(tmp_path / "x.csv").streams[0]
    assert (stream.channels.names, stream.sfreq) == (("Fz",), 100.0)
    np.testing.assert_allclose(stream.data[:, 0], NOISE * 1e-6, rtol=1e-4, atol=1e-11)


def test_last_line_cut_short(tmp_path: Path) -> None:
    """A table that is still being written loses its last line, and says so."""
    written(tmp_path, "time,Cz (uV),Pz (uV)", NOISE, NOISE)
    path = tmp_path / "x.csv"
    path.write_text(path.read_text().rstrip("\n").rpartition(",")[0])
    recording = read(path)
    assert len(recording.streams[0].times) == N - 1
    assert any(f"line {N + 1} is cut short" in line for line in recording.warnings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Cz,Pz\n1,2\n3,4\n", "first column must be 'timestamps'"),
        ("time,Cz\n0,1\n0.01,abc\n0.02,3\n", "line 3, column 'Cz': 'abc' is no number"),
        ("time,Cz\n0,1\n0.01,2,3\n0.02,3\n", "line 3 has 3 columns, the header 2"),
        ("time,Cz\n0,1\n", "holds 1 whole rows"),
        ("time,Cz\n", "holds 0 whole rows"),
        ("time,Cz\n1,1\n0.5,2\n", "do not increase"),
        ("time,Cz\nnan,1\n0.5,2\n", "a timestamp is not a number"),
        ("time\n1\n2\n", "names no column beside 'time'"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    """Each refusal names the file and the place."""
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(RecordingError) as caught:
        read(tmp_path / "x.csv")
    assert said in str(caught.value)
    assert "x.csv" in str(caught.value)
    assert "\n" not in str(caught.value)
