"""Ridge regression against scikit-learn and against its closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeCV

from decoder.data.splits import group_folds
from decoder.errors import TrainingError
from decoder.solvers.ridge import (
    Split,
    cross_validate,
    decompose,
    fit_ridge,
    leverages,
    log_evidence,
    undo_shrinkage,
)

ALPHAS = np.logspace(-2, 4, 13)


def problem(n: int, p: int, t: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Draw inputs of unequal scale and targets of unequal noise."""
    rng = np.random.default_rng(n + p)
    X = rng.normal(size=(n, p)) * rng.uniform(0.2, 3, p) + rng.normal(size=p)
    Y = X @ rng.normal(size=(p, t)) + rng.normal(size=(n, t)) * np.logspace(-1, 2, t) + 5
    return X.astype(np.float32), Y.astype(np.float32)


@pytest.mark.parametrize(("n", "p"), [(60, 8), (40, 90)])
def test_alphas_and_predictions_equal_scikit_learn(n: int, p: int) -> None:
    """With leave-one-out folds, each target gets RidgeCV's own penalty and predictions."""
    X, Y = problem(n, p)
    rows = np.arange(n)
    folds = [Split(rows[rows != i], rows[i : i + 1], X[rows != i], X[i : i + 1]) for i in rows]
    found = cross_validate(folds, Y, ALPHAS)
    theirs = RidgeCV(ALPHAS, alpha_per_target=True).fit(X.astype(float), Y.astype(float))
    np.testing.assert_allclose(found.choice, theirs.alpha_)
    weights, intercept = fit_ridge(decompose(X), Y, found.choice)
    scale = np.abs(Y).max()
    np.testing.assert_allclose(X @ weights + intercept, theirs.predict(X.astype(float)), atol=2e-4 * scale)
    assert len(set(found.choice)) > 2


@given(n=st.integers(5, 40), p=st.integers(1, 60), alpha=st.floats(0.1, 1e4))
@settings(max_examples=40, deadline=None)
def test_weights_solve_the_normal_equations(n: int, p: int, alpha: float) -> None:
    """Whatever the shape, weights are (X'X + alpha I)^-1 X'Y of centred data; the intercept is not penalised."""
    X, Y = problem(n, p, t=3)
    weights, intercept = fit_ridge(decompose(X), Y, np.full(3, alpha))
    x, y = X - X.mean(axis=0, dtype=float), Y - Y.mean(axis=0, dtype=float)
    expected = np.linalg.solve(x.T @ x + alpha * np.eye(p), x.T @ y)
    np.testing.assert_allclose(weights, expected, atol=1e-3 * (1 + np.abs(expected).max()))
    np.testing.assert_allclose((X @ weights + intercept).mean(axis=0), Y.mean(axis=0), rtol=1e-3, atol=1e-2)


def test_held_out_predictions_know_nothing_of_held_out_samples() -> None:
    """Changing a held-out target changes no prediction of its own fold at a fixed penalty."""
    X, Y = problem(30, 5)
    splits = group_folds([str(i) for i in range(30)], 3, np.random.default_rng(0))
    folds = [Split(train, test, X[train], X[test]) for train, test in splits]
    test = splits[0][1]
    other = Y.copy()
    other[test] += 1e3
    one = np.array([1.0])
    same = cross_validate(folds, Y, one).predictions[test]
    np.testing.assert_array_equal(cross_validate(folds, other, one).predictions[test], same)


def test_noise_is_given_the_largest_penalty_and_no_correlation() -> None:
    """Targets unrelated to the inputs are shrunk as far as the grid goes."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(200, 20)).astype(np.float32), rng.normal(size=(200, 50)).astype(np.float32)
    splits = group_folds([str(i) for i in range(200)], 5, rng)
    found = cross_validate([Split(a, b, X[a], X[b]) for a, b in splits], Y, ALPHAS)
    assert np.median(found.choice) >= 1000
    assert abs(found.r.mean()) < 0.05


@given(groups=st.lists(st.sampled_from("abcdefgh"), min_size=8, max_size=60), n=st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_no_group_is_on_both_sides(groups: list[str], n: int) -> None:
    """Every sample is held out once, and no group is split; too many folds are refused."""
    if n > len(set(groups)):
        with pytest.raises(TrainingError, match="folds"):
            group_folds(groups, n, np.random.default_rng(0))
        return
    folds = group_folds(groups, n, np.random.default_rng(0))
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(len(groups)))
    for train, test in folds:
        assert not {groups[i] for i in train} & {groups[i] for i in test}
        assert len(train) + len(test) == len(groups)


def test_shrinkage_undone_once_has_the_true_spread_and_undone_twice_the_true_slope() -> None:
    """Of least-squares predictions: 0 leaves them, 1 scales them to the truth's spread, 2 to slope 1 on the truth."""
    rng = np.random.default_rng(4)
    found = rng.normal(size=(20_000, 3)).astype(np.float32)
    truth = found + rng.normal(size=found.shape).astype(np.float32) * 1.5
    assert undo_shrinkage(truth, found, 0.0) == 1
    assert undo_shrinkage(truth, found, 1.0) * found.std() == pytest.approx(truth.std(), rel=0.01)
    slope = float(np.vdot(truth, found) / np.vdot(truth, truth))
    assert undo_shrinkage(truth, found, 2.0) * slope == pytest.approx(1, rel=0.03)
    assert undo_shrinkage(truth, 0 * found, 2.0) == 1


@pytest.mark.parametrize(("n", "p"), [(60, 8), (40, 90)])
def test_leverages_give_the_errors_of_samples_left_out(n: int, p: int) -> None:
    """The residual over one less the leverage is the error of a ridge that never saw the sample."""
    X, Y = problem(n, p)
    choice = np.resize([0.1, 10.0, 1000.0], Y.shape[1])
    spectrum = decompose(X)
    weights, intercept = fit_ridge(spectrum, Y, choice)
    errors = (Y - X @ weights - intercept) / (1 - leverages(spectrum, choice))
    for sample in (0, 17):
        rest = np.arange(n) != sample
        weights, intercept = fit_ridge(decompose(X[rest]), Y[rest], choice)
        expected = Y[sample] - X[sample] @ weights - intercept
        np.testing.assert_allclose(errors[sample], expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("n", "p"), [(60, 8), (40, 90)])
def test_evidence_is_that_of_the_gaussian(n: int, p: int) -> None:
    """It differs between penalties as the density of what samples differ by does; of noise the largest is the best."""
    X, Y = problem(n, p)
    alphas = ALPHAS[4:]  # smaller ones differ by rounding errors only
    contrasts = np.linalg.svd(np.ones((n, 1)))[0][:, 1:]
    kernel = contrasts.T @ X.astype(float) @ X.T @ contrasts
    y = contrasts.T @ Y.astype(float)
    densities = []
    for alpha in alphas:
        covariance = kernel / alpha + np.eye(n - 1)
        power = np.einsum("it,it->t", y, np.linalg.solve(covariance, y))
        densities.append(-0.5 * (np.linalg.slogdet(covariance)[1] + (n - 1) * np.log(power)))
    np.testing.assert_allclose(log_evidence(decompose(X), Y, alphas), densities, rtol=1e-3)
    noise = np.random.default_rng(0).normal(size=(n, 200)).astype(np.float32)
    assert np.median(log_evidence(decompose(X), noise, alphas).argmax(axis=0)) >= len(alphas) - 3
