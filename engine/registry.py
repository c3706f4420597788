"""The backends, in one place: a new one is one module in `engine/backends` and one entry here.

Nothing heavy is imported before a backend is asked whether it can run, or opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """What is known of a backend before it is opened.

    Attributes
    ----------
    name : str
        As `engine.backend` says it.
    module : str
        It has `unavailable_because(name, device)` and `open_backend(name, models, cache, ...)`.
    runs_on : str
        Devices, for people.
    needs : str
        What to install, for people.
    by_name_only : str
        Why 'auto' does not take it; '' where `ORDER` names it.
    minutes_to_start : bool
        It builds or compiles for minutes before its first picture.
    needs_cache : bool
        It runs files that are kept.
    checks_exports : bool
        It runs ONNX files as they are, so that an export can be compared with torch in it.
    """

    name: str
    module: str
    runs_on: str
    needs: str
    by_name_only: str = ""
    minutes_to_start: bool = False
    needs_cache: bool = True
    checks_exports: bool = False

    def unavailable_because(self, device: torch.device) -> str | None:
        """Return what the machine lacks for it and how to get that; None where it can run."""
        return self.load().unavailable_because(self.name, device)

    def load(self) -> BackendModule:
        """Import its module."""
        return cast("BackendModule", import_module(self.module))


class BackendModule(Protocol):
    """What the module of a backend has."""

    def unavailable_because(self, name: str, device: torch.device) -> str | None:
        """Return what the machine lacks and how to get it; None where the backend can run."""
        ...

    def open_backend(self, name: str, models: Any, cache: Any, *, build: bool, report: Any) -> Any:
        """Return an `engine.backends.base.Backend` for some models.

        `cache` is None where there is nowhere to keep files; without `build` nothing is built that takes minutes.
        """
        ...


BACKENDS: dict[str, BackendEntry] = {
    entry.name: entry
    for entry in (
        BackendEntry("torch", "engine.backends.torch", "CPU, CUDA", "nothing more", needs_cache=False),
        BackendEntry(
            "torch-compile",
            "engine.backends.torch",
            "CPU, CUDA",
            "a C++ compiler; minutes at its first start, on a GPU at every one",
            by_name_only="compiles for minutes",
            minutes_to_start=True,
            needs_cache=False,
        ),
        BackendEntry("torch-graphs", "engine.backends.torch", "CUDA", "nothing more", needs_cache=False),
        BackendEntry(
            "onnx",
            "engine.backends.onnx",
            "CPU, CUDA",
            '`pip install "minddiffuser[onnx]"`, on a GPU `[onnx-gpu]`',
            by_name_only="torch-graphs is faster on a GPU",
            checks_exports=True,
        ),
        BackendEntry(
            "onnx-tensorrt",
            "engine.backends.onnx",
            "CUDA",
            "`[onnx-gpu]` and TensorRT's libraries",
            by_name_only="builds for minutes at its first call",
            minutes_to_start=True,
        ),
        BackendEntry(
            "onnx-tensorrt-rtx",
            "engine.backends.tensorrt_rtx",
            "CUDA (RTX cards)",
            '`pip install "minddiffuser[tensorrt-rtx]"`',
            by_name_only="written, and not yet run on a card",
            minutes_to_start=True,
        ),
        BackendEntry(
            "openvino",
            "engine.backends.openvino",
            "CPU",
            '`pip install "minddiffuser[openvino]"`',
            checks_exports=True,
        ),
        BackendEntry(
            "tensorrt",
            "engine.backends.tensorrt",
            "CUDA",
            '`pip install "minddiffuser[tensorrt]"`',
            minutes_to_start=True,
        ),
    )
}
REFERENCE = "torch"
"""What the others are proven against."""
ORDER: dict[str, tuple[str, ...]] = {
    "cpu": ("openvino", "onnx", "torch"),
    "cuda": ("tensorrt", "torch-graphs", "torch"),
}
"""What 'auto' tries by type of device, fastest first as measured (docs/performance.md)."""
