"""Presentations are put together in the order in which they came, none twice; weights are those of probabilities."""

import numpy as np

from benchmarks.thingslike_data import Trials
from benchmarks.thingslike_likelihood import choose_weights


def test_groups_of_presentations_are_disjoint_and_their_means_are_those_of_the_windows() -> None:
    """Of five and four presentations, two at a time: two groups each, each of one picture."""
    rows = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0])
    data = np.arange(9.0, dtype=np.float32).reshape(9, 1, 1)
    trials = Trials(data, rows, np.zeros(1), np.zeros((2, 3), np.float32), np.zeros((2, 4, 4, 3), np.uint8))
    groups, of = trials.groups(2)
    assert [group.tolist() for group in groups] == [[0, 2], [4, 6], [1, 3], [5, 7]]
    means, again = trials.means(2)
    assert means.ravel().tolist() == [1, 5, 2, 6]
    assert of.tolist() == again.tolist() == [0, 0, 1, 1]


def test_weights_are_those_of_probabilities() -> None:
    """A log-likelihood that is one gets weight 1, half of it 2, and a similarity that knows nothing next to none."""
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(4):
        truth = rng.normal(size=(200, 8))
        likelihood = -0.5 * np.square(truth[:, None] - (truth + rng.normal(size=truth.shape))).sum(axis=2)
        parts.append((rng.normal(size=(200, 200)), likelihood))
    a, b = choose_weights(parts)
    assert a < 0.1
    np.testing.assert_allclose(b, 1, atol=0.1)
    np.testing.assert_allclose(choose_weights([(r, each / 2) for r, each in parts])[1], 2 * b, rtol=0.01)
    told_twice = choose_weights([(each, each) for _, each in parts])
    np.testing.assert_allclose(sum(told_twice), b, rtol=0.05)
