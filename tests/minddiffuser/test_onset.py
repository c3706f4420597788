"""When `maps` says that a feature begins to be told: known onsets, smeared by filters and windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder.evaluation.timecourse import Decodability, Onset, Smear, decodability, edges, onset, sliding
from minddiffuser.maps.maps import Maps
from minddiffuser.maps.smear import smear_of
from stream.signal.filters import FilterChain, FilterSpec
from stream.types.windows import Channels

SFREQ = 500.0
BEFORE_S, AFTER_S = 1.0, 0.5
FILTERS = (
    FilterSpec(),
    FilterSpec(lowpass=30),
    FilterSpec(highpass=0.5, lowpass=20, order=2),
    FilterSpec(decimate=4),
    FilterSpec(resample=100),
    FilterSpec(highpass=0.1, lowpass=40, notch=(50,), resample=128),
)
ONE = Channels(("Oz",), ("eeg",), ("V",))


def filtered(signals: np.ndarray, spec: FilterSpec) -> tuple[np.ndarray, np.ndarray]:
    """Filter signals (n, n_times), which begin a second before the event, as a live session would; also their times."""
    n_times = signals.shape[1]
    out = [FilterChain(spec, ONE, SFREQ).feed(signal[:, None], 0) for signal in signals]
    times = np.arange(n_times)[out[0].newest] / SFREQ + out[0].ahead - BEFORE_S
    return np.stack([one.data[:, 0] for one in out]), times


def answer(begins: float, tau: float) -> np.ndarray:
    """Return an answer that begins at a time and comes in by a time constant, from a second before the event."""
    times = np.arange(round((BEFORE_S + AFTER_S) * SFREQ)) / SFREQ - BEFORE_S
    since = np.clip(times - begins + 1 / SFREQ, 0, None)
    return np.where(times >= begins - 1e-9, -np.expm1(-since / tau), 0.0)


def bracket(begins: float, spec: FilterSpec, width: float, step: float, tau: float) -> tuple[Onset, float, Smear]:
    """Find the onset of a clear answer: where windows average to a third of the greatest; also the first's centre."""
    data, times = filtered(answer(begins, tau)[None], spec)
    inside = (times >= -0.1) & (times < 0.5)
    centres, binning = sliding(times[inside], width=width, step=step)
    score = np.abs(data[0][inside] @ binning)
    course = score > 0.33 * score.max()
    found, smear = onset(course, *edges(times[inside], binning), smear_of(spec, SFREQ)), smear_of(spec, SFREQ)
    assert found is not None
    return found, float(centres[course.argmax()]), smear


@settings(max_examples=60, deadline=None)
@given(
    begins=st.integers(20, 150).map(lambda sample: sample / SFREQ),
    spec=st.sampled_from(FILTERS),
    width=st.sampled_from((0.02, 0.04, 0.1)),
    step=st.sampled_from((0.008, 0.02)),
)
def test_windows_and_filters_leave_the_true_onset_in_the_range(
    begins: float, spec: FilterSpec, width: float, step: float
) -> None:
    """Whatever the filters and windows, the onset is in the range, which is no wider than they make it."""
    found, _, smear = bracket(begins, spec, width, step, tau=0.004)
    assert found.not_before is not None
    assert found.not_before <= begins <= found.told_by + 1e-9
    assert found.told_by - found.not_before <= width + 2 * step + smear.before + smear.after + 0.02


def test_the_centre_of_a_window_is_before_the_onset_and_its_end_is_not() -> None:
    """An answer at 60 ms: half of a long window lies after its centre, which would call it too early."""
    found, centre, _ = bracket(0.06, FilterSpec(), 0.1, 0.02, tau=0.004)
    assert centre < 0.06
    assert found.not_before is not None
    assert found.not_before < 0.06 <= found.told_by < 0.1


@pytest.mark.parametrize(("kind", "unit", "scale"), [("eeg", "V", 1e-5), ("mag", "T", 1e-13)])
def test_the_onset_of_a_noisy_recording_is_in_the_range(kind: str, unit: str, scale: float) -> None:
    """EEG or MEG of 80 pictures whose content begins at 80 ms: found by permutation, behind a causal low-pass."""
    rng, begins, spec = np.random.default_rng(3), 0.08, FilterSpec(highpass=0.5, lowpass=30, decimate=4)
    content = rng.normal(size=80)
    signals = content[:, None, None] * rng.normal(size=(4, 1)) * answer(begins, 0.01)
    signals = scale * (signals + 0.5 * rng.normal(size=signals.shape))
    by_channel = [filtered(signals[:, channel], spec) for channel in range(4)]
    times = by_channel[0][1]
    inside = (times >= 0) & (times < 0.4)
    data = np.stack([data[:, inside] for data, _ in by_channel], axis=1).astype(np.float32) / scale
    centres, binning = sliding(times[inside])
    parts = list((data @ binning).transpose(2, 0, 1))
    found = decodability(parts, {"c": content[:, None]}, np.arange(80), rng, n_permutations=40)
    names = tuple(f"{k}" for k in range(4))
    maps = Maps(
        Channels(names, (kind,) * 4, (unit,) * 4), times[inside], {}, tuple(map(str, centres)), centres, found, 80, 80,
        "5 folds", edges=edges(times[inside], binning), smear=smear_of(spec, SFREQ),
    )  # fmt: skip
    told = maps.summary()["c"]
    assert told["not_before_s"] <= begins <= told["rise_s"] < begins + 0.04
    assert maps.too_early() == []


@pytest.mark.parametrize(("first", "told_by", "early"), [(0, 0.036, True), (1, 0.056, False)])
def test_what_is_told_before_the_cortex_can_is_called_too_early(first: int, told_by: float, early: bool) -> None:
    """A window that ends by 40 ms cannot tell of a picture; one that ends after that can."""
    times = np.arange(100) / 250
    centres, binning = sliding(times)
    score = np.zeros((1, len(centres)))
    score[0, first:] = 1.0
    found = Decodability(("c",), score, score - 1, score + 1, 0.5, 100)
    maps = Maps(ONE, times, {}, tuple(map(str, centres)), centres, found, 9, 9, "", edges=edges(times, binning))
    begun = maps.onset(0)
    assert begun is not None
    assert begun.told_by == pytest.approx(told_by)
    assert (begun.not_before is None) == (first == 0)
    assert bool(maps.too_early()) is early
    assert all("c is told by 36 ms" in line for line in maps.too_early())


def test_filters_smear_by_what_they_are() -> None:
    """None smears nothing, a causal low-pass delays alone, resampling looks ahead a little too."""
    assert smear_of(FilterSpec(), 250.0) == smear_of(FilterSpec(highpass=1), 250.0) == Smear()
    assert smear_of(FilterSpec(lowpass=30), 250.0) == Smear(0.0, pytest.approx(0.024))
    resampled = smear_of(FilterSpec(resample=100), 512.0)
    assert 0 < resampled.before < resampled.after < 0.02
    assert smear_of(FilterSpec(lowpass=30), 0.0) == Smear()
