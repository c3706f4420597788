"""The choice of a backend, and the protocols that they keep."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, cast, get_args

import torch
from torch import Tensor

from engine.backends import onnx, openvino, tensorrt
from engine.backends import torch as eager
from engine.cache import EngineCache, Key
from engine.errors import BackendError, CacheError
from engine.export import FILE, INPUTS, OPSETS, PARTS, Part, Report, example, exported, onnx_key
from engine.models import Models
from engine.spec import BackendName, ModelSpec

_log = logging.getLogger(__name__)

NAMES: tuple[BackendName, ...] = get_args(BackendName)
ORDER: dict[str, tuple[BackendName, ...]] = {
    "cpu": ("openvino", "onnx", "torch"),
    "cuda": ("tensorrt", "torch-graphs", "torch"),
}
"""What 'auto' tries, fastest first as measured (docs/performance.md)."""
_BY_NAME_ONLY = {
    "torch-compile": "compiles for minutes at every start",
    "onnx-tensorrt": "builds for minutes at its first call",
    "onnx": "torch-graphs is faster on a GPU",
}
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}
"""Largest difference from eager torch, relative to its largest output; beyond it an export has gone wrong."""


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
        """Prediction, float32, for latents (n, channels, height, width), timesteps (n,), c (n, tokens, dims).

        `mask` (n, tokens), bool, is False for tokens that are only there to fill up.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (n, 3, height, width), float32, about [0, 1], of scaled latents."""
        ...


class Runner(Protocol):
    """One exported network in some runtime."""

    @property
    def compiled(self) -> int:
        """Programs compiled or captured so far."""
        ...

    def run(self, inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
        """Give the output, of the shape that is told, in memory that nothing else uses."""
        ...


class NetworkBackend:
    """Runs two exported networks.

    Parameters
    ----------
    name : str
    models : Models
        Give shapes and the type of the inputs; no weights of theirs are loaded.
    unet, decoder : Runner
    """

    def __init__(self, name: str, models: Models, unet: Runner, decoder: Runner) -> None:
        self.name = name
        self._unet, self._decoder = unet, decoder
        self._dtype = export_dtype(models)
        self._size = models.image_size

    @property
    def compiled(self) -> int:
        """See `Backend`."""
        return self._unet.compiled + self._decoder.compiled

    def unet(self, x: Tensor, timesteps: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        """See `Backend`."""
        inputs = (x.detach().to(self._dtype), timesteps, c.detach().to(self._dtype), mask)
        return self._unet.run(inputs, tuple(x.shape)).float()

    def decode(self, latents: Tensor) -> Tensor:
        """See `Backend`."""
        shape = (len(latents), 3, self._size, self._size)
        return self._decoder.run((latents.detach().to(self._dtype),), shape).float()


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend, and why the others were left.

    Attributes
    ----------
    backend : Backend
    left : dict of str to str
        Reason by name; empty where the backend was asked for by name.
    """

    backend: Backend
    left: dict[str, str]


def missing(name: BackendName, device: torch.device) -> str | None:
    """Say what a backend lacks on this machine and how to get it, or None where it can run."""
    match name:
        case "torch" | "torch-compile" | "torch-graphs":
            return eager.missing(name, device)
        case "onnx" | "onnx-tensorrt":
            return onnx.missing(name, device)
        case "openvino":
            return openvino.missing(device)
        case "tensorrt":
            return tensorrt.missing(device)


def export_dtype(models: Models) -> torch.dtype:
    """Type that networks are exported in: the models' own on a GPU; float32 on a CPU."""
    return models.dtype if models.device.type == "cuda" else torch.float32


def make_backend(
    name: Literal[BackendName, "auto"],
    models: Models,
    cache: EngineCache | None = None,
    *,
    build: bool = False,
    report: Report | None = None,
) -> Choice:
    """Backend by name; 'auto' is the first of `ORDER` that works.

    Parameters
    ----------
    name : str
    models : Models
    cache : EngineCache, optional
        Where exported networks and engines are kept; without one only torch can run.
    build : bool
        Let 'auto' build what takes minutes; without, it takes a TensorRT engine only where one is there.
    report : callable, optional
        Told how far exports and builds are.

    Raises
    ------
    BackendError
        If the backend asked for by name cannot run here: what is missing, and how to get it.
    CacheError
        If it needs an export and there is no room for it.
    """
    if name != "auto":
        return Choice(_open(name, models, cache, report), {})
    order = ORDER["cuda" if models.device.type == "cuda" else "cpu"]
    others = [other for other in NAMES if other not in order]
    left: dict[str, str] = {other: missing(other, models.device) or _BY_NAME_ONLY[other] for other in others}
    for candidate in order:
        try:
            backend = _open(candidate, models, cache, report, quick=not build)
        except (BackendError, CacheError) as error:
            left[candidate] = str(error).removeprefix(f"backend {candidate}: ")
            continue
        left |= dict.fromkeys(order[order.index(candidate) + 1 :], f"{candidate} is faster here")
        _log.info("backend %s; left: %s", candidate, "; ".join(f"{other} ({why})" for other, why in left.items()))
        return Choice(backend, left)
    msg = f"no backend runs here: {'; '.join(f'{other}: {why}' for other, why in left.items())}"
    raise BackendError(msg)


