"""ONNX Runtime on its CPU, CUDA and TensorRT providers, with inputs and outputs bound to torch's own memory."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import BackendError

_PROVIDERS = {
    "onnx": {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"},
    "onnx-tensorrt": {"cuda": "TensorrtExecutionProvider"},
}
_TYPES = {torch.float32: "tensor(float)", torch.float16: "tensor(float16)", torch.int64: "tensor(int64)"}


def missing(name: str, device: torch.device) -> str | None:
    """Say what the backend lacks on this machine and how to get it, or None."""
    provider = _PROVIDERS[name].get(device.type)
    if provider is None:
        return f"it needs an NVIDIA GPU and the device is {device.type!r}; on a CPU use 'onnx' or 'openvino'"
    extra = "onnx-gpu" if device.type == "cuda" else "onnx"
    if find_spec("onnxruntime") is None:
        return f"ONNX Runtime is not installed: pip install 'minddiffuser[{extra}]'"
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        return (
            f"this ONNX Runtime has no {provider}: pip install 'minddiffuser[{extra}]' (without onnxruntime beside it)"
        )
    return None


class OnnxRunner:
    """One network in ONNX Runtime.

    Parameters
    ----------
    file : Path
    name : {'onnx', 'onnx-tensorrt'}
    device : torch.device
    scratch : Path
        Where the TensorRT provider keeps the engines it builds.

    Raises
    ------
    BackendError
        If ONNX Runtime cannot read the file.
    """

    def __init__(self, file: Path, name: str, device: torch.device, scratch: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # waiting threads that spin take the cores from everything else that a live session runs
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._index = device.index or 0
        self._device = device
        settings: dict[str, Any] = {"device_id": self._index} if device.type == "cuda" else {}
        if name == "onnx-tensorrt":
            settings |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(scratch)}
        try:
            self._session = ort.InferenceSession(
                str(file), options, providers=[(_PROVIDERS[name][device.type], settings)]
            )
        except Exception as error:  # its errors have no common class of their own
            msg = f"backend {name}: ONNX Runtime {ort.__version__} cannot load {file.name} ({_first_line(error)})"
            raise BackendError(msg) from error
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        (self._output,) = self._session.get_outputs()

    def run(self, inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
        """See `engine.backends.choice.Runner`."""
        binding = self._session.io_binding()
        held = [tensor.contiguous() for tensor in inputs]
        for name, tensor in zip(self._inputs, held, strict=True):
            binding.bind_input(name, *self._place(tensor))
        out = torch.empty(shape, dtype=_torch_type(self._output.type), device=self._device)
        binding.bind_output(self._output.name, *self._place(out))
        if self._device.type == "cuda":
            torch.cuda.current_stream().synchronize()  # the provider works on a stream of its own
        self._session.run_with_iobinding(binding)
        return out

    def _place(self, tensor: Tensor) -> tuple[str, int, Any, list[int], int]:
        kind = torch.empty(0, dtype=tensor.dtype).numpy().dtype.type
        return self._device.type, self._index, kind, list(tensor.shape), tensor.data_ptr()


def _torch_type(name: str) -> torch.dtype:
    return next(dtype for dtype, known in _TYPES.items() if known == name)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
