"""Bad channels, named and found."""

from itertools import pairwise

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.epochs.ingest import Ingest, WindowSpec
from stream.errors import StreamError
from stream.signal.filters import FilterChain, FilterSpec
from stream.signal.interpolate import InterpolateSpec, odd
from stream.types.events import Event
from stream.types.windows import Channels

NAMES = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "F7", "F8", "T7", "T8", "Cz", "HEOG")
CAP = Channels(NAMES, ("eeg",) * 15 + ("eog",), ("V",) * 16)


def brain(n: int) -> np.ndarray:
    """Smooth topographies in time courses of a few microvolts."""
    rng = np.random.default_rng(0)
    places = mne.channels.make_standard_montage("easycap-M1").get_positions()["ch_pos"]
    xyz = np.array([places.get(name, np.zeros(3)) for name in NAMES]) * 10
    return (rng.normal(0, 5e-6, (n, 3)) @ xyz.T) + rng.normal(0, 1e-7, (n, len(NAMES)))


def test_a_named_channel_is_mnes_interpolation() -> None:
    """A channel named bad is replaced as MNE's interpolate_bads does it; the others stay."""
    x = brain(200)
    out = FilterChain(FilterSpec(interpolate=InterpolateSpec(channels=("C4",))), CAP, 250).feed(x, 0).data
    info = mne.create_info(list(NAMES), 250, ["eeg"] * 15 + ["eog"])
    info.set_montage("easycap-M1", on_missing="ignore")
    raw = mne.io.RawArray(x.T, info, verbose="error")
    raw.info["bads"] = ["C4"]
    raw.interpolate_bads(verbose="error")
    np.testing.assert_allclose(out, raw.get_data().T, atol=1e-9)


@given(st.lists(st.integers(1, 1500), max_size=10))
@settings(max_examples=10, deadline=None)
def test_found_channels_in_any_chunking(cuts: list[int]) -> None:
    """A channel that turns noisy and one that turns flat are found after a second, the same in any chunking."""
    x = brain(1500)
    x[400:, 4] += np.random.default_rng(1).normal(0, 200e-6, 1100)
    x[700:, 9] = 3e-6
    spec = FilterSpec(reference="average", interpolate=InterpolateSpec(find=True))
    whole = FilterChain(spec, CAP, 250).feed(x, 0)
    assert whole.interpolated == ((500, ("C3",)), (1000, ("C3", "O2")))
    chain, edges = FilterChain(spec, CAP, 250), sorted({0, 1500, *cuts})
    pieces = [(a, chain.feed(x[a:b], a)) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate([piece.data for _, piece in pieces]), whole.data)
    assert tuple((a + at, names) for a, piece in pieces for at, names in piece.interpolated) == whole.interpolated


def test_a_found_channel_is_believed_again_after_ten_good_seconds() -> None:
    """A channel that misbehaved for a second is replaced until it has behaved for ten."""
    x = brain(250 * 15)
    x[250:500, 4] *= 100
    found = FilterChain(FilterSpec(interpolate=InterpolateSpec(find=True)), CAP, 250).feed(x, 0).interpolated
    assert found == ((500, ("C3",)), (500 + 2500, ()))


def test_windows_say_what_was_interpolated() -> None:
    """A window names the channels replaced in any part of it, named or found."""
    x = brain(1500)
    x[400:, 4] += np.random.default_rng(1).normal(0, 200e-6, 1100)
    filters = FilterSpec(channels=("eeg",), interpolate=InterpolateSpec(channels=("Fp1",), find=True))
    ingest = Ingest(CAP, 250, WindowSpec(tmin=0, tmax=0.4), filters)
    for at in (1.0, 1.9, 3.0):
        ingest.event(Event(at, "x"))
    windows = ingest.samples(x, np.arange(1500) / 250)
    assert [w.quality.interpolated for w in windows] == [("Fp1",), ("Fp1", "C3"), ("Fp1", "C3")]


def test_odd_channels() -> None:
    """Noisy, flat and dead channels are told by their ratio to the median; when too many are, none is."""
    spread = np.full(12, 10.0)
    spread[[1, 5, 7]] = 60.0, 0.1, 0.0
    assert np.flatnonzero(odd(spread, 5, 0.05)).tolist() == [1, 5, 7]
    spread[[8, 9]] = 60.0
    assert not odd(spread, 5, 0.05).any()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (InterpolateSpec(channels=("HEOG",)), "HEOG is no EEG channel"),
        (InterpolateSpec(channels=("Xx",)), "Xx is no EEG channel"),
        (InterpolateSpec(channels=("C3",), montage="mine"), "no montage 'mine'"),
        (InterpolateSpec(channels=NAMES[:13]), "too few good"),
    ],
)
def test_what_cannot_be_interpolated_is_refused(spec: InterpolateSpec, message: str) -> None:
    """A channel without a place, an unknown montage, and too few good channels are refused by name."""
    with pytest.raises(StreamError, match=message):
        FilterChain(FilterSpec(interpolate=spec), CAP, 250)
