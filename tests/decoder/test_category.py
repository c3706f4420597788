"""The decoder of categories: its geometry, its filters, and how it adds up evidence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import eigvalsh

from decoder.errors import TrainingError
from decoder.estimators.classifiers import (
    CategorySpec,
    Trials,
    augmented_covariances,
    canonical_correlations,
    fit_classifier,
    softmax,
    xdawn,
)
from decoder.models.bundle import Bundle
from decoder.models.category import CategoryModel, Evidence, fit_category, held_out_logits, nested_logits
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.solvers.riemann import geometric_mean, matrix_function, tangent_space
from stream.types.events import Event
from stream.types.windows import Channels, Quality, Window

N_CHANNELS, N_TIMES, SFREQ = 4, 64, 128.0
NAMES = ("face", "house")
CHANNELS = Channels(("TP9", "AF7", "AF8", "TP10"), ("eeg",) * 4, ("V",) * 4)


def spd(rng: np.random.Generator, n: int, size: int) -> NDArray[np.float64]:
    """Random positive definite matrices."""
    factors = rng.normal(size=(n, size, 2 * size))
    return factors @ factors.transpose(0, 2, 1) / size


def trials(n: int, strength: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """White noise in microvolts, and in the second category a bump that comes from one place."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 2, n)
    bump = np.exp(-0.5 * ((np.arange(N_TIMES) - 25) / 4) ** 2)
    signal = strength * np.outer([0.2, -0.5, 0.1, 1.0], bump)
    data = rng.normal(size=(n, N_CHANNELS, N_TIMES)) + rows[:, None, None] * signal
    return (data * 1e-6).astype(np.float32), rows.astype(np.intp)


def labelled(
    data: NDArray[np.float32], rows: NDArray[np.intp], names: tuple[str, ...] = NAMES, runs: int = 1
) -> Trials:
    """Trials of so many runs, one after the other."""
    of_trial = np.sort(np.arange(len(rows)) % runs).astype(str)
    return Trials(data, np.arange(data.shape[2]) / SFREQ, rows, names, of_trial)


def templates() -> dict[str, NDArray[np.float32]]:
    """Features of two categories that are easy to tell."""
    return {"c": np.stack([np.zeros((3, 5)), np.ones((3, 5))]).astype(np.float32)}


def window(data: NDArray[np.float32], name: str, onset: float = 0.0, rejected: str | None = None) -> Window:
    """Make a window as the stream hands it over."""
    event = Event(onset, name)
    return Window(name, data, CHANNELS, SFREQ, onset, 0.0, event, onset, onset, Quality(rejected=rejected))


def trained(accumulate: int = 1, strength: float = 1.0) -> CategoryModel:
    """Train on separable trials."""
    data, rows = trials(200, strength)
    return fit_category(labelled(data, rows), templates(), CategorySpec(choose=None, accumulate=accumulate))[0]


def test_geometric_mean_of_diagonal_matrices_is_the_mean_of_their_logarithms() -> None:
    """For matrices that commute the Riemannian mean is exp(mean(log))."""
    diagonals = np.random.default_rng(1).uniform(0.1, 10, (7, 5))
    expected = np.diag(np.exp(np.log(diagonals).mean(axis=0)))
    np.testing.assert_allclose(geometric_mean(np.stack([np.diag(d) for d in diagonals])), expected, rtol=1e-6)


def test_geometric_mean_moves_along_with_a_change_of_basis() -> None:
    """The mean of W C W' is W mean(C) W': what makes it blind to how channels are mixed."""
    rng = np.random.default_rng(2)
    matrices, mixing = spd(rng, 6, 4), rng.normal(size=(4, 4))
    moved = geometric_mean(mixing @ matrices @ mixing.T)
    np.testing.assert_allclose(moved, mixing @ geometric_mean(matrices) @ mixing.T, rtol=1e-5, atol=1e-8)


