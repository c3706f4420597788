"""The engine of a session: in this process, or in a pool."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from minddiffuser.console import console
from minddiffuser.loading import unless_stopped
from minddiffuser.remote.engine import Engine, RemoteEngine
from minddiffuser.training.stage2 import engine_of

if TYPE_CHECKING:
    from decoder.models.bundle import Bundle
    from engine.models.loading import Models
    from engine.reconstructor import Reconstructor
    from engine.spec import EngineSpec
    from minddiffuser.config.spec import Config

logger = logging.getLogger(__name__)


def ready_engine(spec: EngineSpec, bundle: Bundle, models: Models | None = None) -> Reconstructor:
    """Load the engine, make sure that it speaks the bundle's feature space, and warm it up.

    Raises
    ------
    decoder.errors.BundleError
        The bundle was trained for other models.
    """
    from engine.backends.cache import EngineCache
    from engine.backends.choice import exports_first
    from engine.models.loading import load_models
    from engine.reconstructor import Reconstructor
    from minddiffuser.cache import cache_dir

    models, cache = models or load_models(spec.models, spec.device), cache_dir() / "engines"
    if spec.backend == "auto" and exports_first(models, EngineCache(cache)):
        words = "the networks are exported for this machine's fastest backend, once, which takes a minute or two"
        logger.warning("%s; engine.backend: torch starts at once", words)
    reconstructor = Reconstructor(engine_of(spec, bundle), models, cache)
    bundle.check_feature_space(reconstructor.models.feature_space)
    reconstructor.warm_up()
    return reconstructor


def made_here(config: Config) -> None:
    """Warn where a command that asks no pool is given a config that names one."""
    if config.engine.remote is not None:
        logger.warning("engine.remote is for live sessions: these pictures are made in this process, by this config")


@asynccontextmanager
async def engine_for(config: Config, bundle: Bundle, stop: asyncio.Event) -> AsyncIterator[Engine]:
    """Make the engine that a config names, ready for a bundle's windows, while the block runs.

    Raises
    ------
    AppError
        The pool cannot be reached or is not one for this bundle.
    decoder.errors.BundleError
        The bundle was trained for other models.
    KeyboardInterrupt
        `stop` was set while models were loading.
    """
    spec = config.engine
    if spec.remote is None:
        yield await _started(spec, bundle, stop)
        return
    local = await _started(spec, bundle, stop) if spec.fallback == "local" else None
    room = f"{config.publish.session}-{uuid.uuid4().hex[:8]}"
    stage2 = engine_of(spec, bundle).structure.mode != "none"
    async with RemoteEngine(spec, room, str(bundle.meta.get("feature_space")), stage2=stage2, fallback=local) as engine:
        logger.info("engine: the pool at %s, as room %s", spec.remote, room)
        yield engine


async def _started(spec: EngineSpec, bundle: Bundle, stop: asyncio.Event) -> Reconstructor:
    """Load the engine, and show that this goes on: an export takes minutes in which nothing else is said."""
    with console.status("starting the engine"):
        return await unless_stopped(lambda: ready_engine(spec, bundle), stop)
