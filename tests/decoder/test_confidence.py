"""Confidence: calibrated on windows that were held out, and low where a window is not what the decoder learned from."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets
from decoder.models.bundle import Bundle
from decoder.models.confidence import (
    ABSENT_SHOWN,
    LEAST_CONFIDENCE,
    FoldStatistics,
    calibrate,
    calibration_error,
    fit_typicality,
    least_confidence,
    threshold_of,
)
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.simulation.background import blinks
from decoder.simulation.eeg import EEG_CHANNELS, SFREQ, Participant
from decoder.spec import DecoderSpec
from decoder.training.train import fit_targets
from decoder.visual_features import low_level
from stream.types.events import Event
from stream.types.windows import Channels, Window
from tests.decoder.simple import SIMPLE

N = 200
LABELS = tuple(f"p{i}" for i in range(N))
CHANNELS = Channels(EEG_CHANNELS, ("eeg",) * 63, ("V",) * 63)
SPEC = DecoderSpec(features=("z",), preprocess=PreprocessSpec(tmin=0.04, decimate=2, whiten=True, components=100))


def cut(raw, truth, *, late: float = 0.0) -> list[Window]:
    """Cut half a second from each onset on, less the 0.1 s before it, at 125 Hz."""
    data, windows = raw.get_data(), []
    for onset, label in zip(truth.onsets, truth.labels, strict=True):
        start = round((onset + late) * SFREQ)
        part = data[:, start : start + 124] - data[:, start - 25 : start].mean(axis=1, keepdims=True)
        part = part.reshape(63, 62, 2).mean(axis=2).astype(np.float32)
        windows.append(Window(label, part, CHANNELS, 125.0, onset, 0.0, Event(onset, label), onset + 1, onset + 1))
    return windows


@dataclass(frozen=True)
class World:
    """A simulated participant, who saw pictures twice, a decoder of that, and windows of a third time."""

    participant: Participant
    pictures: np.ndarray
    meanings: np.ndarray
    bundle: Bundle
    fresh: list[Window]

    def sure(self, windows: list[Window]) -> float:
        """Mean confidence."""
        return float(np.mean([found.confidence for found in self.bundle.decode(windows)]))


@pytest.fixture(scope="module")
def world() -> World:
    """Train on 400 windows."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (N, 4, 4, 3), dtype=np.uint8).repeat(12, 1).repeat(12, 2)
    meanings = rng.normal(size=(N, 40)).astype(np.float32)
    participant = Participant("eeg", SIMPLE, 0, pictures, meanings)
    windows = cut(*participant.record(pictures, meanings, LABELS, run=0, repeats=2, soa=0.7))
    fresh = cut(*participant.record(pictures, meanings, LABELS, run=1, soa=0.7))
    targets = Targets(z=low_level(pictures)[:, :, :4, :4])
    bundle = fit_targets(windows, StimulusTable(LABELS, pictures), targets, SPEC)
    return World(participant, pictures, meanings, bundle, fresh)


def test_windows_like_those_of_training_are_believed(world: World) -> None:
    """A third presentation is believed about as much as held-out windows were right: 2 P(told from another) - 1."""
    score = world.bundle.meta["scores"]["confidence"]
    assert score["told"] > 0.6
    assert world.sure(world.fresh) == pytest.approx(2 * score["told"] - 1, abs=0.08)
    assert score["ece"] < 0.07
    assert score["told_by_half"] > score["told"] + 0.02


def test_noise_is_believed_less(world: World) -> None:
    """Without a response in them, windows of the same background are believed half as much."""
    quiet = Participant("eeg", replace(SIMPLE, evoked_rms=1e-6), 0, world.pictures, world.meanings)
    noise = cut(*quiet.record(world.pictures, world.meanings, LABELS, run=2, soa=0.7))
    assert world.sure(noise) < 0.55 * world.sure(world.fresh)


def test_at_a_fixed_pace_windows_without_a_response_are_kept_back(world: World) -> None:
    """Of windows of background alone few reach what sliding windows must, of windows at a picture many more."""
    least = threshold_of(world.bundle.meta, sliding=True)
    assert least > threshold_of(world.bundle.meta)
    quiet = Participant("eeg", replace(SIMPLE, evoked_rms=1e-6), 0, world.pictures, world.meanings)
    noise = cut(*quiet.record(world.pictures, world.meanings, LABELS, run=2, soa=0.7))
    blank, seen = (
        np.mean([found.confidence >= least for found in world.bundle.decode(windows)])
        for windows in (noise, world.fresh)
    )
    assert blank <= ABSENT_SHOWN
    assert seen > 5 * blank


