from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.models.loading import Models
from engine.sampling.gradient import LatentToPatches, load_gradient, save_gradient
from tools.desk.surrogate import Recipe, disturb, fit, fit_residual, make_pairs, score

SHAPE = {"channels": 8, "patch_width": 192, "grid": 8}


def test_what_is_fitted_predicts_other_pictures(desk: Models, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    """Fitted on three pictures, the convolution explains most of a fourth's patches, and is saved as it is."""
    latents, patches = make_pairs(desk, pictures[:3], Recipe(variants=2))
    assert patches.shape == (6, 192, 8, 8)
    network = fit(latents, patches, Recipe())
    unseen = make_pairs(desk, pictures[3:], Recipe())
    guess = network(unseen[0])
    left = (guess - unseen[1]).square().sum() / (unseen[1] - patches.mean(dim=(0, 2, 3), keepdim=True)).square().sum()
    assert left < 0.5
    assert set(score(network, desk, latents, patches)) == {"patches", *(f"block {i}" for i in range(1, 7))}
    save_gradient(network, {**SHAPE, "feature_space": desk.feature_space}, tmp_path)
    loaded = load_gradient(tmp_path, desk.feature_space, torch.device("cpu"))
    torch.testing.assert_close(loaded(latents), network(latents), atol=0.02, rtol=0.02)
    assert not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(ModelError, match="was trained for"):
        load_gradient(tmp_path, "0" * 64, torch.device("cpu"))


def test_a_linear_teacher_is_found_exactly() -> None:
    """Patches that are a convolution of the latents are predicted to rounding, also at the edges."""
    torch.manual_seed(0)
    teacher = LatentToPatches(channels=2, patch_width=5, grid=4).requires_grad_(False)
    latents = torch.randn(200, 2, 8, 8)
    network = fit(latents, teacher(latents), Recipe(ridge=1e-6))
    torch.testing.assert_close(network(latents), teacher(latents), atol=1e-4, rtol=0)


def test_residual_blocks_predict_what_the_convolution_cannot(
    desk: Models, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    """Trained beside a stiff one on the same pairs they leave less; it stays; both are saved and read back."""
    recipe = Recipe(variants=4, ridge=1000.0, hidden=16, blocks=1, epochs=(150, 30))
    pairs = make_pairs(desk, pictures[:3], recipe)
    closed = fit(*pairs, recipe)
    network = fit_residual(closed, desk, pairs, recipe)
    assert torch.equal(network.map.weight, closed.map.weight)
    told, before = (score(each, desk, *pairs) for each in (network, closed))
    assert told["patches"] > before["patches"]
    assert told["block 3"] > before["block 3"]
    shape = {**SHAPE, "hidden": recipe.hidden, "blocks": recipe.blocks, "feature_space": desk.feature_space}
    save_gradient(network, shape, tmp_path)
    loaded = load_gradient(tmp_path, desk.feature_space, torch.device("cpu"))
    torch.testing.assert_close(loaded(pairs[0]), network(pairs[0]), atol=0.02, rtol=0.02)


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