def test_mean_tangent_space_and_xdawn_equal_pyriemann() -> None:
    """On channels of full rank, ours are those of pyriemann."""
    from pyriemann.geometry.mean import mean_riemann
    from pyriemann.geometry.tangentspace import tangent_space as their_tangent_space
    from pyriemann.spatialfilters import Xdawn

    rng = np.random.default_rng(0)
    data, rows = rng.normal(size=(60, 6, 40)), np.arange(60) % 2
    data[rows == 1] += np.sin(np.arange(40) / 4) * np.arange(6)[:, None] / 4
    covariances = data @ data.transpose(0, 2, 1) / 40
    mean = geometric_mean(covariances)
    np.testing.assert_allclose(mean, mean_riemann(covariances), atol=1e-7)
    whitener = matrix_function(mean, lambda values: values**-0.5)
    np.testing.assert_allclose(
        tangent_space(covariances, whitener), their_tangent_space(covariances, mean), rtol=1e-6, atol=1e-9
    )
    ours, theirs = xdawn(data, rows, 2)[0], Xdawn(2).fit(data, rows).filters_
    ours, theirs = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (ours, theirs))
    np.testing.assert_allclose(np.abs((ours * theirs).sum(axis=1)), 1, atol=1e-9)


def test_tangent_vectors_are_as_long_as_the_riemannian_distance() -> None:
    """|tangent(C)| = sqrt(sum log^2 of the eigenvalues of C against the mean)."""
    matrices = spd(np.random.default_rng(3), 5, 4)
    mean = geometric_mean(matrices)
    values, vectors = np.linalg.eigh(mean)
    whitener = (vectors / np.sqrt(values)) @ vectors.T
    distance = [np.sqrt((np.log(eigvalsh(matrix, mean)) ** 2).sum()) for matrix in matrices]
    np.testing.assert_allclose(np.linalg.norm(tangent_space(matrices, whitener), axis=1), distance, rtol=1e-8)


def test_covariances_equal_numpys_but_for_the_shrinkage() -> None:
    """A trial's matrix is numpy's covariance of [prototypes; filtered trial], shrunk toward its mean variance."""
    data, rows = trials(20, 1.0)
    filters, prototypes = xdawn(data, rows, 2)
    stacked = np.concatenate([prototypes, filters @ data[3].astype(np.float64)])
    plain = np.cov(stacked, bias=True)
    expected = 0.9 * plain + 0.1 * np.trace(plain) / len(plain) * np.eye(len(plain))
    np.testing.assert_allclose(augmented_covariances(data[3:4], filters, prototypes, 0.1)[0], expected, rtol=1e-8)


def test_the_first_filter_finds_where_the_response_comes_from() -> None:
    """In white noise the best filter for a source is proportional to its topography."""
    data, rows = trials(400, 2.0)
    first = xdawn(data, rows, 2)[0][2]
    topography = np.array([0.2, -0.5, 0.1, 1.0])
    cosine = abs(first @ topography) / np.linalg.norm(first) / np.linalg.norm(topography)
    assert cosine > 0.95


def test_held_out_trials_are_told_apart_where_there_is_a_difference_and_only_there() -> None:
    """The held-out AUC is high for separable trials and within chance for noise."""
    data, rows = trials(300, 1.0)
    assert fit_category(labelled(data, rows), templates(), CategorySpec(choose=None))[1]["auc"] > 0.9
    noise, labels = trials(300, 0.0)
    assert 0.4 < fit_category(labelled(noise, labels), templates(), CategorySpec(choose=None))[1]["auc"] < 0.6


def test_probabilities_of_noise_stay_near_even() -> None:
    """Calibration on held-out trials takes the confidence out of a classifier that knows nothing."""
    noise, labels = trials(300, 0.0)
    model = fit_category(labelled(noise, labels), templates(), CategorySpec(choose=None))[0]
    fresh = trials(100, 0.0, seed=9)[0]
    features = model.predict([window(one, f"w{i}") for i, one in enumerate(fresh)], fresh)
    assert np.mean([max(each.categories.values()) for each in features]) < 0.65


