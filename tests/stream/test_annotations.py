"""Annotations of files: what is an event, what a bad segment or a joint, and what windows are made of it."""

from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.epochs.ingest import FilterSpec, WindowSpec, windows_of
from stream.errors import RecordingError
from stream.files.annotations import is_mark, sort_marks, with_triggers
from stream.files.formats.npz import write_npz
from stream.files.registry import read
from stream.recording.alignment import shift
from stream.types.events import Event
from stream.types.recording import BadSegment, Recording

SFREQ = 100.0
BAD = ("BAD", "bad", "BAD_blink", "bad_acq_skip", "BAD_ACQ_SKIP", "Bad Interval/Bad", "bad motion")
JOINTS = (
    "EDGE",
    "EDGE boundary",
    "BAD boundary",
    "boundary",
    "Boundary",
    "New Segment",
    "New Segment/",
    "new segment/",
)
PICTURES = ("badger", "badminton.png", "edges", "hedge", "boundary fence", "newsegment1", "face", "Stimulus/badger")


def of(annotations: list[tuple[float, float, str]], seconds: float = 10.0) -> mne.io.RawArray:
    """Make two channels of noise with annotations."""
    data = np.random.default_rng(0).normal(0, 2e-5, (2, round(seconds * SFREQ)))
    raw = mne.io.RawArray(data, mne.create_info(["Cz", "Pz"], SFREQ, "eeg"), verbose="error")
    if annotations:
        onsets, lengths, texts = zip(*annotations, strict=True)
        raw.set_annotations(mne.Annotations(onsets, lengths, texts))
    return raw


def saved(raw: mne.io.BaseRaw, folder: Path, ending: str = "_raw.fif") -> Recording:
    """Write a raw, and read it as we do."""
    path = folder / f"x{ending}"
    if ending.endswith("fif"):
        raw.save(path, overwrite=True, verbose="error")
    else:
        raw.export(path, overwrite=True, verbose="error")
    return read(path)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 60), st.sampled_from([0.0, 0.5]), st.sampled_from([*BAD, *JOINTS, *PICTURES])),
        max_size=12,
    )
)
def test_every_annotation_is_one_thing(annotations: list[tuple[float, float, str]]) -> None:
    """Marks become segments or joints and pictures events; none is both, none is lost but a joint at the start."""
    marks = sort_marks(annotations)
    pictures = sorted(time for time, _, text in annotations if text in PICTURES)
    assert sorted(event.time for event in marks.events) == pictures
    segments = {(time, text) for time, length, text in annotations if text in BAD and length}
    assert sorted(segment.start for segment in marks.bad if segment.length) == sorted(time for time, _ in segments)
    joints = {(time, text) for time, length, text in annotations if text in JOINTS or (text in BAD and not length)}
    assert sorted(segment.start for segment in marks.bad if not segment.length) == sorted(
        time for time, _ in joints if time > 0
    )


@pytest.mark.parametrize("ending", ["_raw.fif", ".edf", ".set", ".vhdr"])
def test_marks_in_every_form(tmp_path: Path, ending: str) -> None:
    """In each form windows over a bad segment or a joint are rejected, others not, and no mark is an event."""
    marks = [(2.0, 0.5, "bad_blink"), (5.0, 0.0, "boundary"), (7.0, 0.0, "EDGE boundary"), (8.0, 0.0, "new segment")]
    times = [0.5, 1.8, 3.0, 4.8, 6.0, 6.9, 7.8, 9.0]
    recording = saved(of([*marks, *((time, 0.0, "face") for time in times)]), tmp_path, ending)
    assert [(event.label, event.time) for event in recording.events] == [("face", pytest.approx(t)) for t in times]
    found = recording.streams[0].bad
    assert [segment.start for segment in found] == [pytest.approx(each[0]) for each in marks]
    assert [segment.length for segment in found] == [pytest.approx(each[1]) for each in marks]
    windows = list(windows_of(recording, WindowSpec(tmin=0, tmax=0.4), FilterSpec()))
    assert [bool(window.quality.rejected) for window in windows] == [False, True, False, True, False, True, True, False]
    assert any("4 bad segments or joints" in line for line in recording.warnings)


def test_numeric_types_of_eeglab(tmp_path: Path) -> None:
    """A code that MATLAB stored as a number with a point is the same label as in any other form."""
    saved(of([(1.0, 0.0, "a"), (2.0, 0.0, "b"), (3.0, 0.0, "c")]), tmp_path, ".set")
    file = scipy.io.loadmat(tmp_path / "x.set", struct_as_record=False, squeeze_me=True)
    for event, kind in zip(file["event"], (7.0, "7", 300.0), strict=True):
        event.type = kind
    scipy.io.savemat(tmp_path / "x.set", {key: value for key, value in file.items() if not key.startswith("__")})
    events = read(tmp_path / "x.set").events
    assert [(event.label, event.code) for event in events] == [("7", 7), ("7", 7), ("300", 300)]


