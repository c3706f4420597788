"""Desk models, held-out pictures and a tiny Stable Diffusion folder for the engine's tests."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.models import Models, load_models
from engine.spec import ModelSpec
from tests.tinymodels import write_stable_diffusion

DESK = Path(__file__).resolve().parents[2] / "models" / "desk"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two cores shared with other tests: more threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def desk() -> Models:
    """Load the desk models as a default configuration does."""
    return load_models(ModelSpec(folder=str(DESK)), "cpu")


@pytest.fixture(scope="session")
def pictures() -> NDArray[np.uint8]:
    """Four held-out stimuli, (4, 128, 128, 3)."""
    files = sorted((DESK / "stimuli").glob("*.png"))[:4]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder laid out as Stable Diffusion 1.x: tiny models with random weights, and no CLIP vision tower."""
    folder = tmp_path_factory.mktemp("stable-diffusion")
    write_stable_diffusion(folder)
    return folder
