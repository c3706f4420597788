"""Polyphase resampling in pieces against scipy's in one go."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import signal

from stream.epochs.ingest import Ingest, WindowSpec
from stream.errors import StreamError
from stream.signal.bad_samples import BAD
from stream.signal.filters import FilterChain, FilterSpec
from stream.signal.resample import Resampler, ratio
from stream.types.events import Event
from stream.types.windows import Channels

TWO = Channels(("a", "b"), ("eeg", "eeg"), ("V", "V"))


@pytest.mark.parametrize(("sfreq", "wanted"), [(1000, 100), (250, 100), (256, 100), (100, 250)])
def test_resampling_is_scipys(sfreq: float, wanted: float) -> None:
    """Every sample but those near the ends equals resample_poly's, at its own time."""
    factor = ratio(sfreq, wanted)
    x = np.random.default_rng(0).normal(3, 1, (3 * int(sfreq), 2))
    out, newest, ahead, states = Resampler(factor, 2).feed(x, 0)
    own = (newest + ahead) / sfreq
    # scipy delays by the same filter and takes whole samples of the fine grid off.
    want = signal.resample_poly(x, factor.numerator, factor.denominator, axis=0, padtype="edge")
    places = own * wanted
    inside = (own > 0.3) & (own < 2.7) & (np.abs(places - np.round(places)) < 1e-6)
    assert inside.sum() > 2.3 * wanted
    np.testing.assert_allclose(out[inside], want[np.round(places[inside]).astype(int)], atol=1e-9)
    assert not states.any()


@given(
    st.sampled_from([(1000.0, 100.0), (250.0, 100.0), (256.0, 100.0), (100.0, 250.0), (600.0, 250.0)]),
    st.lists(st.integers(1, 500), max_size=10),
    st.integers(0, 999),
)
@settings(max_examples=40, deadline=None)
def test_chunking_changes_nothing(rates: tuple[float, float], cuts: list[int], index: int) -> None:
    """Values, times and what is known are bit-equal however the signal is chunked, from any grid place."""
    x, states = np.random.default_rng(1).normal(0, 1, (500, 2)), np.zeros((500, 2), np.int8)
    states[200:203, 1] = BAD
    whole = Resampler(ratio(*rates), 2).feed(x, index, states)
    pieces, resampler = [], Resampler(ratio(*rates), 2)
    for a, b in pairwise(sorted({0, 500, *cuts})):
        data, newest, ahead, worse = resampler.feed(x[a:b], index + a, states[a:b])
        pieces.append((data, newest + a, ahead, worse))
    for want, got in zip(whole, zip(*pieces, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(got), want)


def test_a_tone_keeps_its_time() -> None:
    """A slow sine comes out where it went in: the filter's delay is taken off the stamps."""
    t = np.arange(2000) / 500
    data = np.stack([np.sin(2 * np.pi * 3 * t)] * 2, axis=1)
    filtered = FilterChain(FilterSpec(resample=125), TWO, 500).feed(data, 0)
    times = t[filtered.newest] + filtered.ahead
    late = slice(50, None)
    np.testing.assert_allclose(filtered.data[late, 0], np.sin(2 * np.pi * 3 * times[late]), atol=2e-3)
    assert filtered.newest[0] / 500 + filtered.ahead[0] == pytest.approx(0, abs=1e-9)


@given(st.lists(st.integers(1, 3999), max_size=8))
@settings(max_examples=20, deadline=None)
def test_windows_after_a_gap(cuts: list[int]) -> None:
    """In any chunking a gap takes up its places; windows over it and over what the filter cannot know are flagged."""
    t = np.delete(np.arange(4000), np.s_[2000:2100]) / 1000
    data = np.stack([np.sin(2 * np.pi * 2 * t)] * 2, axis=1)
    ingest = Ingest(TWO, 1000, WindowSpec(tmin=0, tmax=0.2), FilterSpec(resample=100))
    for at in (0.5, 1.7, 2.05, 2.4, 3.0):
        ingest.event(Event(at, f"{at:g}"))
    edges = sorted({0, len(t), *(cut for cut in cuts if cut < len(t))})
    got = [window for a, b in pairwise(edges) for window in ingest.samples(data[a:b], t[a:b])]
    assert [(w.id, w.quality.samples_lost > 0) for w in got] == [
        ("00000-0.5", False), ("00001-1.7", False), ("00002-2.05", True), ("00003-2.4", False), ("00004-3", False),
    ]  # fmt: skip
    for window in got:
        if not window.quality.rejected:
            times = window.onset + window.tmin + np.arange(20) / 100
            np.testing.assert_allclose(window.data[0], np.sin(2 * np.pi * 2 * times), atol=0.02)
    assert ingest.account().lost == 100


def test_what_cannot_be_resampled_is_refused() -> None:
    """Rates without a small common measure, irregular streams, and two ways at once are refused."""
    with pytest.raises(StreamError, match="whole factors"):
        ratio(1000.0, 0.5e-3)
    with pytest.raises(StreamError, match="irregular"):
        FilterChain(FilterSpec(resample=100), TWO, 0)
    with pytest.raises(ValidationError, match="not both"):
        FilterSpec(resample=100, decimate=2)
