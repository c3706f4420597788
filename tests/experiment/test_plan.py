"""The order of presentations: complete, balanced, without a picture twice in a row, and the same for the same seed."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from minddiffuser.archive.trials import Trial
from minddiffuser.config.experiment import ExperimentSpec, TaskSpec
from minddiffuser.errors import AppError
from minddiffuser.experiment.plan import SetName, groups_of, plan, split_sets, without_targets

SPECS = st.builds(
    ExperimentSpec,
    repeats=st.integers(1, 6),
    blocks=st.integers(1, 7),
    seed=st.integers(0, 10**6),
    jitter_s=st.floats(0, 0.45),
    task=st.one_of(st.none(), st.builds(TaskSpec, share=st.floats(0.01, 0.5))),
)


def names(n: int) -> list[str]:
    """Return ids of n pictures."""
    return [f"p{k}" for k in range(n)]


@settings(max_examples=150, deadline=None)
@given(spec=SPECS, n=st.integers(2, 25))
def test_every_picture_comes_as_often_as_asked_and_never_follows_itself(spec: ExperimentSpec, n: int) -> None:
    """Whatever the numbers, only a repeat of the task shows the picture before it, and blocks are balanced."""
    trials = plan(names(n), spec, "calibration")
    shown = [trial for trial in trials if trial.trial_type == "picture"]
    assert Counter(trial.picture for trial in shown) == dict.fromkeys(names(n), spec.repeats)
    assert [trial.number for trial in trials] == list(range(1, len(trials) + 1))
    for before, after in pairwise(trials):
        assert (before.picture == after.picture) == (after.trial_type == "repeat")
        assert after.block in {before.block, before.block + 1}
        assert after.trial_type == "picture" or after.block == before.block
    by_block = {trial.block: Counter[str]() for trial in shown}
    for trial in shown:
        by_block[trial.block][trial.picture] += 1
    counts = [{block[name] for block in by_block.values()} for name in names(n)]
    assert all(max(each) - min(each) <= 1 for each in counts)
    assert len(by_block) <= spec.blocks
    assert all(abs(trial.blank_s - spec.blank_s) <= spec.jitter_s + 1e-4 for trial in trials)


@given(seed=st.integers(0, 10**9))
@settings(max_examples=20, deadline=None)
def test_the_seed_decides(seed: int) -> None:
    """One seed gives one order, and the next another."""
    orders = [
        [trial.picture for trial in plan(names(30), ExperimentSpec(seed=each), "calibration")]
        for each in (seed, seed, seed + 1)
    ]
    assert orders[0] == orders[1] != orders[2]


@settings(max_examples=100, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=4, max_size=60),
    share=st.floats(0.05, 0.9),
    seed=st.integers(0, 1000),
)
def test_calibration_and_test_share_no_group(groups: list[int], share: float, seed: int) -> None:
    """The two sets are all pictures together, and no group is in both; where that cannot be, it is said."""
    ids, of = names(len(groups)), [str(group) for group in groups]
    refused, sets = "", dict[SetName, tuple[str, ...]]()
    try:
        sets = split_sets(ids, of, share, seed)
    except AppError as error:
        refused = str(error)
    if refused:
        assert "test_share" in refused
        return
    calibration, test = set(sets["calibration"]), set(sets["test"])
    assert calibration
    assert test
    assert not calibration & test
    assert calibration | test == set(ids)
    group_of = dict(zip(ids, of, strict=True))
    assert not {group_of[name] for name in calibration} & {group_of[name] for name in test}
    assert split_sets(ids, of, share, seed) == sets


def test_the_share_is_met() -> None:
    """Of a hundred pictures without groups, a tenth is exactly ten."""
    sets = split_sets(names(100), names(100), 0.1, 3)
    assert len(sets["test"]) == 10


def test_one_picture_under_two_ids_lies_in_one_set() -> None:
    """Groups that hold the same content are joined."""
    joined = groups_of({"a": "x", "b": "y", "c": "x", "d": "z"}, {"a": "a", "b": "b", "c": "b", "d": "d"})
    assert joined["a"] == joined["b"] == joined["c"] != joined["d"]


def test_targets_come_as_targets_only() -> None:
    """A target picture is never an ordinary one, and about the share of trials that is asked for."""
    spec = ExperimentSpec(task=TaskSpec(kind="target", targets=("p0", "p1"), share=0.2), repeats=5)
    assert spec.task
    trials: tuple[Trial, ...] = plan(without_targets(names(22), spec.task), spec, "calibration")
    targets = [trial for trial in trials if trial.trial_type == "target"]
    assert {trial.picture for trial in targets} == {"p0", "p1"}
    assert not {"p0", "p1"} & {trial.picture for trial in trials if trial.trial_type == "picture"}
    assert len(targets) == 20
    with pytest.raises(AppError, match="'p9'"):
        without_targets(names(5), TaskSpec(kind="target", targets=("p9",)))
    with pytest.raises(AppError, match="every picture"):
        without_targets(["p0"], TaskSpec(kind="target", targets=("p0",)))


def test_what_cannot_be_is_refused() -> None:
    """One picture several times, a blank shorter than its jitter, a photodiode without a patch, a colour of no name."""
    with pytest.raises(AppError, match="1 picture"):
        plan(["only"], ExperimentSpec(repeats=2), "calibration")
    for wrong in (
        {"jitter_s": 0.5, "blank_s": 0.2},
        {"photodiode": {"channel": "Photo"}, "patch": None},
        {"background": "greyish"},
        {"task": {"kind": "target"}},
    ):
        with pytest.raises(ValidationError):
            ExperimentSpec.model_validate(wrong)
