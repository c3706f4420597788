"""The networks that a backend runs."""

from typing import Literal

from engine.models.loading import Models

Part = Literal["unet", "decoder", "preview_decoder"]
PARTS: tuple[Part, ...] = ("unet", "decoder")
"""Those that all models have."""
FOLDERS: dict[Part, str] = {"unet": "unet", "decoder": "vae", "preview_decoder": "preview_vae"}
"""What of the models a network is read from."""


def parts_of(models: Models) -> tuple[Part, ...]:
    """Return the networks of some models: UNet, decoder, and the small decoder of previews where there is one."""
    return PARTS if models.preview_autoencoder is None else (*PARTS, "preview_decoder")
