"""What runs the UNet and the decoder: one protocol, and the choice among its implementations."""

from typing import Literal, Protocol

from torch import Tensor

from engine.backends.torch import TorchBackend
from engine.models import Models


class Backend(Protocol):
    """Runs the UNet and the VAE's decoder; no gradient flows through it.

    Attributes
    ----------
    name : str
        Goes with every picture.
    """

    name: str

    def unet(self, x: Tensor, timesteps: Tensor, c: Tensor) -> Tensor:
        """Prediction (n, channels, height, width) for latents of that shape, timesteps (n,), c (n, tokens, dims)."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (n, 3, height, width), float32, about [0, 1], of scaled latents."""
        ...


def make_backend(name: Literal["auto", "torch", "torch-compile"], models: Models) -> Backend:
    """Backend by name; 'auto' is eager torch.

    Raises
    ------
    BackendError
        If the backend cannot run here.
    """
    return TorchBackend(models, compiled=name == "torch-compile")
