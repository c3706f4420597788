"""What every backend and every runtime of exported networks keeps to."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from engine.models.loading import Models
from engine.models.parts import Part


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

    def decode(self, latents: Tensor, *, preview: bool = False) -> Tensor:
        """Return pictures (n, 3, height, width), float32, about [0, 1], of scaled latents.

        `preview` takes the small autoencoder of previews, where the models have one.
        """
        ...


def run_part(backend: Backend, part: Part, inputs: tuple[Tensor, ...]) -> Tensor:
    """Run one network of a backend."""
    if part == "unet":
        return backend.unet(*inputs)
    return backend.decode(*inputs, preview=part == "preview_decoder")


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
    """Runs exported networks.

    Parameters
    ----------
    name : str
    models : Models
        Give shapes and the type of the inputs; no weights of theirs are loaded.
    runners : dict of part to Runner
    """

    def __init__(self, name: str, models: Models, runners: Mapping[Part, Runner]) -> None:
        self.name = name
        self._runners = runners
        self._dtype = export_dtype(models)
        self._size = models.image_size

    @property
    def compiled(self) -> int:
        """See `Backend`."""
        return sum(runner.compiled for runner in self._runners.values())

    def unet(self, x: Tensor, timesteps: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        """See `Backend`."""
        inputs = (x.detach().to(self._dtype), timesteps, c.detach().to(self._dtype), mask)
        return self._runners["unet"].run(inputs, tuple(x.shape)).float()

    def decode(self, latents: Tensor, *, preview: bool = False) -> Tensor:
        """See `Backend`."""
        runner = self._runners["preview_decoder" if preview else "decoder"]
        shape = (len(latents), 3, self._size, self._size)
        return runner.run((latents.detach().to(self._dtype),), shape).float()


def export_dtype(models: Models) -> torch.dtype:
    """Return the type that networks are exported in: the models' own on a GPU; float32 on a CPU."""
    return models.dtype if models.device.type == "cuda" else torch.float32
