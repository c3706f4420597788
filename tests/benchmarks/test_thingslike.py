"""Presentations of the simulated participant are put together in the order in which they came, none twice."""

import numpy as np

from benchmarks.thingslike_data import Trials


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
