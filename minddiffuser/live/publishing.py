"""A session's way out, set up from its config: the publisher, and the archive of what it published."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

from minddiffuser.archive.archive import Archive
from minddiffuser.config.spec import Config
from minddiffuser.errors import AppError
from minddiffuser.viewing.subscribe import subscribe
from stream.errors import PublishError
from stream.mqtt.homeassistant import announcement
from stream.mqtt.publisher import Publisher
from stream.tasks import one_line, supervised

logger = logging.getLogger(__name__)

QUIET_S = 0.5
"""Seconds of silence after which, once the session has ended, no more of it is under way to the archive."""
AGAIN_S = 2.0
"""Seconds until an archive that was cut off subscribes anew."""


def publisher_of(config: Config, data: str) -> Publisher:
    """Return the publisher that a config describes; `data` says what the pictures are made from."""
    spec = config.publish
    prefix = spec.home_assistant
    announce = announcement(spec.session, prefix, f"image/{spec.format}") if prefix else []
    return Publisher(config.broker, spec.session, data=data, qos=spec.qos, retain=spec.retain, announce=announce)


@asynccontextmanager
async def archiving(
    config: Config, data: str, versions: Mapping[str, str] | None = None
) -> AsyncIterator[Archive | None]:
    """Archive what the session publishes while the block runs, where the config asks for it.

    The archive gets what a subscriber gets: what is in it went through the broker. Should the disk be full, the session
    goes on, and log and `Archive.account` say what is missing.
    """
    if config.archive.folder is None:
        yield None
        return
    about = {
        "data": data,
        "participant": config.participant,
        "config": config.own(),
        "versions": versions or {"minddiffuser": version("minddiffuser")},
    }
    archive = Archive(config.archive, config.publish.session, about)
    stop, ready = asyncio.Event(), asyncio.Event()
    keeping = supervised(_keep(config, archive, stop, ready), "archive", lambda _: ready.set())
    try:
        await ready.wait()
        yield archive
    finally:
        stop.set()
        await asyncio.gather(keeping, return_exceptions=True)  # an error of its own is in the log by now
        archive.discard_if_empty()
        if archive.failed or archive.lost:
            unwritten = f"{archive.failed} frames that could not be written" if archive.failed else ""
            unseen = f"{archive.lost} pictures that never came through the broker" if archive.lost else ""
            logger.error("archive %s lacks %s", archive.folder, " and ".join(filter(None, (unwritten, unseen))))


async def _keep(config: Config, archive: Archive, stop: asyncio.Event, ready: asyncio.Event) -> None:
    """Archive until `stop`; where the subscription ends before that, begin another."""
    while True:
        try:
            summary = await subscribe(
                config.broker,
                config.publish.session,
                keep=archive.add,
                on_ready=ready.set,
                stop=stop,
                quiet_s=QUIET_S,
            )
            archive.lost += summary.lost + summary.dropped + summary.failed
            return
        except Exception as error:
            words = str(error) if isinstance(error, AppError | PublishError) else one_line(error)
            logger.error("archive: %s; trying again", words)
            ready.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S):
                await stop.wait()
            return
