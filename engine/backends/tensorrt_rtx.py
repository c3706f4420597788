"""TensorRT for RTX cards by pip alone: ONNX Runtime's plug-in provider, which brings the runtime with it.

Written for `onnxruntime-ep-nv-tensorrt-rtx-cu12` 0.5, and never run on a card: what it makes is proven on the user's.
"""

from __future__ import annotations

import ctypes
from ctypes.util import find_library
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.backends.exported import open_exported
from engine.backends.onnx import TYPES, engine_place, onnx_runtime, profile_shapes, start_session, where
from engine.errors import BackendError

if TYPE_CHECKING:
    from torch import Tensor

    from engine.backends.base import NetworkBackend
    from engine.backends.cache import EngineCache, Key
    from engine.models.loading import Models
    from engine.models.parts import Part
    from stream.types.progress import Progress

_PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
_INSTALL = "pip install 'minddiffuser[tensorrt-rtx]'"
_LEAST = (1, 24)  # the first ONNX Runtime that takes plug-ins


def unavailable_because(_: str, device: torch.device) -> str | None:
    """Return what the backend lacks on this machine and how to get it; None where it can run."""
    if device.type != "cuda":
        driver = "" if find_library("cuda") else " and its driver, whose libcuda is not on this machine"
        return f"it needs an NVIDIA RTX card{driver}; the device is {device.type!r}: use 'onnx' or 'openvino'"
    if find_spec("onnxruntime") is None or find_spec(_PACKAGE) is None:
        return f"ONNX Runtime or its TensorRT-RTX plug-in is not installed: {_INSTALL}"
    installed = onnx_runtime().__version__
    if tuple(int(part) for part in installed.split(".")[:2]) < _LEAST:
        return f"ONNX Runtime {installed} takes no plug-ins, 1.24 is the first that does: {_INSTALL}"
    capability = torch.cuda.get_device_capability(device)
    if not supported(capability):
        number = ".".join(map(str, capability))
        return f"it runs on RTX cards (compute capability 8.6, 8.9, 12.0 and later), and this one has {number}"
    return None


def supported(capability: tuple[int, int]) -> bool:
    """Check a compute capability against the provider's own list (its tensorrt_rtx_provider_options.h)."""
    return capability in {(8, 6), (8, 9)} or capability >= (12, 0)


def open_backend(
    name: str, models: Models, cache: EngineCache, *, report: Progress | None = None, **_: object
) -> NetworkBackend:
    """Return a backend of both exported networks.

    Raises
    ------
    BackendError
        If the plug-in cannot be started, or a network comes out otherwise than in torch.
    CacheError
        If there is no room for an export.
    """

    def open_file(file: Path, part: Part, key: Key) -> RtxRunner:
        return RtxRunner(file, models.device, settings(*engine_place(name, models, cache, part, key)))

    return open_exported(name, models, cache, open_file, report)


def settings(folder: Path, inputs: dict[str, Tensor]) -> dict[str, str]:
    """Return the provider's options: one profile for all batches, CUDA graphs, and where compiled kernels are kept."""
    profiles = {f"nv_profile_{name}_shapes": shapes for name, shapes in profile_shapes(inputs).items()}
    return profiles | {"enable_cuda_graph": "1", "nv_runtime_cache_path": str(folder)}


@cache
def register() -> str:
    """Register the plug-in with ONNX Runtime, once a process, and return the provider's name.

    Raises
    ------
    BackendError
        If a library that it needs is missing.
    """
    try:
        plugin: Any = import_module(_PACKAGE)
        name, library = str(plugin.get_ep_name()), Path(plugin.get_library_path())
        for runtime in library.parent.glob("libcudart.so.*"):  # it ships without the name that it is looked for by
            ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
        onnx_runtime().register_execution_provider_library(name, str(library))
    except Exception as error:  # of ONNX Runtime, whose errors have no common class, or of the loader
        first = (str(error).splitlines() or [type(error).__name__])[0][-160:]
        msg = f"backend onnx-tensorrt-rtx: the plug-in cannot be started ({first})"
        raise BackendError(msg) from error
    return name


class RtxRunner:
    """One network in the plug-in provider; each batch size has buffers at fixed addresses and a CUDA graph of its own.

    A captured graph reads and writes the addresses that it was captured with, so they are never changed.

    Parameters
    ----------
    file : Path
    device : torch.device
    options : dict of str to str
        Of the provider.

    Raises
    ------
    BackendError
        If the provider does not take the device or the file.
    """

    def __init__(self, file: Path, device: torch.device, options: dict[str, str]) -> None:
        ort, name = onnx_runtime(), register()
        devices = [one for one in ort.get_ep_devices() if one.ep_name == name]
        index = device.index or 0
        if index >= len(devices):
            msg = f"backend onnx-tensorrt-rtx: the provider sees {len(devices)} cards and the device is {device}"
            raise BackendError(msg)
        self._ort, self._device = ort, device
        session_options = ort.SessionOptions()
        session_options.add_provider_for_devices([devices[index]], options)
        self._session = start_session("onnx-tensorrt-rtx", file, session_options, name)
        self._names = [entry.name for entry in self._session.get_inputs()]
        (self._output,) = self._session.get_outputs()
        self._bound: dict[int, tuple[Any, tuple[Tensor, ...], Tensor, Any]] = {}

    @property
    def compiled(self) -> int:
        """Batch sizes that have a graph."""
        return len(self._bound)

    def run(self, inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
        """See `engine.backends.base.Runner`."""
        batch = shape[0]
        if batch not in self._bound:
            self._bound[batch] = self._bind(inputs, shape)
        binding, places, out, run_options = self._bound[batch]
        for place, tensor in zip(places, inputs, strict=True):
            if place.shape != tensor.shape:
                msg = f"backend onnx-tensorrt-rtx: an input of shape {tuple(tensor.shape)}, not {tuple(place.shape)}"
                raise BackendError(msg)
            place.copy_(tensor)
        torch.cuda.current_stream(self._device).synchronize()  # the provider works on a stream of its own
        self._session.run_with_iobinding(binding, run_options)
        return out.clone()

    def _bind(self, inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> tuple[Any, tuple[Tensor, ...], Tensor, Any]:
        binding, places = self._session.io_binding(), tuple(tensor.contiguous().clone() for tensor in inputs)
        for name, place in zip(self._names, places, strict=True):
            binding.bind_input(name, *where(place, self._device))
        out = torch.empty(shape, dtype=TYPES[self._output.type], device=self._device)
        binding.bind_output(self._output.name, *where(out, self._device))
        run_options = self._ort.RunOptions()
        run_options.add_run_config_entry("cuda_graph_annotation_id", str(shape[0]))
        return binding, places, out, run_options