def test_three_categories_work_as_two_do() -> None:
    """Every one of three categories is recognised on training trials of its own."""
    data, rows = trials(300, 0.0)
    rows = np.arange(300, dtype=np.intp) % 3
    data = data.copy()
    data[rows == 1, 0, 20:40] += 2e-6
    data[rows == 2, 3, 20:40] += 2e-6
    logits = fit_classifier(labelled(data, rows, ("a", "b", "c")), CategorySpec())(data)
    assert logits.shape == (300, 3)
    assert (logits.argmax(axis=1) == rows).mean() > 0.8


def test_c_is_the_mean_of_the_templates_weighted_by_the_probabilities() -> None:
    """With templates of zeros and ones, c is the second category's probability."""
    model = trained()
    data = trials(5, 1.0, seed=5)[0]
    for features in model.predict([window(one, f"w{i}") for i, one in enumerate(data)], data):
        np.testing.assert_allclose(features.c, features.categories["house"], rtol=1e-5)
        assert features.z is None
        assert sum(features.categories.values()) == pytest.approx(1)


def test_a_window_does_not_depend_on_its_batch() -> None:
    """One at a time gives what all at once gives."""
    model, data = trained(), trials(6, 1.0, seed=6)[0]
    windows = [window(one, f"w{i}") for i, one in enumerate(data)]
    together = model.predict(windows, data)
    alone = [model.predict([w], one[None])[0] for w, one in zip(windows, data, strict=True)]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.c, other.c, atol=1e-6)
        assert one.confidence == pytest.approx(other.confidence)


def test_evidence_adds_up_then_starts_anew() -> None:
    """The sum runs over `accumulate` trials of one label, and no further."""
    evidence = Evidence(accumulate=3, forget_after=10)
    one = np.array([-1.0, 1.0])
    totals = [evidence.add("house", float(t), one, f"w{t}")[1] for t in range(5)]
    assert totals == [1, 2, 3, 1, 2]
    assert evidence.add("face", 5.0, one, "w5")[1] == 1


def test_evidence_is_forgotten_after_a_while_after_a_reset_and_when_time_goes_back() -> None:
    """Old evidence, evidence of before a reset, and that of another recording do not count."""
    evidence = Evidence(accumulate=9, forget_after=10)
    one = np.array([-1.0, 1.0])
    assert [evidence.add("a", t, one, f"w{t}")[1] for t in (0.0, 9.0, 20.0, 3.0)] == [1, 2, 1, 1]
    evidence.reset()
    assert evidence.add("a", 4.0, one, "w4")[1] == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 7), max_size=40), st.integers(1, 8))
def test_a_window_counts_once_however_often_it_is_decoded(again: list[int], accumulate: int) -> None:
    """Windows of one label, decoded again in any order among themselves: each sum is that of its first decoding."""
    once, often = Evidence(accumulate, 30), Evidence(accumulate, 30)
    log_odds = np.random.default_rng(0).normal(size=(8, 2))
    for t in range(8):
        expected = once.add("x", float(t), log_odds[t], f"w{t}")
        np.testing.assert_allclose(often.add("x", float(t), log_odds[t], f"w{t}"), expected)
        group = t - t % accumulate
        for earlier in again:
            if group <= earlier <= t:
                total = often.add("x", float(earlier), log_odds[earlier], f"w{earlier}")
                np.testing.assert_allclose(total, log_odds[group : earlier + 1].sum(axis=0))


def test_labels_without_end_need_no_memory_without_end() -> None:
    """A new label with every picture: those within the time that counts are held, and never more than a thousand."""
    slow, fast = Evidence(accumulate=5, forget_after=10), Evidence(accumulate=5, forget_after=1e9)
    for t in range(3000):
        for evidence in (slow, fast):
            evidence.add(f"picture {t}", float(t), np.zeros(2), f"w{t}")
    assert len(slow) == 11
    assert len(fast) == 1000


