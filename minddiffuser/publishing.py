"""A session's way out, set up from its config: the publisher, and the archive of what it published."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from minddiffuser.archive import Archive
from minddiffuser.config import Config
from minddiffuser.errors import AppError
from minddiffuser.subscribe import subscribe
from stream.errors import PublishError
from stream.homeassistant import announcement
from stream.mqtt import Publisher

log = logging.getLogger(__name__)


def publisher_of(config: Config, data: str) -> Publisher:
    """Make the publisher that a config describes; `data` says what the pictures are made from."""
    spec = config.publish
    prefix = spec.home_assistant
    announce = announcement(spec.session, prefix, f"image/{spec.format}") if prefix else []
    return Publisher(config.broker, spec.session, data=data, qos=spec.qos, retain=spec.retain, announce=announce)


@asynccontextmanager
async def archiving(config: Config, data: str) -> AsyncIterator[Archive | None]:
    """Archive what the session publishes while the block runs, where the config asks for it.

    The archive gets what a subscriber gets: what is in it went through the broker. Should the disk be full, the session
    goes on without it, and the log says so.
    """
    if config.archive.folder is None:
        yield None
        return
    about = {
        "data": data,
        "config": config.own(),
        "versions": {"minddiffuser": version("minddiffuser")},
    }
    archive = Archive(config.archive, config.publish.session, about)
    stop, ready = asyncio.Event(), asyncio.Event()
    keeping = asyncio.create_task(_keep(config, archive, stop, ready), name="archive")
    try:
        await ready.wait()
        yield archive
    finally:
        stop.set()
        await keeping


async def _keep(config: Config, archive: Archive, stop: asyncio.Event, ready: asyncio.Event) -> None:
    try:
        summary = await subscribe(
            config.broker, config.publish.session, keep=archive.add, on_ready=ready.set, stop=stop
        )
        if summary.lost or summary.dropped:
            log.warning("archive %s lacks %d published pictures", archive.folder, summary.lost + summary.dropped)
    except (AppError, PublishError) as error:
        log.error("nothing more is archived: %s", error)
    finally:
        ready.set()
