"""Windows out of samples and events."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stream.epochs.ingest import FilterSpec, Ingest, WindowSpec, windows_of
from stream.errors import RecordingError, StreamError
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording, choose_streams
from stream.types.source_spec import StreamSelector
from stream.types.windows import Channels, Window

TWO = Channels(("a", "b"), ("eeg", "eeg"), ("V", "V"))
RAW = FilterSpec()


def ramp(n: int, sfreq: float) -> tuple[np.ndarray, np.ndarray]:
    """Make data that tell their own sample number, and their times."""
    values = np.arange(n, dtype=np.float64)
    return np.stack([values, -values], axis=1), values / sfreq


def run(ingest: Ingest, n: int, sfreq: float, events: list[Event], chunk: int = 37) -> list[Window]:
    """Feed events, then samples in chunks; give the windows."""
    data, times = ramp(n, sfreq)
    for event in events:
        ingest.event(event)
    return [w for i in range(0, n, chunk) for w in ingest.samples(data[i : i + chunk], times[i : i + chunk])]


def test_event_window_holds_the_right_samples() -> None:
    """A window from -0.1 to 0.2 s at 100 Hz round sample 200 holds samples 190 to 219."""
    (window,) = run(Ingest(TWO, 100, WindowSpec(tmin=-0.1, tmax=0.2), RAW), 500, 100, [Event(2.0, "x")])
    np.testing.assert_array_equal(window.data[0], np.arange(190, 220))
    np.testing.assert_array_equal(window.data[1], -np.arange(190, 220))
    assert window.id == "00000-x"
    assert (window.onset, window.tmin) == (2.0, pytest.approx(-0.1))
    assert window.acquired == pytest.approx(2.19)
    assert window.quality.rejected is None


def test_event_between_samples_goes_to_the_nearer() -> None:
    """An event goes to the nearer sample, a tie down, and the window's tmin says where the first sample lies."""
    spec = WindowSpec(tmin=0, tmax=0.05)
    events = [Event(1.004, "x"), Event(2.005, "y"), Event(3.007, "z")]
    windows = run(Ingest(TWO, 100, spec, RAW), 500, 100, events)
    assert [window.data[0, 0] for window in windows] == [100, 200, 301]
    assert [window.tmin for window in windows] == pytest.approx([-0.004, -0.005, 0.003], abs=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=1, max_size=30, unique_by=lambda e: e[0]),
    st.lists(st.integers(1, 1000), max_size=15),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_any_arrival_order_and_chunking(pairs: list[tuple[int, int]], cuts: list[int], decimate: int) -> None:
    """Markers that come early, late, or out of order give the same windows, each once, whatever the chunks."""
    spec, filters = WindowSpec(tmin=-0.1, tmax=0.1), FilterSpec(decimate=decimate, highpass=1)
    data, times = ramp(1000, 100)
    data = np.sin(data * 0.05)
    events = [(Event(at / 100, f"s{at}"), arrival) for at, arrival in pairs]
    ingest, got = Ingest(TWO, 100, spec, filters), []
    edges = sorted({0, 1000, *(cut for cut in cuts if cut < 1000)})
    for a, b in pairwise(edges):
        for event, arrival in events:
            if a <= arrival < b:
                ingest.event(event)
        got += ingest.samples(data[a:b], times[a:b])
    stream = RecordedStream("s", "EEG", "s", TWO, 100, times, data.astype(np.float32))
    recording = Recording("r", "test", (stream,), tuple(event for event, _ in events))
    want = {window.event.label: window for window in windows_of(recording, spec, filters) if window.event}
    assert sorted(window.event.label for window in got if window.event) == sorted(want)
    for window in got:
        assert window.event is not None
        np.testing.assert_allclose(window.data, want[window.event.label].data, atol=1e-6)
    stats = ingest.account()
    assert stats.events == len(events) == stats.windows + stats.incomplete + stats.duplicates + len(ingest._pending)


def test_ids_count_in_time_order_windows_that_cannot_be_made_included() -> None:
    """Numbers go by the events' time, so an event whose window begins before the stream takes one too."""
    events = [Event(3.0, "c"), Event(0.01, "a"), Event(2.0, "b"), Event(99.0, "never")]
    ingest = Ingest(TWO, 100, WindowSpec(tmin=-0.1, tmax=0.2), RAW)
    assert [window.id for window in run(ingest, 500, 100, events)] == ["00001-b", "00002-c"]
    assert ingest.account().incomplete == 1


def test_doubled_and_foreign_markers_are_counted() -> None:
    """The same marker twice gives one window; one that does not match the expression gives none."""
    events = [Event(2.0, "face"), Event(2.0001, "face"), Event(2.0, "house"), Event(3.0, "start")]
    ingest = Ingest(TWO, 100, WindowSpec(tmin=0, tmax=0.2, events="face|house"), RAW)
    assert [window.id for window in run(ingest, 500, 100, events)] == ["00000-face", "00001-house"]
    stats = ingest.account()
    assert (stats.events, stats.duplicates, stats.ignored) == (3, 1, 1)


