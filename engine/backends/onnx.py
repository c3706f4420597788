"""ONNX Runtime on its CPU, CUDA and TensorRT providers, with inputs and outputs bound to torch's own memory."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from engine.backends.export import INPUTS, example, exportable
from engine.backends.exported import open_exported
from engine.errors import BackendError
from engine.models.batches import PROFILE

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from engine.backends.base import NetworkBackend
    from engine.backends.cache import EngineCache, Key
    from engine.models.loading import Models
    from engine.models.parts import Part
    from stream.types.progress import Progress

_PROVIDERS = {
    "onnx": {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"},
    "onnx-tensorrt": {"cuda": "TensorrtExecutionProvider"},
}
TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(bfloat16)": torch.bfloat16}
# numbers of onnx.TensorProto.DataType: numpy, the other way to name a type, has no bfloat16
_NUMBERS = {torch.float32: 1, torch.int64: 7, torch.bool: 9, torch.float16: 10, torch.bfloat16: 16}


def onnx_runtime() -> Any:
    """Import ONNX Runtime; from 1.29 on it reports to its maker unless told not to before it is imported."""
    for name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
        os.environ.setdefault(name, "1")
    import onnxruntime

    return onnxruntime


def unavailable_because(name: str, device: torch.device) -> str | None:
    """Return what the backend lacks on this machine and how to get it; None where it can run."""
    provider = _PROVIDERS[name].get(device.type)
    if provider is None:
        return f"it needs an NVIDIA GPU and the device is {device.type!r}; on a CPU use 'onnx' or 'openvino'"
    extra = "onnx-gpu" if device.type == "cuda" else "onnx"
    if find_spec("onnxruntime") is None:
        return f"ONNX Runtime is not installed: pip install 'minddiffuser[{extra}]'"
    if provider not in onnx_runtime().get_available_providers():
        return (
            f"this ONNX Runtime has no {provider}: pip install 'minddiffuser[{extra}]' (without onnxruntime beside it)"
        )
    return None


def open_backend(
    name: str, models: Models, cache: EngineCache, *, report: Progress | None = None, **_: object
) -> NetworkBackend:
    """Return a backend of both exported networks in one of ONNX Runtime's providers.

    Raises
    ------
    BackendError
        If a network cannot be exported or read, or comes out otherwise than in torch.
    CacheError
        If there is no room for an export.
    """

    def open_file(file: Path, part: Part, key: Key) -> OnnxRunner:
        if name == "onnx":
            return OnnxRunner(file, name, models.device)
        return OnnxRunner(file, name, models.device, tensorrt_settings(*engine_place(name, models, cache, part, key)))

    return open_exported(name, models, cache, open_file, report)


def engine_place(
    name: str, models: Models, cache: EngineCache, part: Part, exported: Key
) -> tuple[Path, dict[str, Tensor]]:
    """Return where a TensorRT provider keeps its engines of one exported network, and one of each of its inputs."""
    folder = cache.path(engine_key(exported, models.device, name))
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder, dict(zip(INPUTS[part], example(exportable(models), part, 1), strict=True))


def engine_key(exported: Key, device: torch.device, name: str) -> Key:
    """Return what an engine of a TensorRT provider depends on; it looks at names and not at weights itself."""
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return {
        **exported,
        "kind": name,
        "device": torch.cuda.get_device_name(device),
        "capability": capability,
        "onnxruntime": onnx_runtime().__version__,
        "batches": "/".join(map(str, PROFILE)),
    }


def tensorrt_settings(folder: Path, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """Options of the TensorRT provider: where it keeps its engines, one profile for all batches, the inputs' type.

    Parameters
    ----------
    folder : Path
        For the engines of one exported network alone.
    inputs : dict of str to Tensor
        One of each input, of any batch size.
    """
    profiles = {f"trt_profile_{name}_shapes": shapes for name, shapes in profile_shapes(inputs).items()}
    dtypes = {tensor.dtype for tensor in inputs.values()}
    return profiles | {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_fp16_enable": torch.float16 in dtypes,
        "trt_bf16_enable": torch.bfloat16 in dtypes,
    }


def profile_shapes(inputs: dict[str, Tensor]) -> dict[str, str]:
    """Return the shapes of one profile for all batches, as both TensorRT providers read them: 'min', 'opt', 'max'."""
    return {
        name: ",".join(f"{key}:{'x'.join(map(str, (batch, *tensor.shape[1:])))}" for key, tensor in inputs.items())
        for name, batch in zip(("min", "opt", "max"), PROFILE, strict=True)
    }


def start_session(name: str, file: Path, options: Any, provider: str, providers: Any = None) -> Any:
    """Start a session that runs in a provider, or refuse.

    Raises
    ------
    BackendError
        If ONNX Runtime cannot read the file, or would leave the provider.
    """
    ort = onnx_runtime()
    try:
        # its own fallback prints to stdout and goes on elsewhere
        session = ort.InferenceSession(str(file), options, providers=providers, enable_fallback=0)
    except Exception as error:  # its errors have no common class of their own
        msg = f"backend {name}: ONNX Runtime {ort.__version__} cannot load {file.name} ({_first_line(error)})"
        raise BackendError(msg) from error
    if provider not in session.get_providers():
        msg = (
            f"backend {name}: ONNX Runtime {ort.__version__} cannot start its {provider}, most often for want of the "
            "CUDA, cuDNN or TensorRT libraries that it was built for; use 'torch-graphs'"
        )
        raise BackendError(msg)
    return session


def where(tensor: Tensor, device: torch.device) -> tuple[str, int, int, list[int], int]:
    """Return where a tensor lies, as ONNX Runtime is told: device, its number, type, shape, address."""
    return device.type, device.index or 0, _NUMBERS[tensor.dtype], list(tensor.shape), tensor.data_ptr()


class OnnxRunner:
    """One network in ONNX Runtime.

    Parameters
    ----------
    file : Path
    name : {'onnx', 'onnx-tensorrt'}
    device : torch.device
    settings : dict, optional
        Further options of the provider.

    Raises
    ------
    BackendError
        If ONNX Runtime cannot read the file, or would leave the device that was asked for.
    """

    compiled = 0  # one program takes every shape

    def __init__(self, file: Path, name: str, device: torch.device, settings: dict[str, Any] | None = None) -> None:
        ort = onnx_runtime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # waiting threads that spin take the cores from everything else that a live session runs
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors come as exceptions, too
        self._device = device
        placed = {"device_id": device.index or 0} if device.type == "cuda" else {}
        wanted = _PROVIDERS[name][device.type]
        providers: list[tuple[str, dict[str, Any]]] = [(wanted, placed | (settings or {}))]
        if name == "onnx-tensorrt":  # takes what TensorRT cannot; without it that would go to the CPU
            providers.append((_PROVIDERS["onnx"]["cuda"], placed))
        self._session = start_session(name, file, options, wanted, providers)
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        (self._output,) = self._session.get_outputs()

    def run(self, inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
        """See `engine.backends.base.Runner`."""
        binding = self._session.io_binding()
        held = [tensor.contiguous() for tensor in inputs]
        for name, tensor in zip(self._inputs, held, strict=True):
            binding.bind_input(name, *where(tensor, self._device))
        out = torch.empty(shape, dtype=TYPES[self._output.type], device=self._device)
        binding.bind_output(self._output.name, *where(out, self._device))
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # the provider works on a stream of its own
        self._session.run_with_iobinding(binding)
        return out


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
