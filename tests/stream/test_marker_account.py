"""Markers that lead to no window are heard, with the reason."""

import logging
import time

import numpy as np
import pytest

from stream.epochs import ingest as ingest_module
from stream.epochs import repeats as repeats_module
from stream.epochs.ingest import Ingest, WindowSpec, windows_of
from stream.markers import account as marker_account
from stream.quality.problems import Problems
from stream.signal.filters import FilterSpec
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels
from tests.stream.conftest import wait_for

COUNTS = Channels(("n", "m"), ("misc", "misc"), ("count", "count"))
BEGIN = 5e4


def fed(seconds: float = 40.0, window: WindowSpec | None = None, buffer_s: float = 30.0) -> Ingest:
    """Make an ingest that has got samples for some seconds."""
    ingest = Ingest(COUNTS, 100, window or WindowSpec(tmin=0, tmax=0.2), FilterSpec(), buffer_s=buffer_s)
    n = round(seconds * 100)
    ingest.samples(np.repeat(np.arange(n, dtype=float)[:, None], 2, axis=1), BEGIN + np.arange(n) / 100)
    return ingest


def go_on(ingest: Ingest) -> None:
    """Let the ingest look at its markers."""
    ingest.samples(np.empty((0, 2)), np.empty(0))


def test_markers_that_do_not_match(caplog: pytest.LogCaptureFixture) -> None:
    """Nine markers of other labels: one line within seconds, logged once, with pattern and labels; then gone."""
    ingest = fed(window=WindowSpec(tmin=0, tmax=0.2, events="face.*"))
    for k in range(9):
        ingest.event(Event(BEGIN + 20 + k, ("foo", "bar")[k % 2]))
    wait_for(lambda: ingest.account().problems, 10)
    line = "9 markers, no window: none matches window.events 'face.*'; labels are 'foo', 'bar', ..."
    assert ingest.account().problems == [line]
    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.WARNING, line)]
    ingest.event(Event(BEGIN + 30, "face1"))
    go_on(ingest)
    with caplog.at_level(logging.INFO, logger="stream.quality.problems"):
        assert ingest.account().problems == []
    assert caplog.records[-1].message == f"no longer so: {line}"


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (1.8e9, ["1.8e+09 s after the samples", "markers seem to be stamped in Unix time", "pylsl.local_clock"]),
        (-1.8e9, ["1.8e+09 s before the samples", "samples seem to be stamped in Unix time"]),
        (-600, ["571 s before the samples", "another clock"]),
        (-35, ["older than the stream, or than what is kept of it"]),
    ],
)
def test_markers_on_another_clock_or_too_late(shift: float, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clocks are told by their distance, with the remedy; a late marker by the buffer."""
    monkeypatch.setattr(marker_account, "PATIENCE_S", 0.2)
    ingest = fed()
    for k in range(3):
        ingest.event(Event(BEGIN + 39 + k / 10 + shift, f"s{k}"))
    go_on(ingest)
    wait_for(lambda: ingest.account().problems, 5)
    (line,) = ingest.account().problems
    assert line.startswith("3 markers")
    for word in words:
        assert word in line
    stats = ingest.account()
    assert (stats.pending, stats.incomplete) == ((3, 0) if shift > 0 else (0, 3))


def test_markers_that_wait_for_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A marker after the last sample that came is said to wait, and no longer once samples have come."""
    monkeypatch.setattr(marker_account, "PATIENCE_S", 0.2)
    ingest = fed()
    ingest.event(Event(BEGIN + 40.5, "x"))
    assert ingest.account().problems == []
    wait_for(lambda: ingest.account().problems, 5)
    assert "1 marker waiting for samples after the marker" in ingest.account().problems[0]
    n = 4000 + np.arange(200)
    (window,) = ingest.samples(np.repeat(n[:, None].astype(float), 2, axis=1), BEGIN + n / 100)
    assert window.data[0, 0] == 4050
    assert ingest.account().problems == []


def test_markers_that_come_as_fast_as_windows_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where at every look some marker's window is not complete yet, but never the same one's, nothing is wrong."""
    monkeypatch.setattr(marker_account, "PATIENCE_S", 0.1)
    ingest = fed()
    begin = time.monotonic()
    for step in range(40):
        n = 4000 + 10 * step + np.arange(10)
        ingest.event(Event(BEGIN + n[-1] / 100, f"s{step}"))
        assert list(ingest.samples(np.repeat(n[:, None].astype(float), 2, axis=1), BEGIN + n / 100)) or step < 10
        stats = ingest.account()
        assert (stats.pending > 0, stats.problems) == (True, [])
        time.sleep(0.03)
    assert time.monotonic() - begin > 0.1 + 1.0


def test_doubled_markers_are_said() -> None:
    """Markers that come twice are counted once, and that is said."""
    ingest = fed()
    for at in (20.0, 20.001):
        ingest.event(Event(BEGIN + at, "x"))
    go_on(ingest)
    assert "1 marker came twice" in ingest.account().problems[0]


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Markers without samples do not pile up: the oldest go, and are counted."""
    monkeypatch.setattr(ingest_module, "MOST_PENDING", 50)
    ingest = Ingest(COUNTS, 100, WindowSpec(tmin=0, tmax=0.2), FilterSpec())
    for k in range(200):
        ingest.event(Event(BEGIN + k, f"s{k}"))
    stats = ingest.account()
    assert (stats.events, stats.pending, stats.incomplete) == (200, 50, 150)


def test_sums_of_repeats_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels seen once do not pile up; those that come again soon are averaged as ever."""
    monkeypatch.setattr(repeats_module, "SUMS_BYTES", 10 * 2 * 20 * 8)
    ingest = Ingest(COUNTS, 100, WindowSpec(tmin=0, tmax=0.2, repeats=4), FilterSpec())
    for k in range(100):
        ingest.event(Event(BEGIN + 1 + k * 0.2, f"once{k}" if k % 5 else "often"))
    n = 2500
    windows = ingest.samples(np.repeat(np.arange(n, dtype=float)[:, None], 2, axis=1), BEGIN + np.arange(n) / 100)
    assert len(ingest._repeats._sums) <= 10
    assert [w.repeats for w in windows if w.event and w.event.label == "often"] == [1, 2, 3, 4] * 5
    stats = ingest.account()
    assert stats.forgotten == 80 - sum(label != "often" for label in ingest._repeats._sums)
    assert any("window.repeats" in line for line in stats.problems)


def test_labels_with_line_breaks_match() -> None:
    """Pretty-printed JSON matches the default pattern."""
    ingest = fed()
    label = '{\n  "picture": "cat",\n  "n": 1\n}'
    ingest.event(Event(BEGIN + 20, label))
    (window,) = ingest.samples(np.empty((0, 2)), np.empty(0))
    assert window.event is not None
    assert window.event.label == label


def test_a_recording_whose_markers_match_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Offline the same line is in the log."""
    n = 1000
    data = np.zeros((n, 2), np.float32)
    stream = RecordedStream("s", "misc", "s", COUNTS, 100, np.arange(n) / 100, data)
    recording = Recording("r", "test", (stream,), tuple(Event(float(k), "foo") for k in range(1, 9)))
    assert list(windows_of(recording, WindowSpec(tmin=0, tmax=0.2, events="face"), FilterSpec())) == []
    assert "8 markers, no window: none matches window.events 'face'; labels are 'foo'" in caplog.text


def test_a_recording_of_many_markers_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline no marker is let go, however many there are."""
    monkeypatch.setattr(ingest_module, "MOST_PENDING", 20)
    n = 10_000
    data = np.repeat(np.arange(n, dtype=np.float32)[:, None], 2, axis=1)
    stream = RecordedStream("s", "misc", "s", COUNTS, 100, np.arange(n) / 100, data)
    events = tuple(Event(k / 10, f"s{k}") for k in range(10, 900))
    windows = list(windows_of(Recording("r", "test", (stream,), events), WindowSpec(tmin=0, tmax=0.2), FilterSpec()))
    assert [w.data[0, 0] for w in windows] == list(range(100, 9000, 10))


def test_problems_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A line is logged when it appears and when it is gone, not when its figures change."""
    problems = Problems()
    with caplog.at_level(logging.INFO, logger="stream.quality.problems"):
        assert problems.update({"a": "1 lost"}) == ["1 lost"]
        assert problems.update({"a": "2 lost", "b": "flat"}) == ["2 lost", "flat"]
        assert problems.update({"b": "flat"}) == ["flat"]
        assert problems.update({}) == []
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "1 lost"), ("WARNING", "flat"), ("INFO", "no longer so: 2 lost"), ("INFO", "no longer so: flat"),
    ]  # fmt: skip


def test_the_account_reads_no_samples_for_levels() -> None:
    """Without levels the account reads no samples; the levels are the root mean square of the last second."""
    ingest = fed(2.0)
    assert ingest.account(levels=False).channel_rms == {}
    want = float(np.sqrt(np.mean(np.arange(100.0, 200.0) ** 2)))
    assert ingest.account().channel_rms == pytest.approx({"n": want, "m": want})
    assert ingest.received == 200
