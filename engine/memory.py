"""What models take, and how pictures are decoded within a budget."""

import json
import logging
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.batches import sizes
from engine.errors import MemoryBudgetError
from engine.folders import count_weights
from engine.models import Models

_log = logging.getLogger(__name__)

Decode = Callable[[Tensor], Tensor]
"""Latents (n, channels, height, width) -> pictures (n, 3, height, width)."""
GIB = 1024**3
RUNTIME = int(0.85 * GIB)
"""Bytes of Python, torch, diffusers and the rest without any weights, as measured on Linux."""
_LIVE = 4  # feature maps of the decoder's widest full-size layer that are alive at once: input, output, and workspace
_ITEM = {torch.float32: 4, torch.float16: 2, torch.bfloat16: 2}


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """How to decode within a budget.

    Attributes
    ----------
    slices : int or None
        Pictures decoded at once; None: as many as come.
    tiled : bool
        Each picture in tiles of half its side, because a whole one does not fit.
    """

    slices: int | None
    tiled: bool


def plan_decode(models: Models, budget_gib: float | None) -> DecodePlan:
    """Choose slices and tiles that keep weights and the decoder's working memory within a budget (GiB).

    Raises
    ------
    MemoryBudgetError
        If not even one tile at a time fits; it says how much is needed.
    """
    if budget_gib is None:
        return DecodePlan(None, False)
    fixed, each = RUNTIME + weight_bytes(models), picture_bytes(models)
    free = int(budget_gib * GIB) - fixed
    if free >= each:
        return DecodePlan(free // each, False)
    if free >= each // 4:
        return DecodePlan(1, True)
    msg = (
        f"engine.memory_gib is {budget_gib:g} and these models need {(fixed + each // 4) / GIB:.2f} GiB, decoding tile "
        "by tile: raise it, or choose smaller models or a half-precision models.dtype"
    )
    raise MemoryBudgetError(msg)


def budgeted(
    decode: Callable[[Tensor], Tensor], models: Models, budget_gib: float | None
) -> Callable[[Tensor], Tensor]:
    """Give a decoder that keeps to a budget: `decode` in slices, or torch's own in tiles.

    Raises
    ------
    MemoryBudgetError
        See `plan_decode`.
    """
    plan = plan_decode(models, budget_gib)
    if plan.slices is None:
        return decode
    one = _tiled(models) if plan.tiled else decode
    slices = plan.slices
    return lambda latents: torch.cat([one(part) for part in torch.split(latents, sizes(len(latents), slices))])


def peak_bytes(device: torch.device) -> int:
    """Most memory so far: of the whole process on a CPU, of torch's part on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def check_budget(budget_gib: float | None, before: int, after: int) -> None:
    """Refuse an engine whose warm-up took more than its budget.

    Parameters
    ----------
    budget_gib : float or None
    before, after : int
        `peak_bytes` about the warm-up. Where something earlier, such as an export, took as much, nothing is known.

    Raises
    ------
    MemoryBudgetError
        It says how much was taken.
    """
    if budget_gib is None or after <= before or after <= budget_gib * GIB:
        return
    msg = (
        f"engine.memory_gib is {budget_gib:g} and the engine took {after / GIB:.2f} GiB in its warm-up: raise it, or "
        "choose smaller models, structure.mode 'fast' or a half-precision models.dtype"
    )
    raise MemoryBudgetError(msg)


def _tiled(models: Models) -> Decode:
    """Torch's decoder, set to work in tiles; diffusers blends them where they overlap."""
    vae = models.vae
    vae.enable_tiling()
    vae.tile_latent_min_size = models.latent_shape[-1] // 2
    vae.tile_sample_min_size = models.image_size // 2
    _log.warning("engine.memory_gib: pictures are decoded in tiles, by torch")

    def decode(latents: Tensor) -> Tensor:
        with torch.no_grad():
            return models.decode_pixels(latents).float()

    return decode


def picture_bytes(models: Models) -> int:
    """Working memory that decoding one picture takes, in bytes."""
    config = json.loads((models.parts["vae"] / "config.json").read_text(encoding="utf-8"))
    widths = config.get("block_out_channels") or config["decoder_block_out_channels"]
    # a KL decoder's last block still has the width of the one before when it reaches full size
    widest = int(max(widths[:2]))
    side: int = models.image_size
    return _LIVE * widest * side * side * _ITEM[models.dtype]


def weight_bytes(models: Models) -> int:
    """Weights in the types in which they are loaded, in bytes; a folder that serves two parts counts once."""
    half = {models.parts["unet"], models.parts["vae"]}
    return sum(
        count_weights(folder) * (_ITEM[models.dtype] if folder in half else 4)
        for folder in {models.parts[part] for part in ("unet", "vae", "text", "clip") if part in models.parts}
    )
