"""Cross-validation: what is held out changes nothing that was fitted, and what tells nothing scores as chance."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets, compute_targets
from decoder.estimators.classifiers import CategorySpec, Trials, fit_classifier
from decoder.estimators.regression import RegressionSpec
from decoder.evaluation.identify import identification
from decoder.models.bundle import Bundle
from decoder.models.category import category_scores, held_out_logits
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.spec import DecoderSpec
from decoder.training.crossval import (
    Candidate,
    HeldOutPredictions,
    decode_held_out,
    decode_nested,
    feature_scores,
    fold_overlap,
)
from decoder.training.train import fit_targets
from stream.types.windows import Channels, Window
from tests.decoder.conftest import LinearEncoders, make_windows

REGRESSIONS = {
    "ridge": RegressionSpec(),
    "one penalty": RegressionSpec(per_target=False),
    "by correlation": RegressionSpec(by="correlation"),
}
FEATURES = ("c", "z", "s")


def spec_of(method: str) -> DecoderSpec:
    """Give a decoder of few inputs and alphas, with four held-out folds."""
    return DecoderSpec(
        features=FEATURES,
        blocks=(1,),
        alphas=(0.5, 10.0),
        cv_folds=3,
        hold_out=4,
        z_gain=1.0,
        preprocess=PreprocessSpec(decimate=4, components=None),
        regression=REGRESSIONS[method],
    )


@cache
def small_world() -> tuple[StimulusTable, Targets, list[Window]]:
    """60 pictures of noise, their features, and one window each."""
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    stimuli = StimulusTable(tuple(f"p{i}" for i in range(60)), images, tuple((f"caption {i}",) for i in range(60)))
    targets = compute_targets(stimuli, LinearEncoders(stimuli), features=FEATURES, blocks=(1,))
    channels = Channels(tuple(f"E{i}" for i in range(12)), ("eeg",) * 12, ("V",) * 12)
    return stimuli, targets, make_windows(stimuli, channels, noise=0.5, seed=1)


@cache
def trained(method: str) -> Bundle:
    """Train once on the world as it is."""
    stimuli, targets, windows = small_world()
    return fit_targets(windows, stimuli, targets, spec_of(method))


@pytest.mark.parametrize("method", sorted(REGRESSIONS))
@given(fold=st.integers(0, 3), size=st.sampled_from([0.0, -3.0, 1e4]), seed=st.integers(0, 99))
@settings(max_examples=2, deadline=None, phases=[Phase.generate])
def test_corrupting_what_is_held_out_changes_no_fitted_number(method: str, fold: int, size: float, seed: int) -> None:
    """Held-out windows, and features of held-out pictures, may be anything: their fold's model stays, to the bit."""
    stimuli, targets, windows = small_world()
    before = trained(method)
    held_out = {name for name, own in before.held_out.items() if own == f"fold{fold}"}
    rows = stimuli.rows(sorted(held_out))
    rng = np.random.default_rng(seed)

    def spoilt(values: np.ndarray) -> np.ndarray:
        out = values.copy()
        out[rows] = size * rng.normal(size=out[rows].shape)
        return out

    assert targets.c is not None
    assert targets.z is not None
    others = Targets(spoilt(targets.c), spoilt(targets.z), {1: spoilt(targets.s[1])})
    foul = [
        replace(window, data=np.float32(size) * rng.normal(size=window.data.shape).astype(np.float32))
        if window.event is not None and window.event.label in held_out
        else window
        for window in windows
    ]
    after = fit_targets(foul, stimuli, others, spec_of(method))
    assert after.held_out == before.held_out
    theirs = after.models[f"fold{fold}"].tensors()
    for name, array in before.models[f"fold{fold}"].tensors().items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    assert any(
        (a != b).any()
        for a, b in zip(before.models["all"].tensors().values(), after.models["all"].tensors().values(), strict=True)
    )


@pytest.mark.parametrize("method", sorted(REGRESSIONS))
def test_held_out_pictures_are_identified(method: str) -> None:
    """With little noise, every feature tells unseen pictures apart above the chance interval, in all families."""
    stimuli, targets, windows = small_world()
    held_out = decode_held_out(windows, stimuli, targets, spec_of(method))
    scores = feature_scores(held_out, targets, np.random.default_rng(0))
    assert set(scores) == {"c", "z", "s1"}
    for score in scores.values():
        assert score["two_way"] > score["two_way_chance"][1] + 0.1
        assert score["two_way_chance"][0] < 0.5 < score["two_way_chance"][1]
    assert fold_overlap(held_out, stimuli) == {"pictures": 0.0, "categories": 0.0}


