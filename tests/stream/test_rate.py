"""Streams that do not send at the rate they declare, and those that do."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.epochs.ingest import Ingest, WindowSpec, windows_of
from stream.errors import StreamError
from stream.signal.filters import FilterSpec
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.source_spec import SourceSpec
from stream.types.windows import Channels, Window

COUNTS = Channels(("n", "m"), ("misc", "misc"), ("count", "count"))
BEGIN = 5e4


def stamped(manner: str, declared: float, n: int, rate: float, jitter: float, chunk: int, seed: int) -> np.ndarray:
    """Timestamps of n samples at a rate: each its own, jittered by chunk, by push_chunk on arrival, or in bursts."""
    rng = np.random.default_rng(seed)
    true = BEGIN + np.arange(n) / rate
    late = np.repeat(rng.uniform(0, jitter, n // chunk + 1), chunk)[:n]
    if manner == "own":
        return true + late
    place = np.arange(n) % chunk
    arrived = BEGIN + (np.arange(n) - place + chunk - 1) / rate + late
    return arrived + place * 1e-5 if manner == "burst" else arrived - (chunk - 1 - place) / declared


def run(
    declared: float, stamps: np.ndarray, marks: np.ndarray, step: int = 37, window: WindowSpec | None = None
) -> tuple[list[Window], str | None, Ingest]:
    """Windows of samples that tell their own number, round the marks; and the error, if there was one."""
    ingest = Ingest(COUNTS, declared, window or WindowSpec(tmin=-0.1, tmax=0.4), FilterSpec())
    data = np.repeat(np.arange(len(stamps), dtype=float)[:, None], 2, axis=1)
    for at in marks:
        ingest.event(Event(float(at), f"m{at:.3f}"))
    windows: list[Window] = []
    for i in range(0, len(stamps), step):
        try:
            windows += ingest.samples(data[i : i + step], stamps[i : i + step])
        except StreamError as error:
            return windows, str(error), ingest
    return windows, None, ingest


def onset_errors(windows: list[Window], declared: float, rate: float) -> list[float]:
    """How far each trusted window's onset sample lies from its marker, in seconds."""
    first = -round(-0.1 * declared)
    return [
        abs(BEGIN + float(w.data[0, first]) / rate - w.onset) for w in windows if w.quality.rejected is None
    ]  # fmt: skip


