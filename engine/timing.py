"""How fast a configured engine is on this machine: each network in each backend, the preview, the picture."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engine.backends.choice import NAMES, Backend, make_backend, missing
from engine.cache import EngineCache
from engine.errors import BackendError, CacheError
from engine.export import Report, example
from engine.models import load_models
from engine.picture import Picture
from engine.reconstructor import Reconstructor
from engine.spec import BackendName, EngineSpec

_MINUTES: tuple[BackendName, ...] = ("torch-compile", "onnx-tensorrt", "tensorrt")
_WARM = 2


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of some repeats, after a warm-up."""

    p50: float
    p99: float
    repeats: int


@dataclass(frozen=True, slots=True)
class EngineTimings:
    """What `time_engine` found.

    Attributes
    ----------
    backend : str
        What the preview and the picture were made with.
    left : dict of str to str
        Why 'auto' left the others.
    networks : dict of str to (dict of str to Timing)
        By backend: one call of 'unet' and of 'decoder', batch 1.
    skipped : dict of str to str
        Backends whose networks were not timed, and why.
    preview, picture : Timing
        From features to the pixels of stage 1 and of the final picture, one window at a time.
    """

    backend: str
    left: dict[str, str]
    networks: dict[str, dict[str, Timing]]
    skipped: dict[str, str]
    preview: Timing
    picture: Timing


def time_engine(spec: EngineSpec, cache: Path, *, repeats: int, report: Report | None = None) -> EngineTimings:
    """Time an engine: all backends that start within seconds, and the one that the configuration names.

    Parameters
    ----------
    spec : EngineSpec
    cache : Path
        Folder for exported networks and built engines.
    repeats : int
    report : callable, optional

    Raises
    ------
    EngineError
        If the configured engine cannot run.
    """
    models = load_models(spec.models, spec.device)
    reconstructor = Reconstructor(spec, models, cache)
    chosen = reconstructor.backend
    networks: dict[str, dict[str, Timing]] = {}
    skipped: dict[str, str] = {}
    for name in NAMES:
        if reason := _not_timed(name, chosen.name, models.device):
            skipped[name] = reason
            continue
        try:
            backend = chosen if name == chosen.name else make_backend(name, models, EngineCache(cache)).backend
        except (BackendError, CacheError) as error:
            skipped[name] = str(error).removeprefix(f"backend {name}: ")
            continue
        networks[name] = _time_networks(backend, reconstructor, repeats, report)
    preview, picture = _time_pictures(reconstructor, repeats, report)
    return EngineTimings(chosen.name, reconstructor.left, networks, skipped, preview, picture)


def _not_timed(name: BackendName, chosen: str, device: torch.device) -> str | None:
    if name in _MINUTES and name != chosen and missing(name, device) is None:
        return f"takes minutes to start; `--backend {name}` times it"
    return missing(name, device)


def _time_networks(
    backend: Backend, reconstructor: Reconstructor, repeats: int, report: Report | None
) -> dict[str, Timing]:
    models = reconstructor.models
    inputs = example(models, "unet", 1, torch.Generator().manual_seed(0))
    calls: dict[str, Callable[[], object]] = {
        "unet": lambda: backend.unet(*inputs),
        "decoder": lambda: backend.decode(inputs[0]),
    }
    return {
        part: _summary(
            [_seconds(call, models.device) for _ in _counted(repeats, f"{part} in {backend.name}", report)][_WARM:]
        )
        for part, call in calls.items()
    }


def _time_pictures(reconstructor: Reconstructor, repeats: int, report: Report | None) -> tuple[Timing, Timing]:
    previews, pictures = [], []
    for _ in _counted(repeats, f"pictures with {reconstructor.backend.name}", report):
        began = time.perf_counter()

        def note(_: list[Picture], began: float = began) -> None:
            previews.append(time.perf_counter() - began)

        reconstructor.rehearse(1, note)
        pictures.append(time.perf_counter() - began)
    return _summary(previews[_WARM:]), _summary(pictures[_WARM:])


def _counted(repeats: int, what: str, report: Report | None) -> Iterator[int]:
    for number in range(total := repeats + _WARM):
        yield number
        if report is not None:
            report(what, number + 1, total)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _summary(seconds: list[float]) -> Timing:
    p50, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 99])
    return Timing(round(float(p50), 3), round(float(p99), 3), len(seconds))
