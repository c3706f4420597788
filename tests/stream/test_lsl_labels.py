"""Markers are named live as in files, over real LSL sockets."""

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np

from stream.epochs.ingest import windows_of
from stream.lsl.live import LiveIngest, SourceSpec
from stream.signal.filters import FilterSpec
from stream.types.events import Event
from stream.types.labels import LabelMatcher
from stream.types.recording import RecordedStream, Recording
from stream.types.window_spec import WindowSpec
from stream.types.windows import Channels, Window
from tests.stream.conftest import wait_for

SENT = (
    "images/cat-01.png",
    "Stimulus/S  7",
    "CAT-01",
    "ra\u0308v.jpg",
    "foo.png",
    "S200",
    "cat-01",
    "bar",
    "two\nlines",
)
NAMED = ("cat-01", "7", "cat-01", "r\u00e4v", "foo.png", "r\u00e4v", "cat-01", "bar", "two\nlines")


def test_live_markers_name_the_same_pictures(play: Callable[..., Any]) -> None:
    """Labels in any spelling lead live to the windows, averages and ids of the file; those of no picture are named."""
    name = f"t-{uuid.uuid4().hex}"
    data = np.random.default_rng(0).normal(0, 2e-5, (1500, 2)).astype(np.float32)
    stream = RecordedStream(
        name, "EEG", name, Channels(("Cz", "Pz"), ("eeg", "eeg"), ("V", "V")), 250.0, np.arange(1500) / 250, data
    )
    events = tuple(Event(0.4 + place * 0.5, label) for place, label in enumerate(SENT))
    recording = Recording(name, "simulated EEG", (stream,), events)
    matcher = LabelMatcher(("cat-01", "7", "r\u00e4v"), table={"200": "r\u00e4v"})
    window = WindowSpec(tmin=0.0, tmax=0.2, baseline=None, repeats=3)
    want = list(windows_of(recording.name_events(matcher), window, FilterSpec()))
    assert tuple(each.event.label for each in want if each.event) == NAMED
    got: list[Window] = []
    ingest = LiveIngest(SourceSpec(name=name, timeout_s=30), window, FilterSpec(), got.append, labels=matcher)
    play(recording, 1.0)
    ingest.start()
    try:
        wait_for(lambda: ingest.stats().samples >= 1500, 40)
        wait_for(lambda: len(got) >= len(want), 10)
    finally:
        ingest.stop()
    assert [(each.id, each.event and each.event.label, each.repeats) for each in got] == [
        (each.id, each.event and each.event.label, each.repeats) for each in want
    ]
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one.data, other.data, rtol=1e-5, atol=1e-10)
    stats = ingest.stats()
    assert (stats.events, stats.unmatched) == (9, 3)
    problems = [line for line in stats.problems if "picture" in line]
    assert len(problems) == 1
    assert "'foo.png', 'bar'; pictures are called 'cat-01', '7'" in problems[0]
