"""Known answers of the checks on figures that are good for the wrong reason."""

import numpy as np

from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.evaluation.spurious import collapse, effective_dimension, hard_two_way, nearest_similarities


def test_effective_dimension_counts_the_directions_that_rows_fill() -> None:
    """Five directions of equal variance are five, a line is one, equal rows are none; wide or tall alike."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(40, 5)))[0]
    scores = rng.normal(size=(200, 5))
    rows = np.linalg.qr(scores - scores.mean(axis=0))[0] @ basis.T
    assert abs(effective_dimension(rows) - 5) < 1e-6
    wide = np.hstack([rows, np.zeros((200, 300))])
    assert abs(effective_dimension(wide) - 5) < 1e-6
    assert abs(effective_dimension(np.outer(rng.normal(size=30), basis[:, 0])) - 1) < 1e-9
    assert effective_dimension(np.ones((10, 3))) == 0


def test_collapse_is_one_for_features_decoded_perfectly_and_small_for_a_single_direction() -> None:
    """Features that are the truth span all of it; those that move along one line do not."""
    rng = np.random.default_rng(2)
    true = rng.normal(size=(100, 20))
    line = np.outer(rng.normal(size=100), rng.normal(size=20))
    assert collapse(true, true) == 1
    assert collapse(line, true) < 0.1


def test_a_decoder_of_clusters_passes_two_way_and_fails_the_hard_one() -> None:
    """Reconstructions that show the cluster's mean are told from pictures of other clusters, not from their own."""
    rng = np.random.default_rng(3)
    centres = np.repeat(rng.normal(size=(10, 50)), 8, axis=0)
    truth = centres + 0.5 * rng.normal(size=centres.shape)
    own = np.arange(len(truth))
    likeness = correlation_matrix(truth, truth)
    noise = 0.5 * rng.normal(size=truth.shape)
    blind = correlation_matrix(truth, centres + noise)
    seeing = correlation_matrix(truth, truth + noise)
    assert two_way(blind, own).mean() > 0.9
    assert abs(hard_two_way(blind, likeness, own).mean() - 0.5) < 0.1
    assert hard_two_way(seeing, likeness, own).mean() > 0.9


def test_overlap_tells_test_pictures_inside_the_training_clusters_from_new_ones() -> None:
    """Test pictures beside training pictures are all inside; those in directions of their own are not."""
    rng = np.random.default_rng(4)

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    train = unit(rng.normal(size=(60, 30)))
    near = unit(train[:20] + 0.01 * rng.normal(size=(20, 30)))
    new = unit(rng.normal(size=30) + 0.1 * rng.normal(size=(20, 30)))
    assert nearest_similarities(near, train)["inside"] == 1
    assert nearest_similarities(near, train)["nearest_train"] > 0.99
    assert nearest_similarities(new, train)["inside"] == 0
