"""Samples that no device can have measured, and channels that say nothing of use."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.epochs.ingest import Ingest, WindowSpec, windows_of
from stream.signal.bad_samples import BAD, BadSamples
from stream.signal.filters import FilterSpec
from stream.signal.interpolate import InterpolateSpec
from stream.types.events import Event
from stream.types.recording import BadSegment, RecordedStream, Recording
from stream.types.windows import Channels, Window

RATE, SECONDS = 250, 16
NAMES = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2")
CAP = Channels((*NAMES, "AccX"), (*("eeg",) * 10, "misc"), (*("V",) * 10, "count"))
EEG_ONLY = FilterSpec(channels=("eeg",), highpass=0.5, lowpass=40)
SPEC = WindowSpec(tmin=-0.1, tmax=0.4)


def eeg(seed: int = 0, offset: float = 0.0) -> np.ndarray:
    """Sixteen seconds of noise of 20 uV, in volts, and an accelerometer."""
    data = np.random.default_rng(seed).normal(offset, 2e-5, (RATE * SECONDS, 11))
    data[:, 10] = 3.0
    return data


def cut(data: np.ndarray, filters: FilterSpec = EEG_ONLY, step: int = 50) -> tuple[list[Window], Ingest]:
    """Cut a window every half second."""
    ingest = Ingest(CAP, RATE, SPEC, filters)
    for k in range(2, 2 * SECONDS - 1):
        ingest.event(Event(k / 2, f"e{k}"))
    times = np.arange(len(data)) / RATE
    with np.errstate(all="ignore"):
        windows = [
            w for i in range(0, len(data), step) for w in ingest.samples(data[i : i + step], times[i : i + step])
        ]
    return windows, ingest


@given(
    st.sampled_from([3e38, -3e38, 1e30, np.inf, -np.inf, np.nan, 1e12, -2147.0, 1e3, 10.5, 9.0, -1.0, 0.05]),
    st.one_of(st.integers(0, 9), st.none()),
    st.integers(2, RATE * 8),
    st.integers(1, 5),
    st.sampled_from([{}, {"decimate": 2}, {"resample": 100.0}, {"reference": "average"}]),
    st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=40, deadline=None)
def test_after_an_absurd_sample_windows_are_those_of_a_clean_run(
    value: float, channel: int | None, at: int, n: int, more: dict, offset: float
) -> None:
    """In one channel or all, at any place: windows over it are flagged, none else differs once filters have settled."""
    filters = EEG_ONLY.model_copy(update=more)
    clean, spoilt = eeg(offset=offset), eeg(offset=offset)
    spoilt[at : at + n, slice(0, 10) if channel is None else channel] = value
    want, _ = cut(clean, filters)
    got, ingest = cut(spoilt, filters)
    assert [w.id for w in got] == [w.id for w in want]
    begin, end = at / RATE, (at + n) / RATE
    for a, b in zip(got, want, strict=True):
        assert np.isfinite(a.data).all()
        if a.onset - 0.1 < begin and a.onset + 0.4 > end:
            assert a.quality.rejected is not None
            assert "samples lost" in a.quality.rejected if channel is None else NAMES[channel] in a.quality.rejected
        if a.quality.rejected is None:
            settled = a.onset - 0.1 > end + 6.0 or a.onset + 0.5 <= begin  # resampling looks ahead
            np.testing.assert_allclose(a.data, b.data, atol=1e-7 if settled else 1.2e-4)
    assert got[-1].quality.rejected is None
    assert ingest.account().bad == n


@given(st.lists(st.integers(0, RATE * SECONDS), max_size=12), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_what_is_bad_hangs_on_no_chunk(cuts: list[int], seed: int) -> None:
    """Held values and states are bit-equal in any chunking."""
    rng = np.random.default_rng(seed)
    data = eeg()
    for _ in range(12):
        at, n, channel = rng.integers(0, len(data)), rng.integers(1, 400), rng.integers(0, 11)
        data[at : at + n, channel] = rng.choice([np.nan, 1e30, 0.0, 5.0, 0.02])
    whole_data, whole_states = BadSamples(CAP, RATE).feed(data)
    assert whole_states is not None
    guard, parts, states = BadSamples(CAP, RATE), [], []
    # What comes first is a second at least: the clock holds that back.
    for a, b in zip(
        [0, *sorted(c for c in cuts if c >= RATE)], [*sorted(c for c in cuts if c >= RATE), None], strict=True
    ):
        part, state = guard.feed(data[a:b])
        parts.append(part)
        states.append(np.zeros(part.shape, np.int8) if state is None else state)
    np.testing.assert_array_equal(np.concatenate(parts), whole_data)
    np.testing.assert_array_equal(np.concatenate(states), whole_states)


@pytest.mark.parametrize("value", [np.nan, 3e38])
def test_channels_nobody_asked_for_count_for_nothing(value: float) -> None:
    """A broken accelerometer leaves the windows of the electrodes as they are."""
    data = eeg()
    data[500:, 10] = value
    got, ingest = cut(data)
    for a, b in zip(got, cut(eeg())[0], strict=True):
        assert a.quality.rejected is None
        np.testing.assert_array_equal(a.data, b.data)
    assert (ingest.account().bad, ingest.account().problems) == (0, [])


def test_a_channel_that_stays_nan_is_bad_by_name() -> None:
    """Its windows name it; so do the problems, until it is back; interpolated, it spoils nothing."""
    data = eeg()
    data[RATE * 4 : RATE * 9, 4] = np.nan
    got, ingest = cut(data[: RATE * 8])
    reasons = {w.quality.rejected for w in got if w.onset > 5}
    assert reasons == {"C3: not finite, or beyond what the unit allows"}
    assert ingest.buffers[0].account().bad_channels == ("C3",)
    assert any("channels C3: no usable number" in line for line in ingest.account().problems)
    got, ingest = cut(data)
    assert {w.quality.rejected for w in got if w.onset > 9.5} == {None}
    assert ["began anew" in line for line in ingest.account().problems] == [True]
    filters = EEG_ONLY.model_copy(update={"interpolate": InterpolateSpec(find=True)})
    after_a_second = [w for w in cut(data, filters)[0] if 5.5 < w.onset < 8.5]
    assert {(w.quality.rejected, w.quality.interpolated) for w in after_a_second} == {(None, ("C3",))}


def test_a_channel_that_returns_elsewhere_does_not_ring() -> None:
    """After a second without numbers a channel whose offset has changed is filtered as if it had always been there."""
    data = eeg()
    data[RATE * 4 : RATE * 6, 4] = np.nan
    data[RATE * 6 :, 4] += 5e-3
    (after, *_) = [w for w in cut(data)[0] if w.onset > 6.2]
    assert after.quality.rejected is None
    assert np.abs(after.data[4]).max() < 4e-4


def test_a_new_level_is_taken_after_a_tenth_of_a_second() -> None:
    """An electrode that leaps by half a volt is flagged, then measured from there, without seconds of ringing."""
    data = eeg()
    data[RATE * 6 + 40 :, 4] += 0.5
    got, ingest = cut(data)
    flagged = [w.onset for w in got if w.quality.rejected]
    assert flagged == [6.0]
    assert ingest.account().restarts == 1
    assert any("1 times filters began anew" in line for line in ingest.account().problems)
    for a, b in zip(got, cut(eeg())[0], strict=True):
        if a.onset > 8:
            assert np.abs(a.data[4] - b.data[4]).max() < 4e-5


def test_a_stream_in_the_wrong_unit_is_no_absurd_sample() -> None:
    """Microvolts that are called volts pass: they are badly scaled, which is another complaint."""
    got, ingest = cut(eeg() * 1e6)
    assert not any(w.quality.rejected for w in got)
    assert ingest.account().bad == 0


def test_a_flat_channel_is_said_and_left_out_of_the_average() -> None:
    """A flat electrode is named; the average is that of the others, and it stays flat itself."""
    data = eeg()
    data[:, 7] = 1.25e-4
    spec = FilterSpec(channels=("eeg",), reference="average")
    got, ingest = cut(data, spec)
    assert ingest.buffers[0].account().flat_channels == ("P4",)
    assert any("channels P4: flat" in line for line in ingest.account().problems)
    others = [i for i in range(10) if i != 7]
    at = round((got[-1].onset - 0.1) * RATE)
    part = data[at : at + got[-1].data.shape[1]]
    np.testing.assert_allclose(got[-1].data[0], part[:, 0] - part[:, others].mean(axis=1), atol=1e-9)
    assert np.ptp(got[-1].data[7]) == 0
    assert got[-1].quality.rejected is None


def test_a_bad_channel_is_left_out_of_the_average() -> None:
    """A channel without numbers that is only part of the reference spoils nothing."""
    data = eeg()
    data[:, 7] = np.nan
    got, _ = cut(data, FilterSpec(channels=("Fp1", "Fp2"), reference="average"))
    others = [i for i in range(10) if i != 7]
    at = round((got[5].onset - 0.1) * RATE)
    part = data[at : at + got[5].data.shape[1]]
    np.testing.assert_allclose(got[5].data[0], part[:, 0] - part[:, others].mean(axis=1), atol=1e-9)
    assert got[5].quality.rejected is None


def test_marked_bad_channels_are_not_averaged() -> None:
    """Channels that the montage marks as bad are no part of the average reference, as in MNE."""
    from dataclasses import replace

    from stream.signal.filters import FilterChain

    cap = replace(CAP, montage=replace(CAP.montage, bads=("P4",)))
    row = np.arange(11.0)[None]
    out = FilterChain(FilterSpec(reference="average", channels=("eeg",)), cap, RATE).feed(row, 0).data
    np.testing.assert_allclose(out[0, 0], -np.delete(np.arange(10.0), 7).mean(), rtol=1e-6)


@pytest.mark.parametrize("more", [{}, {"decimate": 2}, {"resample": 100.0}])
def test_rows_without_any_number_are_lost_samples(more: dict) -> None:
    """A segment marked as bad is lost: windows over it are flagged, and filters begin anew after it."""
    data = eeg().astype(np.float32)
    stream = RecordedStream(
        "amp", "EEG", "amp", CAP, RATE, np.arange(len(data)) / RATE, data, (BadSegment(5.0, 1.0, "BAD_blink"),)
    )
    step = data.copy()
    step[RATE * 6 :, :10] += 0.2  # without a new start filters would ring
    recording = Recording(
        "r", "test", (RecordedStream("amp", "EEG", "amp", CAP, RATE, stream.times, step, stream.bad),),
        tuple(Event(k / 2 + 0.2, f"e{k}") for k in range(4, 28)),
    )  # fmt: skip
    windows = list(windows_of(recording, SPEC, EEG_ONLY.model_copy(update=more)))
    flagged = [w.onset for w in windows if w.quality.rejected]
    assert flagged == [4.7, 5.2, 5.7]
    assert windows[[w.onset for w in windows].index(5.2)].quality.samples_lost == pytest.approx(125, abs=3)
    for window in windows:
        if window.quality.rejected is None:
            assert np.abs(window.data[:10]).max() < 3e-4
            assert window.tmin == pytest.approx(-0.1, abs=0.011)


def test_bad_states_are_given_by_channel() -> None:
    """A state says which channel is bad at which sample, and what stands there instead."""
    data = np.full((60, 11), 1e-5)
    data[30, 2], data[31, 3] = np.nan, -1e20
    held, states = BadSamples(CAP, RATE).feed(data)
    assert states is not None
    assert np.argwhere(states == BAD).tolist() == [[30, 2], [31, 3]]
    np.testing.assert_array_equal(held, np.full((60, 11), 1e-5))
