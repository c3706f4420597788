import numpy as np
import pytest

from benchmarks.engine import against_exact
from benchmarks.shapes import markdown, measure


def test_modes_are_held_against_exact_picture_by_picture() -> None:
    """A gain that all pictures share has an interval of that gain alone, however much pictures differ."""
    exact = np.random.default_rng(0).standard_normal(10)
    other = exact + np.tile([-1.0, 1.0], 5)
    found = against_exact({"exact": {"ssim": exact}, "fast": {"ssim": exact + 0.25}, "onestep": {"ssim": other}})
    assert set(found) == {"fast", "onestep"}
    assert found["fast"]["ssim"] == pytest.approx({"difference": 0.25, "low": 0.25, "high": 0.25})
    assert found["onestep"]["ssim"]["low"] < 0 < found["onestep"]["ssim"]["high"]


def test_shapes_are_timed_as_the_table_says() -> None:
    """On tiny shapes a picture takes two UNet calls and eight gradient steps, at both batch sizes, and has its row."""
    found = measure("tiny", "cpu", ["torch"], steps=1, repeats=1)
    assert found["gradient_steps"] == 8
    assert [row["unet_calls"] for row in found["backends"]["torch"].values()] == [2, 2]
    assert set(found["plain_diffusers_ms"]) == set(found["backends"]["torch"]) == {"1", "8"}
    table = markdown(found | {"versions": {"torch": "0"}})
    assert sum(line.startswith("| torch |") for line in table.splitlines()) == 2
