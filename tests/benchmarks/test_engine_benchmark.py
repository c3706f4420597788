import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.engine import against_exact
from benchmarks.shapes import PLAIN, Plan, markdown, measure
from engine.models.loading import Models


def test_modes_are_held_against_exact_picture_by_picture() -> None:
    """A gain that all pictures share has an interval of that gain alone, however much pictures differ."""
    exact = np.random.default_rng(0).standard_normal(10)
    other = exact + np.tile([-1.0, 1.0], 5)
    found = against_exact({"exact": {"ssim": exact}, "fast": {"ssim": exact + 0.25}, "onestep": {"ssim": other}})
    assert set(found) == {"fast", "onestep"}
    assert found["fast"]["ssim"] == pytest.approx({"difference": 0.25, "low": 0.25, "high": 0.25})
    assert found["onestep"]["ssim"]["low"] < 0 < found["onestep"]["ssim"]["high"]


def test_shapes_are_timed_as_the_table_says(tmp_path: Path) -> None:
    """A picture takes two UNet calls (three in two steps) and eight gradient steps, at each batch size in a row."""
    plan = Plan("tiny", "cpu", ("torch",), steps=(1, 2), repeats=1, proven=False)
    found = measure(plan, tmp_path)
    assert found["gradient_steps"] == 8
    rows = [row for row in found["rows"] if row["name"] == "torch"]
    calls = {(row["steps"], row["batch"]): row["unet_calls"] for row in rows}
    assert calls == {(1, 1): 2, (1, 8): 2, (2, 1): 3, (2, 8): 3}
    plain = {(row["steps"], row["batch"]) for row in found["rows"] if row["name"] == PLAIN}
    assert plain == {(1, 1), (1, 8), (2, 1), (2, 8)}
    table = markdown(found | {"versions": {"torch": "0"}})
    assert sum(line.startswith("| torch |") for line in table.splitlines()) == 4
    assert "without the proof" in table


@pytest.mark.big
def test_the_report_of_a_gpu_is_written_part_by_part(tmp_path: Path) -> None:
    """On tiny shapes every part is done, each in its own process, and lies there."""
    found = gpu.measure("tiny", "cpu", ["torch"], tmp_path, seconds=280)
    assert found["parts"] == dict.fromkeys(gpu.PARTS, "done")
    table = json.loads((tmp_path / "table.json").read_text())
    assert {row["batch"] for row in table["rows"] if row["name"] == "torch"} == {1, 8}
    assert "| torch | 1 | 8 |" in (tmp_path / "table.md").read_text()
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
