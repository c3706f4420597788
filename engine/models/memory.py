"""How pictures are decoded within a budget of memory, by what everything else was seen to take."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import MemoryBudgetError
from engine.models.batches import sizes
from engine.models.folders import read_config
from engine.models.loading import Models
from stream.system import peak_memory

logger = logging.getLogger(__name__)

Decode = Callable[[Tensor], Tensor]
"""Latents (n, channels, height, width) -> pictures (n, 3, height, width)."""
GIB = 1024**3
_LIVE = 4  # feature maps of the decoder's widest full-size layer that are alive at once: input, output, and workspace
_ITEM = {torch.float32: 4, torch.float16: 2, torch.bfloat16: 2}
_MARGIN = 0.02
"""Share of a budget that is not planned with: allocators keep more than is asked of them."""
_PROCESS = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """Plan of decoding within a budget.

    Attributes
    ----------
    slices : int
        Pictures decoded at once.
    tiled : bool
        Each picture in tiles of half its side, because a whole one does not fit.
    """

    slices: int
    tiled: bool


THRIFTIEST = DecodePlan(1, True)


def plan_decode(models: Models, budget_gib: float, taken: int, *, preview: bool = False) -> DecodePlan:
    """Choose slices and tiles that keep to a budget.

    Parameters
    ----------
    models : Models
    budget_gib : float
    taken : int
        Most bytes that were taken (`peak_bytes`) while pictures were decoded by the thriftiest plan.
    preview : bool
        By the small decoder of previews.

    Raises
    ------
    MemoryBudgetError
        If that was more than the budget; it says how much is needed.
    """
    if taken > budget_gib * GIB:
        msg = (
            f"engine.memory_gib is {budget_gib:g} and the engine takes {taken / GIB:.2f} GiB, decoding tile by tile: "
            "raise it, or choose smaller models, structure.mode 'fast' or a half-precision models.dtype"
        )
        raise MemoryBudgetError(msg)
    each = picture_bytes(models, preview=preview)
    # One tile, a quarter of a picture, is among what was taken.
    slices = (int((1 - _MARGIN) * budget_gib * GIB) - taken + each // 4) // each
    return DecodePlan(slices, False) if slices > 0 else THRIFTIEST


def decode_by(plan: DecodePlan, decode: Decode, models: Models, *, preview: bool = False) -> Decode:
    """Return a decoder that keeps to a plan: `decode` in slices, or torch's own in tiles."""
    one = _tiled(models, preview) if plan.tiled else decode
    return lambda latents: torch.cat([one(part) for part in torch.split(latents, sizes(len(latents), plan.slices))])


def forget_peak(device: torch.device) -> None:
    """Let `peak_bytes` begin anew, where the system can (Linux, and GPUs)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        logger.debug("this system does not forget how much memory was taken before")


def peak_bytes(device: torch.device) -> int:
    """Most memory since `forget_peak`: of the whole process on a CPU, of torch's part on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    try:
        lines = (_PROCESS / "status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return peak_memory()


def _tiled(models: Models, preview: bool) -> Decode:
    """Torch's decoder, set to work in tiles; diffusers blends them where they overlap."""
    vae, whole = (models.preview_vae, models.decode_preview) if preview else (models.vae, models.decode_pixels)
    vae.tile_latent_min_size = models.latent_shape[-1] // 2
    vae.tile_sample_min_size = models.image_size // 2

    def decode(latents: Tensor) -> Tensor:
        # Others share the module: it is left as it was.
        vae.enable_tiling()
        try:
            with torch.no_grad():
                return whole(latents).float()
        finally:
            vae.disable_tiling()

    return decode


def picture_bytes(models: Models, *, preview: bool = False) -> int:
    """Working memory that decoding one picture takes, in bytes; `preview`: by the small decoder."""
    decoder = models.preview_autoencoder if preview else models.autoencoder
    assert decoder is not None
    config = read_config(decoder.folder / "config.json")
    widths = config.get("block_out_channels") or config["decoder_block_out_channels"]
    # a KL decoder's last block still has the width of the one before when it reaches full size
    widest = int(max(widths[:2]))
    side: int = models.image_size
    return _LIVE * widest * side * side * _ITEM[decoder.dtype]
