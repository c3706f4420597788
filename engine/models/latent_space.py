"""Whether the small decoder of previews reads the latents that the models draw."""

import torch
from torch import nn

from engine.errors import ModelError
from engine.models.loading import Models
from engine.models.memory import Decode

_CELLS = 4
"""Cells along a side of the noise that both decode, before it is smoothed: patches of colour, as pictures have."""
_LEAST = 0.8
"""Correlation of what two decoders of one latent space make of it; of others it is about 0."""


def check_latent_space(models: Models, decode: Decode, decode_preview: Decode) -> None:
    """Compare the pictures that both decoders make of one latent, smooth noise of unit variance.

    Raises
    ------
    ModelError
        If their pixels, centred by colour, correlate by too little.
    """
    channels, *size = models.latent_shape
    noise = torch.randn((1, channels, _CELLS, _CELLS), generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(noise, size, mode="bicubic")
    latent = (smooth / smooth.std()).to(models.device)
    first, second = (pixels(latent).flatten(2).double() for pixels in (decode, decode_preview))
    first, second = (pixels - pixels.mean(dim=2, keepdim=True) for pixels in (first, second))
    correlation = float((first * second).sum() / (first.norm() * second.norm()))
    if not correlation >= _LEAST:
        msg = (
            f"models.preview_vae {models.parts['preview_vae']} does not share the latent space of "
            f"{models.parts['vae']}: what both make of one latent correlates by {correlation:.2f}, and {_LEAST} is the "
            "least; take the small autoencoder of the same model family"
        )
        raise ModelError(msg)
