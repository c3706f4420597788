"""Independent fits by several processes: the same answers in the same order, and errors that name the task."""

import os
import socket
import time
from functools import partial
from typing import Any

import numpy as np
import pytest

from decoder.data.targets import Targets, compute_targets
from decoder.data.training_set import gather
from decoder.errors import TrainingError
from decoder.models.bundle import Bundle
from decoder.parallel import apply_each, workers
from decoder.training.crossval import Candidate, decode_nested
from decoder.training.learning_curve import learning_curve
from decoder.training.train import fit_targets
from tests.decoder.conftest import LinearEncoders
from tests.decoder.test_crossval import FEATURES, small_world, spec_of


def square(offset: float, number: int) -> tuple[float, int]:
    """Square a number, and return the process that did."""
    time.sleep(0.05)
    return number**2 + offset, os.getpid()


def axes(seed: int) -> np.ndarray:
    """Return principal axes whose last bits hang on how many threads add up the sums."""
    x = np.random.default_rng(seed).normal(size=(300, 350))
    return np.linalg.eigh(x @ x.T)[1]


def fail(number: int) -> int:
    """Fail at 3 in one line, at 4 by accident."""
    if number == 3:
        raise TrainingError("nothing to learn from")
    if number == 4:
        raise ZeroDivisionError
    return number


def test_without_workers_this_process_does_all() -> None:
    """One after the other, in order, and the progress goes from none to all."""
    said: list[tuple[int, int]] = []
    found = apply_each(partial(square, 0.5), [3, 1, 2], about="folds", progress=lambda _, *done: said.append(done))
    assert found == [(9.5, os.getpid()), (1.5, os.getpid()), (4.5, os.getpid())]
    assert said == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_two_workers_share_the_tasks_and_keep_their_order() -> None:
    """Two other processes work; answers come in the tasks' order."""
    with workers(2):
        found = apply_each(partial(square, 0.0), list(range(6)), about="folds")
    assert [value for value, _ in found] == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {process for _, process in found}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_task_that_fails_is_named(jobs: int) -> None:
    """By its fold in the one line of our errors, in a note of others."""
    with workers(jobs):
        with pytest.raises(TrainingError, match=r"^folds, 2: nothing to learn from$"):
            apply_each(fail, [1, 3], about="folds")
        with pytest.raises(ZeroDivisionError) as caught:
            apply_each(fail, [4], about="folds")
    assert "in folds, 1" in caught.value.__notes__


def test_folds_by_two_processes_are_those_by_one_to_the_bit() -> None:
    """Also where each fold chooses among candidates."""
    stimuli, targets, windows = small_world()
    candidates = [Candidate(windows, spec_of(method)) for method in ("ridge", "one penalty")]

    def score(held_out: object) -> float:
        return float(np.mean([features.decoded("c").std() for features in held_out.features]))  # type: ignore[attr-defined]

    alone = decode_nested(candidates, stimuli, targets, score)
    with workers(2):
        together = decode_nested(candidates, stimuli, targets, score)
    assert alone.chosen.tolist() == together.chosen.tolist()
    for one, other in zip(alone.features, together.features, strict=True):
        assert one.window_id == other.window_id
        for name in (*FEATURES[:2], "s1"):
            np.testing.assert_array_equal(one.decoded(name), other.decoded(name))


def test_linear_algebra_by_two_processes_is_that_by_one_to_the_bit() -> None:
    """Also where this process has several threads for it."""
    alone = apply_each(axes, [0, 1, 2], about="axes")
    with workers(2):
        together = apply_each(axes, [0, 1, 2], about="axes")
    np.testing.assert_array_equal(alone, together)


def test_a_fit_by_two_processes_is_that_by_one_to_the_bit() -> None:
    """Targets, weights of the whole and of folds, scores and confidence, and the learning curve."""
    stimuli, targets, windows = small_world()

    def fitted() -> tuple[Targets, Bundle, dict[str, Any]]:
        again = compute_targets(stimuli, LinearEncoders(stimuli), features=FEATURES, blocks=(1,), batch=7)
        samples = gather(windows, stimuli, spec_of("ridge"))
        curve = learning_curve(samples, targets, spec_of("ridge"))
        return again, fit_targets(windows, stimuli, again, spec_of("ridge")), curve

    one, bundle, curve = fitted()
    with workers(2):
        other, other_bundle, other_curve = fitted()
    for name, values in one.arrays().items():
        np.testing.assert_array_equal(values, other.arrays()[name])
    assert bundle.meta["scores"] == other_bundle.meta["scores"]
    assert curve == other_curve
    for name, model in bundle.models.items():
        for tensor, values in model.tensors().items():
            np.testing.assert_array_equal(values, other_bundle.models[name].tensors()[tensor])


def test_no_cluster_is_one_line() -> None:
    """An address where nobody answers is named."""
    pytest.importorskip("ray")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(TrainingError, match=f"no Ray cluster at '{address}'"), workers(1, address):
            pass
