"""Identification by likelihood: what is told is told, noise is told by chance, and no window helps to score itself."""

from typing import Any

import numpy as np
import pytest

from decoder.data.training_set import TrainingSet
from decoder.encoding.influence import influence_of
from decoder.encoding.model import fit_with_influence
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.solvers.ridge import decompose, fit_ridge
from decoder.training.likelihood import by_repeats, likelihood_scores, window_likelihoods

N_PICTURES, N_CHANNELS, N_TIMES = 40, 5, 4


def features_of(n: int) -> dict[str, np.ndarray]:
    """Draw two groups of features."""
    rng = np.random.default_rng(0)
    return {"few": rng.normal(size=(n, 6)), "many": rng.normal(size=(n, 50))}


def samples_of(strength: float, repeats: int = 2, *, seed: int = 1, n: int = N_PICTURES) -> TrainingSet:
    """Simulate windows that follow the first features by a strength, in noise of unit variance."""
    rng = np.random.default_rng(seed)
    rows = np.tile(np.arange(n), repeats)
    weights = strength * rng.normal(size=(6, N_CHANNELS * N_TIMES))
    data = (features_of(n)["few"] @ weights)[rows] + rng.normal(size=(len(rows), N_CHANNELS * N_TIMES))
    names = np.char.mod("%03d", rows)
    runs = np.full(len(rows), "only")
    windows = data.reshape(-1, N_CHANNELS, N_TIMES).astype(np.float32)
    return TrainingSet(windows, np.arange(N_TIMES) / 100, rows, names, runs, names, tuple("abcde"))


PLAIN = PreprocessSpec(components=None)


def scored(samples: TrainingSet, n_folds: int = 5) -> dict[str, Any]:
    """Score samples in folds by picture."""
    folds = samples.folds(n_folds, np.random.default_rng(2))
    return likelihood_scores(samples, folds, features_of(len(np.unique(samples.rows))), PLAIN, 0)


def test_pictures_are_told_by_likelihood_and_better_by_repeats() -> None:
    """Windows that follow the features tell their pictures, and sums over presentations tell them better."""
    scores = scored(samples_of(0.5, repeats=4))
    assert scores["two_way"] > 0.8
    assert scores["two_way"] < scores["by_repeats"]["2"]["two_way"] < scores["by_repeats"]["4"]["two_way"]
    assert scores["top1"] <= scores["top5"] <= scores["top10"]
    assert 0 < scores["explained"] < 0.6


@pytest.mark.parametrize(("n", "n_folds"), [(N_PICTURES, 5), (20, 20)])
def test_windows_of_noise_are_told_by_chance(n: int, n_folds: int) -> None:
    """Over many draws of noise, two-way identification is 0.5: neither folds nor the window itself tell."""
    found = [scored(samples_of(0.0, 1, seed=seed, n=n), n_folds)["two_way"] for seed in range(30)]
    assert np.mean(found) == pytest.approx(0.5, abs=4 * np.std(found) / np.sqrt(len(found)))
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_influence_is_that_of_a_fit_without_the_picture() -> None:
    """What a picture's residual moves is exactly what a ridge of the same penalties without it predicts otherwise."""
    rng = np.random.default_rng(3)
    inputs, Y, new = (rng.normal(size=size).astype(np.float32) for size in ((30, 8), (30, 6), (5, 8)))
    choice = np.array([1.0, 1.0, 10.0, 0.1, 10.0, 1.0])
    spectrum = decompose(inputs)
    weights, intercept = fit_ridge(spectrum, Y, choice)
    influence = influence_of(np.arange(30) + 100, spectrum, choice, Y - (inputs @ weights + intercept))
    shares = influence.shares(new)
    for place in (0, 17):
        rest = np.delete(np.arange(30), place)
        other_weights, other_intercept = fit_ridge(decompose(inputs[rest]), Y[rest], choice)
        without = new @ weights + intercept - shares[place].T @ influence.parts(place)
        np.testing.assert_allclose(without, new @ other_weights + other_intercept, atol=1e-4)


def test_a_window_is_scored_by_nothing_that_it_was_in() -> None:
    """Changing a window leaves the noise and the true picture's prediction of its own fold as they were."""
    samples = samples_of(0.5)
    folds = samples.folds(5, np.random.default_rng(2))
    train, test = folds[0]
    broken = samples.data.copy()
    broken[test] = 1e3
    fits = [
        fit_with_influence(
            features_of(N_PICTURES), data[train], samples.rows[train], samples.groups[train], np.random.default_rng(0)
        )
        for data in (samples.data, broken)
    ]
    np.testing.assert_array_equal(fits[0].model.weights, fits[1].model.weights)
    np.testing.assert_array_equal(fits[0].model.noise.channels, fits[1].model.noise.channels)


def test_runs_crossed_with_pictures_are_predicted_by_folds_of_other_runs() -> None:
    """Where each run shows all pictures, a window's candidates come from fits that saw neither them nor its run."""
    samples = samples_of(0.7, repeats=2)
    units = np.repeat(["run1", "run2"], N_PICTURES)
    crossed = TrainingSet(samples.data, samples.times, samples.rows, samples.groups, units, units, samples.channels)
    folds = crossed.folds(2, np.random.default_rng(2))
    assert len(folds) == 4
    features = features_of(N_PICTURES)
    fits = [
        fit_with_influence(
            features, crossed.data[train], crossed.rows[train], crossed.groups[train], np.random.default_rng(0)
        )
        for train, _ in folds
    ]
    flat = crossed.data.reshape(len(units), -1)
    before = window_likelihoods(fits, crossed, folds, features, flat)
    assert np.isfinite(before).all()
    two_way = [(before[row, at] > np.delete(before[:, at], row)).mean() for at, row in enumerate(crossed.rows)]
    assert np.mean(two_way) > 0.75


def test_too_few_pictures_and_several_participants_are_left_out() -> None:
    """There is no score of fewer than ten training pictures, nor of people whose responses are not in one space."""
    few = samples_of(1.0, n=10)
    assert scored(few) == {}
    many = samples_of(1.0)
    subjects = np.array(["1", "2"] * (len(many.rows) // 2))
    two = TrainingSet(many.data, many.times, many.rows, many.groups, many.runs, many.units, many.channels, subjects)
    assert scored(two) == {}


def test_repeats_are_added_in_order_and_none_twice() -> None:
    """Pairs of presentations are scored by the sum of their log-likelihoods; a picture shown once has none."""
    likelihood = np.array([[1.0, 0.0, 3.0, 2.0, 0.0], [0.0, 3.0, 2.0, 2.5, 0.0], [-1.0, -1.0, 0.0, 0.0, 9.0]])
    rows = np.array([0, 0, 1, 1, 2])
    rng = np.random.default_rng(0)
    assert by_repeats(likelihood, rows, rng) == {}
    twice = by_repeats(likelihood[:, :4], rows[:4], rng)
    assert list(twice) == ["2"]
    assert twice["2"]["windows"] == 2
    # Sums: [1, 3, -2] of picture 0, which is second, and [5, 4.5, 0] of picture 1, which is second too.
    assert (twice["2"]["top1"], twice["2"]["two_way"]) == (0.0, 0.5)
