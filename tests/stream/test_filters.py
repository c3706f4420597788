"""Filters in pieces against filters in one go."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import signal

from stream.errors import StreamError
from stream.signal.filters import FilterChain, FilterSpec
from stream.types.windows import Channels

EEG = Channels(("a", "b", "c", "aux"), ("eeg", "eeg", "eeg", "misc"), ("V", "V", "V", "count"))


def test_band_pass_is_scipys() -> None:
    """A band-pass from the settled state equals scipy's sosfilt with its steady-state start."""
    x = np.random.default_rng(0).normal(5, 1, (2000, 4))
    out = FilterChain(FilterSpec(highpass=1, lowpass=30), EEG, 250).feed(x, 0).data
    sos = np.concatenate(
        [signal.butter(4, 1, "highpass", fs=250, output="sos"), signal.butter(4, 30, "lowpass", fs=250, output="sos")]
    )
    want, _ = signal.sosfilt(sos, x[:, 1], zi=signal.sosfilt_zi(sos) * x[0, 1])
    np.testing.assert_allclose(out[:, 1], want, rtol=1e-5, atol=1e-6)


@given(st.lists(st.integers(1, 400), max_size=12), st.integers(1, 5), st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_chunking_changes_nothing(cuts: list[int], decimate: int, index: int) -> None:
    """Reference, filters and decimation give bit-equal samples however the signal is chunked."""
    x = np.random.default_rng(3).normal(0, 1, (400, 4))
    spec = FilterSpec(reference="average", highpass=0.5, lowpass=20, notch=(50,), decimate=decimate)
    filtered = FilterChain(spec, EEG, 250).feed(x, index)
    assert isinstance(filtered.newest, slice)
    assert [(index + i) % decimate for i in range(400)[filtered.newest]] == [0] * len(filtered.data)
    chain, edges = FilterChain(spec, EEG, 250), sorted({0, 400, *cuts})
    pieces = [chain.feed(x[a:b], index + a).data for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(pieces), filtered.data)


def test_notch_takes_out_mains_and_nothing_else() -> None:
    """50 Hz falls by more than 40 dB, 20 Hz stays within 1 %."""
    t = np.arange(5000) / 500
    x = np.stack([np.sin(2 * np.pi * 50 * t), np.sin(2 * np.pi * 20 * t)] * 2, axis=1)
    out = FilterChain(FilterSpec(notch=(50,)), EEG, 500).feed(x, 0).data
    levels = out[2500:].std(axis=0) / x[2500:].std(axis=0)
    assert levels[0] < 0.01
    assert levels[1] == pytest.approx(1, abs=0.01)


def test_average_reference_is_over_eeg_only() -> None:
    """The EEG mean is taken from EEG channels and from nothing else."""
    out = FilterChain(FilterSpec(reference="average"), EEG, 250).feed(np.array([[1.0, 2.0, 6.0, 100.0]]), 0).data
    np.testing.assert_allclose(out, [[-2, -1, 3, 100]])


def test_decimation_keeps_what_passes_and_stops_what_would_alias() -> None:
    """The low-pass comes by itself: 5 Hz stays, 45 Hz (5 Hz after decimation to 50 Hz) is gone."""
    t = np.arange(4000) / 500
    x = np.stack([np.sin(2 * np.pi * 5 * t), np.sin(2 * np.pi * 45 * t)] * 2, axis=1)
    out = FilterChain(FilterSpec(decimate=10), EEG, 500).feed(x, 0).data
    levels = out[200:].std(axis=0) / x.std(axis=0)
    assert levels[0] == pytest.approx(1, abs=0.01)
    assert levels[1] < 0.05


def test_offset_does_not_ring() -> None:
    """A large electrode offset gives no transient, at the start and after a reset."""
    chain = FilterChain(FilterSpec(highpass=0.5), EEG, 250)
    assert np.abs(chain.feed(np.full((500, 4), 0.3), 0).data).max() < 1e-6
    chain.reset()
    assert np.abs(chain.feed(np.full((500, 4), -0.2), 0).data).max() < 1e-6


def test_channels_by_name_or_kind() -> None:
    """Channels are chosen by name or kind in the stream's order; an unknown one is refused by name."""
    assert FilterChain(FilterSpec(channels=("aux", "b")), EEG, 250).channels.names == ("b", "aux")
    assert FilterChain(FilterSpec(channels=("eeg",)), EEG, 250).channels.names == ("a", "b", "c")
    with pytest.raises(StreamError, match="Cz"):
        FilterChain(FilterSpec(channels=("Cz",)), EEG, 250)


@pytest.mark.parametrize(
    ("spec", "sfreq", "message"),
    [
        (FilterSpec(lowpass=130), 250, "stay below 125"),
        (FilterSpec(lowpass=100, decimate=2), 250, "aliases"),
        (FilterSpec(highpass=1), 0, "irregular"),
    ],
)
def test_what_does_not_fit_the_rate_is_refused(spec: FilterSpec, sfreq: float, message: str) -> None:
    """A frequency that the rate cannot carry is refused with the limit."""
    with pytest.raises(StreamError, match=message):
        FilterChain(spec, EEG, sfreq)


def test_edges_must_be_in_order() -> None:
    """A band turned round is refused when the config is read."""
    with pytest.raises(ValidationError, match="must be below"):
        FilterSpec(highpass=30, lowpass=1)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("field", ["highpass", "lowpass", "notch_quality", "resample", "percent_signal", "drift"])
def test_numbers_that_are_not_finite_are_refused(field: str, value: float) -> None:
    """No frequency or time constant may be infinite or not a number; nor may a limit or a notch."""
    for fields in (
        {field: value},
        {"notch": (value,)},
        {"flat": {"eeg": value}},
        {"reject_peak_to_peak": {"eeg": value}},
    ):
        with pytest.raises(ValidationError, match="finite number"):
            FilterSpec(**fields)
    for key in ("noisy", "flat"):
        with pytest.raises(ValidationError, match="finite number"):
            FilterSpec(interpolate={key: value})


@pytest.mark.parametrize("fields", [{"highpass": 1e-9}, {"decimate": 10**9}, {"highpass": 1e-300}])
def test_filters_that_cannot_be_computed_are_refused(fields: dict) -> None:
    """A frequency so low that its filter would not be stable is refused with the rate."""
    with pytest.raises(StreamError, match="cannot be filtered at 1000 Hz"):
        FilterChain(FilterSpec(**fields), EEG, 1000)


def test_a_notch_needs_a_frequency() -> None:
    """Zero or a negative frequency is refused when the config is read."""
    with pytest.raises(ValidationError, match="greater than 0"):
        FilterSpec(notch=(0,))
