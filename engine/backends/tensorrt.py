"""TensorRT, natively: strongly typed networks whose precision is that of the ONNX file, run from fixed addresses.

An engine is built once for an architecture, its shapes and a GPU; where only the weights are others it is refitted.
"""

from __future__ import annotations

import logging
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from engine.backends.base import NetworkBackend
from engine.backends.export import (
    INPUTS,
    OUTPUT,
    architecture_hash,
    example,
    exportable,
    exported,
    exporter_versions,
    weights_hash,
)
from engine.backends.exported import check
from engine.backends.reference import reference_of
from engine.errors import BackendError
from engine.models.batches import PROFILE
from engine.models.parts import parts_of
from stream.types.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import tensorrt as trt
    from torch import Tensor

    from engine.backends.cache import EngineCache, Key
    from engine.models.loading import Models
    from engine.models.parts import Part

logger = logging.getLogger(__name__)

_PLAN, _WEIGHTS = "plan.engine", "weights.sha256"
_ATTENTION, _GROUP_NORM = (10, 14), (10, 9)  # TensorRT versions that read them as one operator (opsets 23 and 21)
_ROOM = 6  # times the weights: plan, refit copy, timing cache


def unavailable_because(_: str, device: torch.device) -> str | None:
    """Return what the backend lacks on this machine and how to get it; None where it can run."""
    if device.type != "cuda":
        return f"it needs an NVIDIA GPU and the device is {device.type!r}; on a CPU use 'openvino' or 'onnx'"
    if find_spec("tensorrt") is None:
        return "TensorRT is not installed: pip install 'minddiffuser[tensorrt]'"
    return None


def open_backend(
    name: str, models: Models, cache: EngineCache, *, build: bool = True, report: Progress | None = None
) -> NetworkBackend:
    """Return a backend of both networks as engines; without `build` only where they are built already.

    Raises
    ------
    BackendError
        If there are no engines and none may be built, or they cannot be built, read or refitted.
    CacheError
        If there is no room on the disk.
    """
    if not build and not built(models, cache):
        msg = (
            f"backend {name}: no engine is built for these models; "
            "`minddiffuser engine build --backend tensorrt` builds one"
        )
        raise BackendError(msg)
    source = exportable(models)
    reference = reference_of(source, cache)  # now: an export puts its own attention into the network
    runners = {
        part: open_runner(
            source, part, cache, partial(check, part=part, reference=reference, dtype=models.dtype), report
        )
        for part in parts_of(models)
    }
    return NetworkBackend(name, models, runners)


