"""Whitening of decoded structure: known gains, and pictures that are told apart by components that vary little."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from decoder.adaptation.recalibrate import recalibrate
from decoder.data.stimuli import StimulusTable
from decoder.errors import TrainingError
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.solvers.whitening import fit_whitening
from decoder.spec import DecoderSpec
from decoder.training.train import fit
from stream.types.windows import Channels, Window
from tests.decoder.conftest import LinearEncoders

SPREAD = np.array([8, 4, 2, 1, 0.5])


def decoded(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw features of a known spectrum, and what a decoder with equal errors in all components makes of them."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(40, len(SPREAD))))[0]
    components = rng.normal(size=(n, len(SPREAD))) * SPREAD
    found = 0.5 * components + 0.25 * SPREAD * rng.normal(size=components.shape)
    return (components @ axes.T + 3).astype("f4"), (found @ axes.T + 3).astype("f4"), axes


@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_gains_are_the_slope_over_the_variance_to_the_power(power: float) -> None:
    """Components decoded alike get gains in the ratio of their variances, and all of the block keeps its spread."""
    true, found, axes = decoded(4000)
    whiten = fit_whitening(true, found, power)
    expected = SPREAD ** (-2 * power)
    gains = np.linalg.norm(whiten(axes.T.astype("f4")), axis=1)
    np.testing.assert_allclose(gains / gains[0], expected / expected[0], rtol=0.15)
    deviations = found - true.mean(axis=0)
    np.testing.assert_allclose(np.square(whiten(deviations)).sum(), np.square(deviations).sum(), rtol=1e-3)


def test_what_is_not_confirmed_is_left_out() -> None:
    """A component whose predictions are noise, or point the wrong way, is taken out."""
    true, found, axes = decoded(4000)
    wrong = found - 2 * np.outer((found - 3) @ axes[:, 4], axes[:, 4]).astype("f4")
    whiten = fit_whitening(true, wrong, 0.5)
    gains = np.linalg.norm(whiten(axes.T.astype("f4")), axis=1)
    assert gains[4] < 0.1
    assert gains[3] > 0.5


def test_numbers_that_are_not_finite_are_refused() -> None:
    """Nothing is decoded by what is not a number."""
    true, found, _ = decoded(50)
    for each in (true, found):
        each[3, 5] = np.nan
        with pytest.raises(TrainingError, match="not finite"):
            fit_whitening(true, found, 0.5)
        each[3, 5] = 0


def test_what_windows_do_not_confirm_at_all_is_the_mean(caplog: pytest.LogCaptureFixture) -> None:
    """Predictions that point the wrong way are left out whole, and that is said."""
    true, found, axes = decoded(400)
    whiten = fit_whitening(true, 6 - found, 0.5)
    assert np.abs(whiten(axes.T.astype("f4"))).max() == 0
    assert "confirm nothing" in caplog.text


def test_small_components_tell_pictures_apart() -> None:
    """Where a large component is decoded no better than small ones, whitened predictions identify new pictures more."""
    true, found, _ = decoded(800)
    whiten = fit_whitening(true[:400], found[:400], 0.5)
    new, deviations = true[400:], found[400:] - 3
    before, after = (two_way(correlation_matrix(new - 3, each)).mean() for each in (deviations, whiten(deviations)))
    assert after > before + 0.02


def test_a_decoder_hands_on_whitened_structure(
    window_maker: Callable[..., list[Window]], stimuli: StimulusTable, channels: Channels, encoders: LinearEncoders
) -> None:
    """`s_whitening` reaches the bundle, for blocks of structure alone, and their spread stays."""
    windows = window_maker(stimuli, channels, noise=1.0, seed=1)
    spec = DecoderSpec(features=("z", "s"), blocks=(1,), s_gain=1)
    plain, whitened = (
        fit(windows, stimuli, encoders, spec.model_copy(update={"s_whitening": power})).decode(windows)
        for power in (0, 0.5)
    )
    np.testing.assert_array_equal([one.z for one in plain], [one.z for one in whitened])
    before, after = (np.stack([one.s[1].values for one in found]) for found in (plain, whitened))
    assert np.abs(before - after).max() > 0.05 * before.std()
    np.testing.assert_allclose(after.std(axis=0).mean(), before.std(axis=0).mean(), rtol=0.2)


def test_whitened_structure_stays_when_a_bundle_is_moved(
    window_maker: Callable[..., list[Window]],
    stimuli: StimulusTable,
    channels: Channels,
    encoders: LinearEncoders,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Weights are moved toward the truth, which whitened structure is not to be nearest to; other features move."""
    spec = DecoderSpec(features=("z", "s"), blocks=(1,), s_whitening=0.5)
    windows, session = (window_maker(stimuli, channels, noise=1.0, seed=seed) for seed in (1, 2))
    moved = recalibrate(fit(windows, stimuli, encoders, spec), session, stimuli, encoders)
    told = moved.meta["recalibrated"]["heads"]
    assert told["s1"]["penalty"] is None
    assert told["s1"]["error_after"] == told["s1"]["error_before"]
    assert told["z"]["error_after"] < told["z"]["error_before"]
    assert "whitened structure" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"features": ("c",)},
        {"features": ("s",), "encoding": {"posterior": ("s",)}},
        {"features": ("s",), "family": "riemann_baseline"},
    ],
)
def test_it_is_refused_where_ridge_decodes_no_structure(settings: dict[str, Any]) -> None:
    """A setting without effect is an error."""
    with pytest.raises(ValidationError, match="s_whitening is of s that ridge decodes"):
        DecoderSpec(**settings, s_whitening=0.5)
