"""Splits that cannot leak: pictures, runs, sessions and subjects are never on both sides."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder.data.splits import contiguous_folds, folds_apart, group_folds, refuse_random_folds, shared_pictures
from decoder.data.stimuli import StimulusTable
from decoder.data.training_set import Origin, gather
from decoder.errors import TrainingError
from decoder.spec import DecoderSpec
from decoder.training.train import fit
from stream.types.windows import Window

LABELS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=4, max_size=40)


@given(LABELS, st.integers(2, 5), st.integers(0, 9))
@settings(deadline=None)
def test_no_picture_and_no_unit_is_on_both_sides(pairs: list[tuple[int, int]], n_folds: int, seed: int) -> None:
    """Whatever recurs where, every row is held out once, by a training side that shares neither with it."""
    groups, units = (np.array([str(pair[k]) for pair in pairs]) for k in (0, 1))
    try:
        folds = folds_apart(groups, units, n_folds, np.random.default_rng(seed))
    except TrainingError:
        # One unit, or windows such that to hold one out leaves nothing of another picture and unit.
        return
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(len(pairs)))
    for train, test in folds:
        assert len(train)
        assert not np.isin(groups[test], groups[train]).any()
        assert not np.isin(units[test], units[train]).any()


def test_pictures_that_all_subjects_saw_are_crossed_with_subjects() -> None:
    """Six pictures by three subjects: nine folds, each trained on 2/3 of the subjects and 2/3 of the pictures."""
    groups, units = np.tile(list("abcdef"), 3), np.repeat(["s1", "s2", "s3"], 6)
    folds = folds_apart(groups, units, 3, np.random.default_rng(0))
    assert [(len(train), len(test)) for train, test in folds] == [(8, 2)] * 9


def test_units_with_pictures_of_their_own_are_held_out_whole() -> None:
    """Where no picture recurs in another run, a fold is a run."""
    folds = folds_apart(np.array(list("abcdef")), np.repeat(["r1", "r2", "r3"], 2), 9, np.random.default_rng(0))
    assert sorted(test.tolist() for _, test in folds) == [[0, 1], [2, 3], [4, 5]]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(2, 6))
@settings(deadline=None)
def test_stretches_never_cut_a_block(labels: list[int], n_folds: int) -> None:
    """Held-out stretches cover everything once and end where the label changes."""
    folds = contiguous_folds(labels, n_folds)
    if len(set(labels)) == 1:
        assert folds == []
        return
    assert len(folds) <= n_folds
    assert np.concatenate([test for _, test in folds]).tolist() == list(range(len(labels)))
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(len(labels)))
        if test[-1] + 1 < len(labels):
            assert labels[test[-1]] != labels[test[-1] + 1]


def test_random_folds_over_repeats_are_refused_with_the_reason(windows: list[Window], stimuli: StimulusTable) -> None:
    """Dealing out single windows is refused once a picture is shown twice, and allowed where none is."""
    spec = DecoderSpec(split="window")
    assert len(gather(windows, stimuli, spec).rows) == 120
    again = replace(windows[3], id="again")
    with pytest.raises(TrainingError, match=r"repeats of 'p3' \(2 windows\).*both sides"):
        gather([*windows, again], stimuli, spec)
    with pytest.raises(TrainingError, match="'house'"):
        refuse_random_folds(["face", "house", "house"])


def test_a_split_by_session_holds_sessions_out(windows: list[Window], stimuli: StimulusTable, encoders) -> None:
    """Models of held-out folds never saw the session, and without sessions the split is refused."""
    sessions = [f"session {number // 30}" for number in range(120)]
    spec = DecoderSpec(features=("z",), split="session", hold_out=4)
    bundle = fit(windows, stimuli, encoders, spec, origins=[Origin(name, name, "") for name in sessions])
    folds = {name: {bundle.held_out[f"p{row}"] for row in range(120) if sessions[row] == name} for name in sessions}
    assert all(len(found) == 1 for found in folds.values())
    assert len({next(iter(found)) for found in folds.values()}) == 4
    with pytest.raises(TrainingError, match="split by session"):
        fit(windows, stimuli, encoders, spec)
    with pytest.raises(TrainingError, match="two or more"):
        fit(windows, stimuli, encoders, spec, origins=[Origin("only", "only", "")] * 120)


def test_overlap_counts_pictures_and_captions() -> None:
    """A test picture that training shows under another id is found, and so is a shared caption."""
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3), dtype=np.uint8)
    images[3] = images[0]
    captions = (("cat",), ("dog",), ("cow", "calf"), ("cat",), ("calf",))
    table = StimulusTable(tuple("abcde"), images, captions)
    assert shared_pictures(table, ["a", "b", "c"], ["d", "e"]) == {"pictures": 0.5, "categories": 1.0}
    assert shared_pictures(table, ["a", "b"], ["c"]) == {"pictures": 0.0, "categories": 0.0}
    assert shared_pictures(StimulusTable(table.ids, images), ["a"], ["b"]) == {"pictures": 0.0}


def test_groups_stay_together() -> None:
    """Repeats of a picture are dealt out together."""
    groups = [str(row // 3) for row in range(30)]
    for train, test in group_folds(groups, 5, np.random.default_rng(0)):
        assert not {groups[row] for row in train} & {groups[row] for row in test}
