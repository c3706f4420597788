"""Running statistics against their formulas."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.epochs.ingest import Ingest, WindowSpec
from stream.errors import StreamError
from stream.signal.filters import FilterChain, FilterSpec
from stream.signal.running import Drift, PercentSignal, RunningMean
from stream.types.events import Event
from stream.types.window_spec import trend
from stream.types.windows import Channels

VOXELS = Channels(("v1", "v2"), ("voxel", "voxel"), ("count", "count"))


def weights(n: int, memory: float) -> np.ndarray:
    """Return the weights of n samples, the newest last."""
    return np.exp(-np.arange(n)[::-1] / memory)


@given(st.integers(0, 2**32 - 1), st.floats(1.5, 200), st.floats(-1e4, 1e4))
@settings(max_examples=30, deadline=None)
def test_the_mean_is_weighted(seed: int, memory: float, offset: float) -> None:
    """At every sample the mean is that of the past with exponential weights, offset or not."""
    x = np.random.default_rng(seed).normal(offset, 1, (60, 2))
    mean = RunningMean(memory).feed(x)
    for i in (0, 1, 7, 59):
        w, past = weights(i + 1, memory), x[: i + 1]
        want = np.average(past, axis=0, weights=w)
        np.testing.assert_allclose(mean[i], want, atol=1e-9, rtol=1e-9)


@given(st.integers(0, 2**32 - 1), st.floats(3, 100))
@settings(max_examples=30, deadline=None)
def test_drift_is_the_weighted_line(seed: int, memory: float) -> None:
    """What drift takes out is the present end of the weighted least-squares line through the past."""
    x = np.random.default_rng(seed).normal(0, 1, (50, 2)) + 100 + 0.3 * np.arange(50)[:, None]
    out = Drift(memory).feed(x)
    for i in (2, 10, 49):
        line = np.polyfit(np.arange(i + 1), x[: i + 1], 1, w=np.sqrt(weights(i + 1, memory)))
        np.testing.assert_allclose(out[i], x[i] - (line[0] * i + line[1]), atol=1e-6)
    np.testing.assert_allclose(out[:2], 0, atol=1e-9)


def test_a_ramp_has_no_drift_left() -> None:
    """A straight line is taken out whole."""
    np.testing.assert_allclose(Drift(20).feed(np.arange(200.0)[:, None] * 3 + 5), 0, atol=1e-6)


def test_percent_signal_of_a_step() -> None:
    """A step of 2 % over a long constant reads as 2 %; a channel that is always 0 reads 0."""
    x = np.full((401, 2), [500.0, 0.0])
    x[400, 0] = 510
    out = PercentSignal(1000).feed(x)
    assert out[400, 0] == pytest.approx(2.0, rel=0.01)
    assert not out[:, 1].any()


@given(st.lists(st.integers(1, 200), max_size=10), st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_chunking_changes_nothing(cuts: list[int], percent: bool, drift: bool) -> None:
    """Percent signal and drift removal, in any combination and chunking, give the same bits."""
    spec = FilterSpec(percent_signal=60 if percent else None, drift=80 if drift else None)
    x = np.random.default_rng(2).normal(100, 2, (200, 2))
    whole = FilterChain(spec, VOXELS, 0.5).feed(x, 0).data
    chain = FilterChain(spec, VOXELS, 0.5)
    pieces = [chain.feed(x[a:b], a).data for a, b in pairwise(sorted({0, 200, *cuts}))]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    chain.reset()
    np.testing.assert_array_equal(chain.feed(x, 0).data, whole)


def test_units_say_what_was_done() -> None:
    """Channels come out in percent, so that a bundle trained otherwise refuses them."""
    assert FilterChain(FilterSpec(percent_signal=60), VOXELS, 0.5).channels.units == ("percent", "percent")
    with pytest.raises(StreamError, match="irregular"):
        FilterChain(FilterSpec(drift=60), VOXELS, 0)


def test_lagged_mean_of_volumes() -> None:
    """Mode 'mean' averages the volumes 4 to 8 s after a marker into one vector."""
    ingest = Ingest(VOXELS, 0.5, WindowSpec(mode="mean", tmin=4, tmax=8), FilterSpec())
    ingest.event(Event(9.0, "x"))
    ingest.event(Event(20.0, "y"))
    volumes = np.stack([np.arange(20.0), -np.arange(20.0)], axis=1)
    first, second = ingest.samples(volumes, np.arange(20) * 2.0)
    assert first.data.tolist() == [[7.5], [-7.5]]  # the volumes at 14 and 16 s
    assert second.data.tolist() == [[12.5], [-12.5]]  # at 24 and 26 s


def test_detrend_takes_the_line_from_window_and_baseline() -> None:
    """With detrend a ramp vanishes and the baseline, on the same line, adds nothing; a bump stays."""
    x = np.arange(500.0)[:, None] * np.array([[2.0, -1.0]]) + 7
    bump = np.exp(-(((np.arange(500) - 310) / 5) ** 2))
    spec = WindowSpec(tmin=0, tmax=0.4, baseline=(-0.2, 0.0), detrend=True)
    for extra in (0.0, 1.0):
        ingest = Ingest(Channels(("a", "b"), ("eeg", "eeg"), ("V", "V")), 100, spec, FilterSpec())
        ingest.event(Event(3.0, "x"))
        (window,) = ingest.samples(x + extra * bump[:, None], np.arange(500) / 100)
        if extra:
            assert window.data[0].argmax() in range(8, 13)
        else:
            np.testing.assert_allclose(window.data, 0, atol=1e-3)


def test_trend_is_polyfits() -> None:
    """The fitted line is numpy's."""
    x = np.random.default_rng(3).normal(0, 1, (2, 30))
    level, slope = trend(x)
    want = np.polyfit(np.arange(30), x.T, 1)
    np.testing.assert_allclose([slope, level], want, atol=1e-12)
