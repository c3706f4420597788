"""Fit the small network that carries the gradients of fast stage 2 (`engine.sampling.gradient`).

Its teacher is the models' own decoder followed by CLIP's patch embedding. Latents are those of composed pictures, and
the same blurred, noised and mixed, because stage 2 moves through latents that no picture has. First the convolution,
in closed form; then the residual blocks beside it, by gradient, toward patch embeddings and at last toward the
features that CLIP's first blocks make of them.

    python -m tools.desk.surrogate --out models/desk/gradient     # about ten minutes on two cores
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from engine.models.loading import Models, load_models
from engine.sampling.gradient import KERNEL, LatentToPatches, save_gradient
from engine.spec import ModelSpec

logger = logging.getLogger(__name__)
_BATCH = 32
_TRAINED_AT_ONCE = 64
_LEARNING_RATES = (2e-3, 1e-3)
_BLOCKS = (1, 2, 3)
"""CLIP blocks toward whose features the network is trained at last: those that the setups pull."""
CLOSED_FORM = 512
"""Latents that the closed form is fitted on: its neighbourhoods take much memory, and more of them tell no more."""
_PATCHES_KEPT = 0.3
"""Weight of the patch embeddings beside those."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a fit.

    Attributes
    ----------
    variants : int
        Latents made of each picture, all disturbed differently.
    ridge : float
        Added to the diagonal of the neighbourhoods' second moments.
    hidden, blocks : int
        Of the residual blocks.
    epochs : (int, int)
        Through all latents, toward patch embeddings and toward features.
    seed : int
    """

    variants: int = 1
    ridge: float = 1.0
    hidden: int = 64
    blocks: int = 3
    epochs: tuple[int, int] = (6, 5)
    seed: int = 20261122


def disturb(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Latents (n, ch, h, w) blurred, mixed, shrunk and noised, each by its own amount; a third are left as they are."""

    def amount(most: float) -> Tensor:
        return most * torch.rand((len(latents), 1, 1, 1), generator=generator) * level

    level = (torch.rand((len(latents), 1, 1, 1), generator=generator) * 1.5 - 0.5).clamp_min(0)
    blurred = F.avg_pool2d(F.pad(latents, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    x = torch.lerp(latents, blurred, amount(1))
    x = torch.lerp(x, x[torch.randperm(len(x), generator=generator)], amount(0.3))
    return (1 - amount(0.4)) * x + amount(0.4) * torch.randn(x.shape, generator=generator)


def make_pairs(models: Models, images: NDArray[np.uint8], recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Latents and the patch embeddings of their decoded pictures.

    Returns
    -------
    latents : Tensor, shape (n * variants, channels, height, width)
    patches : Tensor, shape (n * variants, width, grid, grid)
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    latents = torch.from_numpy(models.encode_latents(images))
    every = torch.cat([disturb(latents, generator) for _ in range(recipe.variants)])
    patches = []
    with torch.no_grad():
        for batch in torch.split(every, _BATCH):
            decoded = models.decode_pixels(batch.to(models.device)).float()
            patches.append(models.shallow.patches(decoded).cpu())
    return every, torch.cat(patches)


def fit(latents: Tensor, patches: Tensor, recipe: Recipe) -> LatentToPatches:
    """Fit the convolution to pairs by ridge regression (closed form, so nothing depends on a learning rate).

    Parameters
    ----------
    latents : Tensor, shape (n, channels, height, width)
    patches : Tensor, shape (n, width, grid, grid)
    recipe : Recipe
    """
    width, grid = patches.shape[1], patches.shape[-1]
    network = LatentToPatches(channels=latents.shape[1], patch_width=width, grid=grid)
    cells = F.unfold(network.neighbourhoods(latents), KERNEL, stride=2).transpose(1, 2).flatten(0, 1)
    x = torch.cat([cells, torch.ones(len(cells), 1)], dim=1).double()
    y = patches.flatten(2).transpose(1, 2).flatten(0, 1).double()
    solved = torch.linalg.solve(x.T @ x + recipe.ridge * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y).float()
    weight = solved[:-1].T.reshape(network.map.weight.shape)
    network.map.load_state_dict({"weight": weight, "bias": solved[-1]})
    return network.eval().requires_grad_(False)


def fit_residual(
    closed: LatentToPatches, models: Models, pairs: tuple[Tensor, Tensor], recipe: Recipe
) -> LatentToPatches:
    """Train residual blocks beside a fitted convolution, which stays as it is.

    Parameters
    ----------
    closed : LatentToPatches
    models : Models
        Whose CLIP the features are of.
    pairs : tuple of Tensor
        As `make_pairs` gives them.
    recipe : Recipe
    """
    latents, patches = pairs
    torch.manual_seed(recipe.seed)
    width, grid = patches.shape[1], patches.shape[-1]
    shape = {"channels": latents.shape[1], "patch_width": width, "grid": grid}
    network = LatentToPatches(**shape, hidden=recipe.hidden, blocks=recipe.blocks)
    network.map.load_state_dict(closed.map.state_dict())
    assert network.bent is not None
    weights = list(network.bent.parameters())
    spread = (patches - patches.mean(dim=0)).square().mean()

    def off(guess: Tensor, truth: Tensor) -> Tensor:
        return (guess - truth).square().mean() / spread

    def features_off(guess: Tensor, truth: Tensor) -> Tensor:
        with torch.no_grad():
            aims = models.shallow.features(truth, _BLOCKS)
        told = models.shallow.features(guess, _BLOCKS)
        shares = [(told[block] - aims[block]).square().mean() / aims[block].var(dim=0).mean() for block in _BLOCKS]
        return _PATCHES_KEPT * off(guess, truth) + torch.stack(shares).sum()

    losses: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (off, features_off)
    for loss_of, epochs, rate in zip(losses, recipe.epochs, _LEARNING_RATES, strict=True):
        steps = max(1, len(latents) // _TRAINED_AT_ONCE)
        adam = torch.optim.Adam(weights, rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=max(1, epochs * steps))
        for epoch in range(epochs):
            for rows in torch.split(torch.randperm(len(latents))[: steps * _TRAINED_AT_ONCE], _TRAINED_AT_ONCE):
                loss = loss_of(network(latents[rows]), patches[rows])
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
                schedule.step()
            logger.info("epoch %d of %d: loss %.4f", epoch + 1, epochs, loss.item())
    return network.eval().requires_grad_(False)


def score(network: LatentToPatches, models: Models, latents: Tensor, patches: Tensor) -> dict[str, float]:
    """Share of variance explained (1 - residual / variance over samples), of patches and of each block's features."""
    blocks = range(1, min(6, models.shallow.depth) + 1)
    with torch.no_grad():
        guess = network(latents)
        scores = {"patches": _explained(guess, patches)}
        told, true = models.shallow.features(guess, blocks), models.shallow.features(patches, blocks)
    return scores | {f"block {block}": _explained(told[block], true[block]) for block in blocks}


def _explained(guess: Tensor, truth: Tensor) -> float:
    return 1 - float((guess - truth).square().sum() / (truth - truth.mean(dim=0)).square().sum())


def main() -> None:
    """Fit on composed pictures, score on others, and save."""
    from engine.composing.compose import compose, images
    from engine.composing.pack import load_pack

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", default="models/desk", help="folder of the models")
    parser.add_argument("--out", type=Path, default=Path("models/desk/gradient"))
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = Recipe(seed=given.seed)
    models = load_models(ModelSpec(folder=given.models, gradient="none"))
    pack = load_pack()
    latents, patches = make_pairs(models, images(compose(pack, given.pictures, recipe.seed)), recipe)
    network = fit_residual(
        fit(latents[:CLOSED_FORM], patches[:CLOSED_FORM], recipe), models, (latents, patches), recipe
    )
    unseen = make_pairs(models, images(compose(pack, 32, recipe.seed + 1)), recipe)
    for name, value in score(network, models, *unseen).items():
        logger.info("%s: %.4f of variance explained", name, value)
    shape: dict[str, int | str] = {
        "channels": latents.shape[1],
        "patch_width": patches.shape[1],
        "grid": patches.shape[-1],
        "hidden": recipe.hidden,
        "blocks": recipe.blocks,
        "feature_space": models.feature_space,
    }
    save_gradient(network, shape, given.out)


if __name__ == "__main__":
    main()
