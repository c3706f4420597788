"""Shallow CLIP features without hooks: only the blocks that are used are run, and gradients may flow through."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# open_clip's constants.OPENAI_DATASET_MEAN / _STD, the fallback where a model states none
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


class ShallowClip:
    """The first blocks of an open_clip vision tower.

    Parameters
    ----------
    visual : torch.nn.Module
        `open_clip.transformer.VisionTransformer`.
    mean, std : tuple of float
        Per colour, of pictures in [0, 1].

    Attributes
    ----------
    size : int
        Height and width of the picture it sees, in pixels.
    depth, width, tokens : int
        Blocks, numbers a token, tokens (patches + 1).
    """

    def __init__(self, visual: Any, mean: tuple[float, ...] = OPENAI_MEAN, std: tuple[float, ...] = OPENAI_STD) -> None:
        self.visual = visual
        self.size = int(visual.image_size[0])
        self.depth = len(visual.transformer.resblocks)
        self.tokens, self.width = visual.positional_embedding.shape
        weight = visual.conv1.weight
        self._mean = torch.tensor(mean, device=weight.device, dtype=weight.dtype).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=weight.device, dtype=weight.dtype).view(1, 3, 1, 1)

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Clamp, resize (bicubic, antialiased) and normalise pictures (n, 3, h, w) in [0, 1]."""
        pixels = pixels.clamp(0, 1)
        if pixels.shape[-2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        return (pixels - self._mean) / self._std

    def patches(self, pixels: Tensor) -> Tensor:
        """Patch embeddings (n, width, grid, grid) of pictures (n, 3, h, w) in [0, 1]."""
        embedded: Tensor = self.visual.conv1(self.preprocess(pixels))
        return embedded

    def features(self, patches: Tensor, blocks: Iterable[int]) -> dict[int, Tensor]:
        """MLP outputs (c_proj, before the residual add) of some blocks, counted from 1.

        Parameters
        ----------
        patches : Tensor, shape (n, width, grid, grid)
        blocks : iterable of int
            Nothing after the last of them is run.

        Returns
        -------
        dict of int to Tensor, shape (n, tokens * width)
        """
        wanted = set(blocks)
        visual = self.visual
        x = patches.flatten(2).transpose(1, 2)
        first = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = visual.ln_pre(torch.cat([first, x], dim=1) + visual.positional_embedding.to(x.dtype))
        found: dict[int, Tensor] = {}
        last = max(wanted, default=0)
        for number, block in enumerate(visual.transformer.resblocks[:last], start=1):
            x = x + block.ls_1(_attention(block.attn, block.ln_1(x)))
            mlp = block.mlp(block.ln_2(x))
            if number in wanted:
                found[number] = mlp.flatten(1)
            if number < last:
                x = x + block.ls_2(mlp)
        return found


def _attention(attn: Any, x: Tensor) -> Tensor:
    n, tokens, width = x.shape
    qkv = F.linear(x, attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = qkv.view(n, tokens, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
    out: Tensor = attn.out_proj(mixed)
    return out


def lost_quick_gelu(folder: Path) -> bool:
    """Check whether weights known to be trained with QuickGELU lie beside a configuration that does not say so.

    OpenAI's activation is x * sigmoid(1.702 x). A copy whose `open_clip_config.json` lacks `quick_gelu` would load with
    the exact GELU, and every feature would be a little wrong in silence. What open_clip itself knows of its hub models
    decides, by the name of the repository that a folder or a snapshot of the hub bears.

    Parameters
    ----------
    folder : Path
        Of an open_clip model.
    """
    import open_clip

    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8")).get("model_cfg", {})
    if "quick_gelu" in config:
        return False
    names = {part.rpartition("--")[2].lower() for part in folder.parts}
    for model, tag in open_clip.list_pretrained():
        known = open_clip.get_pretrained_cfg(model, tag)
        repository = str(known.get("hf_hub", "")).strip("/").rpartition("/")[2].lower()
        if known.get("quick_gelu") and repository in names:
            return True
    return False
