"""How penalties are chosen, on worlds whose answer is known."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from decoder.data.splits import group_folds
from decoder.estimators.regression import RegressionSpec, make_regression
from decoder.preprocessing.preprocess import PreprocessSpec, bin_width, time_bins
from decoder.solvers.ridge import RidgeRegression, Split, decompose

ALPHAS = np.logspace(0, 3, 4)
N, P, T = 60, 20, 9


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw inputs, and targets of unequal noise that each depend on a few inputs."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, P)) * rng.uniform(0.5, 2, P)
    weights = rng.normal(size=(P, T)) * (rng.uniform(size=(P, T)) < 0.2)
    return X.astype(np.float32), (X @ weights + rng.normal(size=(N, T)) * np.linspace(0.1, 3, T) + 2).astype(np.float32)


def splits_of(X: np.ndarray, n_folds: int = 3) -> list[Split]:
    """Split at random."""
    splits = group_folds([str(row) for row in range(len(X))], n_folds, np.random.default_rng(1))
    return [Split(train, test, X[train], X[test]) for train, test in splits]


def test_one_setting_for_all_targets_is_that_of_least_total_loss() -> None:
    """Without per_target all targets share the penalty whose errors add up to the least."""
    X, Y = world()
    splits = splits_of(X)
    errors = [
        np.sum((RidgeRegression(splits, decompose(X), np.array([alpha])).choose(Y).predictions - Y) ** 2)
        for alpha in ALPHAS
    ]
    found = RidgeRegression(splits, decompose(X), ALPHAS, per_target=False).choose(Y)
    assert set(found.choice) == {ALPHAS[np.argmin(errors)]}


def test_choice_by_correlation_does_not_mind_shrinkage() -> None:
    """The penalty of highest held-out correlation about the training mean is chosen, whatever its squared error."""
    X, Y = world()
    splits = splits_of(X)
    correlations = []
    for alpha in ALPHAS:
        regression = RidgeRegression(splits, decompose(X), np.array([alpha]))
        predicted = np.concatenate(
            [regression.predict_split(k, split.X_test, Y, np.full(T, alpha)) for k, split in enumerate(splits)]
        )
        truth = np.concatenate([Y[split.test] - Y[split.train].mean(axis=0) for split in splits])
        correlations.append((predicted * truth).sum(axis=0) / np.sqrt((predicted**2).sum(axis=0)))
    found = RidgeRegression(splits, decompose(X), ALPHAS, by="correlation").choose(Y)
    np.testing.assert_array_equal(found.choice, ALPHAS[np.argmax(correlations, axis=0)])


def test_a_split_predicts_what_the_choice_was_made_by() -> None:
    """Shapes are the contract's, and each split's predictions are those that the choice was made by."""
    X, Y = world()
    splits = splits_of(X)
    family = make_regression(splits, X, RegressionSpec(), (0.1, 1.0, 10.0))
    found = family.choose(Y)
    assert len(found.choice) == len(found.loss) == len(found.r) == T
    weights, intercept = family.fit(Y, found.choice)
    assert (weights.shape, intercept.shape) == ((P, T), (T,))
    assert weights.dtype == intercept.dtype == np.float32
    for number, split in enumerate(splits):
        decoded = family.predict_split(number, split.X_test, Y, found.choice) + Y[split.train].mean(axis=0)
        np.testing.assert_allclose(decoded, found.predictions[split.test], atol=1e-4)


@given(sfreq=st.sampled_from([60.0, 100.0, 125.0, 128.0, 250.0, 256.0, 300.0, 500.0, 512.0, 1000.0, 2048.0]))
def test_bins_last_as_long_at_any_rate(sfreq: float) -> None:
    """`decimate: auto` averages samples of about 16 ms into one, so that a decoder has the same inputs at any rate."""
    times = np.arange(round(0.5 * sfreq)) / sfreq
    auto = PreprocessSpec(decimate="auto")
    width = bin_width(times, auto)
    assert abs(width / sfreq - 0.016) <= max(0.5 / sfreq, 0.001)
    assert np.array_equal(time_bins(times, auto), time_bins(times, PreprocessSpec(decimate=width)))
    assert bin_width(times[:1], auto) == 1
