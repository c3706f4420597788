"""One rule says whether a decoder works, whatever command the figures are from."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.evaluation.measures import Measure, of_evaluation, of_features
from minddiffuser.evaluation.verdict import TRAINING, verdict, verdict_of_evaluation, verdict_of_training
from minddiffuser.workflows.evaluate import judged
from tests.conftest import ROOT

RESULTS = ROOT / "docs" / "results"


def measure(
    interval: tuple[float, float], *, key: str = "two_way", chance: float = 0.5, p: float | None = None
) -> Measure:
    """Return a measure that counts, with this interval."""
    return Measure(key, key, sum(interval) / 2, interval, (chance, chance), p=p, counts=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("demo", "Works: 3 of 3 measures above chance"),
        ("v4-photos", "Works: 3 of 3 measures above chance"),
        ("muse-faces", "Works: 2 of 2 measures above chance"),
        ("muse-faces-folds", "Works: 2 of 2 measures above chance"),
        ("v4-photos-folds", "Works: 7 of 7 measures above chance"),
        (
            "miyawaki-fmri-folds",
            "Works: 3 of 4 measures above chance; not c (text): two-way (0.62 [0.56, 0.67], chance 0.36-0.64)",
        ),
    ],
)
def test_known_results_get_the_verdict_that_is_theirs(name: str, expected: str) -> None:
    """Committed answers of `evaluate --json`, human, macaque and simulated, are judged as they read."""
    answer = json.loads((RESULTS / f"{name}.json").read_text())["answer"]
    found = verdict_of_evaluation(answer, f"bundles/{name}")
    assert str(found) == expected


def test_the_next_step_is_a_command_with_ones_own_names() -> None:
    """What to do next names the bundle and the config that were given."""
    good = [measure((0.6, 0.7))]
    assert verdict(good, bundle="b", config="my.yaml").next_step == "minddiffuser live my.yaml"  # type: ignore[union-attr]
    after = verdict(good, after="train", bundle="bundles/own").next_step  # type: ignore[union-attr]
    assert after.endswith("minddiffuser evaluate bundles/own --report report.html")


def test_training_scores_are_judged_by_the_decoder_in_use() -> None:
    """Of two decoders that were compared, the one in use counts; what has chosen something does not."""
    own = {"two_way": 0.8, "two_way_interval": [0.7, 0.9], "two_way_chance": [0.4, 0.6], "r": 0.3}
    other = {"two_way": 0.5, "two_way_interval": [0.4, 0.6], "two_way_chance": [0.4, 0.6], "r": 0.0}
    scores = {
        "e": {"ridge": other, "conv": own, "used": "conv"},
        "z": {"selection_two_way": 0.99, "selection_r": 0.9},
        "confidence": {"told": 0.7},
    }
    found = verdict_of_training({"scores": scores, "bundle": "b"})
    assert str(found) == "Works: 1 of 1 measures above chance"
    assert [one.key for one in of_features(scores)] == ["e.r", "e.two_way"]
    moved = verdict_of_training({"scores": scores, "bundle": "b", "on_training_data": True})
    assert moved is not None
    assert moved.word == TRAINING


def test_figures_of_training_data_are_no_test_however_high() -> None:
    """On windows of the training the word says so, and the next step asks for other pictures."""
    found = verdict([measure((0.98, 1.0))], on_training_data=True, bundle="bundles/own")
    assert found is not None
    assert str(found) == "Measured on training data: not a test; 1 of 1 measures above chance"
    assert found.word == TRAINING
    assert "evaluate bundles/own --recording FILE" in found.next_step


def test_two_windows_that_happen_to_be_right_prove_nothing() -> None:
    """An interval without width is not above chance where permutations do as well."""
    assert str(verdict([measure((1.0, 1.0), p=0.5)])).startswith("Does not work: 0 of 1")


def test_without_a_measure_there_is_no_verdict() -> None:
    """Too few windows give no figures, and so no word."""
    assert verdict([]) is None
    assert verdict_of_evaluation({"bundle": "b", "offline": {"figures": "too few"}}, "b") is None


def test_few_pictures_give_no_verdict() -> None:
    """Figures that are good or bad by the luck of four pictures are neither called working nor failed."""
    answer = json.loads((RESULTS / "demo.json").read_text())["answer"]
    assert verdict_of_evaluation(answer, "b") is not None
    for half in ("live", "offline"):
        if half in answer:
            answer[half] |= {"pictures": 4}
    assert verdict_of_evaluation(answer, "b") is None
    assert of_evaluation({"session": "s", "figures": "too few"}) == []


ends = st.floats(-0.2, 1.2)


@given(st.lists(st.tuples(ends, ends).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=6), st.booleans())
def test_the_word_follows_from_how_many_are_above_chance(intervals: list[tuple[float, float]], known: bool) -> None:
    """More than half above chance: works; at least one: weak; none: does not work. Order and p change nothing."""
    measures = [measure(interval, p=0.01 if known else None) for interval in intervals]
    n = sum(low > 0.5 for low, _ in intervals)
    word = "Works" if n > len(intervals) / 2 else "Weak" if n else "Does not work"
    found = verdict(measures)
    assert found is not None
    assert found.word == word
    assert found.reason.startswith(f"{n} of {len(intervals)} measures above chance")
    assert verdict(measures[::-1]).word == word  # type: ignore[union-attr]


@given(ends, ends, ends)
def test_lower_is_better_is_the_mirror_image(low: float, high: float, chance: float) -> None:
    """A distance below chance counts as the same figure above chance does for a similarity."""
    low, high = min(low, high), max(low, high)
    up = Measure("a", "a", low, (low, high), (chance, chance), counts=True)
    down = Measure("a", "a", -low, (-high, -low), (-chance, -chance), higher_is_better=False, counts=True)
    assert up.above_chance == down.above_chance == (low > chance)


def test_noise_seldom_works() -> None:
    """Means of 40 coin-like windows, three measures each: the word is 'Works' in fewer than 2 of 100 tries."""
    rng = np.random.default_rng(3)
    words = []
    for _ in range(400):
        values = rng.uniform(size=(3, 40))
        spread = 1.96 * values.std(axis=1, ddof=1) / np.sqrt(40)
        found = [measure((m - s, m + s)) for m, s in zip(values.mean(axis=1), spread, strict=True)]
        judged = verdict(found)
        assert judged is not None
        words.append(judged.word)
    assert words.count("Works") < 8
    assert words.count("Does not work") > 340


@pytest.mark.parametrize("where", ["", "configs"])
def test_the_next_command_names_the_config_where_it_lies(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config in the folder where one works, or in `configs`, is named in the command; else a placeholder is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    answer = json.loads((RESULTS / "demo.json").read_text("utf-8"))["answer"] | {"config": "mine"}
    unknown = judged(answer, "bundles/mine")
    (tmp_path / where / "mine.yaml").touch()
    known = judged(answer, "bundles/mine")
    assert unknown is not None
    assert known is not None
    assert unknown["next_step"] == "minddiffuser live CONFIG"
    assert known["next_step"] == f"minddiffuser live {Path(where, 'mine.yaml')}"
