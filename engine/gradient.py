"""A cheap way for gradients: a small network from latents straight to CLIP's patch embeddings.

CLIP sees a picture through one linear map of each patch. A few convolutions predict the outcome of that map from the
latent, so that a gradient step skips the VAE's decoder; the blocks that follow are CLIP's own.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from engine.errors import ModelError

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class LatentToPatches(nn.Module):
    """Convolutions at the latent's resolution, resized to the grid of patches, and convolutions there.

    Parameters
    ----------
    channels : int
        Of the latent.
    width : int
        Of the hidden layers.
    patch_width : int
        Of CLIP's patch embeddings.
    grid : int
        Patches along one side.
    """

    def __init__(self, *, channels: int, width: int, patch_width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.fine = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(4 * width, 2 * width, 1), nn.SiLU(), nn.Conv2d(2 * width, patch_width, 3, padding=1)
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Patch embeddings (n, patch_width, grid, grid) of latents (n, channels, height, width)."""
        fine = self.fine(latents)
        side = 2 * self.grid
        if fine.shape[-2:] != (side, side):
            fine = F.interpolate(fine, (side, side), mode="bilinear", antialias=True)
        patches: Tensor = self.coarse(F.pixel_unshuffle(fine, 2))
        return patches


def save_gradient(network: LatentToPatches, config: dict[str, int | str], folder: Path) -> None:
    """Write the network as config.json and model.safetensors (float16).

    Parameters
    ----------
    network : LatentToPatches
    config : dict
        The network's arguments, and `feature_space` of the models it was trained for.
    folder : Path
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.detach().cpu().half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(half, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_gradient(folder: Path, feature_space: str, device: torch.device) -> LatentToPatches:
    """Read a network written by `save_gradient`.

    Raises
    ------
    ModelError
        If files are missing, don't fit, or belong to another VAE or CLIP.
    """
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        trained_for = config.pop("feature_space")
        network = LatentToPatches(**config)
        network.load_state_dict({name: t.float() for name, t in load_file(folder / WEIGHTS).items()})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        msg = f"{folder}: no usable gradient network ({str(error).splitlines()[0]}); set models.gradient to 'none'"
        raise ModelError(msg) from error
    if trained_for != feature_space:
        msg = (
            f"{folder}: the gradient network was trained for feature space {trained_for[:12]} and the models are "
            f"{feature_space[:12]}; train one (engine.desk.surrogate) or set models.gradient to 'none'"
        )
        raise ModelError(msg)
    return network.to(device).eval().requires_grad_(False)
