"""The encoding model: simulated weights and noise come back, the likelihood is the density, and nothing leaks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from decoder.data.picture_features import compute_picture_features
from decoder.encoding.axes import BAND_EDGES, band_variances, fit_axes
from decoder.encoding.model import EncodingModel, fit_encoding, log_likelihood
from decoder.encoding.noise import Noise, fit_noise
from engine.models.loading import Models

N_CHANNELS, N_TIMES = 4, 3


def kronecker_noise(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw errors (n, channels * times), and return their covariance."""
    roots = [np.tril(rng.normal(size=(k, k))) + 2 * np.eye(k) for k in (N_CHANNELS, N_TIMES)]
    root = np.kron(*roots)
    return rng.normal(size=(n, len(root))) @ root.T, root @ root.T


def covariance(noise: Noise) -> np.ndarray:
    """Return the covariance that a noise stands for."""
    root = noise.colour(np.eye(len(noise.scale)))
    return np.asarray(root.T @ root)


@pytest.mark.parametrize("largest", [1000, 5], ids=["whole", "channels and times"])
def test_noise_is_recovered(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many errors the covariance is found, whole or by mode; of few it is shrunk, and never singular."""
    monkeypatch.setattr("decoder.encoding.noise.LARGEST", largest)
    errors, truth = kronecker_noise(20_000, np.random.default_rng(0))
    noise = fit_noise(errors, N_CHANNELS)
    assert noise.modes.shape == ((1, 1) if largest > 5 else (N_TIMES, N_TIMES))
    spread = np.sqrt(np.diag(truth))
    np.testing.assert_allclose(
        covariance(noise) / np.outer(spread, spread), truth / np.outer(spread, spread), atol=0.05
    )
    whitened = noise.whiten(errors)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(12), atol=0.05)
    np.testing.assert_allclose(noise.colour(whitened[:5]), errors[:5], rtol=1e-3, atol=1e-3)
    few = fit_noise(errors[:3], N_CHANNELS)
    assert np.isfinite(few.whiten(errors)).all()


def test_a_rhythm_of_its_own_place_is_whitened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that is slow in one channel and fast in another is white after it: no product of two could say so."""
    monkeypatch.setattr("decoder.encoding.noise.LARGEST", 5)
    rng = np.random.default_rng(8)
    errors = rng.normal(size=(5000, N_CHANNELS, 8))
    for channel, wave in enumerate(np.cos(np.pi * np.outer([1, 4], np.arange(8) + 0.5) / 8)):
        errors[:, channel] += (3 + 2 * channel) * rng.normal(size=(5000, 1)) * wave
    flat = errors.reshape(5000, -1)
    np.testing.assert_allclose(np.cov(fit_noise(flat, N_CHANNELS).whiten(flat).T), np.eye(8 * N_CHANNELS), atol=0.1)


def test_likelihood_is_the_density() -> None:
    """Each prediction's log-likelihood is scipy's; a dead response changes nothing."""
    rng = np.random.default_rng(1)
    errors, truth = kronecker_noise(300, rng)
    predicted, responses = rng.normal(size=(5, 12)), 3 * rng.normal(size=(7, 12)) + 100
    brute = [multivariate_normal(mean, truth).logpdf(responses) for mean in predicted]
    np.testing.assert_allclose(log_likelihood(predicted, responses, truth), brute, rtol=1e-9)
    dead = np.zeros((300, N_CHANNELS + 1, N_TIMES))
    dead[:, :N_CHANNELS] = errors.reshape(300, N_CHANNELS, N_TIMES)
    white = fit_noise(dead.reshape(300, -1), N_CHANNELS + 1).whiten(dead.reshape(300, -1))
    assert np.isfinite(white).all()
    assert not white.reshape(300, -1, N_TIMES)[:, N_CHANNELS:].any()


World = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]


def world(n_pictures: int, repeats: int, noise: float = 1.0) -> World:
    """Simulate features of which one group drives responses, their weights, windows and each window's picture."""
    rng = np.random.default_rng(2)
    features = {"drives": rng.normal(size=(n_pictures, 8)), "idle": rng.normal(size=(n_pictures, 40))}
    weights = rng.normal(size=(8, N_CHANNELS * N_TIMES))
    rows = np.repeat(np.arange(n_pictures), repeats)
    errors, _ = kronecker_noise(len(rows), rng)
    responses = (features["drives"] @ weights)[rows] + noise * errors + 5
    as_windows = responses.reshape(len(rows), N_CHANNELS, N_TIMES).astype(np.float32)
    return {name: x.astype(np.float32) for name, x in features.items()}, weights, as_windows, rows


def fitted(features: dict[str, np.ndarray], windows: np.ndarray, rows: np.ndarray) -> EncodingModel:
    """Fit, each picture a group of its own."""
    return fit_encoding(features, windows, rows, np.char.mod("%04d", rows), np.random.default_rng(3))


def test_weights_and_noise_are_recovered() -> None:
    """Simulated weights come back, an idle group gets none, and held-out errors are as large as the noise is."""
    features, weights, windows, rows = world(400, 4, noise=0.3)
    model = fitted(features, windows, rows)
    nothing = model.predict({"drives": np.zeros((1, 8)), "idle": np.zeros((1, 40))})
    drives = (model.predict({"drives": np.eye(8), "idle": np.zeros((8, 40))}) - nothing) @ model.patterns
    np.testing.assert_allclose(drives, weights, atol=0.25)
    idle = (model.predict({"drives": np.zeros((40, 8)), "idle": np.eye(40)}) - nothing) @ model.patterns
    assert np.abs(idle).mean() < 0.05 * np.abs(weights).mean()
    errors = windows.reshape(len(rows), -1) - (features["drives"] @ weights)[rows] - 5
    np.testing.assert_allclose(np.cov(model.read(errors).T), model.noise, atol=0.1)
    assert np.abs(model.model_error).max() < 0.1
    power = windows.reshape(len(rows), -1).var(axis=0)
    np.testing.assert_allclose(model.explained, 1 - errors.var(axis=0) / power, atol=0.05)


