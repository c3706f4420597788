"""OpenVINO on a CPU: one compiled network for each batch size, because fixed shapes are a quarter faster."""

from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.backends.base import NetworkBackend
from engine.backends.cache import EngineCache
from engine.backends.exported import open_exported
from engine.errors import BackendError
from engine.models.batches import LARGEST
from engine.models.loading import Models
from stream.types.progress import Progress

_KEPT = LARGEST.bit_length()  # batch sizes that stay compiled: all powers of two that are used


def unavailable_because(_: str, device: torch.device) -> str | None:
    """Return what the backend lacks on this machine and how to get it; None where it can run."""
    if device.type != "cpu":
        return f"it runs on the CPU and the device is {device.type!r}; on a GPU use 'torch-graphs' or 'tensorrt'"
    if find_spec("openvino") is None:
        return "OpenVINO is not installed: pip install 'minddiffuser[openvino]'"
    return None


def open_backend(
    name: str, models: Models, cache: EngineCache, *, report: Progress | None = None, **_: object
) -> NetworkBackend:
    """Return a backend of both exported networks.

    Raises
    ------
    BackendError
        If a network cannot be exported or read, or comes out otherwise than in torch.
    CacheError
        If there is no room for an export.
    """
    half = models.dtype == torch.bfloat16
    return open_exported(name, models, cache, lambda file, *_: OpenVinoRunner(file, half=half), report)


class OpenVinoRunner:
    """One network in OpenVINO.

    Parameters
    ----------
    file : Path
        ONNX.
    half : bool
        Compute in bfloat16, where the CPU has instructions for it.

    Raises
    ------
    BackendError
        If OpenVINO cannot read the file.
    """

    def __init__(self, file: Path, *, half: bool) -> None:
        import openvino as ov

        self._ov: Any = ov
        self._core = ov.Core()
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._file = file
        self.compiled = 0
        self._compiled: OrderedDict[tuple[tuple[int, ...], ...], Any] = OrderedDict()
        try:
            self._core.read_model(file)
        except RuntimeError as error:
            first = (str(error).splitlines() or [""])[0][:160]
            msg = f"backend openvino: OpenVINO {ov.__version__} cannot read {file.name} ({first})"
            raise BackendError(msg) from error

    def run(self, inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
        """See `engine.backends.base.Runner`."""
        shapes = tuple(tuple(tensor.shape) for tensor in inputs)
        if shapes not in self._compiled:
            self._compiled[shapes] = self._compile(shapes)
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(shapes)
        request = self._compiled[shapes]
        held = [tensor.contiguous().numpy() for tensor in inputs]
        out = torch.empty(shape)
        for number, array in enumerate(held):
            request.set_input_tensor(number, self._ov.Tensor(array, shared_memory=True))
        request.set_output_tensor(0, self._ov.Tensor(out.numpy(), shared_memory=True))
        request.infer()
        return out

    def _compile(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        self.compiled += 1
        network = self._core.read_model(self._file)
        network.reshape({port.any_name: list(shape) for port, shape in zip(network.inputs, shapes, strict=True)})
        return self._core.compile_model(network, "CPU", self._settings).create_infer_request()