def test_accumulation_sharpens_the_picture_and_leaves_single_trials_as_they_are() -> None:
    """Over trials of weak evidence c moves to the truth; `categories` stays each trial's own."""
    data, rows = trials(300, 0.6)
    spec = CategorySpec(choose=None, accumulate=10)
    adding = fit_category(labelled(data, rows), templates(), spec)[0]
    single = fit_category(labelled(data, rows), templates(), CategorySpec(choose=None))[0]
    fresh, truth = trials(100, 0.6, seed=8)
    fresh = fresh[truth == 1]
    windows = [window(one, "house", onset=float(i)) for i, one in enumerate(fresh)]
    added, alone = adding.predict(windows, fresh), single.predict(windows, fresh)
    assert [f.categories for f in added] == [f.categories for f in alone]
    last = [f.c.mean() for i, f in enumerate(added) if i % 10 == 9]
    assert np.mean(last) > np.mean([f.c.mean() for f in alone]) + 0.05


def test_rejected_and_broken_windows_add_no_evidence() -> None:
    """A rejected window and one with a NaN have confidence 0 and change nothing that follows."""
    model, data = trained(accumulate=5), trials(3, 1.0, seed=4)[0]
    broken = data[1].copy()
    broken[0, 0] = np.nan
    first = model.predict([window(data[0], "house", 0.0)], data[:1])[0]
    out = model.predict(
        [window(data[1], "house", 1.0, rejected="gap"), window(broken, "house", 2.0)], np.stack([data[1], broken])
    )
    assert [f.confidence for f in out] == [0, 0]
    assert np.isfinite(out[1].c).all()
    again = trained(accumulate=5)
    again.predict([window(data[0], "house", 0.0)], data[:1])
    after, expected = (m.predict([window(data[2], "house", 3.0)], data[2:])[0] for m in (model, again))
    np.testing.assert_array_equal(after.c, expected.c)
    assert first.confidence > 0


def test_a_bundle_brings_the_model_back_bit_for_bit(tmp_path: object) -> None:
    """Saved and loaded, the same windows give the same features."""
    from pathlib import Path

    folder = Path(str(tmp_path)) / "bundle"
    model, data = trained(), trials(8, 1.0, seed=3)[0]
    windows = [window(one, f"w{i}") for i, one in enumerate(data)]
    bundle = Bundle({"all": model}, CHANNELS, sfreq=SFREQ, n_times=N_TIMES, tmin=0.0)
    bundle.save(folder)
    for one, other in zip(bundle.decode(windows), Bundle.load(folder).decode(windows), strict=True):
        np.testing.assert_array_equal(one.c, other.c)
        assert (one.confidence, one.categories) == (other.confidence, other.categories)


def test_one_category_is_refused() -> None:
    """There is nothing to tell apart."""
    data, rows = trials(40, 1.0)
    with pytest.raises(TrainingError, match="two or more"):
        fit_category(labelled(data, rows * 0, ("face",)), templates(), CategorySpec(choose=None))


def test_a_category_shown_in_one_stretch_only_is_refused() -> None:
    """In a block design slow drift tells the category, so its score would mean nothing."""
    data, _ = trials(40, 1.0)
    rows = (np.arange(40) >= 36).astype(np.intp)
    with pytest.raises(TrainingError, match="one stretch"):
        fit_category(labelled(data, rows), templates(), CategorySpec(cv_folds=5))


def test_softmax_takes_large_numbers() -> None:
    """Log-probabilities of a thousand do not overflow."""
    np.testing.assert_allclose(softmax(np.array([1000.0, 1000.0])), [0.5, 0.5])


def test_canonical_correlation_equals_the_regressions_on_one_channel() -> None:
    """Of one channel it is the multiple correlation of that channel with the references."""
    rng = np.random.default_rng(4)
    data, waves = rng.normal(size=(3, 1, 50)), rng.normal(size=(4, 50))
    waves -= waves.mean(axis=1, keepdims=True)
    references = np.linalg.qr(waves.T)[0].T[None]
    for one, found in zip(data, canonical_correlations(data, references)[:, 0], strict=True):
        centred = one[0] - one[0].mean()
        fitted = waves.T @ np.linalg.lstsq(waves.T, centred, rcond=None)[0]
        assert found == pytest.approx(np.linalg.norm(fitted) / np.linalg.norm(centred))


