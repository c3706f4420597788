"""A bundle moved to a new session by a few labelled windows, and left alone where they do not help."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import expm

from decoder.adaptation.recalibrate import recalibrate
from decoder.data.stimuli import StimulusTable
from decoder.data.training_set import Origin
from decoder.errors import BundleError, TrainingError
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.models.bundle import Bundle
from decoder.models.category import CategoryModel
from decoder.spec import ConvSpec, DecoderSpec
from decoder.training.train import fit
from stream.types.windows import Channels, Window
from tests.decoder.conftest import N_CHANNELS, LinearEncoders
from tests.decoder.test_embedding import PooledEncoders

Maker = Callable[..., list[Window]]


@pytest.fixture
def bundle(window_maker: Maker, stimuli: StimulusTable, channels: Channels, encoders: LinearEncoders) -> Bundle:
    """Train on three recordings of the first 90 pictures."""
    windows = [w for seed in (1, 2, 3) for w in window_maker(stimuli, channels, noise=1.0, seed=seed)[:90]]
    return fit(windows, stimuli, encoders, DecoderSpec(features=("z", "s"), blocks=(1,), z_gain=0, s_gain=0))


def drifted(windows: list[Window]) -> list[Window]:
    """Turn and scale the channels."""
    rng = np.random.default_rng(3)
    skew = rng.normal(size=(N_CHANNELS, N_CHANNELS))
    map_ = expm(0.25 * (skew - skew.T)) @ np.diag(np.exp(rng.normal(size=N_CHANNELS)))
    return [replace(w, data=(map_ @ w.data).astype(np.float32)) for w in windows]


def told(bundle: Bundle, windows: list[Window], stimuli: StimulusTable, encoders: LinearEncoders) -> float:
    """Two-way identification of the pictures that neither training nor calibration has seen."""
    truth, mean = (
        encoders.encode_latents(stimuli.images[90:]),
        encoders.encode_latents(stimuli.images[:90]).mean(axis=0),
    )
    found = np.stack([np.asarray(f.z) for f in bundle.decode(windows[90:])])
    return float(two_way(correlation_matrix(truth - mean, found - mean)).mean())


def test_a_few_windows_bring_a_drifted_session_back(
    bundle: Bundle,
    window_maker: Maker,
    stimuli: StimulusTable,
    channels: Channels,
    encoders: LinearEncoders,
    tmp_path: Path,
) -> None:
    """Ninety windows of a session with turned and scaled channels: new pictures are told apart better by far."""
    session = drifted(window_maker(stimuli, channels, noise=1.0, seed=7))
    moved = recalibrate(bundle, session[:90], stimuli, encoders)
    before, after = (told(each, session, stimuli, encoders) for each in (bundle, moved))
    assert after > before + 0.1
    facts = moved.meta["recalibrated"]
    assert facts["windows"] == facts["pictures"] == 90
    assert facts["heads"]["z"]["error_after"] < facts["heads"]["z"]["error_before"]
    moved.save(tmp_path / "b")
    assert told(Bundle.load(tmp_path / "b"), session, stimuli, encoders) == after


def test_too_little_to_go_by_changes_nothing(
    bundle: Bundle,
    window_maker: Maker,
    stimuli: StimulusTable,
    channels: Channels,
    encoders: LinearEncoders,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two dozen windows of a session that has not drifted: the bundle stays as it was, and the log says so."""
    session = window_maker(stimuli, channels, noise=1.0, seed=8)
    moved = recalibrate(bundle, session[:24], stimuli, encoders)
    assert moved.meta["recalibrated"]["channels"] == "as they are"
    for one, other in zip(bundle.decode(session), moved.decode(session), strict=True):
        np.testing.assert_array_equal(np.asarray(one.z), np.asarray(other.z))
    assert "recalibration rolled back" in caplog.text


def test_a_session_like_training_is_not_made_worse(
    bundle: Bundle, window_maker: Maker, stimuli: StimulusTable, channels: Channels, encoders: LinearEncoders
) -> None:
    """Where nothing has drifted, recalibration costs no accuracy."""
    session = window_maker(stimuli, channels, noise=1.0, seed=9)
    moved = recalibrate(bundle, session[:90], stimuli, encoders)
    before, after = (told(each, session, stimuli, encoders) for each in (bundle, moved))
    assert after > before - 0.02


def test_what_cannot_be_moved_is_refused(
    bundle: Bundle, windows: list[Window], stimuli: StimulusTable, encoders: LinearEncoders
) -> None:
    """Another feature space, and a decoder that is not linear, are refused by name."""
    bundle.meta["feature_space"] = "another"
    with pytest.raises(BundleError, match="feature space another"):
        recalibrate(bundle, windows, stimuli, encoders)
    bundle.meta["feature_space"] = encoders.feature_space
    bundle.models["all"] = object.__new__(CategoryModel)
    with pytest.raises(TrainingError, match="family 'category'"):
        recalibrate(bundle, windows, stimuli, encoders)


def test_an_encoder_moves_to_a_participant_whose_channels_are_turned(
    window_maker: Maker, stimuli: StimulusTable, channels: Channels, tmp_path: Path
) -> None:
    """Trained on two participants; a third is one of them but for a rotation of channels, which few windows undo."""
    pooled = PooledEncoders(stimuli)
    conv = ConvSpec(
        filters=8, kernel=0.05, pool=0.02, dropout=0.1, epochs=25, patience=25, batch=32, learning_rate=5e-3, cv_folds=2
    )
    spec = DecoderSpec(features=("e",), family="conv", conv=conv)
    windows = [w for seed in (1, 2) for w in window_maker(stimuli, channels, noise=0.5, seed=seed)[:90]]
    origins = [Origin(name, name, name) for name in ("one", "two") for _ in range(90)]
    start = fit(windows, stimuli, pooled, spec, origins=origins)
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(N_CHANNELS, N_CHANNELS)))
    third = [
        replace(w, data=(turn @ w.data).astype(np.float32)) for w in window_maker(stimuli, channels, noise=0.5, seed=7)
    ]
    moved = recalibrate(start, third[:60], stimuli, pooled)
    mean = pooled.embed_images(stimuli.images[:90]).mean(axis=0)

    def found(bundle: Bundle) -> float:
        decoded = np.stack([np.asarray(one.e) for one in bundle.decode(third[90:])])
        return float(
            two_way(correlation_matrix(pooled.embed_images(stimuli.images[90:]) - mean, decoded - mean)).mean()
        )

    facts = moved.meta["recalibrated"]["encoder"]
    assert facts["error_after"] < facts["error_before"]
    assert facts["channels"] == "realigned" or facts["layer"]
    assert found(moved) > 0.65
    assert found(moved) > found(start) + 0.15
    moved.save(tmp_path / "moved")
    np.testing.assert_array_equal(found(Bundle.load(tmp_path / "moved")), found(moved))
