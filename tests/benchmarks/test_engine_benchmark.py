import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.engine import against_exact
from benchmarks.shapes import markdown, measure
from engine.models.loading import Models


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


@pytest.mark.big
def test_the_report_of_a_gpu_is_written_part_by_part(tmp_path: Path) -> None:
    """On tiny shapes every part is done, each in its own process, and lies there."""
    found = gpu.measure("tiny", "cpu", ["torch"], tmp_path, seconds=280)
    assert found["parts"] == dict.fromkeys(gpu.PARTS, "done")
    table = json.loads((tmp_path / "table.json").read_text())
    assert set(table["backends"]["torch"]) == {"1", "8"}
    assert "| torch | 1 |" in (tmp_path / "table.md").read_text()
    assert "skipped" in (tmp_path / "tests.txt").read_text()


def test_the_parts_of_a_gpu_s_report_are_what_they_say(tiny: Models, tmp_path: Path) -> None:
    """Verification and memory are written; what has no time left is named, and so is what cannot run here."""
    gpu.verify(Path(tiny.spec.folder), "cpu", ["torch"], tmp_path)
    gpu.memory(Path(tiny.spec.folder), "cpu", ["torch"], tmp_path)
    verified, steady = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("verify", "steady"))
    assert verified["backends"]["torch"]["networks"]["unet b8"]["p50"] > 0
    assert (steady["backend"], steady["frames"], steady["compiled_after"]) == ("torch", 20, 0)
    late = gpu.measure("tiny", "cpu", [], tmp_path / "late", seconds=0)
    assert late["parts"] == dict.fromkeys(gpu.PARTS, "left out: no time left")
    assert "NVIDIA" in late["left_out"]["tensorrt"]
    assert json.loads((tmp_path / "late" / "report.json").read_text())["backends"] == late["backends"]
