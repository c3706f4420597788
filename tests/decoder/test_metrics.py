"""Figures of merit against formulas, scikit-image and chance."""

import numpy as np
import pytest
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from decoder.evaluation import metric_registry, metrics
from decoder.evaluation.metric_registry import METRICS, PICTURE_METRICS, picture_scores


def pictures(seed: int, n: int = 6, side: int = 64) -> np.ndarray:
    """Draw smooth pictures."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return metrics.resize(coarse, side)


def test_two_way_equals_its_formula() -> None:
    """Two-way identification is the mean over columns of #(r[i,j] < r[j,j]) / (N - 1)."""
    r = np.random.default_rng(0).normal(size=(9, 9))
    expected = [sum(r[i, j] < r[j, j] for i in range(9)) / 8 for j in range(9)]
    np.testing.assert_allclose(metrics.two_way(r), expected)


def test_two_way_of_equal_reconstructions_is_chance() -> None:
    """A reconstruction that is the same for all pictures tells none from another: exactly 0.5 in the mean."""
    truth = pictures(0)
    same = np.broadcast_to(truth.mean(axis=0), truth.shape).astype(np.uint8)
    assert metrics.two_way(metric_registry.pixel_similarity(truth, same)).mean() == pytest.approx(0.5)
    assert metrics.two_way(np.zeros((5, 5))).mean() == 0.5


def test_own_row_may_be_named() -> None:
    """Several trials of one picture are scored against the pictures, each against its own."""
    r = np.array([[0.9, 0.1, 0.8], [0.2, 0.7, 0.85], [0.3, 0.3, 0.1]])
    np.testing.assert_allclose(metrics.two_way(r, np.array([0, 1, 0])), [1, 1, 0.5])
    np.testing.assert_allclose(metrics.top_k(r, 1, np.array([0, 1, 0])), [1, 1, 0])


def test_top_k_counts_those_strictly_more_similar() -> None:
    """A truth is in the top k when fewer than k others are more similar."""
    r = np.array([[0.1, 0, 0], [0.2, 0.5, 0], [0.3, 0, 0.5]])
    np.testing.assert_allclose(metrics.top_k(r, 1), [0, 1, 1])
    np.testing.assert_allclose(metrics.top_k(r, 3), [1, 1, 1])


def test_pixcorr_is_pearson_at_425() -> None:
    """PixCorr equals numpy's correlation of the resized RGB values."""
    a, b = pictures(1), pictures(2)
    big_a, big_b = metrics.resize(a, 425), metrics.resize(b, 425)
    expected = [
        np.corrcoef(x.ravel().astype(float), y.ravel().astype(float))[0, 1] for x, y in zip(big_a, big_b, strict=True)
    ]
    np.testing.assert_allclose(metric_registry.pixcorr(a, b), expected, atol=1e-4)
    np.testing.assert_allclose(metric_registry.pixcorr(a, a), 1, atol=1e-4)


