"""Figures of position, size and orientation, on pictures whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from engine.composing.compose import load_test_stimuli
from minddiffuser.evaluation.quality import pose_quality
from minddiffuser.training.data import stimulus_table, true_poses

SHOWN = stimulus_table(load_test_stimuli()[:12])


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
