"""Poses of pictures whose truth is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from decoder.evaluation.pose import NOWHERE, Pose, figure, pose, pose_errors, pose_of_mask
from engine.composing.compose import Stimulus, alpha_of, load_test_stimuli, place
from engine.composing.pack import Pack, load_pack

SIDE = 128


@pytest.fixture(scope="module")
def pack() -> Pack:
    """Load the drawings."""
    return load_pack()


@pytest.fixture(scope="module")
def stimuli() -> list[Stimulus]:
    """Take forty held-out stimuli."""
    return load_test_stimuli()[::8]


def true_pose(pack: Pack, stimulus: Stimulus) -> Pose:
    """Take the moments of the drawing's own alpha."""
    return pose_of_mask(alpha_of(pack, stimulus))


def bar(x: float, y: float, long: float, across: float, degrees: float) -> NDArray[np.bool_]:
    """Draw a bar: centre, half lengths (shares of the side), turned clockwise."""
    down, right = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    along, over = (right - x) * c + (down - y) * s, (down - y) * c - (right - x) * s
    return (np.abs(along) < long) & (np.abs(over) < across)


def paint(mask: NDArray[np.bool_], ground: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Put a white figure on a ground."""
    return np.where(mask[..., None], 250, ground).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.35, 0.65), st.floats(0.35, 0.65), st.floats(-85, 85))
def test_moments_of_a_bar_are_its_own(x: float, y: float, degrees: float) -> None:
    """To within a pixel: centre, size sqrt((a^2 + b^2) / 3), direction and elongation a / b of a bar."""
    found = pose_of_mask(bar(x, y, 0.25, 0.1, degrees))
    assert (found.x, found.y) == pytest.approx((x, y), abs=1 / SIDE)
    assert found.size == pytest.approx(np.sqrt((0.25**2 + 0.1**2) / 3), rel=0.04)
    assert found.orientation == pytest.approx(degrees, abs=2)
    assert found.elongation == pytest.approx(2.5, rel=0.1)


@pytest.mark.parametrize("ground", ["plain", "gradient", "two-tone"])
def test_a_figure_is_told_from_its_background(ground: str) -> None:
    """On each kind of background, the mask is the bar to within its outline, even where it hangs over the rim."""
    across = np.linspace(0, 1, SIDE)[None, :, None] * np.ones((SIDE, 1, 1))
    share = {"plain": 0 * across, "gradient": across, "two-tone": (across > 0.6).astype(float)}[ground]
    mask = bar(0.2, 0.5, 0.3, 0.12, 20)
    found = figure(paint(mask, 40 + share * np.array([150.0, 20, 90])))
    assert (found != mask).mean() < 0.03


def test_a_wavy_edge_between_two_colours_is_no_figure() -> None:
    """Where a reconstruction has the edge a little elsewhere, the figure alone has size and turn."""
    down, right = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
    wavy = (right > 0.72 + 0.05 * np.sin(9 * down)).astype(float)[..., None]
    mask = bar(0.32, 0.5, 0.2, 0.08, 30)
    found = figure(paint(mask, 40 + wavy * np.array([60.0, 90, 150])))
    assert (found != mask).mean() < 0.01
    assert pose_of_mask(found).orientation == pytest.approx(30, abs=3)


def test_a_figure_on_the_edge_is_kept_whole() -> None:
    """What no mixture of the two colours explains is figure on the edge too."""
    right = (np.mgrid[:SIDE, :SIDE][1] + 0.5) / SIDE
    share = (right > 0.6).astype(float)[..., None]
    mask = bar(0.6, 0.5, 0.2, 0.1, 60)
    found = figure(paint(mask, 40 + share * np.array([150.0, 20, 90])))
    assert (found != mask).mean() < 0.02


def test_nothing_but_background_is_nowhere() -> None:
    """A picture of one colour has no figure: a point in the middle, all of its size missing."""
    assert pose(np.full((SIDE, SIDE, 3), 90, np.uint8)) == NOWHERE
    errors = pose_errors([NOWHERE], [Pose(0.2, 0.1, 0.3, 10, 2.0)])
    assert errors["position"] == pytest.approx([0.5])
    assert errors["size"] == pytest.approx([1.0])


def test_originals_have_the_pose_they_were_composed_with(pack: Pack, stimuli: list[Stimulus]) -> None:
    """Measured on the originals, the median error is under 1 % of the side, 3 % of the size and 2 degrees."""
    errors = pose_errors([pose(s.image) for s in stimuli], [true_pose(pack, s) for s in stimuli])
    assert np.median(errors["position"]) < 0.01
    assert np.median(errors["size"]) < 0.03
    assert np.nanmedian(errors["orientation"]) < 2


def test_shifted_pictures_are_off_by_their_shift(pack: Pack, stimuli: list[Stimulus]) -> None:
    """A drawing put 0.12 to the right of where the truth says has that error in position, and none in size."""
    chosen = [s for s in stimuli if s.background == "plain" and s.size < 0.7 and s.x < 0.5]
    shifted, true = [], []
    for s in chosen:
        where = (s.x + 0.12, s.y, s.size, s.rotation)
        layer = np.asarray(place(pack.art(s.concept, s.style), *where, flipped=s.flipped))
        alpha = layer[..., 3:] / 255
        shifted.append((alpha * layer[..., :3] + (1 - alpha) * np.median(s.image[:6], axis=(0, 1))).astype(np.uint8))
        true.append(true_pose(pack, s))
    errors = pose_errors([pose(image) for image in shifted], true)
    assert len(chosen) >= 3
    assert np.median(errors["position"]) == pytest.approx(0.12, abs=0.01)
    assert np.median(errors["size"]) < 0.03


def test_turns_are_counted_modulo_a_half_turn() -> None:
    """85 and -85 degrees are 10 apart, level and upright 90; a round figure has no orientation."""
    first = [Pose(0.5, 0.5, 0.2, turn, 2.0) for turn in (85, 0, 30)]
    second = [Pose(0.5, 0.5, 0.2, turn, kind) for turn, kind in ((-85, 2.0), (90, 2.0), (0, 1.1))]
    np.testing.assert_allclose(pose_errors(first, second)["orientation"], [10, 90, np.nan])
