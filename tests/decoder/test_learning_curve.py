"""The learning curve of a calibration, and whether recording more is worth it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from decoder.data.stimuli import StimulusTable
from decoder.spec import DecoderSpec
from decoder.training.learning_curve import learning_curve, recording_more
from decoder.training.train import LabelledWindows, fit_prepared, prepare
from stream.types.windows import Channels
from tests.decoder.conftest import LinearEncoders, make_windows

SPEC = DecoderSpec(features=("c", "z"))


def told(mean: float, n: int = 200, spread: float = 0.2, seed: int = 0) -> NDArray[np.float64]:
    """How often each of n pictures is told from another, with exactly this mean."""
    values = np.random.default_rng(seed).normal(size=n)
    return np.asarray(mean + spread * (values - values.mean()))


def training_set(stimuli: StimulusTable, channels: Channels, noise: float) -> LabelledWindows:
    """Prepare windows of so much noise."""
    windows = make_windows(stimuli, channels, noise=noise, seed=1)
    return prepare(windows, stimuli, LinearEncoders(stimuli), SPEC)


def test_the_last_point_is_the_decoder_s_own_score(stimuli: StimulusTable, channels: Channels) -> None:
    """Points are of 25, 50, 75 and 100 % of the pictures; the last is the mean of the scores that the bundle states."""
    ready = training_set(stimuli, channels, noise=4.0)
    found = learning_curve(ready.samples(SPEC), ready.targets, SPEC)
    curve = found["learning_curve"]
    assert [point["pictures"] for point in curve] == [30, 60, 90, 120]
    scores = fit_prepared(ready, SPEC).meta["scores"]
    assert curve[-1]["features_two_way"] == pytest.approx(np.mean([scores[name]["two_way"] for name in "cz"]), abs=1e-4)
    assert all(point["interval"][0] < point["features_two_way"] < point["interval"][1] for point in curve)
    assert curve[0]["features_two_way"] < curve[-1]["features_two_way"]


def test_of_noise_nothing_is_promised(stimuli: StimulusTable, channels: Channels) -> None:
    """Windows without a response are at chance with any number of pictures, and more of them is no advice."""
    ready = training_set(stimuli, channels, noise=1e6)
    found = learning_curve(ready.samples(SPEC), ready.targets, SPEC)
    low, high = found["learning_curve"][-1]["interval"]
    assert low < 0.5 < high
    assert found["recording_more"]["worth"] is None
    assert "not above chance" in found["recording_more"]["sentence"]


@settings(max_examples=15)
@given(half=st.floats(0.65, 0.9), gain=st.floats(-0.05, 0.09))
def test_more_is_worth_it_where_the_last_doubling_was(half: float, gain: float) -> None:
    """Yes of a gain of 0.01 or more that is sure, no of a smaller one; the sentence names both numbers of pictures."""
    before = told(half)
    points = [(100, before), (200, before + gain)]
    found = recording_more(points, SPEC)
    assert abs(gain - 0.01) < 1e-4 or found["worth"] is (gain > 0.01)
    assert found["gain"] == pytest.approx(gain, abs=1e-4)
    assert "from 100 to 200 pictures" in found["sentence"]


def test_a_gain_that_may_be_none_is_not_decided() -> None:
    """Where the interval reaches from below nothing to more than 0.02, the answer is that it cannot be told."""
    found = recording_more([(50, told(0.7, 100, seed=1)), (100, told(0.72, 100, seed=2))], SPEC)
    low, high = found["interval"]
    assert low < 0
    assert high > 0.02
    assert found["worth"] is None
    assert "cannot be told" in found["sentence"]


def test_few_pictures_have_no_halves() -> None:
    """With one point only there is nothing to compare."""
    assert recording_more([(30, told(0.8, 30))], SPEC)["worth"] is None
