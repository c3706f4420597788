"""Torch: eager, compiled, or replayed as CUDA graphs; channels-last convolutions, no autograd."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from engine.models.loading import Models
from engine.models.parts import Part

Mode = Literal["torch", "torch-compile", "torch-graphs"]
_WARM = 3  # calls before a capture: cuDNN and cuBLAS choose their kernels and allocate in the first


def unavailable_because(name: str, device: torch.device) -> str | None:
    """Return what a mode lacks on this machine and how to get it; None where it can run."""
    if name == "torch-graphs" and device.type != "cuda":
        return "CUDA graphs need an NVIDIA GPU; on a CPU use 'torch' or 'openvino'"
    if name == "torch-compile" and device.type == "cpu":
        return _no_compiler()
    return None


def _no_compiler() -> str | None:
    """Return what of a C++ compiler and Python's headers is missing; both are needed for every program on a CPU."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler}) on this machine: install one, or use 'torch'"
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        return f"Python's headers are not in {headers}: install them (Debian: python3-dev), or use 'torch'"
    return None


def open_backend(name: str, models: Models, _: object, **__: object) -> "TorchBackend":
    """Return the backend of a mode; nothing is kept in files."""
    return TorchBackend(models, cast("Mode", name))


class TorchBackend:
    """Runs the UNet and the decoder in torch.

    Parameters
    ----------
    models : Models
    mode : {'torch', 'torch-compile', 'torch-graphs'}
        torch-compile: the first call of each batch size takes up to minutes. torch-graphs: the first call of each batch
        size is captured, later ones replay it.
    """

    def __init__(self, models: Models, mode: Mode = "torch") -> None:
        self.name: str = mode
        self._dtype = models.dtype
        functions: dict[Part, Callable[..., Tensor]] = {"unet": models.run_unet, "decoder": models.decode_pixels}
        _ = models.unet, models.vae  # read now: torch's compiler cannot follow how weights are loaded
        if models.preview_autoencoder is not None:
            functions["preview_decoder"] = models.decode_preview
            _ = models.preview_vae
        if mode == "torch-compile":
            # reduce-overhead hands out the same memory at every call; `_own` copies before the next one
            kind = "reduce-overhead" if models.device.type == "cuda" else "default"
            functions = {part: torch.compile(f, dynamic=False, mode=kind) for part, f in functions.items()}
        elif mode == "torch-graphs":
            functions = {part: Graphs(f) for part, f in functions.items()}
        self._functions = functions

    @property
    def compiled(self) -> int:
        """See `Backend`; torch counts what it compiles by process."""
        if self.name == "torch-compile":
            return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        return sum(len(f.captured) for f in self._functions.values() if isinstance(f, Graphs))

    def unet(self, x: Tensor, timesteps: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        """See `Backend`."""
        with torch.no_grad():
            x = x.to(self._dtype, memory_format=torch.channels_last)
            return _own(self._functions["unet"](x, timesteps, c.to(self._dtype), mask))

    def decode(self, latents: Tensor, *, preview: bool = False) -> Tensor:
        """See `Backend`."""
        decode = self._functions["preview_decoder" if preview else "decoder"]
        with torch.no_grad():
            return _own(decode(latents.to(memory_format=torch.channels_last)))


def _own(out: Tensor) -> Tensor:
    return out.to(torch.float32, copy=True)


class Graphs:
    """A function of tensors, captured as one CUDA graph for each set of input shapes.

    Parameters
    ----------
    function : callable
        Tensors on the GPU to one tensor, with no synchronisation inside.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self.captured: dict[tuple[tuple[int, ...], ...], tuple[Any, tuple[Tensor, ...], Tensor]] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Copy the inputs to where the graph reads them, and replay it; the output is overwritten by the next call."""
        shapes = tuple(tuple(tensor.shape) for tensor in inputs)
        if shapes not in self.captured:
            self.captured[shapes] = self._capture(inputs)
        graph, places, out = self.captured[shapes]
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return out

    def _capture(self, inputs: tuple[Tensor, ...]) -> tuple[Any, tuple[Tensor, ...], Tensor]:
        places = tuple(tensor.clone() for tensor in inputs)
        stream: Any = torch.cuda.Stream
        aside = stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM):
                self._function(*places)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self._function(*places)
        return graph, places, out
