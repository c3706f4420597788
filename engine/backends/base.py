"""What every backend and every runtime of exported networks keeps to."""

from typing import Protocol

import torch
from torch import Tensor

from engine.models.loading import Models


class Backend(Protocol):
    """Runs the UNet and the VAE's decoder; no gradient flows through it.

    Attributes
    ----------
    name : str
        Goes with every picture.
    compiled : int
        Programs compiled or captured so far; after warm-up it stays as it is.
    """

    name: str

    @property
    def compiled(self) -> int:
        """See above."""
        ...

    def unet(self, x: Tensor, timesteps: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        """Predict, in float32, for latents (n, channels, height, width), timesteps (n,), c (n, tokens, dims).

        `mask` (n, tokens), bool, is False for tokens that are only there to fill up.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Return pictures (n, 3, height, width), float32, about [0, 1], of scaled latents."""
        ...


class Runner(Protocol):
    """One exported network in some runtime."""

    @property
    def compiled(self) -> int:
        """Programs compiled or captured so far."""
        ...

    def run(self, inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
        """Return the output, of the shape that is given, in memory that nothing else uses."""
        ...


class NetworkBackend:
    """Runs two exported networks.

    Parameters
    ----------
    name : str
    models : Models
        Give shapes and the type of the inputs; no weights of theirs are loaded.
    unet, decoder : Runner
    """

    def __init__(self, name: str, models: Models, unet: Runner, decoder: Runner) -> None:
        self.name = name
        self._unet, self._decoder = unet, decoder
        self._dtype = export_dtype(models)
        self._size = models.image_size

    @property
    def compiled(self) -> int:
        """See `Backend`."""
        return self._unet.compiled + self._decoder.compiled

    def unet(self, x: Tensor, timesteps: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        """See `Backend`."""
        inputs = (x.detach().to(self._dtype), timesteps, c.detach().to(self._dtype), mask)
        return self._unet.run(inputs, tuple(x.shape)).float()

    def decode(self, latents: Tensor) -> Tensor:
        """See `Backend`."""
        shape = (len(latents), 3, self._size, self._size)
        return self._decoder.run((latents.detach().to(self._dtype),), shape).float()


def export_dtype(models: Models) -> torch.dtype:
    """Return the type that networks are exported in: the models' own on a GPU; float32 on a CPU."""
    return models.dtype if models.device.type == "cuda" else torch.float32
