import numpy as np
import pytest

from benchmarks.engine import against_exact


def test_modes_are_held_against_exact_picture_by_picture() -> None:
    """A gain that all pictures share has an interval of that gain alone, however much pictures differ."""
    exact = np.random.default_rng(0).standard_normal(10)
    other = exact + np.tile([-1.0, 1.0], 5)
    found = against_exact({"exact": {"ssim": exact}, "fast": {"ssim": exact + 0.25}, "onestep": {"ssim": other}})
    assert set(found) == {"fast", "onestep"}
    assert found["fast"]["ssim"] == pytest.approx({"difference": 0.25, "low": 0.25, "high": 0.25})
    assert found["onestep"]["ssim"]["low"] < 0 < found["onestep"]["ssim"]["high"]
