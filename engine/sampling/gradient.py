"""A cheap way for gradients: a small network from latents straight to CLIP's patch embeddings.

CLIP sees a picture through one linear map of each patch, and a VAE's decoder is close to linear at that scale, so one
convolution of the latent's neighbourhood predicts most of the patch embeddings; residual blocks beside it predict what
of the rest is not linear (`tools.desk.surrogate` fits both). A gradient step then skips the decoder; the blocks that
follow are CLIP's own.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from engine.errors import ModelError
from stream.atomic import write_whole

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KERNEL = 6


class ResidualBlock(nn.Module):
    """A residual block over latent cells; of no effect until trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Add a function of their neighbourhoods to maps (n, width, height, width of the latent)."""
        added: Tensor = self.second(F.silu(self.first(F.silu(x))))
        return x + added


class LatentToPatches(nn.Module):
    """A convolution over the 6 x 6 latent cells about each patch, two cells a patch, and residual blocks beside it.

    Parameters
    ----------
    channels : int
        Of the latent.
    patch_width : int
        Of CLIP's patch embeddings.
    grid : int
        Patches along one side; latents of another size than 2 * grid are resized (bilinear, antialiased).
    hidden : int
        Width of the residual blocks; 0: the convolution alone.
    blocks : int
        How many there are.
    """

    def __init__(self, *, channels: int, patch_width: int, grid: int, hidden: int = 0, blocks: int = 0) -> None:
        super().__init__()
        self.side = 2 * grid
        self.map = nn.Conv2d(channels, patch_width, KERNEL, stride=2)
        self.bent: nn.Sequential | None = None
        if hidden:
            last = nn.Conv2d(hidden, patch_width, 4, stride=2, padding=1)
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
            into = nn.Conv2d(channels, hidden, 3, padding=1)
            self.bent = nn.Sequential(into, *(ResidualBlock(hidden) for _ in range(blocks)), nn.SiLU(), last)

    def resized(self, latents: Tensor) -> Tensor:
        """Latents (n, channels, height, width) of two cells a patch along each side."""
        if latents.shape[-2:] != (self.side, self.side):
            latents = F.interpolate(latents, (self.side, self.side), mode="bilinear", antialias=True)
        return latents

    def neighbourhoods(self, latents: Tensor) -> Tensor:
        """Latents as the convolution takes them: resized, edges repeated."""
        return F.pad(self.resized(latents), ((KERNEL - 2) // 2,) * 4, mode="replicate")

    def forward(self, latents: Tensor) -> Tensor:
        """Patch embeddings (n, patch_width, grid, grid) of latents (n, channels, height, width)."""
        patches: Tensor = self.map(self.neighbourhoods(latents))
        return patches if self.bent is None else patches + self.bent(self.resized(latents))


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
    write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")


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
            f"{feature_space[:12]}; fit one (tools/desk/surrogate.py in the source), or set models.gradient to 'none'"
        )
        raise ModelError(msg)
    return network.to(device).eval().requires_grad_(False)
