"""Families of ridge: against scikit-learn by brute force, against himalaya, and on worlds whose answer is known."""

import numpy as np
import pytest
from himalaya.ridge import solve_group_ridge_random_search
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit

from decoder.banded import BandedRegression, draw_shares
from decoder.errors import TrainingError
from decoder.preprocess import BandSpec, PreprocessSpec, input_bands
from decoder.regression import RegressionSpec, make_regression
from decoder.ridge import Part, RidgeRegression, decompose
from decoder.splits import group_folds
from decoder.topridge import TopRegression

ALPHAS = np.logspace(0, 3, 4)
N, P, T = 60, 20, 9


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw inputs, and targets of unequal noise that each depend on a few inputs."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, P)) * rng.uniform(0.5, 2, P)
    weights = rng.normal(size=(P, T)) * (rng.uniform(size=(P, T)) < 0.2)
    return X.astype(np.float32), (X @ weights + rng.normal(size=(N, T)) * np.linspace(0.1, 3, T) + 2).astype(np.float32)


def parts_of(X: np.ndarray, n_folds: int = 3) -> list[Part]:
    """Split at random."""
    splits = group_folds([str(row) for row in range(len(X))], n_folds, np.random.default_rng(1))
    return [Part(train, test, X[train], X[test]) for train, test in splits]


def by_hand(X: np.ndarray, y: np.ndarray, inputs: np.ndarray, n: int, alpha: float) -> np.ndarray:
    """Rank inputs by correlation, fit scikit-learn's ridge on the first n, predict."""
    r = np.array([abs(np.corrcoef(column, y)[0, 1]) for column in X.T.astype(float)])
    first = np.argsort(-r, kind="stable")[:n]
    return np.asarray(Ridge(alpha=alpha).fit(X[:, first].astype(float), y).predict(inputs[:, first].astype(float)))


def test_ridge_on_the_most_correlated_inputs_equals_brute_force() -> None:
    """Number of inputs, penalty, held-out predictions and final weights are those of a loop over scikit-learn."""
    X, Y = world()
    parts, counts = parts_of(X), (3, 8, P)
    top = TopRegression(parts, X, ALPHAS, counts)
    found = top.choose(Y)
    weights, intercept = top.fit(Y, found.choice)
    for target in range(T):
        y = Y[:, target].astype(float)
        held_out = {
            (n, alpha): np.concatenate([by_hand(p.X_train, y[p.train], p.X_test, n, alpha) for p in parts])
            for n in counts
            for alpha in ALPHAS
        }
        order = np.concatenate([part.test for part in parts])
        n, alpha = min(held_out, key=lambda key: np.sum((held_out[key] - y[order]) ** 2))
        assert found.choice[target].tolist() == [n, alpha]
        np.testing.assert_allclose(found.predictions[order, target], held_out[n, alpha], atol=1e-4)
        np.testing.assert_allclose(X @ weights[:, target] + intercept[target], by_hand(X, y, X, n, alpha), atol=1e-4)
        assert np.count_nonzero(weights[:, target]) == n
    assert len(np.unique(found.choice[:, 0])) > 1


def test_top_inputs_are_found_in_the_training_samples_alone() -> None:
    """An input that equals the target only where it is held out is not chosen by that fold."""
    X, Y = world()
    parts = parts_of(X)
    test = parts[0].test
    spoilt = Y.copy()
    spoilt[test] = 50 * X[test][:, :1]
    choice = np.tile([3.0, 1.0], (T, 1))
    one, two = (TopRegression(parts, X, ALPHAS, (3,)).predict_part(0, X[test], y, choice) for y in (Y, spoilt))
    np.testing.assert_array_equal(one, two)


def test_banded_ridge_equals_himalaya() -> None:
    """With himalaya's own folds and shares, each target gets the same shares, penalty and weights."""
    rng = np.random.default_rng(3)
    X, Y = world(4)
    bands = np.repeat([0, 1, 2], [7, 7, 6])
    shares = draw_shares(3, 6, rng)
    parts = parts_of(X)
    of_row = np.empty(N, int)
    for number, part in enumerate(parts):
        of_row[part.test] = number
    banded = BandedRegression(parts, X, ALPHAS, bands, shares)
    found = banded.choose(Y)
    weights, intercept = banded.fit(Y, found.choice)
    deltas, theirs, _, their_intercept = solve_group_ridge_random_search(
        [X[:, bands == band].astype(float) for band in range(3)],
        Y.astype(float),
        n_iter=shares,
        alphas=ALPHAS,
        fit_intercept=True,
        cv=PredefinedSplit(of_row),
        return_weights=True,
        progress_bar=False,
        warn=False,
    )
    ours = np.log(shares[found.choice[:, 0].astype(int)].T / found.choice[:, 1])
    np.testing.assert_allclose(ours, deltas, rtol=1e-5)
    np.testing.assert_allclose(weights, theirs, atol=2e-4)
    np.testing.assert_allclose(intercept, their_intercept, atol=2e-4)
    assert len(np.unique(found.choice[:, 0])) > 1


