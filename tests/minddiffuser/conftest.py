"""A small simulated participant and the bundle trained on it, made once for all tests of the application."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from tests.conftest import ROOT, Cli
from tests.soak.live import LiveProgram

QUICK_STAGE2 = {"check": False, "iterations": 2, "refinement_rounds": 1}
"""A fifth of the default's time; unchecked, as after so small a prior it might not help."""


@pytest.fixture(scope="session")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the demo's config with few calibration pictures, a prior learned from few, and any free port."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text("utf-8"))
    raw["name"] = "small"
    raw["data"] |= {"pictures": 120, "image_bank": 96}
    raw["decoder"]["structure_prior"] = {"epochs": 1, "width": 16}
    raw["engine"] = {"structure": QUICK_STAGE2}
    raw["display"] = {"port": 0}
    raw["source"]["timeout_s"] = 3
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(raw), "utf-8")
    return path


@pytest.fixture(scope="session")
def small_bundle(cli: Cli, small_config: Path, own_cache: Path, shared: Path) -> Path:
    """Train on the small participant by the command line, once for all workers, with what it leaves in the cache."""
    folder, left = shared / "small" / "bundle", shared / "small" / "cache"
    with FileLock(shared / "small.lock"):
        if not folder.exists():
            trainer = replace(cli, environment=cli.environment | {"MINDDIFFUSER_CACHE": str(left)})
            run = trainer("train", str(small_config), "--out", str(folder), "--json", timeout=290)
            assert run.returncode == 0, run.stderr
            assert json.loads(run.stdout)["bundle"] == str(folder)
    for kind in ("simulated", "targets"):
        shutil.copytree(left / kind, own_cache / kind, dirs_exist_ok=True)
    return folder


@pytest.fixture
def program(small_config: Path, small_bundle: Path) -> Iterator[LiveProgram]:
    """Give `minddiffuser live` with the small bundle, not started."""
    program = LiveProgram(small_config, small_bundle)
    yield program
    program.kill()
