"""Marker streams of any shape: which types are markers, what several columns say, whose they are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import StreamError
from stream.markers.choice import default_marker_stream
from stream.markers.markers import MarkerColumns, in_column, triggers_of
from stream.types.events import Event, event_of
from stream.types.source_spec import is_marker_type

WORDS = [
    "Markers", "Marker", "Events", "Event", "StringMarker", "StringMarkers", "Trigger", "Triggers", "Stim",
    "Stimulus", "Annotations", "Marker Stream",
]  # fmt: skip


@given(st.sampled_from(WORDS), st.data())
def test_marker_types_in_any_case(word: str, data: st.DataObject) -> None:
    """A type that names markers does so in any case, with any separators."""
    cases = data.draw(st.lists(st.booleans(), min_size=len(word), max_size=len(word)))
    text = "".join(each.upper() if up else each.lower() for each, up in zip(word, cases, strict=True))
    assert is_marker_type(data.draw(st.sampled_from([text, f" {text}", text.replace(" ", "_")])))


@pytest.mark.parametrize(
    "kind", ["EEG", "MEG", "signal", "", "fMRI", "spikes", "Gaze", "Audio", "misc", "Eventful EEG"]
)
def test_data_types_are_no_markers(kind: str) -> None:
    """Types of data are none of markers."""
    assert not is_marker_type(kind)


@given(st.lists(st.tuples(st.sampled_from(["stim", "fixation"]), st.text("abc-.0", min_size=1)), max_size=9))
def test_every_column_counts(rows: list[tuple[str, str]]) -> None:
    """Rows that differ in any column have different labels, and each column can be had by name or number."""
    stream = MarkerColumns("m", ["type", "picture"])
    events = stream.feed(rows, np.arange(len(rows), dtype=float))
    assert [event.label for event in events] == [f"{kind}/{picture}" for kind, picture in rows]
    assert [in_column(event, "Picture") for event in events] == [
        event_of(float(i), picture) for i, (_, picture) in enumerate(rows)
    ]
    assert [event and event.label for event in (in_column(each, 1) for each in events)] == [kind for kind, _ in rows]


def test_columns_that_tell_a_time_name_nothing() -> None:
    """Of a headset's columns of time, value and time, the value is the label, and its number the code."""
    stream = MarkerColumns("m", ["MarkerTime", "MarkerValue", "CurrentTime"])
    [event] = stream.feed(np.array([[1.79e9, 7.0, 1.79e9]]), [3.0])
    assert (event.time, event.label, event.code) == (3.0, "7", 7)
    unnamed = MarkerColumns("m", ["", ""])
    [event] = unnamed.feed([["", "cat"]], [1.0])
    assert event.label == "cat"
    assert unnamed.names == ("1", "2")


def test_one_column_is_named_by_it() -> None:
    """One column is its own label, whatever it is called; column 1 of it is itself, another one an error."""
    [event] = MarkerColumns("m", ["time"]).feed([["cat/01"]], [1.0])
    assert (event.label, event.stream, in_column(event, 1)) == ("cat/01", "m", event)
    with pytest.raises(StreamError, match=r"'m' has no column 'picture'.*source\.markers\.column"):
        in_column(event, "picture")


def test_rows_that_are_no_event_are_counted() -> None:
    """A row without a finite time, a finite number or a text is no event, and is counted."""
    stream = MarkerColumns("m", [""])
    rows = [[1.0], [math.nan], [math.inf], [2.0], [3.0]]
    events = stream.feed(rows, [0.0, 1.0, 2.0, math.nan, 4.0])
    assert [event.label for event in events] == ["1", "3"]
    assert stream.bad == 3
    assert stream.feed([[b""], [b"B\xe4r"], [" "]], [5.0, 6.0, 7.0])[0].label == "Bär"
    assert stream.bad == 5


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 7))
def test_a_regular_stream_of_numbers_tells_by_its_steps(values: list[int], chunk: int) -> None:
    """A box that repeats its value gives one event a step to a new value, in any chunking; none at the start."""
    stream = MarkerColumns("m", [""], sfreq=100.0)
    times = np.arange(len(values)) / 100
    events: list[Event] = []
    for at in range(0, len(values), chunk):
        events += stream.feed(np.array(values[at : at + chunk], dtype=float)[:, None], times[at : at + chunk])
    steps = [i for i, value in enumerate(values) if i and value and value != values[i - 1]]
    assert events == [Event(i / 100, str(values[i]), values[i]) for i in steps]


def test_the_markers_of_a_source() -> None:
    """The source's own in any case, else the only one, else an error that lists them."""
    assert default_marker_stream(["psychopy", "Amp-Markers"], "amp") == "Amp-Markers"
    assert default_marker_stream(["psychopy"], "amp") == "psychopy"
    assert default_marker_stream([], "amp") is None
    with pytest.raises(StreamError, match=r"2 marker streams \(keys, psychopy\).*source\.markers"):
        default_marker_stream(["psychopy", "keys"], "amp")


VALUES = st.one_of(st.text(), st.binary(), st.floats(), st.integers(-(2**63), 2**63 - 1))


@given(st.integers(1, 4), st.sampled_from([0.0, 100.0]), st.data())
def test_no_row_ends_a_reader(columns: int, sfreq: float, data: st.DataObject) -> None:
    """Whatever a row holds, it is an event or counted as none; nothing is thrown, and no event is without a label."""
    rows = data.draw(st.lists(st.lists(VALUES, min_size=columns, max_size=columns)))
    if sfreq:  # a regular stream is of texts or of numbers
        rows = [[str(value) for value in row] for row in rows]
    times = data.draw(st.lists(st.floats(), min_size=len(rows), max_size=len(rows)))
    stream = MarkerColumns("m", [""] * columns, sfreq)
    events = stream.feed(rows, times)
    assert len(events) + stream.bad == len(rows)
    assert all(math.isfinite(event.time) and event.label.strip() for event in events)
    assert all(in_column(event, 1) is None or in_column(event, 1).label for event in events)


def test_of_a_status_word_the_low_bits_count() -> None:
    """BioSemi's flags above the 16 trigger bits are left out, also where they change."""
    flags = 0x110000
    assert triggers_of("Status").feed(np.array([flags, flags + 7, 0x100007, flags, flags + 8.0])) == [(1, 7), (4, 8)]
    assert triggers_of("TRG").feed(np.array([0, 70000.0])) == [(1, 70000)]