def _open(
    name: BackendName, models: Models, cache: EngineCache | None, report: Report | None, *, quick: bool = False
) -> Backend:
    if reason := missing(name, models.device):
        msg = f"backend {name}: {reason}"
        raise BackendError(msg)
    if name in get_args(eager.Mode):
        return eager.TorchBackend(models, cast("eager.Mode", name))
    if cache is None:
        msg = f"backend {name}: it needs a cache folder for exported networks, and none was given"
        raise BackendError(msg)
    if name == "tensorrt":
        if quick and not tensorrt.built(models, cache):
            msg = (
                f"backend {name}: no engine is built for these models; "
                "`minddiffuser engine build --backend tensorrt` builds one"
            )
            raise BackendError(msg)
        source = exportable(models)
        runners: list[Runner] = [
            tensorrt.open_runner(
                source, part, cache, partial(check, models=source, part=part, dtype=models.dtype), report
            )
            for part in PARTS
        ]
    else:
        runners = [_open_onnx(name, models, part, cache, report) for part in PARTS]
    return NetworkBackend(name, models, *runners)


def export_parts(models: Models, cache: EngineCache, report: Report | None = None) -> str | None:
    """Export both networks as the runtimes here read them; the cache's `given` says where they are.

    Parameters
    ----------
    models : Models
    cache : EngineCache
    report : callable, optional

    Returns
    -------
    str or None
        The runtime that the exports were run in and held against torch; None: there is none here.

    Raises
    ------
    BackendError
        If a network cannot be exported, or the runtime makes something else of it.
    CacheError
        If there is no room for it.
    """
    runtimes: tuple[BackendName, ...] = ("onnx", "openvino")
    name = next((name for name in runtimes if missing(name, models.device) is None), None)
    for part in PARTS:
        if name is None:
            exported(exportable(models), part, cache, OPSETS[-1], report=report)
        else:
            _open_onnx(name, models, part, cache, report)
    return name


def exportable(models: Models) -> Models:
    """Give models of their own to export, in the type for it: their weights are let go of when the file is there."""
    name = cast("Literal['float32', 'float16', 'bfloat16']", str(export_dtype(models)).removeprefix("torch."))
    spec: ModelSpec = models.spec.model_copy(update={"dtype": name})
    return Models(spec, str(models.device))


def _open_onnx(
    name: BackendName, models: Models, part: Part, cache: EngineCache, report: Report | None = None
) -> Runner:
    """Open an exported network, at the first opset that exporter and runtime both master."""
    source, dtype = exportable(models), models.dtype

    def open_file(file: Path, key: Key) -> Runner:
        if name == "openvino":
            return openvino.OpenVinoRunner(file, half=dtype == torch.bfloat16)
        if name == "onnx":
            return onnx.OnnxRunner(file, name, models.device)
        folder = cache.path(onnx.engine_key(key, models.device))
        folder.mkdir(mode=0o700, exist_ok=True)
        inputs = dict(zip(INPUTS[part], example(source, part, 1), strict=True))
        return onnx.OnnxRunner(file, name, models.device, onnx.tensorrt_settings(folder, inputs))

    keys = {opset: onnx_key(source, part, opset) for opset in OPSETS}
    faults = []
    for key in keys.values():
        if entry := cache.find(key):
            try:
                return open_file(entry / FILE, key)
            except BackendError as error:  # of an older runtime that reads another opset
                faults.append(str(error))
    for opset, key in keys.items():

        def verify(file: Path, key: Key = key) -> None:
            check(open_file(file, key), source, part, dtype)

        try:
            return open_file(exported(source, part, cache, opset, verify, report), key)
        except BackendError as error:
            faults.append(str(error))
    msg = f"backend {name}: {'; '.join(dict.fromkeys(faults))}"
    raise BackendError(msg)


def check(runner: Runner, models: Models, part: Part, dtype: torch.dtype) -> None:
    """Hold a runner's output against eager torch's.

    Raises
    ------
    BackendError
        If they differ by more than rounding.
    """
    inputs = example(models, part, 1, torch.Generator().manual_seed(0))
    reference = eager.TorchBackend(models)
    expected = reference.unet(*inputs) if part == "unet" else reference.decode(*inputs)
    found = runner.run(inputs, tuple(expected.shape)).float()
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= _TOLERANCE[dtype]:
        msg = (
            f"the exported {part} differs from torch by {difference:.2g} of its range: "
            "report it with the versions that `minddiffuser doctor` prints, and use backend 'torch'"
        )
        raise BackendError(msg)