def test_blinks_are_believed_less(world: World) -> None:
    """Windows into which a blink falls are believed less, though training windows held blinks, too."""
    drawn = 1e-6 * blinks(world.participant.info, 60_000, SFREQ, 0.5, np.random.default_rng(1))
    parts = [drawn[:, i : i + 124 : 2] for i in range(0, 59_000, 150)]
    strong = [part for part in parts if np.abs(part).max() > 60e-6]
    spoilt = [replace(w, data=(w.data + b).astype(np.float32)) for w, b in zip(world.fresh, strong, strict=False)]
    assert len(spoilt) > 50
    assert world.sure(spoilt) < 0.75 * world.sure(world.fresh)


@pytest.mark.parametrize("what", ["one channel", "twenty channels", "the second half"])
def test_dropouts_are_hardly_believed(world: World, what: str) -> None:
    """A channel gone flat, many of them, or samples held from the middle on, leave less than a fifth of the trust."""
    spoilt = []
    for window in world.fresh:
        data = window.data.copy()
        if what == "the second half":
            data[:, 31:] = data[:, 30:31]
        else:
            data[40 : 41 if what == "one channel" else 60] = 0
        spoilt.append(replace(window, data=data))
    assert world.sure(spoilt) < 0.2 * world.sure(world.fresh)


def test_unseen_conditions_are_believed_less(world: World) -> None:
    """Swapped electrodes are not believed; nor much a time at which no picture was shown."""
    order = np.random.default_rng(3).permutation(63)
    assert world.sure([replace(w, data=w.data[order]) for w in world.fresh]) < 0.02
    raw, truth = world.participant.record(world.pictures[:60], world.meanings[:60], LABELS[:60], run=3, soa=2.0)
    assert world.sure(cut(raw, truth, late=-0.9)) < 0.6 * world.sure(world.fresh)


def test_calibration_error_is_its_formula() -> None:
    """Two bins, by hand: |0.2 - 0.5| and |0.9 - 0.75|, half the windows each."""
    claimed, correct = np.array([0.9, 0.2, 0.9, 0.2]), np.array([1.0, 1.0, 0.5, 0.0])
    assert calibration_error(claimed, correct, bins=2) == pytest.approx(0.5 * 0.3 + 0.5 * 0.15)


def test_calibration_finds_the_chance_that_made_the_data() -> None:
    """Windows told with a probability that depends on one statistic: what is claimed of fresh ones is that."""
    rng = np.random.default_rng(0)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        statistics = rng.normal(size=(n, 1)).astype(np.float32)
        return statistics, 1 / (1 + np.exp(-(1.5 + 0.8 * statistics[:, 0])))

    folds = []
    for _ in range(4):
        statistics, p = drawn(500)
        folds.append(FoldStatistics(statistics, (rng.random(500) < p).astype(np.float64), statistics[:0]))
    calibration, score = calibrate(folds)
    fresh, p = drawn(1000)
    usual = np.abs(fresh[:, 0]) < 2
    np.testing.assert_allclose(calibration(fresh)[usual], np.maximum(0, 2 * p - 1)[usual], atol=0.1)
    assert score["ece"] < 0.05


def test_single_samples_have_a_typical_size() -> None:
    """Windows of one sample (fMRI, spikes) are judged by the size of their channels alone."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(300, 50, 1)).astype(np.float32)
    typicality = fit_typicality(data)
    assert typicality.whitener.size == 0
    assert typicality(data).mean() > 0.95
    assert typicality(10 * data).mean() < 0.3
    assert typicality(0 * data).mean() < 0.3


def test_nothing_is_shown_below_the_confidence_of_chance() -> None:
    """A third of the windows is told by luck: the least confidence lies above nearly all of these, and of no others."""
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.uniform(0.0, 0.1, 300), rng.uniform(0.5, 1.0, 600)])
    correct = (rng.random(900) < 0.5 + 0.5 * np.where(confidence < 0.3, 0.0, confidence)).astype(np.float64)
    least = least_confidence(confidence, correct)
    assert (confidence[:300] < least).mean() > 0.9
    assert (confidence[300:] >= least).mean() > 0.95
    assert threshold_of({"scores": {"confidence": {"threshold": least}}}) == least


@given(st.integers(20, 300), st.integers(0, 1000))
def test_a_decoder_that_tells_nothing_shows_nothing(n: int, seed: int) -> None:
    """Where nothing is claimed, everything lies below the least confidence; where all is told surely, nothing does."""
    rng = np.random.default_rng(seed)
    assert least_confidence(np.zeros(n), (rng.random(n) < 0.5).astype(np.float64)) >= LEAST_CONFIDENCE
    assert least_confidence(np.ones(n), np.ones(n)) == LEAST_CONFIDENCE


def test_bundles_of_earlier_versions_have_no_least_confidence() -> None:
    """What does not say keeps nothing back."""
    assert threshold_of({}) == threshold_of({"scores": {"confidence": {"ece": 0.1}}}) == 0.0
    assert threshold_of({"scores": {"auc": 0.9}}) == 0.0
