"""The time line of a stream."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.signal.clock import SampleClock, StampedChunk
from stream.signal.startup_gaps import first_holes


def cut(n: int, cuts: list[int]) -> list[slice]:
    """Slices that cover n samples, cut at the given places."""
    edges = sorted({0, n, *(place % (n + 1) for place in cuts)})
    return [slice(a, b) for a, b in pairwise(edges)]


def feed(clock: SampleClock, raw: np.ndarray, cuts: list[int]) -> tuple[np.ndarray, np.ndarray, list]:
    """Return times, places and gaps of timestamps fed in the chunks that the cuts make."""
    parts: list[StampedChunk] = [clock.feed(raw[part]) for part in cut(len(raw), cuts)]
    times = np.concatenate([part.times for part in parts])
    index = np.concatenate([part.index for part in parts])
    return times, index, [gap for part in parts for _, gap in part.gaps]


def test_exact_stamps_stay() -> None:
    """Timestamps without jitter come out as they went in."""
    raw = 1e5 + np.arange(5000) / 256
    times, index, gaps = feed(SampleClock(256), raw, [])
    np.testing.assert_allclose(times, raw, atol=1e-9, rtol=0)
    np.testing.assert_array_equal(index, np.arange(5000))
    assert gaps == []


@given(st.integers(1000, 3000), st.integers(1, 500), st.lists(st.integers(0, 4000), max_size=8))
@settings(max_examples=40, deadline=None)
def test_hole_is_counted_to_the_sample(at: int, lost: int, cuts: list[int]) -> None:
    """After startup, a hole of any length is found where it is and counted exactly, in any chunking."""
    grid = np.delete(np.arange(4000), np.s_[at : at + lost])
    _, index, gaps = feed(SampleClock(500), 7.0 + grid / 500, cuts)
    assert [gap.lost for gap in gaps] == [lost]
    assert gaps[0].start == pytest.approx(7.0 + (at - 1) / 500, abs=1e-6)
    assert gaps[0].length == pytest.approx((lost + 1) / 500, abs=1e-6)
    np.testing.assert_array_equal(index, grid)


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.004), st.integers(1, 40), st.lists(st.integers(0, 6000), max_size=8))
@settings(max_examples=40, deadline=None)
def test_jitter_is_no_gap_and_is_smoothed(seed: int, sigma: float, chunk: int, cuts: list[int]) -> None:
    """Chunks that arrive early and late by more than a sample are no gap; what comes out is nearer the truth."""
    rng = np.random.default_rng(seed)
    truth = 50.0 + np.arange(6000) / 300.6  # the device's crystal is 0.2 % off its nominal 300 Hz
    noise = np.repeat(rng.uniform(-1.7, 1.7, 6000 // chunk + 1) * sigma, chunk)[:6000]
    times, index, gaps = feed(SampleClock(300), truth + noise, cuts)
    assert gaps == []
    np.testing.assert_array_equal(index, np.arange(6000))
    assert np.all(np.diff(times) > 0)
    late = slice(3000, None)
    assert np.std((times - truth)[late]) <= 0.7 * np.std(noise[late]) + 1e-5


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3000), max_size=20))
@settings(max_examples=40, deadline=None)
def test_any_chunking_gives_the_same_bits(seed: int, cuts: list[int]) -> None:
    """Times do not depend on how the samples were chunked."""
    rng = np.random.default_rng(seed)
    raw = np.sort(rng.choice(4000, 3000, replace=False)) / 250 + rng.normal(0, 0.002, 3000)
    whole, pieces = feed(SampleClock(250), raw, []), feed(SampleClock(250), raw, cuts)
    np.testing.assert_array_equal(whole[0], pieces[0])
    np.testing.assert_array_equal(whole[1], pieces[1])
    assert whole[2] == pieces[2]


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0, 0.1),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(50, 3400), st.integers(1, 60)), max_size=5),
    st.lists(st.integers(0, 4000), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_holes_among_jitter_are_counted_to_the_sample(
    seed: int, share: float, chunk: int, holes: list[tuple[int, int]], cuts: list[int]
) -> None:
    """With jitter of up to a tenth of a sample each way, holes anywhere give every sample its true place."""
    grid = np.arange(3600)
    kept: list[int] = []  # holes have some way between them, and none lies where the first second ends
    for at, lost in sorted(holes):
        if abs(at - 480) > 100 and (not kept or at - kept[-1] > 150) and (at > 480 or not kept):
            grid = grid[(grid < at) | (grid >= at + lost)]
            kept.append(at)
    rng = np.random.default_rng(seed)
    noise = np.repeat(rng.uniform(-share, share, len(grid) // chunk + 1), chunk)[: len(grid)]
    times, index, gaps = feed(SampleClock(500), 9e4 + (grid + noise) / 500, cuts)
    np.testing.assert_array_equal(index, grid)
    assert sum(gap.lost for gap in gaps) == 3600 - len(grid)
    assert np.all(np.diff(times) > 0)
    np.testing.assert_allclose(times, 9e4 + grid / 500, atol=0.25 / 500, rtol=0)


def test_speed_scales_time_only() -> None:
    """A replay at 20 times the speed has the same grid and the same gaps."""
    raw = np.delete(np.arange(4000), np.s_[2000:2003]) / 100 + np.random.default_rng(1).normal(0, 1e-3, 3997)
    slow, fast = feed(SampleClock(100), raw, []), feed(SampleClock(100, 20.0), raw / 20, [])
    np.testing.assert_allclose(slow[0], fast[0] * 20, atol=1e-8)
    np.testing.assert_array_equal(slow[1], fast[1])
    assert [gap.lost for gap in slow[2]] == [gap.lost for gap in fast[2]] == [3]


@given(st.integers(20, 480), st.integers(1, 20), st.floats(-0.01, 0.01), st.lists(st.integers(0, 1500), max_size=8))
@settings(max_examples=60, deadline=None)
def test_hole_in_the_first_second_is_counted_to_the_sample(at: int, lost: int, drift: float, cuts: list[int]) -> None:
    """Without jitter a hole of any length, a single sample too, is found in the first second, in any chunking."""
    grid = np.delete(np.arange(1500), np.s_[at : at + lost])
    raw = 3e5 + grid * (1 + 0.01 * drift) / 500  # a crystal up to 100 ppm off
    times, index, gaps = feed(SampleClock(500), raw, cuts)
    assert [gap.lost for gap in gaps] == [lost]
    assert gaps[0].start == pytest.approx(raw[at - 1], abs=1e-4)
    np.testing.assert_array_equal(index, grid)
    np.testing.assert_allclose(times, raw, atol=1e-4, rtol=0)


@given(st.integers(0, 2**32 - 1), st.integers(150, 850), st.integers(10, 45), st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_hole_in_the_first_second_among_jitter(seed: int, at: int, lost: int, chunk: int) -> None:
    """Among jitter that swings over 2 ms a hole of 10 ms or more in the first second is found where it is."""
    rng = np.random.default_rng(seed)
    grid = np.delete(np.arange(3000), np.s_[at : at + lost])
    late = np.repeat(rng.uniform(-1e-3, 1e-3, len(grid) // chunk + 1), chunk)[: len(grid)]
    _, index, gaps = feed(SampleClock(1000), grid / 1000 + late, [])
    assert [abs(gap.lost - lost) <= 1 for gap in gaps] == [True]
    np.testing.assert_array_equal(np.flatnonzero(np.diff(index) > 1), [at - 1])


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(1e-5, 8e-3))
@settings(max_examples=150, deadline=None)
def test_jitter_is_no_hole_in_the_first_second(seed: int, chunk: int, swing: float) -> None:
    """Chunks that come early and late are no hole, whatever their size and swing."""
    late = np.repeat(np.random.default_rng(seed).uniform(0, swing, 1000 // chunk + 1), chunk)[:1000]
    assert first_holes(np.arange(1000) / 1000 + late, 1e-3) == {}


def test_first_second_is_held_back_only_once() -> None:
    """Nothing comes out before the first second is over; then everything does, and each chunk at once."""
    clock = SampleClock(100)
    given_back = [len(clock.feed(np.arange(start, start + 30) / 100).times) for start in range(0, 300, 30)]
    assert given_back == [0, 0, 0, 120, 30, 30, 30, 30, 30, 30]
    clock = SampleClock(100)
    assert len(clock.feed(np.arange(30) / 100).times) == 0
    assert len(clock.feed(np.empty(0), last=True).times) == 30
    assert len(SampleClock(0.5).feed(np.array([7.0])).times) == 1  # a slow stream has no second to be held


def test_clock_that_steps_back_is_told() -> None:
    """A source whose clock is reset begins a new line, with nothing counted as lost."""
    clock = SampleClock(100)
    times, index, gaps = feed(clock, np.concatenate([np.arange(300) / 100 + 900, np.arange(300) / 100]), [])
    assert clock.steps_back == 1
    assert gaps[0].length < 0
    assert gaps[0].lost == 0
    assert times[-1] == pytest.approx(2.99)
    np.testing.assert_array_equal(index, np.arange(600))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_irregular_times_increase_strictly(stamps: list[float]) -> None:
    """An irregular stream keeps its timestamps, save that equal or earlier ones are moved just behind the last."""
    times, _, gaps = feed(SampleClock(0), np.array(stamps), [])
    assert np.all(np.diff(times) > 0)
    assert gaps == []
    np.testing.assert_allclose(times, np.maximum.accumulate(stamps), atol=1e-9)
