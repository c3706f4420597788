"""`minddiffuser live`: a config, a bundle and a running stream; pictures to the broker."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoder.models.bundle import Bundle
from minddiffuser.config.spec import load_config
from minddiffuser.console import console, print_line, show_page
from minddiffuser.display.local import Local, answering
from minddiffuser.display.neighbours import findable
from minddiffuser.display.running import announced
from minddiffuser.errors import AppError
from minddiffuser.live.beside import beside_for, check_retrieval
from minddiffuser.live.engines import engine_for
from minddiffuser.live.publishing import archiving, publisher_of
from minddiffuser.live.session import Session
from minddiffuser.loading import unless_stopped
from minddiffuser.training.data import matcher_of, originals, shown_pictures
from minddiffuser.training.preprocessing import check_preprocessing
from minddiffuser.training.training import bundle_path
from minddiffuser.versions import versions_of
from stream.lsl.notes import NoteOutlet
from stream.mqtt.broker import USUAL_PORT, EmbeddedBroker

if TYPE_CHECKING:
    from minddiffuser.config.spec import Config
    from minddiffuser.live.session import Account
    from stream.lsl.live import LiveIngest

NO_PERSON = ("simulated", "macaque")
"""Words of a description that must be read wherever its pictures are shown."""
LONGEST = 200
"""Characters of a description."""


async def run_live(
    config_file: Path,
    bundle_folder: Path | None,
    stop: asyncio.Event,
    *,
    seconds: float | None,
    display: bool,
    wait_s: float | None = None,
) -> dict[str, Any]:
    """Decode a live stream until `stop` is set or `seconds` are over.

    The order is the one in which things can go wrong cheaply: config, bundle, broker, page, models, stream. `wait_s`
    is how long to wait for the stream, by default `source.timeout_s`.

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
    check_retrieval(config, bundle)
    pictures = await unless_stopped(lambda: shown_pictures(config.data), stop)
    matcher = matcher_of(pictures, config.labels)
    async with AsyncExitStack() as stack:
        broker = config.broker
        if broker.host is None:
            embedded = await stack.enter_async_context(EmbeddedBroker(broker.port))
            usual = f"; {USUAL_PORT} is taken" if broker.port is None and embedded.port != USUAL_PORT else ""
            broker = embedded.spec
            console.print(f"Broker: {broker.address} (embedded, this machine only{usual})", highlight=False)
        config = config.model_copy(update={"broker": broker})
        description = description_of(str(bundle.meta.get("data", "")))
        publisher = await stack.enter_async_context(publisher_of(config, description))
        archive = await stack.enter_async_context(archiving(config, description, versions_of(bundle)))
        local = Local(config.publish.session, archive, NoteOutlet(config.publish.session))
        stack.enter_context(announced(local.session, broker))
        door = await stack.enter_async_context(answering(local))
        stack.enter_context(findable(local.session, broker.address, door))
        if display:
            from minddiffuser.display.server import Display

            where = config.display
            page = await stack.enter_async_context(
                Display(broker, where.host, where.port, archive=archive, own=local.session, find=local.find)
            )
            show_page("Page:", page.urls)
        engine = await stack.enter_async_context(engine_for(config, bundle, stop))
        beside = await unless_stopped(lambda: beside_for(config, bundle, engine, pictures), stop)

        def source_is_there(ingest: LiveIngest) -> None:
            _say_found(ingest)
            assert ingest.source is not None
            if (data := data_of(description, ingest.source.description)) != description:
                publisher.data = data
                if archive is not None:
                    archive.made_from(data)

        session = Session(
            config,
            bundle,
            engine,
            publisher,
            originals(pictures),
            labels=matcher,
            beside=beside,
            local=local,
            wait_s=wait_s,
            on_source=source_is_there,
        )
        _say_what_is_sought(config, wait_s)
        running = asyncio.create_task(session.run(stop))
        await asyncio.wait({running}, timeout=seconds)
        if not running.done() and not stop.is_set():
            session.ending = f"its {seconds:g} s are over"
        stop.set()
        account = await running
    if not account.ingest["samples"]:
        raise AppError(_nothing_came(config, account))
    # Only now, when the publisher has left the broker, are its counts final.
    messages = {kind: asdict(counts) for kind, counts in publisher.counts.items()}
    return asdict(account) | {
        "delay": config.window.delay,
        "messages": messages,
        "archive": archive and {"folder": str(archive.folder), **archive.account()},
    }


def _say_what_is_sought(config: Config, wait_s: float | None) -> None:
    patience = config.source.timeout_s if wait_s is None else wait_s
    for_how_long = "until it comes" if patience == math.inf else f"for {patience:g} s"
    hint = "" if wait_s is not None else "; --wait forever waits for the amplifier and its markers"
    text = f"Looking for a stream with {config.source} {for_how_long} (Ctrl-C ends it{hint})"
    print_line(text)


def _say_found(ingest: LiveIngest) -> None:
    source = ingest.source
    assert source is not None
    markers = f"; markers: {', '.join(ingest.marker_names)}" if ingest.marker_names else ""
    text = (
        f"Found {source.name!r} (type {source.type}): {len(source.channels)} channels at {source.sfreq:g} Hz{markers}"
    )
    print_line(text)


def description_of(calibration: str) -> str:
    """Return what live pictures are made from: what the calibration was made from, which is no recording now."""
    return calibration.removesuffix(" recording")


def data_of(calibration: str, source: str) -> str:
    """Return what live pictures are made from, now that the source is there.

    Parameters
    ----------
    calibration : str
        What the calibration was made from.
    source : str
        What the stream says of itself: desc/description.

    Returns
    -------
    str
        The source's own words, where it is nobody's brain, or no person's, and the calibration does not say so.
    """
    unsaid = any(word in source and word not in calibration for word in NO_PERSON)
    return " ".join(description_of(source).split())[:LONGEST] if unsaid else calibration


def _nothing_came(config: Config, account: Account) -> str:
    """Return one line that names the streams from which no sample came."""
    problems = f" ({account.problems[0]})" if account.problems else ""
    if account.stream is None:
        return f"nothing was decoded: the stream was not there before the end; looked for {config.source}{problems}"
    return f"nothing was decoded: stream {account.stream!r} was there and sent no sample{problems}"
