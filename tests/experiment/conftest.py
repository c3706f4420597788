"""A virtual screen, pictures and a config for tests of the experiment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import Cli
from tests.experiment.virtual_screen import virtual_screen

SMALL: dict[str, Any] = {
    "picture_s": 0.1,
    "blank_s": 0.025,
    "blocks": 2,
    "break_s": 0.1,
    "test_share": 0.2,
    "test_repeats": 2,
    "size_deg": 10,
    "screen_cm": 32,
    "distance_cm": 57,
    "patch_cm": 3,
    "refresh_hz": 60,
}
"""Eight pictures a second on a screen of 320 pixels, ten to a centimetre."""
PATCH = (10, 230)
"""A pixel of the patch, from the left and the top of a screen of 320 x 240."""


@pytest.fixture(scope="session")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run a virtual screen of 320 x 240; give its DISPLAY and the file of its pixels."""
    if shutil.which("Xvfb") is None:
        pytest.skip("no virtual screen: Xvfb is not installed")
    with virtual_screen(tmp_path_factory.mktemp("screen")) as each:
        yield each


@pytest.fixture
def display(screen: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """Have this process draw on the virtual screen."""
    monkeypatch.setenv("DISPLAY", screen[0])
    return screen[0]


@pytest.fixture
def on_screen(cli: Cli, screen: tuple[str, Path]) -> Cli:
    """Run commands on the virtual screen."""
    return replace(cli, environment=cli.environment | {"DISPLAY": screen[0]})


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write twenty small pictures with a stimuli.csv."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    lines = ["file,caption"]
    for number in range(20):
        colours = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((32, 32), Image.Resampling.NEAREST).save(folder / f"p{number:02d}.png")
        lines.append(f"p{number:02d}.png,picture {number}")
    (folder / "stimuli.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


@pytest.fixture
def config_of(pictures: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a config with settings of its experiment; other parts by `also`."""

    def write(also: dict[str, Any] | None = None, **experiment: Any) -> Path:
        marker_name = f"markers-{os.getpid()}"
        raw = {
            "name": "presented",
            "data": {"dataset": "recording", "train": "calibration.xdf", "stimuli": str(pictures)},
            "source": {"type": "EEG", "markers": {"name": marker_name}},
            "experiment": SMALL | experiment,
        } | (also or {})
        path = tmp_path / "presented.yaml"
        path.write_text(yaml.safe_dump(raw), "utf-8")
        return path

    return write
