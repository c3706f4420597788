import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from engine.backends.cache import EngineCache
from engine.backends.choice import make_backend
from engine.models.loading import Models
from engine.registry import BACKENDS, BackendEntry
from minddiffuser.cli.commands import app
from tests.conftest import ROOT, Cli
from tests.engine.backends import wrong_backends

pytestmark = pytest.mark.slow

REST = set(BACKENDS)


@pytest.fixture
def config(tiny: Models, cache: EngineCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the demo's config with tiny models, and use the cache that all tests share."""
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(cache.folder.parent))
    settings = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    settings["engine"] = {"models": {"folder": tiny.spec.folder}, "device": "cpu", "threads": 1}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def run(*arguments: str) -> Result:
    """Run a command in this process, so that torch need not be imported again."""
    result = CliRunner().invoke(app, ["engine", *arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def test_export_makes_what_is_missing_once(config: Path, cache: EngineCache) -> None:
    """Both networks are there afterwards, checked, and a second run finds them."""
    first: dict[str, Any] = json.loads(run("export", str(config), "--json").stdout)
    again: dict[str, Any] = json.loads(run("export", str(config), "--json").stdout)
    assert [entry["part"] for entry in first["entries"]] == ["unet", "decoder"]
    assert first["checked_with"] == "onnx"
    for entry in again["entries"]:
        assert not entry["made_now"]
        assert Path(entry["folder"]).parent == cache.folder
        assert entry["bytes"] > 10_000
    shown = run("export", str(config)).stdout
    assert "onnx unet (opset 20): was there" in shown
    assert "1/1" not in shown  # progress is for stderr


def test_build_says_what_it_took_and_why_not_the_others(config: Path) -> None:
    """The fastest backend is ready, and every other is named with its reason."""
    answer: dict[str, Any] = json.loads(run("build", str(config), "--json").stdout)
    assert answer["backend"] == "openvino"
    assert set(answer["left"]) == REST - {"openvino"}
    assert "left tensorrt: it needs an NVIDIA GPU" in run("build", str(config)).stdout
    named: dict[str, Any] = json.loads(run("build", str(config), "--backend", "torch", "--json").stdout)
    assert (named["backend"], named["left"], named["entries"]) == ("torch", {}, [])


def test_bench_times_every_network_the_preview_and_the_picture(config: Path) -> None:
    """Every backend is either timed or skipped with a reason; the preview comes before the picture."""
    found: dict[str, Any] = json.loads(run("bench", str(config), "--repeats", "3", "--json").stdout)
    assert {"torch", "onnx", "openvino"} <= set(found["networks"])
    assert set(found["networks"]) | set(found["skipped"]) == REST
    assert all(found["skipped"].values())
    for parts in found["networks"].values():
        assert set(parts) == {"unet", "decoder"}
        assert all(0 < part["p50"] <= part["p99"] and part["repeats"] == 3 for part in parts.values())
    assert found["preview"]["p50"] < found["picture"]["p50"]
    assert found["backend"] == "openvino"
    shown = run("bench", str(config), "--repeats", "3", "--backend", "torch").stdout
    assert "preview and picture with torch, 3 repeats" in shown


def test_verify_proves_and_times_what_runs_here_and_says_why_the_rest_does_not(
    config: Path, tiny: Models, cache: EngineCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One JSON holds device, versions and, for each backend, its proof and its times or the reason it does not run."""
    make_backend("onnx", tiny, cache)
    # It removes proofs, which other workers may be reading.
    entries = shutil.ignore_patterns(".*")
    shutil.copytree(cache.folder, tmp_path / "own" / "engines", ignore=entries, copy_function=os.link)
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path / "own"))
    answer = run("verify", str(config), "--backend", "onnx", "--repeats", "3", "--json").stdout
    found: dict[str, Any] = json.loads(answer)
    assert {"torch", "onnxruntime"} <= set(found["versions"])
    assert found["gradient_step"]["p50"] > 0
    onnx = found["backends"]["onnx"]
    assert (onnx["proof"]["fault"], onnx["proof"]["runs"]) == ("", 20)
    assert {"unet b1", "unet b8", "decoder b8"} <= set(onnx["networks"])
    assert onnx["preview"]["p50"] < onnx["picture"]["p50"]
    shown = run("verify", str(config), "--backend", "tensorrt", "--repeats", "3").stdout
    assert "tensorrt        it needs an NVIDIA GPU" in shown


def test_verify_fails_where_a_backend_is_wrong(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 1, and the table says how the backend differs, whatever an earlier proof said."""
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path / "own"))
    monkeypatch.setitem(BACKENDS, "onnx", BackendEntry("onnx", wrong_backends.__name__, "CPU", "nothing"))
    result = CliRunner().invoke(app, ["engine", "verify", str(config), "--backend", "onnx", "--repeats", "3"])
    assert result.exit_code == 1
    assert "the unet at batch 2 differs from torch by" in result.stdout


def test_a_backend_that_cannot_be_had_is_one_line(cli: Cli) -> None:
    """Unknown names, and known ones that cannot run here, end with exit code 1 and no traceback."""
    unknown = cli("engine", "bench", "--backend", "warp")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.strip().splitlines() == [
        "minddiffuser: backend 'warp' is unknown; known are auto, " + ", ".join(BACKENDS)
    ]
    missing = cli("engine", "build", "--backend", "tensorrt")
    assert missing.returncode == 1
    assert "minddiffuser: backend tensorrt: it needs an NVIDIA GPU" in missing.stderr
    assert "Traceback" not in missing.stderr
