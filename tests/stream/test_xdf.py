"""XDF files as programs leave them: empty elements, markers of any shape, ends that are missing."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.epochs.ingest import FilterSpec, WindowSpec, windows_of
from stream.errors import RecordingError
from stream.files.registry import read
from stream.files.xdf_writer import XdfWriter
from stream.types.events import event_of
from stream.types.recording import Recording, measured_rate

FOLDERS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def head(desc: str = "", **elements: str | None) -> str:
    """Write a stream's header; an element that is None is left out."""
    usual: dict[str, str | None] = {
        "name": "amp", "type": "EEG", "channel_count": "2", "nominal_srate": "100", "channel_format": "float32",
        "source_id": "a",
    } | elements  # fmt: skip
    body = "".join(
        f"<{key}>{value}</{key}>" if value else f"<{key}/>" for key, value in usual.items() if value is not None
    )
    return f'<?xml version="1.0"?><info>{body}<desc>{desc}</desc></info>'


def channels(*entries: tuple[str, str, str]) -> str:
    """Describe channels by label, type and unit."""
    listed = "".join(
        f"<channel><label>{label}</label><type>{kind}</type><unit>{unit}</unit></channel>"
        for label, kind, unit in entries
    )
    return f"<channels>{listed}</channels>"


MARKS = head(name="marks", type="Markers", channel_count="1", nominal_srate="0", channel_format="string", source_id="m")
EEG = channels(("Cz", "EEG", "microvolts"), ("Pz", "EEG", "microvolts"))


def written(folder: Path, amp: str = head(EEG), marks: str = MARKS, labels: tuple[bytes, ...] = (b"a", b"b")) -> Path:
    """Write two seconds of two channels, and markers half a second apart."""
    path = folder / "x.xdf"
    path.unlink(missing_ok=True)
    with XdfWriter(path) as file:
        number, of_marks = file.stream(amp), file.stream(marks)
        data = np.random.default_rng(0).normal(0, 20, (200, 2)).astype(np.float32)
        for start in range(0, 200, 50):
            file.samples(number, 1000 + np.arange(start, start + 50) / 100, data[start : start + 50])
        words = np.array([[label] for label in labels], dtype=object)
        file.samples(of_marks, 1000.5 + np.arange(len(labels)) / 2, words)
    return path


@FOLDERS
@given(
    st.sampled_from(["", None, "EEG"]),
    st.sampled_from(["", None, "amp"]),
    st.sampled_from(["", None, "0", "100", "100,0", "nan", "fast"]),
    st.sampled_from(["", None, "a"]),
    st.sampled_from(["float32", "cf_float32", "Float32"]),
)
def test_empty_elements_cost_nothing(
    tmp_path: Path, kind: str | None, name: str | None, rate: str | None, source_id: str | None, form: str
) -> None:
    """Whatever element is empty or missing, samples and markers are read; what was filled in is said or stated."""
    amp = head(EEG, type=kind, name=name, nominal_srate=rate, source_id=source_id, channel_format=form)
    recording = read(written(tmp_path, amp))
    (stream,) = recording.streams
    assert stream.data.shape == (200, 2)
    assert stream.name == (name or "stream-1")
    assert stream.sfreq == (100.0 if rate in {"100", "100,0"} else 0.0)
    assert stream.channels.kinds == ("eeg", "eeg")
    assert [event.label for event in recording.events] == ["a", "b"]
    assert any("no name" in line for line in recording.warnings) == (not name)


@pytest.mark.parametrize("desc", ["", "<channels/>", "<channels><channel/><channel/></channels>"])
def test_empty_metadata(tmp_path: Path, desc: str) -> None:
    """A stream that describes nothing is read with numbered names and without a unit, which is said."""
    recording = read(written(tmp_path, head(desc)))
    assert recording.streams[0].channels.names == ("EEG001", "EEG002")
    assert recording.streams[0].channels.units == ("count", "count")
    assert any("no known unit is stated for EEG001, EEG002" in line for line in recording.warnings)


@pytest.mark.parametrize("broken", [{"channel_format": ""}, {"channel_count": ""}, {"channel_format": "complex"}])
def test_a_stream_of_unknown_layout_costs_itself_alone(tmp_path: Path, broken: dict[str, str]) -> None:
    """Where a header does not say how samples are laid out, that stream is left out, by name; the rest is read."""
    recording = read(written(tmp_path, head(EEG, **broken)))
    assert recording.streams == ()
    assert len(recording.events) == 2
    assert any(line.startswith("stream amp: channel_format") for line in recording.warnings)


@FOLDERS
@given(st.integers(4, 4000))
def test_a_file_cut_short(tmp_path: Path, cut: int) -> None:
    """Of a file that ends anywhere, every whole chunk is read."""
    path = tmp_path / "x.xdf"
    path.unlink(missing_ok=True)
    ends = []
    with XdfWriter(path) as file:
        number = file.stream(head(EEG))
        for start in range(0, 200, 50):
            file.samples(number, 1000 + np.arange(start, start + 50) / 100, np.ones((50, 2), np.float32))
            ends.append(file.size)
    path.write_bytes(path.read_bytes()[:cut])
    whole = sum(end <= cut for end in ends)
    if not whole:
        with pytest.raises(RecordingError, match="holds no samples"):
            read(path)
        return
    recording = read(path)
    np.testing.assert_allclose(recording.streams[0].times, np.arange(50 * whole) / 100, atol=1e-9)
    assert any("no whole chunk" in line for line in recording.warnings) == (cut < ends[-1] and cut not in ends)


