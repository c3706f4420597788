"""How decoded embeddings are identified: what held-out training pictures choose, and that they choose it alone."""

import numpy as np
import pytest

from decoder.evaluation.identify import choose_space
from decoder.evaluation.metrics import error_whitener

N, D = 160, 12


def world(shared: float) -> tuple[np.ndarray, np.ndarray]:
    """Give embeddings of which the last half of the numbers says nothing, decoded with errors shared among all."""
    rng = np.random.default_rng(0)
    truth, mixing = rng.normal(size=(N, D)), rng.normal(size=(2, D))
    found = truth + 0.5 * rng.normal(size=(N, D)) + shared * rng.normal(size=(N, 2)) @ mixing
    return truth.astype(np.float32), found.astype(np.float32)


def of_one_window_each() -> tuple[np.ndarray, np.ndarray]:
    """Give picture and group of each window."""
    return np.arange(N), np.char.mod("%03d", np.arange(N))


def test_shared_errors_are_whitened() -> None:
    """Where errors are shared among the numbers the whitener of all errors is chosen, and ranks its picture higher."""
    truth, found = world(4.0)
    space = choose_space(truth, found, *of_one_window_each(), np.random.default_rng(1))
    assert space.name == "whitened"
    assert space.rank < space.ranks["plain"] / 2
    np.testing.assert_array_equal(space.map, error_whitener(truth - found))


def test_errors_that_are_what_differs_are_left_alone() -> None:
    """Where most of what differs was shrunk away, so that errors are large where it is, correlation stays plain."""
    rng = np.random.default_rng(2)
    truth = (rng.normal(size=(N, D)) * np.geomspace(10, 0.1, D)).astype(np.float32)
    found = (0.1 * truth + 0.02 * rng.normal(size=(N, D))).astype(np.float32)
    space = choose_space(truth, found, *of_one_window_each(), np.random.default_rng(1))
    assert space.name == "plain"
    np.testing.assert_array_equal(space.map, np.eye(D))


def test_rank_of_what_tells_nothing_is_that_of_chance() -> None:
    """Decoded noise ranks the true picture anywhere: the geometric mean is that of the numbers up to half of n."""
    rng = np.random.default_rng(3)
    truth, found = rng.normal(size=(2, 2000, D)).astype(np.float32)
    rows = np.arange(2000)
    space = choose_space(truth, found, rows, np.char.mod("%04d", rows), rng)
    by_chance = np.exp(np.log(np.arange(1, 1001)).mean())
    assert space.ranks == {"plain": pytest.approx(by_chance, rel=0.1), "whitened": pytest.approx(by_chance, rel=0.1)}


def test_repeats_of_a_picture_are_one_picture() -> None:
    """Windows that repeat a picture do not compete with one another: without errors each ranks first."""
    truth, _ = world(0.0)
    rows = np.repeat(np.arange(N), 3)
    found = truth[rows] + np.float32(1e-3) * np.random.default_rng(4).normal(size=(len(rows), D)).astype(np.float32)
    groups = np.char.mod("%03d", rows)
    assert choose_space(truth[rows], found, rows, groups, np.random.default_rng(1)).ranks["plain"] == 1