@pytest.mark.parametrize("kind", ["noise", "permuted"])
def test_what_tells_nothing_scores_as_chance(
    kind: str, stimuli: StimulusTable, channels: Channels, encoders, window_maker: Callable[..., list[Window]]
) -> None:
    """Of eight sets of noise alone, or of permuted pictures, seven or more lie in the 95 % chance interval reported."""
    targets = compute_targets(stimuli, encoders, features=("z",))
    spec = DecoderSpec(features=("z",), preprocess=PreprocessSpec(decimate=4))
    inside = 0
    for seed in range(8):
        windows = window_maker(stimuli, channels, noise=1.0, seed=seed, signal=0.0 if kind == "noise" else 1.0)
        if kind == "permuted":
            order = np.random.default_rng(seed).permutation(len(windows))
            windows = [replace(one, event=windows[row].event) for one, row in zip(windows, order, strict=True)]
        held_out = decode_held_out(windows, stimuli, targets, spec)
        score = feature_scores(held_out, targets, np.random.default_rng(0))["z"]
        low, high = score["two_way_chance"]
        inside += low <= score["two_way"] <= high
    assert inside >= 7


def drifting_blocks(seed: int) -> Trials:
    """Eight runs of eight blocks of four categories, of which the data know nothing but drift."""
    rng = np.random.default_rng(seed)
    n_runs, n_blocks, n_trials, k = 8, 8, 8, 4
    rows = np.concatenate([np.repeat(rng.permutation(np.arange(n_blocks) % k), n_trials) for _ in range(n_runs)])
    runs = np.repeat([f"run{number}" for number in range(n_runs)], n_blocks * n_trials)
    drift = np.cumsum(rng.normal(size=(len(rows), 10)), axis=0)
    data = (drift + 0.1 * rng.normal(size=drift.shape)).astype(np.float32)[:, :, None]
    return Trials(data, np.zeros(1), rows, ("a", "b", "c", "d"), runs)


def test_blocks_without_a_signal_score_as_chance() -> None:
    """Of 20 sets of drift alone, 18 or more lie in the 95 % interval with whole runs held out, single trials do not."""
    spec, preprocess = CategorySpec(method="pattern"), PreprocessSpec(components=None)
    inside = {"accuracy": 0, "auc": 0}
    for seed in range(20):
        trials = drifting_blocks(seed)
        scores = category_scores(held_out_logits(trials, spec, preprocess), trials)
        for name in inside:
            low, high = scores[f"{name}_chance"]
            inside[name] += low <= scores[name] <= high
    assert min(inside.values()) >= 18, inside
    one = trials.take(np.flatnonzero(trials.runs == "run0"))
    odd = np.arange(len(one.rows)) % 2 == 1
    leaky = fit_classifier(one.take(np.flatnonzero(odd)), spec, preprocess)(one.data[~odd]).argmax(axis=1)
    assert (leaky == one.rows[~odd]).mean() > scores["accuracy_chance"][1] + 0.2


def test_identification_is_what_counting_gives() -> None:
    """Two-way, first place and ties, by hand; a matrix of one value is at chance."""
    r = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
    scores = identification(r, np.array([0, 1, 0]), np.random.default_rng(0))
    # Window 0: both others lower; window 1: one lower, one higher; window 2: a tie and one lower.
    assert scores["two_way"] == pytest.approx((1 + 0.5 + 0.75) / 3, abs=1e-4)
    assert scores["top1"] == pytest.approx(1 / 3, abs=1e-4)
    flat = identification(np.zeros((4, 6)), np.array([0, 1, 2, 3, 0, 1]), np.random.default_rng(0))
    assert (flat["two_way"], flat["two_way_chance"], flat["top1"]) == (0.5, [0.5, 0.5], 0.0)


def test_candidates_are_scored_on_training_pictures_alone() -> None:
    """The better of two is chosen in every fold by pictures of its training part, and decodes as it would alone."""
    stimuli, targets, windows = small_world()
    only_c = Targets(targets.c)
    rng = np.random.default_rng(0)
    noise = [replace(one, data=rng.normal(size=one.data.shape).astype(np.float32)) for one in windows]
    spec = spec_of("ridge").model_copy(update={"features": ("c",)})
    seen: list[int] = []

    def score(held_out: HeldOutPredictions) -> float:
        seen.append(len(held_out.samples.rows))
        return float(feature_scores(held_out, only_c, rng)["c"]["two_way"])

    found = decode_nested([Candidate(noise, spec), Candidate(windows, spec)], stimuli, only_c, score)
    assert found.chosen.tolist() == [1, 1, 1, 1]
    assert seen == [45] * 8
    alone = decode_held_out(windows, stimuli, only_c, spec)
    for one, other in zip(found.features, alone.features, strict=True):
        np.testing.assert_array_equal(one.c, other.c)
