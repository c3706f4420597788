"""Limits that are learned from a calibration, and windows held against them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.epochs.ingest import WindowSpec, windows_of
from stream.quality.limits import LimitCheck, Limits
from stream.quality.rejection import rejection_of
from stream.quality.signal_profile import LEAST_TIMES, STILL, SignalProfile, SignalRecorder, profile_of
from stream.signal.filters import FilterSpec
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels

NAMES = ("Fz", "Cz", "Pz", "Oz", "C3", "C4", "P3", "P4", "O1", "O2")
EEG = Channels(NAMES, ("eeg",) * 10, ("V",) * 10)
SPEC = WindowSpec(tmin=0, tmax=0.5)
FILTERS = FilterSpec(highpass=1.0, lowpass=40.0)
SFREQ, N_EVENTS = 100.0, 40


def recording(scale: float = 20e-6, *, seed: int = 0, channels: Channels = EEG) -> Recording:
    """Noise in which neighbours have most in common, and a marker every second."""
    rng, n = np.random.default_rng(seed), round(SFREQ * (N_EVENTS + 2))
    data = (rng.normal(size=(n, 1)) + 0.3 * rng.normal(size=(n, len(channels)))) * scale
    stream = RecordedStream("amp", "EEG", "amp", channels, SFREQ, np.arange(n) / SFREQ, data.astype(np.float32))
    return Recording("calibration", "noise", (stream,), tuple(Event(1.0 + k, f"p{k}") for k in range(N_EVENTS)))


def learned(source: Recording, filters: FilterSpec = FILTERS) -> SignalProfile:
    """Learn a profile from a recording."""
    recorder = SignalRecorder()
    for _ in windows_of(source, SPEC, filters, recorder=recorder):
        pass
    profile = recorder.profile()
    assert profile is not None
    return profile


def spoilt(source: Recording, channel: str, event: int, size: float) -> Recording:
    """Add a spike to a channel in the window of an event."""
    (stream,) = source.streams
    data = stream.data.copy()
    data[round(SFREQ * (1.0 + event)) + 20, stream.channels.names.index(channel)] += size
    return replace(source, streams=(replace(stream, data=data),))


def test_limits_are_robust_statistics_of_each_channel() -> None:
    """A channel's limit lies above all its clean windows, near its own size, and artefacts hardly move it."""
    clean = recording()
    profile = learned(clean)
    spans = np.stack([np.ptp(window.data, axis=1) for window in windows_of(clean, SPEC, FILTERS)])
    middle = np.median(spans, axis=0)
    assert profile.names == NAMES
    np.testing.assert_allclose(profile.lowest, middle * STILL, rtol=1e-6)
    assert (np.array(profile.highest) >= LEAST_TIMES * middle * (1 - 1e-6)).all()
    assert (np.array(profile.highest) < 6 * middle).all()
    dirty = clean
    for event in range(0, N_EVENTS, 4):
        dirty = spoilt(dirty, "Oz", event, 5e-3)
    np.testing.assert_allclose(learned(dirty).highest, profile.highest, rtol=0.5)


WINDOWS = list(windows_of(recording(1e-5), SPEC, FilterSpec()))


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-9, 1e3))
def test_limits_fit_the_recording_whatever_its_size(size: float) -> None:
    """The limit scales with the signal: what was rejected at one gain is at another, and a clean signal never is."""
    recorder, windows = SignalRecorder(), WINDOWS
    for window in windows:
        recorder.add_window(replace(window, data=(window.data * size).astype(np.float32)))
    profile = recorder.profile()
    assert profile is not None
    limits = Limits([(EEG, FilterSpec())], profile)
    data = (windows[5].data * size).astype(np.float32)
    assert limits(data).reason is None
    every = limits(data * 30)
    assert (every.cause, every.channels) == ("limit", NAMES)
    assert limits(data / 100).cause == "flat"


def test_live_and_offline_hold_windows_against_the_same_limits() -> None:
    """A single bad channel is interpolated from the others, several reject the window, and both are said."""
    clean = recording()
    profile = learned(clean)
    source = spoilt(clean, "Oz", 3, 2e-3)
    for channel in NAMES[:4]:
        source = spoilt(source, channel, 7, 2e-3)
    windows = list(windows_of(source, SPEC, FILTERS, profile=profile))
    plain = list(windows_of(clean, SPEC, FILTERS, profile=profile))
    mended, rejected = windows[3], windows[7]
    assert mended.quality.rejected is None
    assert mended.quality.interpolated == ("Oz",)
    others = [row for row, name in enumerate(NAMES) if name != "Oz"]
    np.testing.assert_array_equal(mended.data[others], plain[3].data[others])
    oz = NAMES.index("Oz")
    assert np.corrcoef(mended.data[oz], plain[3].data[oz])[0, 1] > 0.8
    assert rejected.quality.cause == "limit"
    assert set(rejected.quality.channels) == set(NAMES[:4])
    assert str(rejected.quality.rejected).endswith("(and 3 more)")
    assert " uV, over its limit of " in str(rejected.quality.rejected)
    account = rejection_of(windows, None, profile.limits_by_kind())
    assert account.text.startswith(f"{N_EVENTS} markers, {N_EVENTS - 1} used; 1 over ")
    assert (account.rejected, account.interpolated) == ({"limit": 1}, 1)


