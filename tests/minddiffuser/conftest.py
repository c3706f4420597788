"""A small simulated participant and the bundle trained on it, made once for all tests of the application."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cli:
    """Runs the command line as a user would, with a cache of its own."""

    environment: dict[str, str]

    def __call__(self, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run to the end and return exit code and output."""
        command = [sys.executable, "-m", "minddiffuser", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=self.environment, cwd=ROOT, check=False
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start and return at once."""
        command = [sys.executable, "-m", "minddiffuser", *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment, cwd=ROOT
        )


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Give the command line with an empty cache."""
    return Cli(os.environ | {"MINDDIFFUSER_CACHE": str(tmp_path_factory.mktemp("cache"))})


@pytest.fixture(scope="session")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the demo's config with few calibration pictures and any free port."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text("utf-8"))
    raw["name"] = "small"
    raw["data"]["pictures"] = 120
    raw["display"] = {"port": 0}
    raw["source"]["timeout_s"] = 3
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(raw), "utf-8")
    return path


@pytest.fixture(scope="session")
def small_bundle(cli: Cli, small_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on the small participant through the command line."""
    folder = tmp_path_factory.mktemp("bundle") / "small"
    run = cli("train", str(small_config), "--out", str(folder), "--json", timeout=290)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["bundle"] == str(folder)
    return folder
