"""`minddiffuser live`: a config, a bundle and a running stream; pictures to the broker."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoder.bundle import Bundle
from minddiffuser.config import load_config
from minddiffuser.console import console, show_page
from minddiffuser.data import matcher_of, originals, shown_pictures
from minddiffuser.errors import AppError
from minddiffuser.loading import unless_stopped
from minddiffuser.preprocessing import check_preprocessing
from minddiffuser.publishing import archiving, publisher_of
from minddiffuser.session import Session
from minddiffuser.training import bundle_path
from stream.broker import EmbeddedBroker

if TYPE_CHECKING:
    from engine.models import Models
    from engine.reconstructor import Reconstructor
    from engine.spec import EngineSpec
    from minddiffuser.config import Config
    from minddiffuser.session import Account


async def run_live(
    config_file: Path, bundle_folder: Path | None, stop: asyncio.Event, *, seconds: float | None, display: bool
) -> dict[str, Any]:
    """Decode a live stream until `stop` is set or `seconds` are over.

    The order is the one in which things can go wrong cheaply: config, bundle, broker, page, models, stream.

    Raises
    ------
    AppError
        The config prepares windows otherwise than the bundle was trained with, or no data came.
    KeyboardInterrupt
        Stopped while the models were loading.
    """
    config = load_config(config_file)
    bundle = Bundle.load(bundle_folder or bundle_path(config))
    check_preprocessing(config, bundle)
    pictures = await unless_stopped(lambda: shown_pictures(config.data), stop)
    matcher = matcher_of(pictures, config.labels)
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
            from minddiffuser.display.server import Display

            where = config.display
            page = await stack.enter_async_context(
                Display(broker, where.host, where.port, archive=archive, own=config.publish.session)
            )
            show_page("Page:", page.urls)
        reconstructor = await unless_stopped(lambda: ready_engine(config.engine, bundle), stop)
        session = Session(config, bundle, reconstructor, publisher, originals(pictures), labels=matcher)
        running = asyncio.create_task(session.run(stop))
        await asyncio.wait({running}, timeout=seconds)
        asked = stop.is_set()  # whoever ends it before the first sample knows that there was none
        stop.set()
        account = await running
    if not account.ingest["samples"] and not asked:
        raise AppError(_nothing_came(config, account))
    # Only now, when the publisher has left the broker, are its counts final.
    messages = {kind: asdict(counts) for kind, counts in publisher.counts.items()}
    return asdict(account) | {"messages": messages, "archive": archive.account() if archive else None}


def _nothing_came(config: Config, account: Account) -> str:
    """Say in one line that no sample came, and from where none did."""
    problems = f" ({account.problems[0]})" if account.problems else ""
    if account.stream is None:
        return f"nothing was decoded: the stream was not there before the end; looked for {config.source}{problems}"
    return f"nothing was decoded: stream {account.stream!r} was there and sent no sample{problems}"


def ready_engine(spec: EngineSpec, bundle: Bundle, models: Models | None = None) -> Reconstructor:
    """Load the engine, make sure that it speaks the bundle's feature space, and warm it up.

    Raises
    ------
    decoder.errors.BundleError
        The bundle was trained for other models.
    """
    from engine.reconstructor import Reconstructor
    from minddiffuser.cache import cache_dir

    reconstructor = Reconstructor(spec, models, cache_dir() / "engines")
    bundle.check_feature_space(reconstructor.models.feature_space)
    reconstructor.warm_up()
    return reconstructor
