"""Several streams in one window, on the time line of the first."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.epochs.follower import FollowerSpec, lagrange
from stream.epochs.ingest import ExtraStream, Ingest, WindowSpec, windows_of
from stream.errors import StreamError
from stream.signal.filters import FilterSpec
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.source_spec import StreamSelector
from stream.types.windows import Channels, Window

CAP = Channels(("Cz", "Pz"), ("eeg", "eeg"), ("V", "V"))
HELMET = Channels(("MEG001", "MEG002"), ("mag", "mag"), ("T", "T"))
GAZE = Channels(("x", "y"), ("misc", "misc"), ("count", "count"))
SPEC = WindowSpec(tmin=-0.1, tmax=0.2)
RAW = FilterSpec()

Signal = Callable[[np.ndarray], np.ndarray]


def stream(channels: Channels, sfreq: float, times: np.ndarray, signal: Signal) -> RecordedStream:
    """Two channels of a signal, the second upside down."""
    data = np.stack([signal(times), -signal(times)], axis=1).astype(np.float32)
    kind = {"eeg": "EEG", "mag": "MEG", "misc": "Gaze"}[channels.kinds[0]]
    return RecordedStream(kind.lower(), kind, kind, channels, sfreq, times, data)


def ingest_of(recording: Recording, window: WindowSpec = SPEC, *specs: FollowerSpec) -> Ingest:
    """Make the ingest of a recording's streams, the first of which decides, with its events fed."""
    own, *others = recording.streams
    wanted = specs or tuple(FollowerSpec() for _ in others)
    extras = [
        ExtraStream(each.name, each.channels, each.sfreq, spec) for each, spec in zip(others, wanted, strict=True)
    ]
    ingest = Ingest(own.channels, own.sfreq, window, RAW, name=own.name, extras=extras)
    for event in recording.events:
        ingest.event(event)
    return ingest


def feed(ingest: Ingest, recording: Recording, edges: list[float]) -> list[list[Window]]:
    """Feed all streams in step, the extras after the source, from each edge in time to the next."""
    made = []
    for begin, end in pairwise(edges):
        step: list[Window] = []
        for k, each in enumerate(recording.streams):
            part = slice(*np.searchsorted(each.times, [begin, end]))
            step += ingest.samples(each.data[part], each.times[part], k)
        made.append(step)
    return made


def cubic(times: np.ndarray) -> np.ndarray:
    """Draw a polynomial of third degree, of some units over ten seconds."""
    return 0.01 * (times - 5) ** 3 - 0.2 * times


def test_regular_stream_is_interpolated_by_cubics() -> None:
    """A cubic sampled at 200 Hz, out of step, comes out exact at the times of the 250 Hz stream."""
    own = stream(CAP, 250, np.arange(2500) / 250, np.sin)
    other = stream(HELMET, 200, 0.0013 + np.arange(2000) / 200, cubic)
    recording = Recording("r", "test", (own, other), (Event(3.0, "x"),))
    (window,) = windows_of(recording, SPEC, RAW, StreamSelector(type="EEG"), [FollowerSpec(type="MEG")])
    times = 3.0 + np.arange(-25, 50) / 250
    assert window.channels.names == ("Cz", "Pz", "MEG001", "MEG002")
    assert window.channels.units == ("V", "V", "T", "T")
    np.testing.assert_allclose(window.data[0], np.sin(times), atol=1e-6)
    np.testing.assert_allclose(window.data[2], cubic(times), atol=2e-6)
    np.testing.assert_allclose(window.data[3], -cubic(times), atol=2e-6)
    assert window.quality.rejected is None


def test_irregular_stream_is_interpolated_by_lines() -> None:
    """Gaze at uneven times lies on the straight lines between its samples."""
    rng = np.random.default_rng(0)
    at = np.cumsum(rng.uniform(0.004, 0.03, 700))
    own, other = stream(CAP, 250, np.arange(2500) / 250, np.sin), stream(GAZE, 0, at, np.cos)
    recording = Recording("r", "test", (own, other), (Event(4.0, "x"),))
    (window,) = windows_of(recording, SPEC, RAW, StreamSelector(type="EEG"), [FollowerSpec(type="Gaze")])
    want = np.interp(4.0 + np.arange(-25, 50) / 250, at, np.cos(at))
    np.testing.assert_allclose(window.data[2], want, atol=1e-6)


