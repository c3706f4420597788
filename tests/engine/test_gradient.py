from pathlib import Path

import pytest
import torch

from engine.desk.surrogate import Recipe, disturb, fit, make_pairs
from engine.errors import ModelError
from engine.gradient import load_gradient, save_gradient
from engine.models import Models

SHAPE = {"channels": 8, "width": 16, "patch_width": 192, "grid": 8}


def test_training_learns_and_the_weights_come_back(desk: Models, pictures: object, tmp_path: Path) -> None:
    """A smoke run of the training leaves less unexplained than it began with, and saves what it learnt."""
    recipe = Recipe(width=16, variants=2, epochs=40, batch=4)
    latents, patches = make_pairs(desk, pictures, recipe)  # type: ignore[arg-type]
    assert patches.shape == (8, 192, 8, 8)
    left: list[float] = []
    network = fit(latents, patches, recipe, report=lambda _, value: left.append(value))
    assert left[-1] < 0.6 * left[0]
    save_gradient(network, {**SHAPE, "feature_space": desk.feature_space}, tmp_path)
    loaded = load_gradient(tmp_path, desk.feature_space, torch.device("cpu"))
    torch.testing.assert_close(loaded(latents), network(latents), atol=0.02, rtol=0.02)
    assert not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(ModelError, match="was trained for"):
        load_gradient(tmp_path, "0" * 64, torch.device("cpu"))


def test_disturbance_is_seeded_and_leaves_a_third(desk: Models) -> None:
    """The same seed disturbs alike; about a third of the latents stay as they were."""
    latents = torch.randn(300, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    once, again = (disturb(latents, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(once, again)
    same = (once == latents).flatten(1).all(dim=1).float().mean().item()
    assert 0.2 < same < 0.47


def test_a_missing_network_is_named(tmp_path: Path) -> None:
    """The error names the folder and the way out."""
    with pytest.raises(ModelError, match=r"models\.gradient"):
        load_gradient(tmp_path, "", torch.device("cpu"))