def test_baseline_may_lie_before_the_window() -> None:
    """The baseline's mean is subtracted channel by channel, also where it lies outside the window."""
    spec = WindowSpec(tmin=0.1, tmax=0.2, baseline=(-0.1, 0.0))
    (window,) = run(Ingest(TWO, 100, spec, RAW), 500, 100, [Event(2.0, "x")])
    np.testing.assert_allclose(window.data[0], np.arange(210, 220) - 194.5, atol=1e-4)


def test_repeats_give_the_mean_so_far() -> None:
    """The k-th presentation of a label gives the mean of k; after the last a new mean begins."""
    events = [Event(at, "x") for at in (1.0, 2.0, 3.0, 4.0)] + [Event(2.5, "y")]
    windows = run(Ingest(TWO, 100, WindowSpec(tmin=0, tmax=0.1, repeats=3), RAW), 600, 100, events)
    assert [(w.id, w.repeats, w.data[0, 0]) for w in windows] == [
        ("00000-x", 1, 100), ("00001-x", 2, 150), ("00002-y", 1, 250), ("00003-x", 3, 200), ("00004-x", 1, 400),
    ]  # fmt: skip


def test_sliding_windows() -> None:
    """Windows of 0.5 s every 0.2 s follow one another without a marker."""
    windows = run(Ingest(TWO, 100, WindowSpec(mode="sliding", tmin=0, tmax=0.5, step=0.2), RAW), 200, 100, [])
    assert [window.data[0, 0] for window in windows] == list(range(0, 151, 20))
    assert windows[1].id == "00001-sliding"
    assert windows[1].onset == pytest.approx(0.2)
    assert windows[1].event is None


def test_sample_mode_on_an_irregular_stream() -> None:
    """Each marker gets the first sample in its interval, as a (channels, 1) window; none there, none made."""
    times = np.array([1.0, 2.0, 3.5, 7.0])
    data = np.arange(8.0).reshape(4, 2)
    ingest = Ingest(TWO, 0, WindowSpec(mode="sample", tmin=0, tmax=0.2), RAW)
    for at in (1.0, 2.0, 3.4, 5.0, 7.0):
        ingest.event(Event(at, f"p{at:g}"))
    windows = ingest.samples(data[:2], times[:2]) + ingest.samples(data[2:], times[2:])
    assert [window.id for window in windows] == ["00000-p1", "00001-p2", "00002-p3.4", "00004-p7"]
    assert windows[2].data.tolist() == [[4.0], [5.0]]
    assert windows[2].tmin == pytest.approx(0.1)
    assert ingest.account().incomplete == 1


def test_sample_mode_with_a_lag_on_a_slow_stream() -> None:
    """A volume 4 s after the event is found on a 0.5 Hz stream."""
    spec = WindowSpec(mode="sample", tmin=4, tmax=6)
    (window,) = run(Ingest(TWO, 0.5, spec, RAW), 20, 0.5, [Event(9.0, "x")])
    assert window.data[0, 0] == 7  # 13 s and later: the volume at 14 s


def test_window_over_a_gap_is_flagged_or_left_out() -> None:
    """Lost samples are counted in the window that misses them; the policy says whether it is handed on."""
    data, times = ramp(600, 100)
    keep = np.r_[0:250, 257:600]
    events = [Event(2.0, "before"), Event(2.45, "over"), Event(4.0, "after")]
    for policy, labels in (("flag", ["before", "over", "after"]), ("drop", ["before", "after"])):
        ingest = Ingest(TWO, 100, WindowSpec(tmin=0, tmax=0.3, rejected=policy), RAW)
        for event in events:
            ingest.event(event)
        windows = ingest.samples(data[keep], times[keep])
        assert [window.event.label for window in windows if window.event] == labels
        assert windows[-1].data[0, 0] == 400
        stats = ingest.account()
        assert (stats.lost, stats.gap_count, stats.windows, stats.rejected) == (7, 1, 3, 1)
        flagged = [window.quality for window in windows if window.quality.rejected]
        assert [quality.samples_lost for quality in flagged] == [7] * (policy == "flag")


def test_not_a_number_does_not_stay_in_the_filter() -> None:
    """A sample that is not finite is held, counted and flagged; windows after it are finite and unflagged."""
    data, times = ramp(1000, 100)
    data[300, 1] = np.nan
    ingest = Ingest(TWO, 100, WindowSpec(tmin=0, tmax=0.3), FilterSpec(highpass=1))
    for at in (2.9, 5.0):
        ingest.event(Event(at, "x"))
    over, after = ingest.samples(data, times)
    assert over.quality.samples_lost == 1
    assert after.quality.rejected is None
    assert np.isfinite(over.data).all()
    assert np.isfinite(after.data).all()
    assert ingest.account().bad == 1