def test_faster_stream_is_kept_from_aliasing() -> None:
    """Of 5 and 180 Hz at 1 kHz only the 5 Hz reach windows of 250 Hz; a low-pass of one's own above 125 is refused."""
    slow, fast = (lambda t, f=f: np.sin(2 * np.pi * f * t) for f in (5.0, 180.0))
    own = stream(CAP, 250, np.arange(2500) / 250, np.sin)
    levels = []
    for signal in (slow, fast):
        recording = Recording("r", "test", (own, stream(HELMET, 1000, np.arange(1e4) / 1000, signal)), (Event(5, "x"),))
        (window,) = windows_of(recording, SPEC, RAW, StreamSelector(type="EEG"), [FollowerSpec(type="MEG")])
        levels.append(float(np.std(window.data[2])))
    assert levels[0] > 0.5
    assert levels[1] < 0.1
    spec = FollowerSpec(type="MEG", filters=FilterSpec(lowpass=150))
    with pytest.raises(StreamError, match=r"'meg': lowpass 150 Hz aliases"):
        list(windows_of(recording, SPEC, RAW, StreamSelector(type="EEG"), [spec]))


@given(
    st.lists(st.floats(0.05, 9.9), max_size=12, unique=True),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 60.0, 100.0, 400.0]),
    st.lists(st.tuples(st.integers(1, 900), st.integers(1, 30)), max_size=2),
)
@settings(max_examples=40, deadline=None)
def test_any_chunking_of_two_streams(cuts: list[float], seed: int, sfreq: float, holes: list[tuple[int, int]]) -> None:
    """However two streams arrive, holes in the second included, windows and flags are those cut from the file."""
    rng = np.random.default_rng(seed)
    own = stream(CAP, 100, np.arange(1000) / 100, np.sin)
    if sfreq:
        grid = np.arange(10 * sfreq)
        for at, n in holes:
            first = round(at * sfreq / 100)
            grid = np.delete(grid, np.s_[first : first + max(1, round(n * sfreq / 100))])
        times = rng.uniform(0, 1 / sfreq) + grid / sfreq
    else:
        times = np.cumsum(rng.uniform(0.005, 0.05, 350))
    recording = Recording(
        "r", "test", (own, stream(GAZE, sfreq, times, cubic)), tuple(Event(k * 0.43, f"s{k}") for k in range(1, 22))
    )
    source, spec = StreamSelector(type="EEG"), FollowerSpec(type="Gaze")
    want = list(windows_of(recording, SPEC, RAW, source, [spec]))
    # A second beside the steps: no stream is ever farther behind than a window waits.
    edges = sorted({-1.0, 11.0, *np.arange(0, 10, 1.0).tolist(), *cuts})
    ingest = ingest_of(recording, SPEC, spec)
    got = [window for step in feed(ingest, recording, edges) for window in step]
    assert [window.id for window in got] == [window.id for window in want]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a.data, b.data, atol=1e-5)
        assert a.quality == b.quality
    stats = ingest.account()
    assert stats.events == stats.windows + stats.incomplete + stats.pending
    assert stats.samples == len(own.times) + len(times)


def test_hole_in_any_stream_flags_the_window() -> None:
    """A window over a hole of the second stream says which stream and how many samples; its neighbours are clean."""
    own = stream(CAP, 100, np.arange(1000) / 100, np.sin)
    other = stream(HELMET, 50, np.delete(np.arange(500), np.s_[250:255]) / 50, np.sin)
    recording = Recording("r", "test", (own, other), tuple(Event(float(at), "x") for at in (3, 5, 7)))
    ingest = ingest_of(recording)
    windows = [window for step in feed(ingest, recording, np.arange(0.0, 12.0).tolist()) for window in step]
    assert [window.quality.rejected for window in windows] == [None, "meg: 5 samples lost", None]
    assert windows[1].quality.samples_lost == 5
    stats = ingest.account()
    assert (stats.lost, stats.streams["eeg"].lost, stats.streams["meg"].lost) == (5, 0, 5)


