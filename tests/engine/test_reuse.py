import numpy as np
import pytest

from decoder.features import Features, LayerTarget
from engine.picture import Picture
from engine.reuse import Reuse, similarity
from engine.spec import ReuseSpec

RNG = np.random.default_rng(0)
C, Z = RNG.standard_normal((4, 8)).astype(np.float32), RNG.standard_normal((2, 4, 4)).astype(np.float32)


def window(name: str) -> Features:
    """Give the same features to any window."""
    return Features(name, C, Z)


def run(reuse: Reuse, windows: list[Features], stream: str = "") -> list[Picture]:
    """Reconstruct windows one by one; a picture's pixels say for which window it was made."""
    pictures = []
    for f in windows:
        source = reuse.source(f, stream)
        made = [] if source else [Picture(f.window_id, 2, np.zeros((1, 1, 3), np.uint8), 0, "torch")]
        pictures += reuse.fill([f], [source], made, stream=stream, stage=2)
    return pictures


def test_equal_windows_are_reused_up_to_the_longest_run() -> None:
    """Exactly so many are skipped in a row, each in its own name and marked with the window it was made for."""
    made = run(Reuse(ReuseSpec(similarity=0.9, longest_run=3), 0), [window(f"w{i}") for i in range(9)])
    assert [p.window_id for p in made] == [f"w{i}" for i in range(9)]
    assert [p.reused for p in made] == ["", "w0", "w0", "w0", "", "w4", "w4", "w4", ""]


def test_other_windows_are_not_reused() -> None:
    """Below the similarity nothing is skipped, whatever the seed."""
    windows = [window("a"), Features("b", -C, Z), Features("c", C, -Z), Features("d", C, None)]
    assert all(p.reused == "" for seed in range(5) for p in run(Reuse(ReuseSpec(), seed), windows))


def test_streams_do_not_mix() -> None:
    """A window is never shown another stream's picture."""
    reuse = Reuse(ReuseSpec(), 0)
    assert run(reuse, [window("a")], "one")[0].reused == ""
    assert run(reuse, [window("b")], "two")[0].reused == ""
    assert run(reuse, [window("c")], "one")[0].reused == "a"


def test_a_window_without_a_picture_is_forgotten() -> None:
    """After a failure the next equal window is reconstructed."""
    reuse = Reuse(ReuseSpec(), 0)
    assert reuse.source(window("a"), "") is None
    reuse.forget("")
    assert reuse.source(window("b"), "") is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_windows_that_are_not_finite_are_like_nothing(value: float) -> None:
    """NaN and infinity are never similar; a missing block neither."""
    broken = Features("x", np.full_like(C, value), Z)
    assert similarity(broken, broken) == -1
    with_s = Features("y", C, Z, {1: LayerTarget(np.ones(3, np.float32), np.ones(3, bool))})
    assert similarity(with_s, Features("z", C, Z)) == -1
    assert similarity(with_s, with_s) == pytest.approx(1)