def test_an_interpolated_channel_leaves_nothing_of_itself_in_the_average_reference() -> None:
    """What a bad channel put into all others by the average is gone with it."""
    filters = FilterSpec(highpass=1.0, reference="average")
    clean = recording()
    profile = learned(clean, filters)
    window = list(windows_of(spoilt(clean, "Oz", 3, 1.5e-4), SPEC, filters, profile=profile))[3]
    plain = list(windows_of(clean, SPEC, filters, profile=profile))[3]
    assert window.quality.interpolated == ("Oz",)
    others = [row for row, name in enumerate(NAMES) if name != "Oz"]
    left = window.data[others] - plain.data[others]
    assert np.abs(left).max() < 0.3 * 1.5e-4 / len(NAMES) + 1e-5


def test_too_few_places_are_not_interpolated_from() -> None:
    """Of four channels, none stands in for another: the window is rejected."""
    few = EEG.subset([0, 1, 2, 3])
    clean = recording(channels=few)
    windows = list(windows_of(spoilt(clean, "Oz", 3, 2e-3), SPEC, FILTERS, profile=learned(clean)))
    assert windows[3].quality.cause == "limit"
    assert windows[3].quality.channels == ("Oz",)
    assert [window.quality.rejected for window in windows].count(None) == N_EVENTS - 1


@pytest.mark.parametrize(("fixed", "cause"), [({"eeg": 2e-4}, "limit"), ({}, None), ({"mag": 1e-12}, None)])
def test_limits_that_a_config_names_are_taken_as_they_are(fixed: dict[str, float], cause: str | None) -> None:
    """Fixed limits by kind take the calibration's place, reject without interpolating, and {} sets none."""
    filters = FILTERS.model_copy(update={"reject_peak_to_peak": fixed})
    clean = recording()
    windows = list(windows_of(spoilt(clean, "Oz", 3, 2e-3), SPEC, filters, profile=learned(clean)))
    assert windows[3].quality.cause == cause
    assert windows[3].quality.interpolated == ()


def test_fixed_limits_name_channel_and_limit() -> None:
    """Too large and too flat channels are told by name; kinds without a limit are not looked at."""
    channels = Channels(("a", "b", "c", "x"), ("eeg", "eeg", "eeg", "misc"), ("V", "V", "V", "count"))
    data = np.zeros((4, 10), np.float32)
    data[:, 5] = 1e-4
    data[3, 5] = 1e6

    def check(**limits: dict[str, float]) -> LimitCheck:
        spec = FilterSpec.model_validate({"reject_peak_to_peak": {}, **limits})
        return Limits([(channels, spec)])(data)

    assert check(reject_peak_to_peak={"eeg": 2e-4}, flat={"eeg": 1e-7}).reason is None
    data[1, 5] = 3e-4
    assert check(reject_peak_to_peak={"eeg": 2e-4}).reason == "b: peak-to-peak 300 uV, over its limit of 200 uV"
    data[2] = 1.0
    still = check(flat={"eeg": 1e-7})
    assert (still.reason, still.cause, still.channels) == ("c: flat, peak-to-peak 0 uV, under 0.1 uV", "flat", ("c",))


def test_a_profile_survives_the_bundle_and_old_bundles_have_none() -> None:
    """JSON and back is the same profile, of the channels that the bundle reads; a meta without one is no error."""
    profile = learned(recording())
    kept = profile_of({"signal": profile.subset(("Oz", "Fz", "unknown")).model_dump(mode="json")})
    assert kept is not None
    assert kept.names == ("Fz", "Oz")
    assert kept.highest == (profile.highest[0], profile.highest[3])
    assert profile_of({}) is None
    assert profile_of({"signal": None}) is None


def test_a_channel_that_never_moves_has_no_limit() -> None:
    """A flat channel is left to what finds bad channels, and channels of other kinds have no limits."""
    channels = replace(EEG, kinds=(*("eeg",) * 9, "eog"))
    source = recording(channels=channels)
    (stream,) = source.streams
    stream.data[:, 0] = 0
    assert learned(source).names == NAMES[1:9]
