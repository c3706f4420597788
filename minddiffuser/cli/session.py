"""Commands of a live session and of those who look at it: demo, live, display, subscribe."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from minddiffuser.cli.common import (
    LOST,
    ConfigFile,
    Json,
    Verbose,
    answer,
    check_bundle,
    check_port,
    config_at,
    run,
    seconds_of,
    session_at,
)
from minddiffuser.cli.output import say
from minddiffuser.shipped import CONFIGS
from minddiffuser.stopping import stopping
from stream.atomic import check_file, check_folder

Broker = Annotated[
    str | None,
    typer.Option(help="HOST:PORT, or a broker section as JSON; default: of the session that runs here"),
]
WhichSession = Annotated[str | None, typer.Option(help="Which session; + for all; default: the one that runs here")]
STARTED = time.monotonic()
T = TypeVar("T")


def _until_stopped(work: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    """Run what has no end of its own: a request to end is its proper end, also while models load.

    Raises
    ------
    typer.Exit
        With 0, where it was ended before it had anything to answer.
    """
    try:
        return run(work)
    except KeyboardInterrupt:
        from minddiffuser.loading import leave

        leave(0)
        raise typer.Exit from None


def demo(
    headless: Annotated[bool, typer.Option(help="No page, no browser; end by itself")] = False,
    seconds: Annotated[float | None, typer.Option(min=1, help="How long to stream")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a JSON report at the end")] = None,
    config: Annotated[Path | None, typer.Option(help="Another config of a simulated participant")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the page")] = None,
    verbose: Verbose = False,
) -> None:
    """Run everything on this machine: a simulated participant, the live loop, a broker and the page."""
    page = config_at(config or CONFIGS / "demo.yaml").display
    if not headless:
        check_port(page.host, page.port if port is None else port)
    if report:
        check_file(report)
    from minddiffuser.cache import check_cache
    from minddiffuser.console import set_up_logging

    check_cache()
    set_up_logging(verbose)
    from minddiffuser.workflows.demo import prepare, run_demo

    stopping.interrupt()
    prepared = prepare(config, port)
    lost = _until_stopped(
        lambda stop: run_demo(prepared, stop, started=STARTED, headless=headless, seconds=seconds, report_to=report)
    )
    raise typer.Exit(LOST if lost else 0)


def live(
    config_file: ConfigFile,
    bundle: Annotated[Path | None, typer.Option(help="Trained decoder; default bundles/NAME")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after this long")] = None,
    display: Annotated[bool, typer.Option(help="Serve the page too")] = True,
    wait: Annotated[
        str | None,
        typer.Option(help="Seconds to wait for the amplifier and its markers, or forever; default source.timeout_s"),
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Decode a live LSL stream and publish pictures over MQTT.

    Exits with 1 if no data ever came, with 3 if its archive lacks pictures.
    """
    wait_s = seconds_of(wait)
    config = config_at(config_file)
    check_bundle(bundle or Path("bundles") / config.name)
    from minddiffuser.cache import check_cache
    from minddiffuser.console import set_up_logging

    check_cache()
    set_up_logging(verbose)
    from minddiffuser.live.live import run_live

    account = _until_stopped(
        lambda stop: run_live(config_file, bundle, stop, seconds=seconds, display=display, wait_s=wait_s)
    )
    from minddiffuser.cli.accounts import live as table

    answer(account, as_json=as_json, show=table)
    archive = account["archive"]
    raise typer.Exit(LOST if archive and (archive["failed"] or archive["lost"]) else 0)


def display(
    broker: Broker = None,
    session: WhichSession = None,
    host: Annotated[
        str, typer.Option(help="Address of the page; another than loopback asks for a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8765,
    verbose: Verbose = False,
) -> None:
    """Serve the page for sessions on any broker; without --broker for the one that runs on this machine."""
    address, which = session_at(broker, session)
    from minddiffuser.console import set_up_logging, show_page
    from minddiffuser.display.neighbours import Neighbours
    from minddiffuser.display.server import Display

    set_up_logging(verbose)
    neighbours = Neighbours(address.address)

    async def serve(stop: asyncio.Event) -> None:
        async with Display(address, host, port, session=which, find=neighbours.find) as page:
            show_page("The page is at", page.urls, " (Ctrl-C ends it)")
            await stop.wait()

    run(serve)


def subscribe(
    broker: Broker = None,
    session: WhichSession = None,
    save: Annotated[Path | None, typer.Option(help="Folder for pictures and their metadata")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1)] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many pictures")] = None,
    show: Annotated[bool, typer.Option(help="Draw pictures in the terminal")] = False,
    fail_on_loss: Annotated[bool, typer.Option(help="Exit with 3 if a published picture never came")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Receive pictures without a browser: save, count, time; without --broker from the session of this machine."""
    address, which = session_at(broker, session)
    if save:
        check_folder(save)
    from minddiffuser.console import console, set_up_logging
    from minddiffuser.viewing.subscribe import saver
    from minddiffuser.viewing.subscribe import subscribe as receive
    from minddiffuser.viewing.terminal import TerminalView

    set_up_logging(verbose)
    view = TerminalView(console) if show else None

    def ready() -> None:
        if as_json:
            say(json.dumps({"ready": True}))

    with view or nullcontext():
        summary = run(
            lambda stop: receive(
                address,
                which,
                keep=saver(save, which) if save else None,
                seconds=seconds,
                count=count,
                on_picture=view.draw if view else None,
                on_ready=ready,
                stop=stop,
            )
        )
    from minddiffuser.cli.accounts import subscribe as table

    answer(summary.to_dict(), as_json=as_json, show=partial(table, folder=str(save) if save else None))
    raise typer.Exit(LOST if fail_on_loss and summary.lost else 0)
