"""Autoencoders of diffusers: how their latents are shaped and scaled."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import ModelError
from engine.models.folders import read_config

_CLASSES = ("AutoencoderKL", "AutoencoderTiny")


@dataclass(frozen=True, slots=True)
class Autoencoder:
    """What an autoencoder's configuration says.

    Attributes
    ----------
    folder : Path
    class_name : str
        Of diffusers.
    channels : int
        Of a latent.
    scale : int
        Pixels along a side for each cell of a latent.
    scaling, shift : float
        A latent of unit variance is (the encoder's output - shift) * scaling.
    dtype : torch.dtype
        In which it runs.
    """

    folder: Path
    class_name: str
    channels: int
    scale: int
    scaling: float
    shift: float
    dtype: torch.dtype

    def decode(self, network: Any, latents: Tensor) -> Tensor:
        """Return pictures (n, 3, h, w), about [0, 1] and not clamped, of scaled latents; gradients flow."""
        decoded: Tensor = network.decode(latents.to(self.dtype) / self.scaling + self.shift, return_dict=False)[0]
        return decoded / 2 + 0.5


def read_autoencoder(folder: Path, dtype: torch.dtype) -> Autoencoder:
    """Read an autoencoder's configuration; one that overflows in float16 runs in float32.

    Raises
    ------
    ModelError
        If it is of another class than AutoencoderKL and AutoencoderTiny.
    """
    config = read_config(folder / "config.json")
    if config.get("_class_name") not in _CLASSES:
        msg = f"{folder}: a VAE of class {config.get('_class_name')!r}; {' and '.join(_CLASSES)} are supported"
        raise ModelError(msg)
    widths = config.get("block_out_channels") or config["encoder_block_out_channels"]
    return Autoencoder(
        folder,
        config["_class_name"],
        int(config["latent_channels"]),
        2 ** (len(widths) - 1),
        float(config.get("scaling_factor") or 1.0),
        float(config.get("shift_factor") or 0.0),
        torch.float32 if dtype == torch.float16 and config.get("force_upcast") else dtype,
    )


def beside(vae: Autoencoder, preview: Autoencoder) -> Autoencoder:
    """Return an autoencoder for previews, whose latents and pictures have the shapes of the models' own.

    Raises
    ------
    ModelError
        If they have others.
    """
    shapes = [f"{one.channels} channels, {one.scale} pixels a cell" for one in (vae, preview)]
    if shapes[0] != shapes[1]:
        msg = (
            f"models.preview_vae {preview.folder}: latents of {shapes[1]}, and those of {vae.folder} have {shapes[0]}: "
            "take the small autoencoder of the same model family"
        )
        raise ModelError(msg)
    return preview
