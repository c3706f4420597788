"""Timestamps that are not finite, absurd, all alike, or leap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.epochs.ingest import Ingest, WindowSpec
from stream.signal.clock import SampleClock
from stream.signal.filters import FilterSpec
from stream.signal.ring import Ring
from stream.types.events import Event
from stream.types.windows import Channels, Window

COUNTS = Channels(("n", "m"), ("misc", "misc"), ("count", "count"))
BEGIN, RATE = 5e4, 250


def run(
    stamps: np.ndarray, marks: list[float], rate: float = RATE, step: int = 31, due: list[int] | None = None
) -> tuple[list[Window], Ingest]:
    """Windows of samples that tell their own number."""
    spec = WindowSpec(tmin=0, tmax=0.2) if rate else WindowSpec(mode="sample", tmin=0, tmax=0.2)
    ingest = Ingest(COUNTS, rate, spec, FilterSpec())
    data = np.repeat(np.arange(len(stamps), dtype=float)[:, None], 2, axis=1)
    windows, places = [], [int(np.flatnonzero(stamps >= at)[0]) if (stamps >= at).any() else 0 for at in marks]
    for i in range(0, len(stamps), step):
        for at, place in zip(marks, due or places, strict=True):
            if i <= place < i + step:
                ingest.event(Event(at, f"m{at:.3f}"))
        windows += ingest.samples(data[i : i + step], stamps[i : i + step])
    return windows, ingest


ABSURD = [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e18, -1e300, BEGIN + 3e4, BEGIN - 7200, BEGIN + 1e9, 1.8e9]


@given(
    st.dictionaries(st.integers(0, 2500), st.sampled_from(ABSURD), min_size=1, max_size=6),
    st.floats(0, 1e-3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_single_absurd_stamps_cost_nothing(wrong: dict[int, float], jitter: float, seed: int) -> None:
    """Samples whose timestamps are absurd lie where they were due; they are counted and said, and all windows stand."""
    true = BEGIN + np.arange(2600) / RATE
    stamps = true + np.random.default_rng(seed).uniform(0, jitter, 2600)
    for at, value in wrong.items():
        if at - 1 not in wrong and at + 1 not in wrong:
            stamps[at] = value
    count = int((np.abs(stamps - true) > 1).sum() + np.isnan(stamps).sum())
    marks = (BEGIN + np.arange(0.2, 10, 0.3)).tolist()
    windows, ingest = run(stamps, marks)
    assert len(windows) == len(marks)
    for window in windows:
        assert window.quality.rejected is None
        assert abs(BEGIN + window.data[0, 0] / RATE - window.onset) <= 0.6 / RATE + jitter
    stats = ingest.account()
    assert (stats.samples, stats.lost, stats.gap_count) == (2600, 0, 0)
    assert abs(stats.bad_stamps - count) <= 1  # the very first one is the line's begin, whatever it says
    assert any("timestamps were no numbers or out of all order" in line for line in stats.problems) == (
        stats.bad_stamps > 0
    )


@pytest.mark.parametrize("value", [0.0, 12.5, np.nan, np.inf])
@pytest.mark.parametrize("rate", [RATE, 0.0, 0.5])
def test_stamps_that_stand_still_are_said(value: float, rate: float) -> None:
    """All equal, zero or not finite: no window, one line that says why, and nothing that grows."""
    windows, ingest = run(np.full(8000, value), [BEGIN, 100.0], rate)
    assert [w for w in windows if w.quality.rejected is None] == []
    assert any("timestamps stand still or are no numbers" in line for line in ingest.account().problems)
    buffer = ingest.buffers[0]
    assert len(buffer._held) <= 4 * RATE
    assert len(buffer._clock._waiting) <= 4 * RATE
    assert len(buffer.marks._marks) < 100


@given(st.sampled_from([1.0, 600.0, 7200.0, 1e6, 1.7e9]), st.booleans(), st.integers(1, 900))
@settings(max_examples=30, deadline=None)
def test_a_clock_that_is_set_anew(step: float, back: bool, step_by: int) -> None:
    """After a leap of any length windows are right again at the new times; only those across it are lost or flagged."""
    first = BEGIN + 2e9 * back + np.arange(2000) / RATE
    stamps = np.concatenate([first, first + (-step if back else step) + 8])
    due = [500, 1000, 1900, 2100, 3000]
    marks = [float(stamps[at]) for at in due]
    windows, ingest = run(stamps, marks, due=due)
    places = sorted(int(w.data[0, 0]) for w in windows if w.quality.rejected is None)
    assert set(places) >= {2100, 3000}
    assert set(places) <= {500, 1000, 1900, 2100, 3000}
    stats = ingest.account()
    assert stats.steps_back == (back or step > 86400)
    assert stats.lost == (0 if stats.steps_back else round(step * RATE))
    again = {int(w.data[0, 0]) for w in run(stamps, marks, step=step_by, due=due)[0] if w.quality.rejected is None}
    assert again >= {2100, 3000}


def test_an_irregular_stream_survives_absurd_stamps() -> None:
    """One stamp far in the future does not hold all later samples there."""
    stamps = BEGIN + np.arange(400) * 0.05
    stamps[[100, 200, 300]] = np.nan, 1e12, 5.0
    windows, ingest = run(stamps, [BEGIN + 2, BEGIN + 12, BEGIN + 17.5], 0.0)
    assert [w.data[0, 0] for w in windows] == [40, 240, 350]
    assert ingest.account().bad_stamps == 3


def test_one_bad_stamp_does_not_poison_the_clock() -> None:
    """After one NaN among the timestamps the line goes on as it was."""
    clock = SampleClock(100)
    clock.feed(np.arange(300) / 100)
    raw = np.arange(300, 310) / 100
    raw[3] = np.nan
    stamped = clock.feed(raw)
    np.testing.assert_allclose(stamped.times, np.arange(300, 310) / 100, atol=1e-9)
    assert clock.bad_stamps == 1


def test_position_of_no_time() -> None:
    """A time that is not a number lies before all samples."""
    ring = Ring(16, 1)
    ring.write(np.zeros((10, 1), np.float32), np.arange(10.0))
    assert ring.position(float("nan")) == -np.inf


@pytest.mark.parametrize("time", [np.nan, np.inf, -np.inf])
def test_events_without_a_time_are_counted(time: float) -> None:
    """A marker whose time is not finite is left out, counted and said; the others give their windows."""
    ingest = Ingest(COUNTS, RATE, WindowSpec(tmin=0, tmax=0.2), FilterSpec())
    ingest.event(Event(time, "x"))
    ingest.event(Event(BEGIN + 2, "y"))
    stamps = BEGIN + np.arange(1000) / RATE
    windows = ingest.samples(np.repeat(np.arange(1000.0)[:, None], 2, axis=1), stamps)
    assert [w.id for w in windows] == ["00000-y"]
    stats = ingest.account()
    assert (stats.bad_events, stats.events, stats.pending) == (1, 1, 0)
    assert stats.problems == ["1 marker left out: their timestamps are not finite"]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("blind", [120, 250, 700])
def test_a_stream_without_times_at_first(wrong: float, blind: int) -> None:
    """Samples before the first timestamp of use have no place in time: none is called lost, no window is cut of them.

    From then on windows are right, save those that reach back before it.
    """
    stamps = BEGIN + np.arange(2500) / RATE
    true = stamps.copy()
    stamps[:blind] = wrong
    due = [100, 260, 600, 1100, 2200]
    windows, ingest = run(stamps, [float(true[at]) for at in due], due=due)
    stats = ingest.account()
    assert (stats.samples, stats.lost) == (2500, 0)
    assert blind - 1 <= stats.bad_stamps <= blind + 1
    for window in windows:
        at = BEGIN + window.data[0, 0] / RATE
        assert window.quality.rejected or at == pytest.approx(window.onset, abs=0.6 / RATE)
        assert abs(window.tmin) < 1 / RATE
    trusted = {round(float(w.data[0, 0])) for w in windows if not w.quality.rejected}
    assert trusted >= {at for at in due if at > blind}
    assert len(windows) + stats.incomplete + stats.pending == len(due)