def test_flicker_is_recognised_whatever_its_phase_and_place() -> None:
    """A weak sine of any phase and topography in noise is told from another frequency, and a bundle keeps it so."""
    rng = np.random.default_rng(5)
    rows, times = np.arange(60, dtype=np.intp) % 2, np.arange(256) / SFREQ
    waves = np.sin(2 * np.pi * np.array([9.0, 13.0])[rows, None] * times + rng.uniform(0, 6, (60, 1)))
    data = (rng.normal(size=(60, 4, 256)) + 0.5 * rng.normal(size=(60, 4, 1)) * waves[:, None]).astype(np.float32)
    spec = CategorySpec(method="frequency", frequencies={"face": 9.0, "house": 13.0})
    model, scores = fit_category(Trials(data, times, rows, NAMES, np.full(60, "a")), templates(), spec)
    assert scores["accuracy"] > 0.9
    again = CategoryModel.from_tensors(model.tensors(), model.settings())
    np.testing.assert_array_equal(again.classifier(data), model.classifier(data))


def test_a_category_without_a_frequency_is_refused() -> None:
    """The message names the category."""
    data, rows = trials(40, 1.0)
    spec = CategorySpec(method="frequency", frequencies={"face": 9.0})
    with pytest.raises(TrainingError, match="'house' has no frequency"):
        fit_classifier(labelled(data, rows), spec)


@pytest.mark.parametrize("n_categories", [2, 3])
def test_pattern_weights_equal_scikit_learns_discriminants(n_categories: int) -> None:
    """Folding the preprocessing into the weights leaves the decisions of scikit-learn's shrunk discriminants."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rng = np.random.default_rng(6)
    rows = np.arange(60, dtype=np.intp) % n_categories
    data = (rng.normal(size=(60, 5, 4)) + rows[:, None, None] * rng.normal(size=(5, 1))).astype(np.float32)
    given = Trials(data, np.arange(4.0), rows, NAMES[:2] + ("cat",) * (n_categories - 2), np.full(60, "a"))
    spec = PreprocessSpec(decimate=4, components=None)
    logits = fit_classifier(given, CategorySpec(method="pattern"), spec)(data)
    mean = data.mean(axis=2)
    scaled = (mean - mean.mean(axis=0)) / mean.std(axis=0)
    expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(scaled, rows)
    np.testing.assert_allclose(softmax(logits), expected.predict_proba(scaled), atol=1e-4)


def test_a_run_whose_drift_tells_the_category_scores_by_chance() -> None:
    """Block-designed data without a signal: each run has its own level, and held-out runs stay within chance."""
    rng = np.random.default_rng(7)
    runs = np.repeat(np.arange(8), 10)
    rows = np.tile(np.repeat([0, 1], 5), 8).astype(np.intp)
    data = (rng.normal(size=(80, 4, 2)) + 5 * rng.normal(size=(8, 4, 1))[runs]).astype(np.float32)
    given = Trials(data, np.arange(2.0), rows, NAMES, runs.astype(str))
    _, scores = fit_category(given, templates(), CategorySpec(method="pattern"), PreprocessSpec(components=None))
    low, high = scores["accuracy_chance"]
    assert low <= scores["accuracy"] <= high


def test_settings_are_chosen_by_the_runs_that_are_not_held_out() -> None:
    """Of trials with and without a response every run takes the former; a run's own trials have no say in it."""
    data, rows = trials(80, 3.0)
    noise, _ = trials(80, 0.0, seed=1)
    told, hidden = labelled(data, rows, runs=4), labelled(noise, rows, runs=4)
    spec = CategorySpec(choose=None)
    logits, chosen = nested_logits([hidden, told], [spec, spec], [None, None])
    assert chosen.tolist() == [1, 1, 1, 1]
    np.testing.assert_array_equal(logits, held_out_logits(told, spec))
    # Where only the held-out run is told by the other candidate, it is not chosen for that run.
    last = told.runs == "3"
    tempting = labelled(np.where(last[:, None, None], data, noise), rows, runs=4)
    faint = labelled(np.where(last[:, None, None], noise, data), rows, runs=4)
    logits, chosen = nested_logits([tempting, faint], [spec, spec], [None, None])
    assert chosen[3] == 1
    np.testing.assert_array_equal(logits[last], held_out_logits(faint, spec)[last])
