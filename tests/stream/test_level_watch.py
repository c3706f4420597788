"""A stream whose levels or spectrum are none of the calibration's is named, and its windows are rejected."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal

from stream.epochs.ingest import Ingest, WindowSpec, windows_of
from stream.files.registry import read
from stream.quality.level_watch import BANDS, second
from stream.quality.signal_profile import SignalProfile, SignalRecorder
from stream.signal.filters import FilterSpec
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels
from tests.datafolder import data_set

CHANNELS = Channels(("Fz", "Cz", "Pz", "Oz"), ("eeg",) * 4, ("V",) * 4)
SFREQ, SECONDS = 250.0, 30
SPEC = WindowSpec(tmin=0, tmax=0.4)
FILTERS = FilterSpec(highpass=0.5, lowpass=40.0, notch=(50.0,))
Floats = NDArray[np.float64]


def brain(seed: int) -> Floats:
    """Pink noise and alpha of 10 uV, shape (n, 4)."""
    rng, n = np.random.default_rng(seed), round(SFREQ * SECONDS)
    spectrum = np.fft.rfft(rng.normal(size=(n, 4)), axis=0)
    frequencies = np.fft.rfftfreq(n, 1 / SFREQ)
    pink = np.fft.irfft(spectrum / np.maximum(frequencies, 0.5)[:, None], n, axis=0)
    alpha = np.sin(2 * np.pi * 10 * np.arange(n) / SFREQ)[:, None] * rng.uniform(0.5, 1, 4)
    both: Floats = 10e-6 * (pink / pink.std() + alpha)
    return both


def recording(data: Floats, channels: Channels = CHANNELS) -> Recording:
    """Place a marker at every second of samples."""
    stream = RecordedStream("amp", "EEG", "amp", channels, SFREQ, np.arange(len(data)) / SFREQ, data)
    return Recording("r", "simulated", (stream,), tuple(Event(1.0 + k, "x") for k in range(SECONDS - 2)))


@cache
def usual() -> SignalProfile:
    """Learn a profile."""
    recorder = SignalRecorder()
    for _ in windows_of(recording(brain(0)), SPEC, FILTERS, recorder=recorder):
        pass
    profile = recorder.profile()
    assert profile is not None
    return profile


def problems_after(
    data: Floats, seconds: float, profile: SignalProfile, filters: FilterSpec = FILTERS, chunk: int = 125
) -> list[str]:
    """Feed so many seconds of samples; give what is wrong then."""
    ingest = Ingest(CHANNELS, SFREQ, SPEC, filters, profile=profile)
    n = round(seconds * SFREQ)
    for start in range(0, n, chunk):
        part = slice(start, min(start + chunk, n))
        ingest.samples(data[part], np.arange(part.start, part.stop) / SFREQ)
    return ingest.problems()


def high_passed(data: Floats) -> Floats:
    """Take out what lies below 20 Hz, as an amplifier may."""
    filtered: Floats = signal.sosfilt(signal.butter(4, 20, "highpass", fs=SFREQ, output="sos"), data, axis=0)
    return filtered


def humming(data: Floats) -> Floats:
    """Add 60 Hz mains of 300 uV, which the notch at 50 Hz does not stop."""
    return data + 300e-6 * np.sin(2 * np.pi * 60 * np.arange(len(data)) / SFREQ)[:, None]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data * 1e-6, "EEG levels are about a millionth of the calibration's: wrong unit?"),
        (lambda data: data * 1e-3, "EEG levels are about a thousandth of the calibration's: wrong unit?"),
        (lambda data: data * 1e3, "EEG levels are about a thousand times the calibration's: wrong unit?"),
        (lambda data: data * 1e6, "EEG levels are about a million times the calibration's: wrong unit?"),
        (lambda data: data * 45, " times the calibration's: another gain or reference"),
        (humming, "of the power is at 45-65 Hz, there "),
        (high_passed, "another filter in the amplifier?"),
        (lambda data: data / 1e4 + np.random.default_rng(1).normal(0, 1e-5, data.shape), "the spectrum is not"),
    ],
    ids=["volts", "milli", "kilo", "mega", "gain", "mains", "filter", "noise"],
)
def test_what_is_unlike_the_calibration_is_named_within_five_seconds(
    change: Callable[[Floats], Floats], words: str
) -> None:
    """A wrong unit or gain, hum, another filter and bare noise each have their line; their windows are rejected."""
    profile = usual()
    strange = change(brain(1))
    (line,) = [line for line in problems_after(strange, 5.0, profile) if "calibration" in line]
    assert words in line
    windows = list(windows_of(recording(strange), SPEC, FILTERS, profile=profile))
    assert [window.quality.cause for window in windows[3:]] == ["level"] * len(windows[3:])
    assert all(window.quality.rejected and words[:20] in window.quality.rejected for window in windows[5:])
    # Before three seconds are there, the window's own limits stop what is of another size.
    if "unit" in words or "gain" in words:
        assert all(window.quality.rejected for window in windows)
    warned = FILTERS.model_copy(update={"levels": "warn", "reject_peak_to_peak": {}})
    assert [line for line in problems_after(strange, 5.0, profile, warned) if "calibration" in line] == [line]
    passed = list(windows_of(recording(strange), SPEC, warned, profile=profile))
    assert all(window.quality.rejected is None for window in passed)


def test_levels_that_come_back_are_no_problem_any_more() -> None:
    """The line is gone seconds after the levels are right again."""
    data = brain(1)
    data[: round(8 * SFREQ)] *= 1e-3
    profile = usual()
    assert any("wrong unit?" in line for line in problems_after(data, 7.0, profile))
    assert problems_after(data, 14.0, profile) == []


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.4, 2.5), st.floats(0.0, 3.0))
def test_another_day_is_no_problem(seed: int, gain: float, alpha: float) -> None:
    """Other noise, a gain within 2.5 times and less or more alpha raise nothing, at any time."""
    data = brain(seed) * gain
    data += alpha * 10e-6 * np.sin(2 * np.pi * 9 * np.arange(len(data)) / SFREQ)[:, None]
    profile = usual()
    ingest = Ingest(CHANNELS, SFREQ, SPEC, FILTERS, profile=profile)
    for start in range(0, len(data), 250):
        ingest.samples(data[start : start + 250], np.arange(start, start + 250) / SFREQ)
        assert ingest.problems() == []


def test_the_chunk_is_no_matter() -> None:
    """Windows are rejected for their levels at the same places however samples are fed."""
    data = brain(1)
    data[round(10 * SFREQ) : round(20 * SFREQ)] *= 1e-3
    profile = usual()
    filters = FILTERS.model_copy(update={"reject_peak_to_peak": {}})
    causes = []
    for chunk in (37, 250, 5000):
        ingest = Ingest(CHANNELS, SFREQ, SPEC, filters, profile=profile)
        for event in recording(data).events:
            ingest.event(event)
        windows = []
        for start in range(0, len(data), chunk):
            part = slice(start, min(start + chunk, len(data)))
            windows += ingest.samples(data[part], np.arange(part.start, part.stop) / SFREQ)
        windows += ingest.release()
        causes.append([window.quality.cause for window in windows])
    assert causes[0] == causes[1] == causes[2]
    assert set(causes[0]) == {None, "level"}


def test_bands_hold_the_power_of_a_second() -> None:
    """A sine's root mean square is in its band and in the level; bands beyond the Nyquist frequency are none."""
    wave = 3e-6 * np.sqrt(2) * np.sin(2 * np.pi * 10 * np.arange(250) / 250)
    level, bands = second(np.stack([wave, np.zeros(250)]).astype(np.float32), 250.0)
    np.testing.assert_allclose(level, [3e-6, 0], rtol=1e-3)
    np.testing.assert_allclose(bands[0], [0, 0, 3e-6, 0, 0, 0, 0], rtol=0.02, atol=3e-8)
    assert second(np.zeros((1, 60), np.float32), 60.0)[1].shape == (1, len(BANDS) - 3)


@pytest.mark.real
def test_real_recordings_of_other_days_raise_nothing() -> None:
    """A Muse's runs of one task are no problem to one another, with filters of one's own."""
    files = sorted((data_set("muse_eeg_visual") / "N170" / "subject1").rglob("*.csv.gz"))
    runs = [read(path) for path in (files[0], files[-1])]
    filters = FilterSpec(channels=("TP9", "AF7", "AF8", "TP10"), highpass=0.5, lowpass=40.0, reference="average")
    recorder = SignalRecorder()
    for _ in windows_of(runs[0], SPEC, filters, recorder=recorder):
        pass
    for run in runs:
        causes = [window.quality.cause for window in windows_of(run, SPEC, filters, profile=recorder.profile())]
        assert "level" not in causes
        assert causes.count("limit") < 0.15 * len(causes)