def opset(version: str) -> int:
    """Highest ONNX opset that a TensorRT version reads well."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers >= _ATTENTION:
        return 23
    return 21 if numbers >= _GROUP_NORM else 20


def plan_key(models: Models, part: Part, version: str) -> Key:
    """Return what an engine depends on; not the weights, which are refitted."""
    return {
        "kind": "tensorrt",
        "part": part,
        "architecture": architecture_hash(models, part),
        "shapes": f"{'x'.join(map(str, models.latent_shape))}, {models.context_tokens} x {models.context_dim}",
        "batches": "/".join(map(str, PROFILE)),
        "dtype": str(models.dtype),
        "opset": opset(version),
        "tensorrt": version,
        "device": torch.cuda.get_device_name(models.device),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(models.device))),
    } | exporter_versions()  # another exporter may name the weights otherwise, and they could not be refitted


def built(models: Models, cache: EngineCache) -> bool:
    """Return whether the engines of all networks are there."""
    import tensorrt as trt

    return all(cache.find(plan_key(models, part, trt.__version__)) for part in parts_of(models))


def open_runner(
    models: Models,
    part: Part,
    cache: EngineCache,
    verify: Callable[[TensorRtRunner], None],
    report: Progress | None = None,
) -> TensorRtRunner:
    """Network of `models` in TensorRT; built where the cache lacks it (minutes), refitted where its weights are others.

    Parameters
    ----------
    models : Models
    part : {'unet', 'decoder', 'preview_decoder'}
    cache : EngineCache
    verify : callable
        Given a fresh engine before it is kept; raises a BackendError where it is of no use.
    report : callable, optional
        Told how far export and build are.

    Raises
    ------
    BackendError
        If TensorRT cannot read, build or refit the network.
    CacheError
        If there is no room on the disk.
    """
    import tensorrt as trt

    key = plan_key(models, part, trt.__version__)
    file = exported(models, part, cache, opset(trt.__version__), report=report)
    wanted = weights_hash(models, part)

    def build(folder: Path) -> None:
        logger.info("building the %s for TensorRT %s; this takes minutes, once", part, trt.__version__)
        (folder / _PLAN).write_bytes(build_plan(file, example(models, part, 1), report))
        (folder / _WEIGHTS).write_text(wanted, encoding="utf-8")
        verify(TensorRtRunner(_read_plan(folder, part), INPUTS[part], models.device))

    room = _ROOM * sum(entry.stat().st_size for entry in file.parent.iterdir())
    entry = cache.get(key, build, room=room)
    engine = _read_plan(entry, part)
    if (entry / _WEIGHTS).read_text(encoding="utf-8") != wanted:
        try:
            refit(engine, file)
        except BackendError as error:
            logger.warning("%s", error)
            engine = _read_plan(cache.get({**key, "weights": wanted}, build, room=room), part)
    return TensorRtRunner(engine, INPUTS[part], models.device)


def _read_plan(folder: Path, part: Part) -> trt.ICudaEngine:
    import tensorrt as trt

    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine((folder / _PLAN).read_bytes())
    if engine is None:
        msg = f"backend tensorrt: the engine of the {part} cannot be read back; remove {folder} and build again"
        raise BackendError(msg)
    return engine


def build_plan(file: Path, inputs: tuple[Tensor, ...], report: Progress | None = None) -> bytes:
    """Build an engine from an ONNX file for the batches of `PROFILE`; `inputs` give the other dimensions.

    `report` is told of TensorRT's own phases.

    Raises
    ------
    BackendError
        With TensorRT's own first error.
    """
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # from 11 on there is no other way
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(file)):
        first = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        msg = f"backend tensorrt: {file.name} cannot be read ({first})"
        raise BackendError(msg)
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.REFIT)
    monitor = _monitor(report) if report is not None else None  # must outlive the build
    if monitor is not None:
        config.progress_monitor = monitor
    profile = builder.create_optimization_profile()
    for number, tensor in enumerate(inputs):
        least, best, most = (trt.Dims((batch, *tensor.shape[1:])) for batch in PROFILE)
        profile.set_shape(network.get_input(number).name, least, best, most)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        msg = f"backend tensorrt: no engine can be built from {file.name}; TensorRT's log says why"
        raise BackendError(msg)
    return bytes(plan)


def _monitor(report: Progress) -> trt.IProgressMonitor:
    """Pass TensorRT's outermost phases on to `report`; it calls from threads of its own."""
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._steps[phase_name] = num_steps
                report(f"TensorRT: {phase_name}", 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                report(f"TensorRT: {phase_name}", step + 1, self._steps[phase_name])
            return True

        def phase_finish(self, phase_name: str) -> None:
            if steps := self._steps.pop(phase_name, 0):
                report(f"TensorRT: {phase_name}", steps, steps)

    return Monitor()


def refit(engine: trt.ICudaEngine, file: Path) -> None:
    """Load the weights of an ONNX file into an engine of the same architecture.

    Raises
    ------
    BackendError
        If they do not fit.
    """
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    refitter = trt.Refitter(engine, logger)
    if not (trt.OnnxParserRefitter(refitter, logger).refit_from_file(str(file)) and refitter.refit_cuda_engine()):
        msg = f"backend tensorrt: the engine does not take the weights of {file.name}: build it again"
        raise BackendError(msg)


class TensorRtRunner:
    """One engine, its buffers at fixed addresses, and for each batch size an execution context with its CUDA graph.

    A captured graph replays what its context was when it was captured, so a context has one batch size for ever. Each
    has working memory of its own; a session that reconstructs one window at a time has one.

    Parameters
    ----------
    engine : tensorrt.ICudaEngine
    inputs : sequence of str
        Names of the inputs, in the order in which `run` takes them.
    device : torch.device

    Raises
    ------
    BackendError
        If the engine has other inputs.
    """

    def __init__(self, engine: trt.ICudaEngine, inputs: tuple[str, ...], device: torch.device) -> None:
        import tensorrt as trt

        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        if sorted(names) != sorted((*inputs, OUTPUT)):
            msg = f"backend tensorrt: the engine has {', '.join(names)} and not {', '.join((*inputs, OUTPUT))}"
            raise BackendError(msg)
        self._engine, self._names, self._device = engine, inputs, device
        self._largest = _largest(engine, inputs[0])[0]
        types = {
            trt.DataType.FLOAT: torch.float32,
            trt.DataType.HALF: torch.float16,
            trt.DataType.BF16: torch.bfloat16,
            trt.DataType.INT64: torch.int64,
            trt.DataType.BOOL: torch.bool,
        }
        self._types = {name: types[engine.get_tensor_dtype(name)] for name in names}
        self._contexts: dict[int, trt.IExecutionContext] = {}
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._buffers = {name: self._zeros(name, _largest(engine, name)) for name in inputs}

    def _zeros(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=self._types[name], device=self._device)

    @property
    def compiled(self) -> int:
        """See `engine.backends.base.Runner`."""
        return len(self._graphs)

    def run(self, inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
        """See `engine.backends.base.Runner`."""
        batch = shape[0]
        if batch > self._largest:
            msg = f"backend tensorrt: a batch of {batch}, and the engine was built for {self._largest} at most"
            raise BackendError(msg)
        if OUTPUT not in self._buffers:
            self._buffers[OUTPUT] = self._zeros(OUTPUT, (self._largest, *shape[1:]))
        for name, tensor in zip(self._names, inputs, strict=True):
            place = self._buffers[name][:batch]
            if batch < 1 or tensor.shape != place.shape:  # copying would spread one over all others
                msg = f"backend tensorrt: the engine does not take {name} of shape {tuple(tensor.shape)}"
                raise BackendError(msg)
            place.copy_(tensor)
        if batch in self._graphs:
            self._graphs[batch].replay()
        elif batch in self._contexts:
            self._enqueue(self._contexts[batch])
        else:
            self._first(batch)
        return self._buffers[OUTPUT][:batch].clone()

    def _first(self, batch: int) -> None:
        """Run a batch size for the first time: TensorRT allocates then, so only the next run can be captured."""
        context = self._context(batch)
        self._enqueue(context)
        if self._device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            torch.cuda.current_stream().synchronize()
            with torch.cuda.graph(graph):
                self._enqueue(context)
            self._graphs[batch] = graph
            graph.replay()
        self._contexts[batch] = context

    def _context(self, batch: int) -> trt.IExecutionContext:
        """Make the context of a batch size; nothing of it is changed afterwards."""
        context = self._engine.create_execution_context()
        if context is None:
            msg = f"backend tensorrt: no memory on the GPU for the engine's working space for batches of {batch}"
            raise BackendError(msg)
        for name, buffer in self._buffers.items():
            if not context.set_tensor_address(name, buffer.data_ptr()):
                msg = f"backend tensorrt: TensorRT refuses the address of {name}"
                raise BackendError(msg)
        for name in self._names:
            wanted = (batch, *self._buffers[name].shape[1:])
            if not context.set_input_shape(name, wanted):
                msg = f"backend tensorrt: the engine does not take {name} of shape {wanted}"
                raise BackendError(msg)
        return context

    def _enqueue(self, context: trt.IExecutionContext) -> None:
        stream = torch.cuda.current_stream().cuda_stream if self._device.type == "cuda" else 0
        if not context.execute_async_v3(stream):
            msg = "backend tensorrt: the engine did not run; TensorRT's log says why"
            raise BackendError(msg)


def _largest(engine: trt.ICudaEngine, name: str) -> tuple[int, ...]:
    """Shape of an input at the largest batch."""
    dims = engine.get_tensor_profile_shape(name, 0)[2]
    return tuple(dims[i] for i in range(len(dims)))
