"""The choice of a backend among those of the registry."""

import logging
from dataclasses import dataclass
from typing import cast

from engine.backends.base import Backend
from engine.backends.cache import EngineCache
from engine.backends.export import OPSETS, exportable, exported, onnx_key
from engine.backends.proof import REPORT_IT, proven
from engine.errors import BackendError, CacheError
from engine.models.loading import Models
from engine.models.parts import parts_of
from engine.registry import BACKENDS, ORDER, REFERENCE
from stream.types.progress import Progress

logger = logging.getLogger(__name__)


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


def make_backend(
    name: str,
    models: Models,
    cache: EngineCache | None = None,
    *,
    build: bool = False,
    report: Progress | None = None,
) -> Choice:
    """Return a backend by name; 'auto' is the first of the registry's `ORDER` that works.

    Each is proven against eager torch before it runs here for the first time (`engine.backends.proof`).

    Parameters
    ----------
    name : str
    models : Models
    cache : EngineCache, optional
        Where exported networks and engines are kept; without one only torch can run.
    build : bool
        Let 'auto' build what takes minutes; without, it takes a TensorRT engine only where one is there.
    report : callable, optional
        Called with how far exports and builds are.

    Raises
    ------
    BackendError
        If the backend asked for by name cannot run here: what is missing, and how to get it; or if its networks do not
        agree with eager torch's.
    CacheError
        If it needs an export and there is no room for it.
    """
    if name != "auto":
        return Choice(_open(name, models, cache, report, build=True), {})
    order = ORDER[models.device.type]
    left = {
        other: entry.unavailable_because(models.device) or entry.by_name_only
        for other, entry in BACKENDS.items()
        if other not in order
    }
    for candidate in order:
        try:
            backend = _open(candidate, models, cache, report, build=build)
        except (BackendError, CacheError) as error:
            left[candidate] = str(error).removeprefix(f"backend {candidate}: ")
            continue
        left |= dict.fromkeys(order[order.index(candidate) + 1 :], f"{candidate} is faster here")
        logger.info("backend %s; left: %s", candidate, "; ".join(f"{other} ({why})" for other, why in left.items()))
        return Choice(backend, left)
    msg = f"no backend runs here: {'; '.join(f'{other}: {why}' for other, why in left.items())}"
    raise BackendError(msg)


def open_backend(
    name: str,
    models: Models,
    cache: EngineCache | None,
    *,
    build: bool = True,
    report: Progress | None = None,
) -> Backend:
    """Return a backend that is there and needs no proof, or whose proof this is for."""
    return cast("Backend", BACKENDS[name].load().open_backend(name, models, cache, build=build, report=report))


def _open(name: str, models: Models, cache: EngineCache | None, report: Progress | None, *, build: bool) -> Backend:
    entry = BACKENDS[name]
    if reason := entry.unavailable_because(models.device):
        msg = f"backend {name}: {reason}"
        raise BackendError(msg)
    if cache is None and entry.needs_cache:
        msg = f"backend {name}: it needs a cache folder for exported networks, and none was given"
        raise BackendError(msg)

    def opened() -> Backend:
        return open_backend(name, models, cache, build=build, report=report)

    if name != REFERENCE:
        proof = proven(name, opened, models, cache, report)
        if proof.fault:
            raise BackendError(f"backend {name}: {proof.fault}: {REPORT_IT}")
    return opened()


def exports_first(models: Models, cache: EngineCache) -> bool:
    """Check whether 'auto' would export the networks before it starts, which takes a minute or two.

    Parameters
    ----------
    models : Models
    cache : EngineCache
        Where exports are kept.
    """
    runs_exports = (name for name in ORDER[models.device.type] if BACKENDS[name].checks_exports)
    if all(BACKENDS[name].unavailable_because(models.device) for name in runs_exports):
        return False
    source = exportable(models)
    return not all(any(cache.find(onnx_key(source, part, opset)) for opset in OPSETS) for part in parts_of(source))


def export_parts(models: Models, cache: EngineCache, report: Progress | None = None) -> str | None:
    """Export both networks as the runtimes here read them; the cache's `given` says where they are.

    Parameters
    ----------
    models : Models
    cache : EngineCache
    report : callable, optional

    Returns
    -------
    str or None
        The runtime that the exports were run in and compared with torch; None: there is none here.

    Raises
    ------
    BackendError
        If a network cannot be exported, or the runtime makes something else of it.
    CacheError
        If there is no room for it.
    """
    for entry in BACKENDS.values():
        if entry.checks_exports and entry.unavailable_because(models.device) is None:
            _open(entry.name, models, cache, report, build=True)
            return entry.name
    for part in parts_of(models):
        exported(exportable(models), part, cache, OPSETS[-1], report=report)
    return None