def test_the_loss_at_the_end_is_said(tmp_path: Path) -> None:
    """A file cut within its last chunk of samples names the bytes that are no whole chunk."""
    path = written(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    assert any(
        "bytes at the end (cut short, or still being written) are no whole chunk" in line
        for line in read(path).warnings
    )


def test_zipped(tmp_path: Path) -> None:
    """An XDFZ file is the same, packed."""
    (tmp_path / "y.xdfz").write_bytes(gzip.compress(written(tmp_path).read_bytes()))
    assert len(read(tmp_path / "y.xdfz").streams[0].times) == 200


def test_damage_in_the_middle(tmp_path: Path) -> None:
    """A damaged chunk costs what lies before the next boundary, which is said."""
    path = tmp_path / "x.xdf"
    with XdfWriter(path) as file:
        number, begins = file.stream(head(EEG)), []
        for start in (0, 50, 100, 150):
            begins.append(file.size)
            file.samples(number, 1000 + np.arange(start, start + 50) / 100, np.ones((50, 2), np.float32))
            file.boundary()
    content = bytearray(path.read_bytes())
    content[begins[1]] = 7
    path.write_bytes(content)
    recording = read(path)
    np.testing.assert_allclose(recording.streams[0].times, np.delete(np.arange(200), np.arange(50, 100)) / 100)
    assert any(f"bytes at byte {begins[1]} are no whole chunk" in line for line in recording.warnings)


def test_stamps_that_are_not_finite(tmp_path: Path) -> None:
    """Samples without a finite time are left out, counted and named; the others keep theirs."""
    path = tmp_path / "x.xdf"
    with XdfWriter(path) as file:
        number = file.stream(head(EEG))
        times = 1000 + np.arange(100) / 100
        times[[10, 50]] = np.nan, np.inf
        file.samples(number, times, np.ones((100, 2), np.float32))
    recording = read(path)
    assert len(recording.streams[0].times) == 98
    assert recording.streams[0].times[-1] == pytest.approx(0.99)
    assert any("amp: 2 of 100 samples without a finite time" in line for line in recording.warnings)


@pytest.mark.parametrize("kind", ["Markers", "Marker", "markers", "Events", "StringMarker", "Stimulus", "", "signal"])
def test_markers_of_any_type(tmp_path: Path, kind: str) -> None:
    """A text stream is a marker stream whatever its type says."""
    marks = MARKS.replace("<type>Markers</type>", f"<type>{kind}</type>" if kind else "<type/>")
    recording = read(written(tmp_path, marks=marks))
    assert [(event.time, event.label, event.stream) for event in recording.events] == [
        (pytest.approx(0.5), "a", "marks"), (pytest.approx(1.0), "b", "marks"),
    ]  # fmt: skip


@FOLDERS
@given(
    st.integers(1, 3),
    st.sampled_from(["int32", "float32", "double64", "string"]),
    st.sampled_from(["Markers", "events", "Trigger"]),
    st.lists(st.integers(1, 90), min_size=1, max_size=6),
)
def test_markers_of_any_shape(tmp_path: Path, n: int, form: str, kind: str, codes: list[int]) -> None:
    """Markers of one or several columns, numbers or text: one event a row, in which nothing of the row is lost."""
    path = tmp_path / "x.xdf"
    path.unlink(missing_ok=True)
    rows = [[code + 100 * column for column in range(n)] for code in codes]
    with XdfWriter(path) as file:
        number = file.stream(head(name="m", type=kind, channel_count=str(n), nominal_srate="0", channel_format=form))
        dtype = {"string": np.object_, "double64": np.float64, "float32": np.float32, "int32": np.int32}[form]
        values = np.array([[str(each).encode() if form == "string" else each for each in row] for row in rows], dtype)
        file.samples(number, 1000.0 + np.arange(len(rows)), values)
    events = read(path).events
    assert [event.label for event in events] == ["/".join(map(str, row)) for row in rows]
    assert [event.time for event in events] == pytest.approx(list(range(len(rows))))
    assert [event.code for event in events] == [row[0] if n == 1 else None for row in rows]


def test_texts_that_are_not_utf8_are_read_as_live(tmp_path: Path) -> None:
    """A file's marker has the label that a live session gave it, UTF-8 or not; that is said."""
    sent = ("bär".encode("latin-1"), "größe".encode(), b"cat", b"\xff" * 300)
    recording = read(written(tmp_path, labels=sent))
    live = [event_of(0.5 + i / 2, text) for i, text in enumerate(sent)]
    assert [event.label for event in recording.events] == [event.label for event in live if event]
    assert recording.events[0].label == "bär"
    assert any("marks: 2 texts are not UTF-8" in line for line in recording.warnings)


def several(folder: Path) -> Recording:
    """Write two marker streams beside the data, and a trigger column in them."""
    path = folder / "x.xdf"
    trigger = channels(("Cz", "EEG", "uV"), ("TRIG", "EEG", "uV"))
    with XdfWriter(path) as file:
        amp = file.stream(head(trigger))
        data = np.random.default_rng(0).normal(0, 20, (200, 2)).astype(np.float32)
        data[:, 1] = 0
        data[60:65, 1] = 9
        file.samples(amp, 1000 + np.arange(200) / 100, data)
        for name, label in (("pictures", b"cat"), ("keys", b"left")):
            number = file.stream(MARKS.replace("<name>marks</name>", f"<name>{name}</name>"))
            file.samples(number, np.array([1000.5]), np.array([[label]], dtype=object))
    return read(path)


def test_several_marker_streams_are_told_apart(tmp_path: Path) -> None:
    """Events bear their stream's name, triggers beside them are kept apart, and both are said."""
    recording = several(tmp_path)
    assert [(event.label, event.stream) for event in recording.events] == [("cat", "pictures"), ("left", "keys")]
    assert [(event.code, event.time, event.stream) for event in recording.other_events] == [
        (9, pytest.approx(0.6), "TRIG")
    ]
    assert any("2 marker streams are read, pictures (1), keys (1)" in line for line in recording.warnings)
    assert any("1 triggers of TRIG are not read" in line for line in recording.warnings)
    assert recording.streams[0].channels.kinds == ("eeg", "stim")


def test_a_trigger_column_is_read_where_there_are_no_markers(tmp_path: Path) -> None:
    """Without a marker stream, the onsets in a trigger column of the data are the events, in windows as well."""
    path = tmp_path / "x.xdf"
    with XdfWriter(path) as file:
        data = np.random.default_rng(0).normal(0, 20, (200, 2)).astype(np.float32)
        data[:, 1] = 0
        data[60:65, 1], data[120:125, 1] = 9, 4
        amp = file.stream(head(channels(("Cz", "EEG", "uV"), ("TRIG", "EEG", ""))))
        file.samples(amp, 1000 + np.arange(200) / 100, data)
    recording = read(path)
    assert [(event.code, event.time) for event in recording.events] == [
        (9, pytest.approx(0.6)), (4, pytest.approx(1.2)),
    ]  # fmt: skip
    windows = list(windows_of(recording, WindowSpec(tmin=0, tmax=0.2), FilterSpec(channels=("eeg",))))
    assert [window.event.code for window in windows if window.event] == [9, 4]


@pytest.mark.parametrize(
    ("unit", "factor"), [("uv", 1e-6), ("µVolts", 1e-6), ("Microvolts", 1e-6), ("MV", 1e-3), ("V", 1)]
)
def test_units_of_any_spelling(tmp_path: Path, unit: str, factor: float) -> None:
    """Units are read as in every other file."""
    data = np.random.default_rng(0).normal(0, 20, (200, 2)).astype(np.float32)
    (stream,) = read(written(tmp_path, head(channels(("Cz", "EEG", unit), ("HEOG", "EEG", unit))))).streams
    assert (stream.channels.units, stream.channels.kinds) == (("V", "V"), ("eeg", "eog"))
    assert stream.units_given == (unit, unit)
    np.testing.assert_allclose(stream.data, data * factor, rtol=1e-5)


@pytest.mark.parametrize(("declared", "said"), [("100", ""), ("250", "250 Hz are declared, and samples come at 100 Hz"),
                                                ("0", "no rate is declared, and samples come at 100 Hz")])  # fmt: skip
def test_a_rate_that_is_not_the_declared_one(tmp_path: Path, declared: str, said: str) -> None:
    """Where samples come at another rate than is declared, or none is, that and the way out are said."""
    lines = [line for line in read(written(tmp_path, head(EEG, nominal_srate=declared))).warnings if "come at" in line]
    assert bool(lines) == bool(said)
    assert all(f"amp: {said}; state source.sfreq" == line for line in lines)


@pytest.mark.parametrize("chunk", [1, 10, 50])
def test_the_rate_of_samples_stamped_by_the_chunk(chunk: int) -> None:
    """The samples of the last chunk have no time of their own: they are no part of the rate, and no doubt of it."""
    times = np.repeat(np.arange(0, 1000, chunk) / 100, chunk)
    assert measured_rate(times) == pytest.approx(100)


@pytest.mark.filterwarnings("error")
def test_stamps_that_are_all_the_same(tmp_path: Path) -> None:
    """Samples without times of their own are said to be so."""
    path = tmp_path / "same.xdf"
    with XdfWriter(path) as file:
        number = file.stream(head(EEG))
        file.samples(number, np.zeros(200), np.random.default_rng(0).normal(0, 20, (200, 2)).astype(np.float32))
    assert "amp: all 200 samples are stamped with the same time" in read(path).warnings