def test_window_waits_for_the_stream_that_is_behind_but_not_for_ever() -> None:
    """While the second stream is silent its windows come out flagged two seconds late; once it is back, clean."""
    own = stream(CAP, 100, np.arange(1500) / 100, np.sin)
    times = np.r_[np.arange(500), np.arange(900, 1500)] / 100
    recording = Recording(
        "r", "test", (own, stream(HELMET, 100, times, np.sin)), tuple(Event(float(at), "x") for at in (3, 6, 12))
    )
    ingest = ingest_of(recording)
    steps = feed(ingest, recording, [0, 4, 5, 8.1, 8.3, 9, 10, 11, 12, 13])
    ids = [[window.id for window in step] for step in steps]
    assert ids == [["00000-x"], [], [], ["00001-x"], [], [], [], [], ["00002-x"]]
    silent = steps[3][0].quality
    assert silent.rejected == "meg: 30 samples lost"
    assert silent.samples_lost == 30
    assert steps[-1][0].quality.rejected is None


def test_silence_of_an_irregular_stream_is_told() -> None:
    """A window in which gaze is missing for longer than allowed is flagged, whether gaze comes back or not."""
    own = stream(CAP, 100, np.arange(1500) / 100, np.sin)
    times = np.r_[np.arange(0, 4, 0.016), np.arange(4.8, 9, 0.016)]
    recording = Recording(
        "r", "test", (own, stream(GAZE, 0, times, np.sin)), tuple(Event(float(at), "x") for at in (3, 4.4, 6, 9.5))
    )
    ingest = ingest_of(recording, SPEC, FollowerSpec(longest_silence=0.5))
    windows = [window for step in feed(ingest, recording, np.arange(0.0, 16.0).tolist()) for window in step]
    reason = "gaze: silent for more than 0.5 s"
    assert [window.quality.rejected for window in windows] == [None, reason, None, reason]


def test_slow_stream_beside_a_fast_one() -> None:
    """Volumes at 0.5 Hz join EEG windows: a window waits for the two volumes after it."""
    own = stream(CAP, 100, np.arange(3000) / 100, np.sin)
    recording = Recording(
        "r", "test", (own, stream(GAZE, 0.5, np.arange(15) * 2.0, cubic)), (Event(9.0, "x"), Event(23.9, "y"))
    )
    ingest = ingest_of(recording)
    steps = feed(ingest, recording, [0, 9.5, 11.9, 12.1, 14.1, 28.0, 28.1])
    assert [[window.id for window in step] for step in steps] == [[], [], ["00000-x"], [], [], ["00001-y"]]
    np.testing.assert_allclose(steps[2][0].data[2], cubic(9.0 + np.arange(-10, 20) / 100), atol=1e-5)


def test_begin_of_a_later_stream() -> None:
    """A window before the second stream's begin cannot be made, and is counted."""
    own = stream(CAP, 100, np.arange(1000) / 100, np.sin)
    recording = Recording(
        "r", "test", (own, stream(HELMET, 100, 4 + np.arange(600) / 100, np.sin)), (Event(2.0, "x"), Event(6.0, "y"))
    )
    ingest = ingest_of(recording)
    windows = [window for step in feed(ingest, recording, np.arange(0.0, 12.0).tolist()) for window in step]
    assert [window.id for window in windows] == ["00001-y"]
    assert ingest.account().incomplete == 1