@pytest.mark.parametrize("name", ["x-epo.fif", "x-ave.fif", "x.set"])
def test_what_was_cut_into_trials(tmp_path: Path, name: str) -> None:
    """Trials and averages are named for what they are, and not called damaged."""
    events = np.array([[100, 0, 1], [300, 0, 1]])
    trials = mne.Epochs(of([]), events, tmin=0.0, tmax=0.5, baseline=None, preload=True, verbose="error")
    if name == "x.set":
        trials.export(tmp_path / name, verbose="error")
    else:
        (trials if name == "x-epo.fif" else trials.average()).save(tmp_path / name, verbose="error")
    with pytest.raises(RecordingError, match="single trials or averages"):
        read(tmp_path / name)


def test_joint_of_mne(tmp_path: Path) -> None:
    """Two recordings put together by mne have a joint at their seam, and its marks are no events."""
    raw = mne.concatenate_raws([of([(1.0, 0, "a")], 3.0), of([(1.0, 0, "b")], 3.0)], verbose="error")
    recording = saved(raw, tmp_path)
    assert [(event.label, event.time) for event in recording.events] == [("a", 1.0), ("b", 4.0)]
    assert {(segment.start, segment.length) for segment in recording.streams[0].bad} == {(3.0, 0.0)}
    (row,) = np.flatnonzero(np.isnan(recording.streams[0].masked_data).all(axis=1))
    assert row == 300


def test_what_was_skipped_in_recording(tmp_path: Path) -> None:
    """The pause of a FIF file is a bad segment."""
    raw = of([(1.0, 0, "a"), (4.0, 2.0, "BAD_ACQ_SKIP"), (8.0, 0, "b")])
    stream = saved(raw, tmp_path).streams[0]
    assert [(segment.start, segment.length) for segment in stream.bad] == [(4.0, 2.0)]
    assert np.isnan(stream.masked_data[400:600]).all()
    assert np.isfinite(stream.masked_data[:400]).all()
    assert np.isfinite(stream.masked_data[600:]).all()


def test_bad_segments_are_stored_and_shifted(tmp_path: Path) -> None:
    """NPZ and shifting keep bad segments, warnings, units as given and where events came from."""
    recording = saved(of([(1.0, 0, "a"), (2.0, 0.5, "BAD_x")]), tmp_path)
    named = replace(
        recording,
        events=tuple(replace(event, stream="STI101", columns=(("a", "b"),)) for event in recording.events),
        other_events=(Event(3.0, "9", 9, "STI001"),),
        warnings=("one", "two"),
    )
    write_npz(named, tmp_path / "x.npz")
    back = read(tmp_path / "x.npz")
    assert back.streams[0].bad == (BadSegment(2.0, 0.5, "BAD_x"),)
    assert back.streams[0].units_given == ("V", "V")
    assert (back.events, back.other_events, back.warnings) == (named.events, named.other_events, named.warnings)
    assert (back.events[0].stream, back.events[0].columns) == ("STI101", (("a", "b"),))
    assert back.other_events[0].stream == "STI001"
    later = shift(back, 10.0)
    assert later.streams[0].bad[0].start == 12.0
    assert later.other_events[0].time == 13.0
    np.testing.assert_array_equal(np.isnan(later.streams[0].masked_data), np.isnan(back.streams[0].masked_data))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["Stimulus/", "Response/", "Comment/", ""]), st.sampled_from("abc")), max_size=8)
)
def test_labels_without_brainvisions_types(pairs: list[tuple[str, str]]) -> None:
    """A type before the text goes, and no two labels that differed become the same."""
    marks = sort_marks([(float(i), 0.0, kind + text) for i, (kind, text) in enumerate(pairs)])
    for (kind, text), event in zip(pairs, marks.events, strict=True):
        alone = {other for other, same in pairs if same == text} == {kind}
        assert event.label == (text if alone else kind + text)
    assert len({event.label for event in marks.events}) == len(set(pairs))


@pytest.mark.parametrize(
    ("text", "label", "code"),
    [("Stimulus/S 10", "S 10", 10), ("Stimulus/s10", "s10", 10), ("s10", "s10", 10), ("7", "7", 7), ("S  7", "S  7", 7),
     ("Response/R128", "R128", 128), ("Stimulus/images/cat.png", "images/cat.png", None), ("face/a", "face/a", None)],
)  # fmt: skip
def test_label_and_code(text: str, label: str, code: int | None) -> None:
    """The label is the text without its type; the number behind BrainVision's letter is the code."""
    (event,) = sort_marks([(1.0, 0.0, text)]).events
    assert (event.label, event.code) == (label, code)


def test_marks_by_name() -> None:
    """What marks a segment is told from pictures whose names begin alike."""
    assert all(is_mark(text) for text in (*BAD, *JOINTS))
    assert not any(is_mark(text) for text in PICTURES)


@settings(deadline=None)
@given(st.lists(st.integers(0, 200), max_size=20, unique=True), st.lists(st.integers(0, 200), max_size=20, unique=True))
def test_annotations_and_triggers(annotated: list[int], triggers: list[int]) -> None:
    """What tells of one moment is one event, with the annotation's label and the trigger's code; nothing is lost."""
    told = tuple(Event(float(i), f"p{i}") for i in sorted(annotated))
    steps = tuple(Event(i + 0.001, str(i), i, "STI101") for i in sorted(triggers))
    events = with_triggers(told, steps, 0.002)
    assert len(events) == len(set(annotated) | set(triggers))
    for event in events:
        place = int(event.time)
        assert event.label == (f"p{place}" if place in annotated else str(place))
        assert event.code == (place if place in triggers else None)