@given(
    st.sampled_from([100.0, 250.0, 256.0, 1000.0]),
    st.one_of(st.floats(0.25, 0.95), st.floats(1.05, 4.0)),
    st.sampled_from(["own", "arrival", "burst"]),
    st.floats(0, 0.002),
    st.integers(1, 8),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_a_wrong_rate_is_an_error_that_names_both(
    declared: float, share: float, manner: str, jitter: float, chunk: int, seed: int
) -> None:
    """Within twelve seconds of samples, with the way out that then works; no window before it is wrong in silence."""
    rate = declared * share
    seconds = 12 * max(1, 1 / share)
    stamps = stamped(manner, declared, round(seconds * rate), rate, jitter, chunk, seed)
    marks = np.arange(BEGIN + 0.5, stamps[-1], 0.31)
    windows, error, ingest = run(declared, stamps, marks)
    assert error is not None
    assert f"{declared:g} Hz but sends" in error
    measured = float(error.rsplit(" ", 1)[1])
    assert measured == pytest.approx(rate, rel=0.02)
    assert "source.sfreq" in error
    # The time of a packet's first sample is known to the packet's own length at best.
    allowed = 1.6 / rate + 3 * jitter + (chunk / rate if manner != "own" else 0)
    assert max(onset_errors(windows, declared, rate), default=0) <= allowed
    *_, again, ingest = run(measured, stamped(manner, measured, len(stamps), rate, jitter, chunk, seed), marks)
    assert again is None
    assert ingest.account().measured_hz is None or ingest.account().measured_hz == pytest.approx(rate, rel=0.02)


@given(
    st.sampled_from([100.0, 250.0, 1000.0]),
    st.floats(-0.018, 0.018),
    st.floats(0, 0.003),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_a_rate_that_is_nearly_right_keeps_its_onsets(
    declared: float, off: float, jitter: float, chunk: int, seed: int
) -> None:
    """Up to 2 % off, every onset lies within a sample, and the jitter, for a minute; nothing is lost or flagged."""
    rate = declared * (1 + off)
    stamps = stamped("own", declared, round(60 * rate), rate, jitter, chunk, seed)
    windows, error, ingest = run(declared, stamps, np.arange(BEGIN + 0.5, BEGIN + 59, 0.61))
    assert error is None
    assert len(windows) > 90
    assert not [w.quality.rejected for w in windows if w.quality.rejected]
    assert max(onset_errors(windows, declared, rate)) < 1 / rate + jitter
    stats = ingest.account()
    assert (stats.lost, stats.problems) == (0, [])
    assert stats.drift_ppm == pytest.approx(off * 1e6, abs=20 + 2e5 * jitter)
    assert stats.measured_hz == pytest.approx(rate, rel=2e-5 + 0.2 * jitter)
    assert stats.declared_hz == declared


@pytest.mark.parametrize("rate", [249.3, 250.0, 250.004])
def test_drift_is_measured_in_ppm(rate: float) -> None:
    """After two minutes with a millisecond of jitter the drift is known to a few ppm, and 249.3 of 250 is none."""
    stamps = stamped("own", 250, round(120 * rate), rate, 1e-3, 1, 3)
    windows, error, ingest = run(250, stamps, np.arange(BEGIN + 1, BEGIN + 119, 1.0))
    assert error is None
    assert ingest.account().drift_ppm == pytest.approx((rate / 250 - 1) * 1e6, abs=5)
    assert max(onset_errors(windows, 250, rate)) < 1 / rate


@given(
    st.sampled_from([0.0, 0.03, 0.1, 0.3]),
    st.integers(3, 12),
    st.floats(0, 1e-3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_lost_packets_are_no_wrong_rate(share: float, packet: int, jitter: float, seed: int) -> None:
    """However many packets a link loses, that is no error; windows over holes are flagged, others are in place."""
    rng = np.random.default_rng(seed)
    n = 250 * 30
    keep = np.repeat(rng.uniform(size=n // packet + 1) >= share, packet)[:n]
    stamps = (BEGIN + np.arange(n) / 250 + rng.uniform(0, jitter, n))[keep]
    ingest = Ingest(COUNTS, 250, WindowSpec(tmin=-0.1, tmax=0.4), FilterSpec())
    numbers = np.flatnonzero(keep).astype(float)
    for at in np.arange(BEGIN + 0.5, BEGIN + 29, 0.4):
        ingest.event(Event(float(at), f"m{at:.1f}"))
    windows = ingest.samples(np.repeat(numbers[:, None], 2, axis=1), stamps)
    assert max(onset_errors(windows, 250, 250), default=0) <= 1.6 / 250 + 2 * jitter
    for window in windows:
        if window.quality.rejected is None:
            assert np.all(np.diff(window.data[0]) == 1)


def test_what_a_device_had_saved_up_is_no_rate() -> None:
    """Three seconds of old samples that come in one burst at the start do not make the rate."""
    old = BEGIN + np.arange(750) * 1e-4
    stamps = np.concatenate([old, BEGIN + 0.1 + np.arange(250 * 20) / 250])
    windows, error, _ = run(250, stamps, np.arange(BEGIN + 3, BEGIN + 19, 1.0))
    assert error is None
    assert [w.quality.rejected for w in windows[-8:]] == [None] * 8


@pytest.mark.parametrize("rate", [200.0, 300.0])
def test_a_rate_that_changes_later_is_flagged_and_said(rate: float) -> None:
    """A device that switches its rate after half a minute does not end the session: windows are flagged, and a line."""
    good = BEGIN + np.arange(250 * 30) / 250
    stamps = np.concatenate([good, good[-1] + np.arange(1, round(rate * 20)) / rate])
    windows, error, ingest = run(250, stamps, np.arange(BEGIN + 1, BEGIN + 48, 1.0))
    assert error is None
    before = [w.quality.rejected for w in windows if w.onset < BEGIN + 29]
    after = [w.quality.rejected for w in windows if w.onset > BEGIN + 30]
    assert before == [None] * len(before)
    assert len(after) > 10
    assert all(after)
    assert any(f"{rate:g} samples a second come, not 250" in line for line in ingest.account().problems)


@pytest.mark.parametrize(("declared", "rate", "seconds"), [(0.5, 0.5, 120), (30_000, 30_000, 4), (0.5, 0.504, 200)])
def test_very_slow_and_very_fast_streams(declared: float, rate: float, seconds: float) -> None:
    """Volumes every two seconds and 30 kHz are judged by what they are: nothing is wrong."""
    stamps = BEGIN + np.arange(round(seconds * rate)) / rate
    mode = "mean" if declared < 1 else "event"
    window = WindowSpec(mode=mode, tmin=0, tmax=4 if declared < 1 else 0.1)
    windows, error, ingest = run(
        declared, stamps, np.arange(BEGIN + 1, BEGIN + 0.8 * seconds, seconds / 10), 1000, window
    )
    assert error is None
    assert windows
    assert not any(w.quality.rejected for w in windows)
    assert ingest.account().problems == []


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_a_few_slow_samples_prove_nothing(n: int) -> None:
    """A handful of volumes at another rate is too little evidence for an error."""
    assert run(0.5, BEGIN + np.arange(n) * 1.5, np.empty(0), 1)[1] is None


def test_flags_hang_on_no_chunk() -> None:
    """A stream whose rate changes, with jitter and holes, gives the same windows and flags in any chunking."""
    rng = np.random.default_rng(0)
    stamps = BEGIN + np.concatenate([np.arange(5000) / 250, 20 + np.arange(1, 4000) / 230])
    stamps = np.delete(stamps + rng.normal(0, 5e-4, len(stamps)), np.s_[3000:3030])
    marks = np.arange(BEGIN + 0.7, BEGIN + 36, 0.41)
    whole = [(w.id, w.quality, w.data.tobytes()) for w in run(250, stamps, marks, 10**6)[0]]
    assert {bool(quality.rejected) for _, quality, _ in whole} == {True, False}
    for step in (1, 13, 700):
        assert [(w.id, w.quality, w.data.tobytes()) for w in run(250, stamps, marks, step)[0]] == whole


def test_offline_the_same_rule_and_the_same_way_out() -> None:
    """A recording that declares 250 Hz and holds 125 is refused as live, and read with its true rate."""
    n = 125 * 20
    data = np.repeat(np.arange(n, dtype=np.float32)[:, None], 2, axis=1)
    stream = RecordedStream("amp", "EEG", "amp", COUNTS, 250.0, np.arange(n) / 125, data)
    recording = Recording("r", "test", (stream,), tuple(Event(float(at), "x") for at in range(2, 18)))
    spec = WindowSpec(tmin=0, tmax=0.4)
    with pytest.raises(StreamError, match=r"stream 'amp' .* 250 Hz but sends 125 .* source\.sfreq: 125"):
        list(windows_of(recording, spec, FilterSpec()))

    windows = list(windows_of(recording, spec, FilterSpec(), SourceSpec(sfreq=125.0)))
    assert [w.data[0, 0] for w in windows] == [125 * at for at in range(2, 18)]
    assert all(a.sfreq == 125 and b.quality.rejected is None for a, b in pairwise(windows))


def test_no_rate_is_said_with_the_way_out() -> None:
    """An EEG stream that declares no rate is refused, and the line names `source.sfreq`."""
    with pytest.raises(StreamError, match=r"'source' declares no rate: set source\.sfreq"):
        Ingest(COUNTS, 0, WindowSpec(), FilterSpec())


@given(
    st.sampled_from([50.0, 125.0, 250.0, 256.0, 1000.0]),
    st.floats(0.02, 0.25),
    st.floats(0, 0.01),
    st.floats(-0.002, 0.002),
    st.integers(0, 2**32 - 1),
)
@example(125.0, 0.2, 0.0, 0.0, 0)  # blocks of 12 or 13 samples beat with packets of 25
@example(250.0, 0.1, 0.0, 0.0, 0)
@settings(max_examples=60, deadline=None)
def test_packets_whose_samples_are_stamped_on_arrival(
    rate: float, packet_s: float, jitter: float, off: float, seed: int
) -> None:
    """A radio link's packets, each sample stamped when pushed: nothing is called lost, onsets are right to a packet."""
    chunk = max(2, round(packet_s * rate))
    stamps = stamped("burst", rate, round(20 * rate), rate * (1 + off), jitter, chunk, seed)
    marks = np.arange(BEGIN + 2.5, stamps[-1] - 1, 0.31)
    windows, error, ingest = run(rate, stamps, marks)
    assert error is None
    stats = ingest.account()
    assert (stats.lost, stats.gap_count, stats.steps_back) == (0, 0, 0)
    assert stats.rejected <= len(windows) // 10
    allowed = (chunk + 1.6) / rate + 3 * jitter
    assert max(onset_errors(windows, rate, rate * (1 + off))) <= allowed


@pytest.mark.parametrize("lost", [1, 3, 10])
def test_lost_packets_among_such(lost: int) -> None:
    """Packets that are lost are counted, and the windows over them flagged; later ones are right to a packet again."""
    rate, chunk = 250.0, 25
    stamps = stamped("burst", rate, 5000, rate, 0.002, chunk, 1)
    keep = np.ones(5000, np.bool_)
    keep[2500 : 2500 + lost * chunk] = False
    ingest = Ingest(COUNTS, rate, WindowSpec(tmin=-0.1, tmax=0.4), FilterSpec())
    data = np.repeat(np.arange(5000, dtype=float)[:, None], 2, axis=1)[keep]
    for at in np.arange(BEGIN + 2.5, BEGIN + 19, 0.31):
        ingest.event(Event(float(at), f"m{at:.3f}"))
    windows = [w for i in range(0, len(data), 37) for w in ingest.samples(data[i : i + 37], stamps[keep][i : i + 37])]
    assert ingest.account().lost == pytest.approx(lost * chunk, abs=chunk / 2 + 1)
    assert max(onset_errors(windows, rate, rate)) <= (chunk + 1.6) / rate + 0.006
    assert 1 <= ingest.account().rejected <= 8
