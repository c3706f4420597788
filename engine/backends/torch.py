"""Torch: eager, compiled, or replayed as CUDA graphs; channels-last convolutions, no autograd."""

import hashlib
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from engine.backends.base import NetworkBackend, Runner
from engine.backends.cache import EngineCache, Key
from engine.backends.export import exportable, network_key, trace, weight_bytes
from engine.errors import BackendError
from engine.models.loading import Models
from engine.models.parts import Part, parts_of
from stream.types.progress import Progress

Mode = Literal["torch", "torch-compile", "torch-graphs"]
_PACKAGE = "network.pt2"
_SCRATCH = "TORCHINDUCTOR_CACHE_DIR"
_CPU = Path("/proc/cpuinfo")
_ROOM = 4  # times the weights: in the package, and on the way there
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


def open_backend(
    name: str, models: Models, cache: EngineCache | None, *, report: Progress | None = None, **_: object
) -> "TorchBackend | NetworkBackend":
    """Return the backend of a mode; on a CPU compiled networks are kept in files.

    Raises
    ------
    BackendError
        If a network cannot be compiled, or there is nowhere to keep it.
    CacheError
        If there is no room for it.
    """
    if name == "torch-compile" and models.device.type == "cpu":
        if cache is None:
            msg = f"backend {name}: it needs a cache folder for compiled networks, and none was given"
            raise BackendError(msg)
        return compile_networks(name, models, cache, report)
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
            functions = {part: torch.compile(f, dynamic=False, mode="reduce-overhead") for part, f in functions.items()}
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


def compile_networks(name: str, models: Models, cache: EngineCache, report: Progress | None = None) -> NetworkBackend:
    """Return networks that AOTInductor compiled for this CPU, each once for all batch sizes, or did before.

    Nearly all of a compilation is the C++ compiler's time: one program a batch size would take as many times as long.

    Raises
    ------
    BackendError
        If a network cannot be compiled.
    CacheError
        If there is no room for it.
    """
    source = exportable(models)
    runners: dict[Part, Runner] = {}
    for part in parts_of(models):

        def build(folder: Path, part: Part = part) -> None:
            what = f"{part} compiled by torch"
            if report is not None:
                report(what, 0, 1)
            with _scratch(folder / "scratch"):
                torch._inductor.aoti_compile_and_package(trace(source, part), package_path=str(folder / _PACKAGE))
            if report is not None:
                report(what, 1, 1)

        try:
            entry = cache.get(compiled_key(source, part), build, room=_ROOM * weight_bytes(source, part))
            runners[part] = CompiledRunner(entry / _PACKAGE)
        except (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError) as error:
            first = (str(error).splitlines() or [""])[0][:160]
            msg = (
                f"backend {name}: the {part} cannot be compiled ({type(error).__name__}: {first}): use backend 'torch'"
            )
            raise BackendError(msg) from error
    return NetworkBackend(name, models, runners)


class CompiledRunner:
    """One network that AOTInductor compiled.

    Parameters
    ----------
    file : Path
    """

    compiled = 0  # one program takes every batch size

    def __init__(self, file: Path) -> None:
        self._program: Any = torch._inductor.aoti_load_package(str(file))

    def run(self, inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
        """See `engine.backends.base.Runner`."""
        with torch.no_grad():
            out: Tensor = self._program(*(tensor.contiguous() for tensor in inputs))
        return out.reshape(shape)


def compiled_key(models: Models, part: Part) -> Key:
    """Return what a compiled network depends on: it is made for this CPU and a number of threads."""
    return {
        **network_key(models, part),
        "kind": "compiled",
        "instructions": _instructions(),
        "threads": torch.get_num_threads(),
        **{package: version(package) for package in ("torch", "diffusers")},
    }


def _instructions() -> str:
    """Return a hash of the instructions that this CPU has, where the system tells them, or what torch knows of them."""
    try:
        lines = _CPU.read_text(encoding="utf-8").splitlines()
        flags = next(line for line in lines if line.lower().startswith(("flags", "features")))
    except (OSError, StopIteration):
        return torch.backends.cpu.get_cpu_capability()
    return hashlib.sha256(flags.encode()).hexdigest()


@contextmanager
def _scratch(folder: Path) -> Iterator[None]:
    """Let the compiler write what it needs on the way to a folder of its own, and remove that."""
    before = os.environ.get(_SCRATCH)
    os.environ[_SCRATCH] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SCRATCH]
        else:
            os.environ[_SCRATCH] = before
        shutil.rmtree(folder, ignore_errors=True)


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
