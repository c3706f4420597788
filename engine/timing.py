"""How fast a configured engine is on this machine: each network in each backend, the preview, the picture."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from engine.backends.base import Backend, run_part
from engine.backends.cache import EngineCache
from engine.backends.choice import make_backend
from engine.backends.export import example
from engine.errors import BackendError, CacheError
from engine.models.loading import Models, load_models
from engine.models.parts import parts_of
from engine.picture import Picture
from engine.reconstructor import Reconstructor
from engine.registry import BACKENDS
from engine.spec import EngineSpec
from stream.types.progress import Progress

_WARM = 2
_LEAST = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of some repeats, after a warm-up."""

    p50: float
    p99: float
    repeats: int


@dataclass(frozen=True, slots=True)
class EngineTimings:
    """Timings of an engine.

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


def time_engine(spec: EngineSpec, cache: Path, *, repeats: int, report: Progress | None = None) -> EngineTimings:
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
    for name in BACKENDS:
        if reason := _not_timed(name, chosen.name, models.device):
            skipped[name] = reason
            continue
        try:
            backend = chosen if name == chosen.name else make_backend(name, models, EngineCache(cache)).backend
        except (BackendError, CacheError) as error:
            skipped[name] = str(error).removeprefix(f"backend {name}: ")
            continue
        timings = network_timings(backend, models, repeats, report=report)
        networks[name] = {label.partition(" ")[0]: timing for label, timing in timings.items()}
    preview, picture = picture_timings(reconstructor, repeats, report)
    return EngineTimings(chosen.name, reconstructor.left, networks, skipped, preview, picture)


def _not_timed(name: str, chosen: str, device: torch.device) -> str | None:
    entry = BACKENDS[name]
    reason = entry.unavailable_because(device)
    if entry.minutes_to_start and name != chosen and reason is None:
        return f"takes minutes to start; `--backend {name}` times it"
    return reason


def network_timings(
    backend: Backend,
    models: Models,
    repeats: int,
    batches: Sequence[int] = (1,),
    report: Progress | None = None,
    within_s: float = math.inf,
) -> dict[str, Timing]:
    """Time one call of each network by batch size: 'unet b1', 'decoder b1', ...; fewer than `repeats` in `within_s`."""
    timings = {}
    for batch in batches:
        inputs = example(models, "unet", batch, torch.Generator().manual_seed(0))
        for part in parts_of(models):
            call = partial(run_part, backend, part, inputs if part == "unet" else inputs[:1])
            what = f"{part} b{batch} in {backend.name}"
            timings[f"{part} b{batch}"] = call_timing(call, models.device, repeats, what, report, within_s)
    return timings


def call_timing(
    call: Callable[[], object],
    device: torch.device,
    repeats: int,
    what: str = "",
    report: Progress | None = None,
    within_s: float = math.inf,
) -> Timing:
    """Time a call, after a warm-up."""
    return _summary([_seconds(call, device) for _ in _counted(repeats, what, report, within_s)][_WARM:])


def picture_timings(
    reconstructor: Reconstructor, repeats: int, report: Progress | None = None, within_s: float = math.inf
) -> tuple[Timing, Timing]:
    """Time the preview and the picture of one window."""
    previews, pictures = [], []
    for _ in _counted(repeats, f"pictures with {reconstructor.backend.name}", report, within_s):
        start = time.perf_counter()

        def note(_: list[Picture], start: float = start) -> None:
            previews.append(time.perf_counter() - start)

        reconstructor.dry_run(1, note)
        pictures.append(time.perf_counter() - start)
    return _summary(previews[_WARM:]), _summary(pictures[_WARM:])


def _counted(repeats: int, what: str, report: Progress | None, within_s: float) -> Iterator[int]:
    """Count warm-up and repeats; the clock runs from the first repeat, and there are three at least."""
    began = math.inf
    total = repeats + _WARM
    for number in range(total):
        if number == _WARM:
            began = time.perf_counter()
        done = number >= _WARM + _LEAST and time.perf_counter() - began > within_s
        if report is not None:
            report(what, total if done else number, total)
        if done:
            return
        yield number
    if report is not None:
        report(what, total, total)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _summary(seconds: list[float]) -> Timing:
    p50, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 99])
    return Timing(round(float(p50), 3), round(float(p99), 3), len(seconds))
