"""`minddiffuser live`: a config, a bundle and a running stream; pictures to the broker."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from decoder.bundle import Bundle
from decoder.stimuli import read_stimuli
from engine.models import Models
from engine.reconstructor import Reconstructor
from engine.spec import EngineSpec
from minddiffuser.cache import cache_dir
from minddiffuser.config import load_config
from minddiffuser.console import console, show_page
from minddiffuser.data import originals
from minddiffuser.display.server import Display
from minddiffuser.publishing import archiving, publisher_of
from minddiffuser.session import Session
from minddiffuser.training import bundle_path
from stream.broker import EmbeddedBroker


async def run_live(
    config_file: Path, bundle_folder: Path | None, stop: asyncio.Event, *, seconds: float | None, display: bool
) -> dict[str, Any]:
    """Decode a live stream until `stop` is set or `seconds` are over.

    The order is the one in which things can go wrong cheaply: config, bundle, broker, page, models, stream.
    """
    config = load_config(config_file)
    bundle = Bundle.load(bundle_folder or bundle_path(config))
    async with AsyncExitStack() as stack:
        broker = config.broker
        if broker.host is None:
            broker = (await stack.enter_async_context(EmbeddedBroker(broker.port or 0))).spec
            console.print(f"Broker: {broker.address} (embedded, this machine only)")
        config = config.model_copy(update={"broker": broker})
        description = str(bundle.meta.get("data", ""))
        publisher = await stack.enter_async_context(publisher_of(config, description))
        archive = await stack.enter_async_context(archiving(config, description))
        if display:
            page = await stack.enter_async_context(
                Display(broker, config.display.host, config.display.port, archive=archive)
            )
            show_page("Page:", page.urls)
        reconstructor = await asyncio.to_thread(ready_engine, config.engine, bundle)
        shown = originals(read_stimuli(config.data.stimuli)) if config.data.stimuli else None
        session = Session(config, bundle, reconstructor, publisher, shown)
        running = asyncio.create_task(session.run(stop))
        await asyncio.wait({running}, timeout=seconds)
        stop.set()
        account = await running
    # Only now, when the publisher has left the broker, are its counts final.
    return asdict(account) | {"messages": {kind: asdict(counts) for kind, counts in publisher.counts.items()}}


def ready_engine(spec: EngineSpec, bundle: Bundle, models: Models | None = None) -> Reconstructor:
    """Load the engine, make sure that it speaks the bundle's feature space, and warm it up.

    Raises
    ------
    decoder.errors.BundleError
        The bundle was trained for other models.
    """
    reconstructor = Reconstructor(spec, models, cache_dir() / "engines")
    bundle.check_feature_space(reconstructor.models.feature_space)
    reconstructor.warm_up()
    return reconstructor
