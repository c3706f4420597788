"""Scores of reconstructions, beside what they would be by chance; position, size and orientation, where known."""

from dataclasses import replace

import numpy as np
import pytest

from decoder.metrics import resize
from engine.desk.compose import load_test_stimuli
from minddiffuser.archive import Received
from minddiffuser.data import stimulus_table, true_poses
from minddiffuser.evaluate import category_figures
from minddiffuser.quality import pose_quality, score

SHOWN = stimulus_table(load_test_stimuli()[:12])


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


def test_poses_are_known_of_held_out_stimuli_alone() -> None:
    """Every held-out stimulus has a pose; other pictures under the same names have none."""
    assert len(true_poses(SHOWN)) == 12
    assert true_poses(replace(SHOWN, images=255 - SHOWN.images)) == []
    assert true_poses(replace(SHOWN, ids=tuple(f"other {i}" for i in range(12)), groups=())) == []


def test_pose_errors_are_least_where_the_pictures_are_the_originals() -> None:
    """Originals as stage 2 err less than shifted ones as stage 1, with a gain below zero, and least beside chance."""
    own = np.arange(len(SHOWN))
    shifted = np.roll(SHOWN.images, 30, axis=2)
    stages = {"stage1": shifted, "stage2": SHOWN.images}
    mean = np.full((128, 128, 3), 128, np.uint8)
    found = pose_quality(true_poses(SHOWN), own, stages, mean, np.random.default_rng(0))
    assert set(found) == {"position", "size", "orientation"}
    position = found["position"]
    assert position["stage2"] < 0.05 < position["stage1"]
    assert position["stage2"] < min(position["chance"], position["mean_image"])
    assert position["gain"]["mean"] == pytest.approx(position["stage2"] - position["stage1"], abs=2e-4)
    assert position["gain"]["interval"][1] < 0
    low, high = position["stage1_interval"]
    assert low <= position["stage1"] <= high
    assert found["orientation"]["stage2"] < 10