def test_the_likeliest_picture_is_the_one_that_was_shown() -> None:
    """New pictures are told by their likelihood, and by that of a mean of repeats better."""
    features, _, windows, rows = world(300, 4, noise=3.0)
    known = rows < 200
    model = fitted(features, windows[known], rows[known])
    new = {name: values[200:] for name, values in features.items()}
    shown = windows[~known].reshape(400, -1)
    single = (model.log_likelihood(new, shown).argmax(axis=0) == rows[~known] - 200).mean()
    means = shown.reshape(100, 4, -1).mean(axis=1)
    four = (model.log_likelihood(new, means, repeats=4).argmax(axis=0) == np.arange(100)).mean()
    assert 0.05 < single < four
    assert four > 0.5


def test_corrupted_held_out_arrays_change_nothing() -> None:
    """What is fitted reads neither windows nor features of pictures that it is not trained on."""
    features, _, windows, rows = world(60, 2)
    known = rows < 40
    model = fitted(features, windows[known], rows[known])
    broken = {name: np.where(np.arange(60)[:, None] < 40, values, np.nan) for name, values in features.items()}
    again = fitted(broken, windows[known], rows[known])
    np.testing.assert_array_equal(again.weights, model.weights)
    np.testing.assert_array_equal(again.intercept, model.intercept)
    for part in ("reader", "patterns", "noise", "model_error", "explained"):
        np.testing.assert_array_equal(getattr(again, part), getattr(model, part))


def test_bands_get_the_variance_that_they_drive() -> None:
    """The method of moments finds each band's share, of many responses; a band that drives none gets the least."""
    rng = np.random.default_rng(4)
    scores, bands = rng.normal(size=(500, 30)), np.repeat([0, 1, 2], 10)
    scores -= scores.mean(axis=0)
    truth = np.repeat([4.0, 1.0, 0.0], 10)
    responses = scores @ (np.sqrt(truth)[:, None] * rng.normal(size=(30, 400))) + 5 * rng.normal(size=(500, 400))
    found = band_variances(scores.astype(np.float32), bands, (responses - responses.mean(axis=0)).astype(np.float32))
    np.testing.assert_allclose(found[::10], [4, 1, 0], atol=0.15)
    assert found.min() > 0
    silent = band_variances(scores.astype(np.float32), bands, np.zeros((500, 4), np.float32))
    np.testing.assert_array_equal(silent, np.ones(30))


def test_axes_are_of_training_pictures_and_banded() -> None:
    """Scores of training pictures are uncorrelated, each group's of variance 1; bands go on from group to group."""
    rng = np.random.default_rng(5)
    wide, narrow = rng.normal(size=(50, 30)) @ rng.normal(size=(30, 300)), rng.normal(size=(50, 7))
    axes = fit_axes({"wide": wide, "flat": np.ones((50, 3)), "narrow": narrow}, n_axes=30)
    scores = axes({"wide": wide, "narrow": narrow})
    scatter = scores.T @ scores / 50
    np.testing.assert_allclose(scatter[:30, :30], np.diag(np.diag(scatter)[:30]), atol=1e-4)
    variance = np.diag(scatter)
    assert (np.diff(variance[:30]) < 0).all()
    np.testing.assert_allclose([variance[:30].sum(), variance[30:].sum()], 1, rtol=1e-3)
    assert axes.names.tolist() == ["wide"] * 30 + ["narrow"] * 7
    wide_bands, narrow_bands = axes.bands[:30], axes.bands[30:]
    first, second = BAND_EDGES[:2]
    assert wide_bands.tolist() == [0] * first + [1] * (second - first) + [2] * (30 - second)
    assert narrow_bands.tolist() == [3] * first + [4] * (7 - first)


def test_every_kind_of_picture_features_is_computed(tiny: Models) -> None:
    """Each group has one row a picture, whatever the number at a time, and tells pictures apart."""
    images = np.random.default_rng(6).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    features = compute_picture_features(images, tiny, blocks=(1, 2))
    names = {"s1", "s2", "CLIP pooled", "thumbnail", "contrast", "saturation", "oriented energy"}
    assert set(features) == names
    again = compute_picture_features(images, tiny, blocks=(1, 2), batch=2)
    for name, values in features.items():
        assert len(values) == 5
        assert np.ptp(values, axis=0).any()
        np.testing.assert_allclose(values, again[name], atol=2e-2)


def test_a_model_that_says_nothing_explains_nothing() -> None:
    """Responses that no feature drives have explained variance about 0, and likelihoods that are finite."""
    features, _, windows, rows = world(80, 2)
    noise = np.random.default_rng(7).normal(size=windows.shape).astype(np.float32)
    model = fitted(features, noise, rows)
    assert np.abs(model.explained).max() < 0.1
    shifted = replace(model, intercept=model.intercept + 1)
    own, other = (each.log_likelihood(features, noise.reshape(160, -1)).mean() for each in (model, shifted))
    assert own > other