def test_a_band_that_tells_nothing_loses_its_share() -> None:
    """Of two bands with 5 and 200 inputs, a target of the small one is decoded better by banded than by plain ridge."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 205)).astype(np.float32)
    Y = (X[:, :5] @ rng.normal(size=(5, 30)) + rng.normal(size=(120, 30))).astype(np.float32)
    parts, bands = parts_of(X, 5), np.repeat([0, 1], [5, 200])
    plain = RidgeRegression(parts, decompose(X), ALPHAS).choose(Y)
    shares = draw_shares(2, 12, rng)
    found = BandedRegression(parts, X, ALPHAS, bands, shares).choose(Y)
    assert shares[found.choice[:, 0].astype(int), 0].min() > 1.5
    assert found.r.mean() > plain.r.mean() + 0.1


def test_bands_of_one_share_are_plain_ridge() -> None:
    """The even share alone gives plain ridge, number for number."""
    X, Y = world()
    parts = parts_of(X)
    plain = RidgeRegression(parts, decompose(X), ALPHAS).choose(Y)
    banded = BandedRegression(parts, X, ALPHAS, np.arange(P) % 2, draw_shares(2, 1, np.random.default_rng(0)))
    found = banded.choose(Y)
    np.testing.assert_array_equal(found.choice[:, 1], plain.alpha)
    np.testing.assert_allclose(found.predictions, plain.predictions, atol=1e-5)


def test_one_setting_for_all_targets_is_that_of_least_total_loss() -> None:
    """Without per_target all targets share the penalty whose errors add up to the least."""
    X, Y = world()
    parts = parts_of(X)
    errors = [
        np.sum((RidgeRegression(parts, decompose(X), np.array([alpha])).choose(Y).predictions - Y) ** 2)
        for alpha in ALPHAS
    ]
    found = RidgeRegression(parts, decompose(X), ALPHAS, per_target=False).choose(Y)
    assert set(found.alpha) == {ALPHAS[np.argmin(errors)]}


def test_choice_by_correlation_does_not_mind_shrinkage() -> None:
    """The penalty of highest held-out correlation about the training mean is chosen, whatever its squared error."""
    X, Y = world()
    parts = parts_of(X)
    correlations = []
    for alpha in ALPHAS:
        regression = RidgeRegression(parts, decompose(X), np.array([alpha]))
        predicted = np.concatenate(
            [regression.predict_part(k, part.X_test, Y, np.full(T, alpha)) for k, part in enumerate(parts)]
        )
        truth = np.concatenate([Y[part.test] - Y[part.train].mean(axis=0) for part in parts])
        correlations.append((predicted * truth).sum(axis=0) / np.sqrt((predicted**2).sum(axis=0)))
    found = RidgeRegression(parts, decompose(X), ALPHAS, by="correlation").choose(Y)
    np.testing.assert_array_equal(found.alpha, ALPHAS[np.argmax(correlations, axis=0)])


@pytest.mark.parametrize("method", ["ridge", "top", "banded"])
def test_families_keep_the_contract(method: str) -> None:
    """Shapes are the contract's, and each part's predictions are those that the choice was made by."""
    X, Y = world()
    parts = parts_of(X)
    spec = RegressionSpec(method=method, inputs=(4, 10), candidates=3)
    family = make_regression(
        *(parts, X, spec, (0.1, 1.0, 10.0)), bands=np.arange(P) // 10, rng=np.random.default_rng(0)
    )
    found = family.choose(Y)
    assert len(found.choice) == len(found.loss) == len(found.r) == T
    weights, intercept = family.fit(Y, found.choice)
    assert (weights.shape, intercept.shape) == ((P, T), (T,))
    assert weights.dtype == intercept.dtype == np.float32
    for number, part in enumerate(parts):
        decoded = family.predict_part(number, part.X_test, Y, found.choice) + Y[part.train].mean(axis=0)
        np.testing.assert_allclose(decoded, found.predictions[part.test], atol=1e-4)


def test_bands_follow_channels_and_times() -> None:
    """Inputs run through times within channels; a channel that no band takes is named."""
    times = np.arange(6) / 10
    spec = PreprocessSpec(decimate=2, components=None)
    bands = input_bands(("V1-a", "V1-b", "V4-a"), times, spec, BandSpec(edges=(0.2,), channels=("V1.*", "V4.*")))
    np.testing.assert_array_equal(bands, [0, 1, 1, 0, 1, 1, 2, 3, 3])
    with pytest.raises(TrainingError, match="'Fz' is of none"):
        input_bands(("V1-a", "Fz"), times, spec, BandSpec(channels=("V1.*",)))
