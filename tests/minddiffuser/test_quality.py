"""Scores of reconstructions, beside what they would be by chance."""

import numpy as np

from decoder.evaluation.metrics import resize
from minddiffuser.archive.archive import Received
from minddiffuser.evaluation.quality import score
from minddiffuser.workflows.evaluate import category_figures


def test_matched_pictures_are_improbable_by_chance_and_mismatched_ones_are_not() -> None:
    """The pictures themselves are identified as no permutation is; pictures of others are as likely as not."""
    rng = np.random.default_rng(0)
    gallery = resize(rng.integers(0, 256, (10, 6, 6, 3), dtype=np.uint8), 48)
    own = np.repeat(np.arange(10), 2)
    mean = gallery.mean(axis=0).round().astype(np.uint8)
    unrelated = resize(rng.integers(0, 256, (20, 6, 6, 3), dtype=np.uint8), 48)
    stages = {"stage1": unrelated, "stage2": gallery[own]}
    right = score(gallery, own, stages, mean, np.random.default_rng(1))
    wrong = score(gallery, own, {"stage2": unrelated}, mean, np.random.default_rng(1))
    for name in ("two_way", "two_way_features"):
        assert right["p"][name] == 0.001  # of 1,000 permutations none, the figure itself counted
        assert wrong["p"][name] > 0.02
        assert right["gain"][name]["interval"][0] > 0


def test_categories_come_with_interval_and_probability() -> None:
    """Well-told categories have an AUC whose interval leaves chance out, and which no permutation reaches."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 80)
    sure = 1 / (1 + np.exp(-rng.normal(2 * truth - 1, 1)))
    received = [
        Received({"event": {"label": "ab"[row]}, "categories": {"a": 1 - p, "b": p}}, {})
        for row, p in zip(truth, sure, strict=True)
    ]
    found = category_figures(received)
    assert 0.5 < found["auc_interval"][0] < found["auc"] < found["auc_interval"][1] <= 1
    assert found["auc_p"] == found["accuracy_p"] == 0.001
    blind = [Received({**one.meta, "event": {"label": "ab"[k % 2]}}, {}) for k, one in enumerate(received)]
    assert category_figures(blind)["auc_p"] > 0.02


def test_windows_of_no_category_are_left_out_and_counted() -> None:
    """Whatever else was shown, or nothing, the figures are those of the windows that are of a category."""
    rng = np.random.default_rng(0)
    truth = np.arange(40) % 2
    received = [
        Received({"event": {"label": "ab"[row]}, "categories": {"a": 1 - p, "b": p}}, {})
        for row, p in zip(truth, rng.uniform(0, 1, 40), strict=True)
    ]
    others = [Received({**received[0].meta, "event": event}, {}) for event in ({"label": "boundary"}, None)]
    assert category_figures([*others, *received]) == category_figures(received) | {"unknown": 2}
    assert category_figures([others[0], received[0]]) == {
        "figures": "1 of 2 windows are of a known category; two of those are the least to score"
    }
