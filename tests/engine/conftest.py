"""Desk models, held-out pictures and a tiny Stable Diffusion folder for the engine's tests."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from decoder.features import Features, LayerTarget
from engine.models.loading import Models, load_models
from engine.spec import ModelSpec
from tests.tinymodels import write_stable_diffusion

CAPTIONS = ("a goat", "a hot dog", "a glass of milk", "a fire extinguisher")
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
def windows(desk: Models, pictures: NDArray[np.uint8]) -> list[Features]:
    """Features of four pictures as a poor decoder gives them: shrunk, noisy, a quarter of the units."""
    rng = np.random.default_rng(0)
    c, z = desk.encode_text(CAPTIONS), desk.encode_latents(pictures)
    z = (0.6 * z + 0.3 * rng.standard_normal(z.shape)).astype(np.float32)
    s = desk.structure(pictures, (1, 2, 3))
    made = []
    for i in range(4):
        targets = {}
        for block, values in s.items():
            mean = values.mean(axis=0)
            noise = 0.3 * values.std() * rng.standard_normal(mean.shape)
            mask = rng.random(mean.shape) < 0.25
            guess = (mean + 0.6 * (values[i] - mean) + noise).astype(np.float32)
            targets[block] = LayerTarget(np.where(mask, guess, 0).astype(np.float32), mask)
        made.append(Features(f"w{i}", c[i], z[i], targets, confidence=i / 4))
    return made


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder laid out as Stable Diffusion 1.x: tiny models with random weights, and no CLIP vision tower."""
    folder = tmp_path_factory.mktemp("stable-diffusion")
    write_stable_diffusion(folder)
    return folder
