"""A wheel is all that a user needs: built, installed where there is no checkout, and used from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
SHARED = ("torch", "mne", "pylsl", "amqtt")
"""Packages whose folder of packages the fresh environment shares: to install them anew takes minutes."""


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel, and an empty folder to use it from."""

    programs: Path
    folder: Path
    environment: dict[str, str]

    def __call__(self, program: str, *arguments: str) -> str:
        """Run a program of the environment; return its stdout."""
        run = subprocess.run(
            [str(self.programs / program), *arguments],
            capture_output=True,
            text=True,
            timeout=540,
            env=self.environment,
            cwd=self.folder,
            check=False,
        )
        assert run.returncode == 0, (program, arguments, run.stdout, run.stderr)
        return run.stdout


@pytest.fixture(scope="module")
def installed(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build a wheel and install it, without its dependencies, into a fresh environment that borrows them.

    Its cache is its own, but for exported engines, which are those of all tests.
    """
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "env", with_pip=False)
    programs = place / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = programs / Path(sys.executable).name
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    (packages,) = (place / "env").rglob("site-packages")
    specs = [find_spec(name) for name in SHARED]
    borrowed = {str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin}
    # A .pth names folders, whose own .pth files do not count: an editable install in there is not seen.
    (packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n", "utf-8")
    folder = place / "empty"
    folder.mkdir()
    (place / "cache").mkdir()
    (place / "cache" / "engines").symlink_to(shared / "engines")
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    return Installed(programs, folder, environment | {"MINDDIFFUSER_CACHE": str(place / "cache")})


def test_nothing_of_the_checkout_is_seen(installed: Installed) -> None:
    """Packages, configs and models are the wheel's own."""
    code = (
        "import decoder, engine, minddiffuser, stream; from engine.composing.pack import DESK; "
        "from minddiffuser.shipped import CONFIGS; "
        "print(*(m.__file__ for m in (decoder, engine, minddiffuser, stream)), CONFIGS, DESK, sep='\\n')"
    )
    places = [Path(line) for line in installed("python", "-c", code).splitlines()]
    assert len(places) == 6
    assert all(place.is_relative_to(installed.programs.parent) and place.exists() for place in places), places


def test_doctor_finds_nothing_missing(installed: Installed) -> None:
    """`doctor` exits with 0."""
    assert "liblsl" in installed("minddiffuser", "doctor")


@pytest.mark.timeout(900)
def test_demo_train_and_evaluate(installed: Installed) -> None:
    """The demo publishes pictures; what it replayed is a recording to train on and to evaluate."""
    installed("minddiffuser", "demo", "--headless", "--seconds", "10", "--report", "report.json")
    report = json.loads((installed.folder / "report.json").read_text("utf-8"))
    assert report["published"] > 0
    assert report["lost"] == 0
    (prepared,) = (Path(installed.environment["MINDDIFFUSER_CACHE"]) / "prepared").glob("demo-*")
    config = {
        "name": "own",
        "data": {"dataset": "recording", "train": str(prepared / "test.npz"), "stimuli": str(prepared / "stimuli")},
        "source": {"type": "EEG"},
        "decoder": {"features": ["c"]},
        "engine": {"backend": "torch"},  # exports nothing first
    }
    (installed.folder / "own.yaml").write_text(yaml.safe_dump(config), "utf-8")
    trained = json.loads(installed("minddiffuser", "train", "own.yaml", "--json"))
    assert trained["bundle"] == str(Path("bundles/own"))
    evaluated = json.loads(installed("minddiffuser", "evaluate", "bundles/own", "--offline", "--limit", "4", "--json"))
    assert evaluated["offline"]["n"] == 4


def test_shipped_configs_are_found_by_name(installed: Installed) -> None:
    """`configs/...` names a shipped config where there is no such file, and a recipe starts a config of one's own."""
    installed("minddiffuser", "new", "muse.yaml", "--headset", "muse", "--yes")
    assert (installed.folder / "muse.yaml").is_file()
    code = (
        "from pathlib import Path; from minddiffuser.config.spec import load_config; "
        "print(load_config(Path('configs/demo-meg.yaml')).name)"
    )
    assert installed("python", "-c", code) == "demo-meg\n"
