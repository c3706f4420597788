"""Identification by likelihood: what is told is told, noise is told by chance, and no window helps to score itself."""

from typing import Any

import numpy as np
import pytest

from decoder.data.training_set import TrainingSet
from decoder.encoding.axes import fit_axes
from decoder.encoding.model import fit_with_unseen
from decoder.evaluation.likelihood import likelihood_scores, window_likelihoods
from decoder.preprocessing.preprocess import PreprocessSpec

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


AXES = fit_axes(features_of(N_PICTURES))
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


@pytest.mark.parametrize(("n", "n_folds", "draws"), [(N_PICTURES, 5, 30), (20, 20, 12)])
def test_windows_of_noise_are_told_by_chance(n: int, n_folds: int, draws: int) -> None:
    """Over many draws of noise, two-way identification is 0.5: neither folds nor the window itself tell."""
    found = [scored(samples_of(0.0, 1, seed=seed, n=n), n_folds)["two_way"] for seed in range(draws)]
    assert np.mean(found) == pytest.approx(0.5, abs=4 * np.std(found) / np.sqrt(len(found)))
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_a_window_is_scored_by_nothing_that_it_was_in() -> None:
    """Changing a window leaves the noise and the true picture's prediction of its own fold as they were."""
    samples = samples_of(0.5)
    folds = samples.folds(5, np.random.default_rng(2))
    train, test = folds[0]
    broken = samples.data.copy()
    broken[test] = 1e3
    fits = [
        fit_with_unseen(
            AXES,
            features_of(N_PICTURES),
            data[train],
            samples.rows[train],
            samples.groups[train],
            np.random.default_rng(0),
        )
        for data in (samples.data, broken)
    ]
    np.testing.assert_array_equal(fits[0].model.weights, fits[1].model.weights)
    np.testing.assert_array_equal(fits[0].model.reader, fits[1].model.reader)
    np.testing.assert_array_equal(fits[0].model.covariance(), fits[1].model.covariance())


def test_runs_crossed_with_pictures_are_predicted_by_folds_of_other_runs() -> None:
    """Where each run shows all pictures, a window's candidates come from fits that saw neither them nor its run."""
    samples = samples_of(0.7, repeats=2)
    units = np.repeat(["run1", "run2"], N_PICTURES)
    crossed = TrainingSet(samples.data, samples.times, samples.rows, samples.groups, units, units, samples.channels)
    folds = crossed.folds(2, np.random.default_rng(2))
    assert len(folds) == 4
    features = features_of(N_PICTURES)
    fits = [
        fit_with_unseen(
            AXES, features, crossed.data[train], crossed.rows[train], crossed.groups[train], np.random.default_rng(0)
        )
        for train, _ in folds
    ]
    flat = crossed.data.reshape(len(units), -1)
    likelihoods = window_likelihoods(fits, crossed, folds, features, flat, (1, 2))
    before, rows = likelihoods[1]
    assert rows.tolist() == sorted(crossed.rows.tolist())
    assert np.isfinite(before).all()
    two_way = [(before[row, at] > np.delete(before[:, at], row)).mean() for at, row in enumerate(rows)]
    assert np.mean(two_way) > 0.75


def test_too_few_pictures_and_several_participants_are_left_out() -> None:
    """There is no score of fewer than ten training pictures, nor of people whose responses are not in one space."""
    few = samples_of(1.0, n=10)
    assert scored(few) == {}
    many = samples_of(1.0)
    subjects = np.array(["1", "2"] * (len(many.rows) // 2))
    two = TrainingSet(many.data, many.times, many.rows, many.groups, many.runs, many.units, many.channels, subjects)
    assert scored(two) == {}


def test_repeats_are_put_together_in_order_and_none_twice() -> None:
    """Two of three presentations in one fold are one mean; a third, which is left over, changes nothing."""
    samples = samples_of(0.5, repeats=3)
    folds = samples.folds(5, np.random.default_rng(2))
    features = features_of(N_PICTURES)
    fits = [
        fit_with_unseen(
            AXES, features, samples.data[train], samples.rows[train], samples.groups[train], np.random.default_rng(0)
        )
        for train, _ in folds
    ]
    flat = samples.data.reshape(len(samples.rows), -1)
    twice, rows = window_likelihoods(fits, samples, folds, features, flat, (1, 2))[2]
    np.testing.assert_array_equal(rows, np.arange(N_PICTURES))
    left_over = flat.copy()
    left_over[2 * N_PICTURES :] = 1e3
    np.testing.assert_array_equal(window_likelihoods(fits, samples, folds, features, left_over, (2,))[2][0], twice)
    means = np.tile(flat[: 2 * N_PICTURES].reshape(2, N_PICTURES, -1).mean(axis=0), (3, 1))
    same = window_likelihoods(fits, samples, folds, features, means, (2,))[2][0]
    np.testing.assert_allclose(same, twice, rtol=1e-4, atol=1e-3)