def test_long_outage_and_a_clock_that_steps_back() -> None:
    """After an outage longer than the ring, and after a clock reset, windows are right again."""
    data, times = ramp(400, 100)
    ingest = Ingest(TWO, 100, WindowSpec(tmin=0, tmax=0.3), RAW)
    ingest.samples(data, times)
    ingest.event(Event(5001.0, "x"))
    (window,) = ingest.samples(data, times + 5000)
    assert window.data[0, 0] == 100
    ingest.event(Event(11.0, "y"))
    (window,) = ingest.samples(data, times + 10)
    assert window.data[0, 0] == 100
    assert ingest.account().lost == 100 * 5000 - 400


@pytest.mark.parametrize("mode", ["event", "sliding"])
def test_a_chunk_longer_than_the_ring(mode: str) -> None:
    """A recording handed over in one piece, with an outage in it, gives the windows of small chunks."""
    data, times = ramp(20000, 100)
    times[9000:] += 3600
    spec = WindowSpec(mode=mode, tmin=0, tmax=9, step=2)
    events = [Event(float(times[at]), f"s{at}") for at in range(100, 19000, 700)]
    runs = []
    for chunk in (20000, 100):
        ingest = Ingest(TWO, 100, spec, RAW, buffer_s=1)
        for event in events:
            ingest.event(event)
        windows = [w for i in range(0, 20000, chunk) for w in ingest.samples(data[i : i + chunk], times[i : i + chunk])]
        runs.append((windows, ingest.account()))
    (whole, stats), (pieces, _) = runs
    assert [w.id for w in whole] == [w.id for w in pieces]
    assert all(np.array_equal(a.data, b.data) for a, b in zip(whole, pieces, strict=True))
    assert stats.overruns == stats.incomplete == 0
    assert any(w.quality.rejected for w in whole)


def test_late_marker_beyond_the_ring_is_counted() -> None:
    """A marker that comes when its samples are gone is counted, not silently forgotten."""
    data, times = ramp(9000, 100)
    ingest = Ingest(TWO, 100, WindowSpec(tmin=0, tmax=0.3), RAW, buffer_s=30)
    ingest.samples(data, times)
    ingest.event(Event(1.0, "late"))
    assert ingest.samples(data[:0], times[:0]) == []
    assert ingest.account().incomplete == 1


def test_recording_of_less_than_a_second() -> None:
    """What the clock holds back at the start comes out at the end, if that comes first."""
    data, times = ramp(60, 100)
    stream = RecordedStream("s", "EEG", "s", TWO, 100, times, data.astype(np.float32))
    recording = Recording("r", "test", (stream,), (Event(0.2, "x"),))
    (window,) = windows_of(recording, WindowSpec(tmin=0, tmax=0.1), RAW)
    np.testing.assert_array_equal(window.data[0], np.arange(20, 30))


def test_irregular_stream_needs_sample_mode() -> None:
    """A window of many samples cannot be cut from a stream without a rate, and the error says what can."""
    with pytest.raises(StreamError, match="'sample'"):
        Ingest(TWO, 0, WindowSpec(), RAW)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tmin": 1, "tmax": 0}, "must lie after"),
        ({"events": "("}, "regular expression"),
        ({"baseline": (0, 2)}, "baseline"),
        ({"speed": 3}, "Extra inputs"),
        ({"tmax": 500}, "500 s: seconds, not milliseconds"),
        ({"tmin": -100}, "-100 s: seconds, not milliseconds"),
        ({"tmax": 1e300}, "seconds, not milliseconds"),
        ({"step": 500}, "500 s: seconds, not milliseconds"),
        ({"baseline": (-200, 0)}, "-200 s: seconds, not milliseconds"),
        *(({field: value}, "finite number") for field in ("tmin", "tmax", "step") for value in (np.inf, np.nan)),
        ({"baseline": (-np.inf, 0)}, "finite number"),
        ({"baseline": (np.nan, 0)}, "finite number"),
    ],
)
def test_window_spec_refuses(fields: dict, message: str) -> None:
    """A spec that cannot mean anything is refused when it is read."""
    with pytest.raises(ValidationError, match=message):
        WindowSpec(**fields)


def test_chosen_streams() -> None:
    """The only stream is the source whatever it is called; of several the selectors must each name one of their own."""
    data, times = ramp(10, 100)
    eeg = RecordedStream("cap", "EEG", "s", TWO, 100, times, data.astype(np.float32))
    meg = replace(eeg, name="helmet", type="MEG")
    alone, both = Recording("r", "test", (eeg,), ()), Recording("r", "test", (eeg, meg), ())
    assert choose_streams(alone, StreamSelector(name="amp")) == [eeg]
    assert choose_streams(both, StreamSelector(type="MEG"), [StreamSelector(name="cap")]) == [meg, eeg]
    for source, extra in ((None, []), (StreamSelector(type="EEG"), [StreamSelector(name="cap")])):
        with pytest.raises(RecordingError, match=r"cap \(EEG\), helmet \(MEG\)"):
            choose_streams(both, source, extra)
    with pytest.raises(RecordingError, match="no streams with type 'fMRI'"):
        choose_streams(both, StreamSelector(type="fMRI"))