def test_baseline_over_a_hole_is_told() -> None:
    """A hole before the window that the baseline lies in flags the window."""
    own = stream(CAP, 100, np.delete(np.arange(1000), np.s_[485:488]) / 100, np.sin)
    window = WindowSpec(tmin=0, tmax=0.2, baseline=(-0.2, 0.0))
    recording = Recording("r", "test", (own,), (Event(5.0, "x"), Event(7.0, "y")))
    reasons = [window.quality.rejected for window in windows_of(recording, window, RAW)]
    assert reasons == ["baseline: 3 samples lost", None]


def test_each_stream_has_its_own_limits() -> None:
    """The second stream's channels are held against its own filters' limits."""
    own = stream(CAP, 100, np.arange(1000) / 100, np.sin)
    recording = Recording("r", "test", (own, stream(HELMET, 100, own.times, lambda t: 3 * np.sin(t))), (Event(5, "x"),))
    filters = FilterSpec(reject_peak_to_peak={"mag": 0.1, "eeg": 1e-9})
    (window,) = windows_of(
        recording, SPEC, RAW, StreamSelector(type="EEG"), [FollowerSpec(type="MEG", filters=filters)]
    )
    assert window.quality.rejected is not None
    assert window.quality.rejected.startswith("MEG001: peak-to-peak")


def test_channels_of_one_name_want_a_prefix() -> None:
    """Two streams with a channel of one name are refused until one gets a prefix."""
    own = stream(CAP, 100, np.arange(300) / 100, np.sin)
    twin = RecordedStream("eeg", "EEG", "second", CAP, 100.0, own.times, own.data)
    recording = Recording("r", "test", (own, twin), (Event(2.0, "x"),))
    source, extra = StreamSelector(source_id="EEG"), FollowerSpec(source_id="second")
    with pytest.raises(StreamError, match=r"'eeg \(EEG\)' and 'eeg \(second\)' both have a channel 'Cz'; set a prefix"):
        next(windows_of(recording, SPEC, RAW, source, [extra]))
    with pytest.raises(StreamError, match="named twice: eeg, eeg"):
        ingest_of(recording)
    extra = extra.model_copy(update={"prefix": "b-"})
    (window,) = windows_of(recording, SPEC, RAW, source, [extra])
    assert window.channels.names == ("Cz", "Pz", "b-Cz", "b-Pz")
    renamed = Recording("r", "test", (own, replace(twin, name="b")), recording.events)
    ingest = ingest_of(renamed, SPEC, extra)
    assert ingest.account().channel_rms == {}
    feed(ingest, renamed, [0, 2, 4])
    assert set(ingest.account().channel_rms) == {"Cz", "Pz", "b-Cz", "b-Pz"}


@pytest.mark.parametrize("swapped", [False, True])
def test_one_thing_told_by_two_marker_sources(swapped: bool) -> None:
    """The same label from two sources some milliseconds apart is one window and one double; others stay apart."""
    own = stream(CAP, 1000, np.arange(5000) / 1000, np.sin)
    events = [Event(2.0, "12", 12), Event(2.004, "12", 12), Event(2.004, "face"), Event(3.0, "12", 12)]
    ingest = ingest_of(Recording("r", "test", (own,), ()))
    for event in reversed(events) if swapped else events:
        ingest.event(event)
    windows = ingest.samples(own.data, own.times)
    assert [window.id for window in windows] == ["00000-12", "00001-face", "00002-12"]
    stats = ingest.account()
    assert (stats.events, stats.duplicates) == (4, 1)


@given(st.lists(st.floats(0.001, 1), min_size=4, max_size=30), st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_weights_sum_to_one_and_touch_the_samples(steps: list[float], wanted: list[float]) -> None:
    """Weights sum to one, and at a sample's own time its weight is one."""
    times = np.cumsum(steps)
    at = times[0] + np.array(wanted) * (times[-1] - times[0])
    _, weights = lagrange(times, at, 1, 2)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    nodes, weights = lagrange(times, times, 1, 2)
    np.testing.assert_allclose((times[nodes] * weights).sum(axis=1), times, rtol=1e-9)
    np.testing.assert_allclose(weights[nodes == np.arange(len(times))[:, None]], 1)
