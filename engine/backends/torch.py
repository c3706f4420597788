"""Torch, eager or compiled: channels-last convolutions, no autograd."""

import shutil
from typing import Any

import torch
from torch import Tensor

from engine.errors import BackendError
from engine.models import Models


class TorchBackend:
    """Runs the UNet and the decoder in torch.

    Parameters
    ----------
    models : Models
    compiled : bool
        torch.compile both; the first call of each batch size then takes up to minutes.

    Raises
    ------
    BackendError
        If compilation is asked for on a CPU without a C++ compiler.
    """

    def __init__(self, models: Models, *, compiled: bool = False) -> None:
        self.name = "torch-compile" if compiled else "torch"
        if compiled and models.device.type == "cpu" and shutil.which("g++") is None:
            msg = "backend torch-compile: no C++ compiler (g++) on this machine; install one, or use backend 'torch'"
            raise BackendError(msg)
        self._dtype = models.dtype
        unet: Any = models.unet
        self._unet = torch.compile(unet, dynamic=False) if compiled else unet
        self._decode = torch.compile(models.decode_pixels, dynamic=False) if compiled else models.decode_pixels

    def unet(self, x: Tensor, timesteps: Tensor, c: Tensor) -> Tensor:
        """See `Backend`."""
        with torch.no_grad():
            x = x.to(self._dtype, memory_format=torch.channels_last)
            out: Tensor = self._unet(x, timesteps, c.to(self._dtype), return_dict=False)[0]
        return out.float()

    def decode(self, latents: Tensor) -> Tensor:
        """See `Backend`."""
        with torch.no_grad():
            return self._decode(latents.to(memory_format=torch.channels_last)).float()
