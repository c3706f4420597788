"""Which markers of a recording count: the ones that a live session on its streams would get."""

import numpy as np
import pytest

from stream.epochs.ingest import WindowSpec, windows_of
from stream.errors import StreamError
from stream.markers.choice import select_events
from stream.signal.filters import FilterSpec
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.source_spec import MarkerSelector, SourceSpec
from stream.types.windows import Channels

EVENTS = (
    Event(0.2, "a", stream="psychopy"),
    Event(0.4, "k", stream="keys"),
    Event(0.6, "b", stream="psychopy"),
    Event(0.8, "anybody"),
)


def labels(events: tuple[Event, ...], markers: object = None, name: str = "amp") -> list[str]:
    """Cut a recording into windows and name their events."""
    n = 500
    codes = np.zeros(n)
    codes[100:120], codes[200:220] = 7, 9
    data = np.stack([np.arange(n) * 1e-6, codes], axis=1).astype(np.float32)
    channels = Channels(("Cz", "TRG"), ("eeg", "stim"), ("V", "count"))
    stream = RecordedStream(name, "EEG", name, channels, 250.0, np.arange(n) / 250, data)
    spec = SourceSpec.model_validate({"name": name, "markers": markers})
    window, filters = WindowSpec(tmin=0.0, tmax=0.1), FilterSpec(channels=("Cz",))
    windows = windows_of(Recording("r", "", (stream,), events), window, filters, spec)
    return [window.event.label for window in windows if window.event]


def test_a_recordings_marker_streams_are_chosen_as_live() -> None:
    """Of several the named one counts, or several; none named is one line that lists them; the source's own rules."""
    assert labels(EVENTS, {"name": "psychopy"}) == ["a", "b", "anybody"]
    assert labels(EVENTS, [{"name": "psychopy"}, {"name": "keys"}]) == ["a", "k", "b", "anybody"]
    with pytest.raises(StreamError, match=r"2 marker streams \(keys, psychopy\).*source\.markers"):
        labels(EVENTS)
    with pytest.raises(StreamError, match=r"2 marker streams with type 'Markers'.*keys, psychopy"):
        labels(EVENTS, {"type": "Markers"})
    assert labels(EVENTS[:1], {"type": "Markers"}) == ["a"]
    with pytest.raises(StreamError, match=r"no marker streams with name 'other'.*keys, psychopy"):
        labels(EVENTS[:3], {"name": "other"})
    own = (*EVENTS, Event(1.0, "own", stream="AMP-Markers"))
    assert labels(own) == ["anybody", "own"]


def test_the_trigger_channel_of_a_recording() -> None:
    """Without any event the onsets of the stim channel count; with one, where the config names the channel."""
    assert labels(()) == ["7", "9"]
    assert labels(EVENTS[3:]) == ["anybody"]
    assert labels(EVENTS, {"channel": "TRG"}) == ["7", "anybody", "9"]
    with pytest.raises(StreamError, match=r"no channel 'TRIG'; did you mean 'TRG'"):
        labels((), {"channel": "TRIG"})


def test_trigger_channels_beside_each_other() -> None:
    """A marker stream counts before a trigger channel, and of several channels STI101, as MNE chooses."""
    n = 500
    channels = Channels(("Cz", "STI001", "STI101"), ("eeg", "stim", "stim"), ("V", "count", "count"))
    stream = RecordedStream("amp", "EEG", "amp", channels, 250.0, np.arange(n) / 250, np.zeros((n, 3), np.float32))
    triggers = [Event(0.2, "1", 1, "STI001"), Event(0.4, "5", 5, "STI101")]
    assert select_events(triggers, (), stream) == triggers[1:]
    assert select_events(triggers, [MarkerSelector(channel="STI001")], stream) == triggers[:1]
    marks = Event(0.6, "cat", stream="psychopy")
    assert select_events([*triggers, marks], (), stream) == [marks]


def test_columns_of_a_recordings_markers() -> None:
    """The column that the config names makes the label, in a file too."""
    columns = (("type", "stim"), ("picture", "cat"))
    events = (Event(0.2, "stim/cat", stream="m", columns=columns),)
    assert labels(events) == ["stim/cat"]
    assert labels(events, {"column": "picture"}) == ["cat"]
    with pytest.raises(StreamError, match=r"no column 3.*type, picture"):
        labels(events, {"column": 3})


def test_the_true_rate_rules_in_a_file_too() -> None:
    """A recording that declares no rate is cut at the one that the config states."""
    n = 600
    channels = Channels(("Cz",), ("eeg",), ("V",))
    data = np.arange(n, dtype=np.float32)[:, None] * np.float32(1e-6)
    stream = RecordedStream("amp", "EEG", "amp", channels, 0.0, np.arange(n) / 200, data)
    recording = Recording("r", "", (stream,), (Event(1.0, "a"),))
    spec = SourceSpec(name="amp", sfreq=200.0)
    [window] = windows_of(recording, WindowSpec(tmin=0.0, tmax=0.1), FilterSpec(), spec)
    assert window.sfreq == 200.0
    np.testing.assert_allclose(window.data[0], np.arange(200, 220) * 1e-6, rtol=1e-5)