def test_ssim_equals_scikit_image() -> None:
    """SSIM equals scikit-image's with the stated settings."""
    a, b = pictures(3, n=3), pictures(4, n=3)
    for x, y, got in zip(metrics.resize(a, 425), metrics.resize(b, 425), metric_registry.ssim(a, b), strict=True):
        expected = structural_similarity(
            rgb2gray(x), rgb2gray(y), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
        assert got == pytest.approx(expected, abs=1e-4)


def test_perfect_reconstructions_are_identified_and_mismatched_ones_are_at_chance() -> None:
    """A picture is told from all others by itself; held against another picture's truth it scores by chance."""
    gallery = pictures(5, n=24)
    own = np.arange(24)
    right = picture_scores(gallery, own, gallery)
    wrong = picture_scores(gallery, (own + 7) % 24, gallery)
    for name, similarity in (
        ("two_way", metric_registry.pixel_similarity),
        ("two_way_features", metric_registry.feature_similarity),
    ):
        assert right[name].mean() == 1
        r = similarity(gallery, gallery)
        every = np.mean([metrics.two_way(r, (own + shift) % 24).mean() for shift in range(1, 24)])
        # The true picture always beats the other, which leaves (n - 2) / 2 of n - 1 comparisons.
        assert every == pytest.approx(11 / 23, abs=1e-6)
    assert right["pixcorr"].min() == pytest.approx(1, abs=1e-3)
    assert wrong["pixcorr"].max() < 0.9


def test_features_in_which_the_truths_do_not_differ_are_left_out() -> None:
    """Grey pictures are told apart by their shapes, however faint a colour their reconstructions have."""
    grey = np.repeat(pictures(7, n=12)[..., :1], 3, axis=-1)
    tinted = np.clip(grey.astype(int) + np.array([3, 0, -3]), 0, 255).astype(np.uint8)
    assert picture_scores(grey, np.arange(12), tinted)["two_way_features"].mean() == 1


def test_several_reconstructions_of_one_picture_share_its_truth() -> None:
    """Repeats are identified in a gallery that holds each picture once, so they cannot tie with one another."""
    gallery = pictures(6, n=5)
    own = np.array([2, 2, 2, 4])
    assert picture_scores(gallery, own, gallery[own])["two_way"].tolist() == [1, 1, 1, 1]


def test_every_metric_of_pixels_is_scored_and_knows_chance() -> None:
    """What an entry measures is among the scores, under its key; exact chance is what mismatched pictures reach."""
    gallery, others = pictures(8, n=40), pictures(9, n=40)
    found = picture_scores(gallery, np.arange(40), others)
    assert set(found) == {key for key, one in PICTURE_METRICS.items() if one.score or one.similarity}
    assert all(values.shape == (40,) for values in found.values())
    for key in ("two_way", "two_way_features"):
        assert PICTURE_METRICS[key].chance is not None
        assert found[key].mean() == pytest.approx(PICTURE_METRICS[key].chance(40), abs=0.15)
    assert PICTURE_METRICS["retrieval_top5"].chance(40) == 1 / 8
    assert PICTURE_METRICS["retrieval_top5"].chance(None) is None


def test_what_counts_for_the_verdict_has_a_chance() -> None:
    """A metric that the verdict counts is compared with chance: exact, or permuted where the figure is made."""
    permuted = {"auc", "accuracy", "two_way"}
    assert all(one.chance is not None or one.key in permuted for one in METRICS if one.counts)


def test_bootstrap_interval_covers_the_mean() -> None:
    """Of 100 samples of a known distribution, about 95 intervals hold its mean."""
    rng = np.random.default_rng(0)
    intervals = [metrics.bootstrap_interval(rng.normal(3, 1, 80), rng, n_samples=400) for _ in range(100)]
    assert 88 <= sum(low < 3 < high for low, high in intervals) <= 99


def test_permuted_pictures_tell_signal_from_noise() -> None:
    """Matched pictures are as unlikely by chance as so many permutations can say, and independent ones are likely."""
    rng = np.random.default_rng(0)
    noise, own = rng.normal(size=(30, 60)), np.repeat(np.arange(30), 2)
    others = metrics.permute_pictures(own, 30, rng, n_permutations=200)
    for r, least, most in ((noise + 3 * np.eye(30)[:, own], 1 / 201, 1 / 201), (noise, 0.05, 1)):
        null = metrics.two_way(r, others).mean(axis=1)
        assert null.mean() == pytest.approx(0.5, abs=0.02)
        assert least <= metrics.p_value(metrics.two_way(r, own).mean(), null) <= most
    assert (others[:, ::2] == others[:, 1::2]).all()  # both reconstructions of a picture go with the same other picture


def test_a_p_value_is_uniform_where_nothing_is_decoded() -> None:
    """Of independent noise, a share of about a tenth has a probability of at most a tenth."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(200):
        r = rng.normal(size=(12, 12))
        null = metrics.two_way(r, metrics.permute_pictures(np.arange(12), 12, rng, n_permutations=99)).mean(axis=1)
        found.append(metrics.p_value(metrics.two_way(r).mean(), null))
    assert 0.05 < np.mean(np.array(found) <= 0.1) < 0.16


def test_an_interval_of_categories_covers_the_score() -> None:
    """Of 60 samples with a known accuracy, about 57 intervals hold it, however unequal the categories are."""
    rng = np.random.default_rng(0)
    rows = np.repeat([0, 1, 2], [60, 30, 10])
    held = 0
    for _ in range(60):
        hits = rng.random(100) < 0.7
        low, high = metrics.category_interval(lambda of, hits=hits: float(hits[of].mean()), rows, rng, n_samples=300)
        held += low < 0.7 < high
    assert 51 <= held <= 60


def test_correlated_errors_are_told_from_the_truth() -> None:
    """Errors that all targets share hide the picture until they are whitened, which leaves them white."""
    rng = np.random.default_rng(0)
    truth, shared = rng.normal(size=(200, 20)), rng.normal(size=(3, 20))
    errors = 3 * rng.normal(size=(2, 200, 3)) @ shared + 0.8 * rng.normal(size=(2, 200, 20))
    whitener = metrics.error_whitener(errors[0], shrinkage=1e-4)
    found = truth + errors[1]
    plain = metrics.two_way(metrics.correlation_matrix(truth, found)).mean()
    whitened = metrics.two_way(metrics.correlation_matrix(truth @ whitener, found @ whitener)).mean()
    assert whitened > plain + 0.1
    np.testing.assert_allclose(np.cov((errors[0] @ whitener).T), np.eye(20), atol=0.25)
