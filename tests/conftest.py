"""What several folders of tests share: command line, tiny models, their exports; and workers that keep apart."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.backends.cache import EngineCache
    from engine.models.loading import Models

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Return each of several pytest workers an LSL session of its own, and one thread a core."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return
    folder = tempfile.TemporaryDirectory(prefix="minddiffuser-lsl-")
    config.add_cleanup(folder.cleanup)
    file = Path(folder.name) / "lsl_api.cfg"
    session = f"{worker}-{os.getpid()}"
    file.write_text(f"[lab]\nSessionID = {session}\nKnownPeers = {{127.0.0.1}}\n[log]\nlevel = -3\n", "utf-8")
    os.environ["LSLAPICFG"] = str(file)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


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


@pytest.fixture(autouse=True)
def loggers_as_they_are() -> None:
    """Undo what a command run inside another test has made of our loggers' levels."""
    for package in ("minddiffuser", "stream", "decoder", "engine"):
        logging.getLogger(package).setLevel(logging.NOTSET)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take longest: begun last, one would keep a worker busy while the others are idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers of this run have in common, for what takes long to make."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give each worker a cache of its own, not the user's; only exported engines are shared, which take a minute."""
    engines, cache = shared / "engines", tmp_path_factory.mktemp("cache")
    engines.mkdir(exist_ok=True)
    (cache / "engines").symlink_to(engines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINDDIFFUSER_CACHE", str(cache))
        yield cache


@pytest.fixture(scope="session")
def cli(own_cache: Path) -> Cli:
    """Return the command line with this worker's cache."""
    return Cli(os.environ | {"MINDDIFFUSER_CACHE": str(own_cache)})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Models for both stages that take milliseconds, with random weights."""
    from engine.models.loading import load_models
    from engine.spec import ModelSpec
    from tests.tinymodels import write_tiny

    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return load_models(ModelSpec(folder=str(folder)), "cpu")


@pytest.fixture(scope="session")
def cache(shared: Path) -> EngineCache:
    """One cache of engines for all tests of all workers, where MINDDIFFUSER_CACHE would have it: exports take long."""
    from engine.backends.cache import EngineCache

    return EngineCache(shared / "engines")
