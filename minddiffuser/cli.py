"""The command line; nothing heavy is imported before a command needs it.

Exit codes: 0 done (also when stopped with Ctrl-C or SIGTERM), 1 something is wrong, in one line on stderr,
2 wrong usage, 3 done but something was lost and the command was asked to mind, 130 stopped before it was done.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from decoder.errors import DecoderError
from engine.errors import EngineError
from minddiffuser.children import TIED, end_with_parent
from minddiffuser.enginecli import engine_app
from minddiffuser.errors import AppError
from stream.errors import SourceError, StreamError

if TYPE_CHECKING:
    from stream.broker import BrokerSpec

T = TypeVar("T")

LOST, STOPPED = 3, 130
STARTED = time.monotonic()

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Shows, a moment later, the picture a person is looking at, from brain data streamed over LSL.",
)
app.add_typer(engine_app, name="engine")

ConfigFile = Annotated[Path, typer.Argument(help="YAML file, such as configs/demo.yaml")]
DataDir = Annotated[
    Path | None, typer.Option("--data", envvar="MINDDIFFUSER_DATA", help="Folder of recorded data sets")
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr")]


def main() -> None:
    """Run the command line; every error of ours is one line and exit code 1."""
    # Idle OpenMP threads spin by default; beside replay, broker and page that multiplies the latency on few cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if TIED in os.environ:
        end_with_parent()
    try:
        app()
    except (AppError, DecoderError, EngineError, StreamError) as error:
        typer.echo(f"minddiffuser: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(STOPPED)


@app.command()
def demo(
    headless: Annotated[bool, typer.Option(help="No page, no browser; end by itself")] = False,
    seconds: Annotated[float | None, typer.Option(min=1, help="How long to stream")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a JSON report at the end")] = None,
    config: Annotated[Path | None, typer.Option(help="Another config of a simulated participant")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the page")] = None,
    verbose: Verbose = False,
) -> None:
    """Run everything on this machine: a simulated participant, the live loop, a broker and the page."""
    from minddiffuser.console import set_up_logging
    from minddiffuser.demo import prepare, run_demo

    set_up_logging(verbose)
    prepared = prepare(config, port)
    lost = _run(
        lambda stop: run_demo(prepared, stop, started=STARTED, headless=headless, seconds=seconds, report_to=report)
    )
    raise typer.Exit(LOST if lost else 0)


@app.command()
def live(
    config_file: ConfigFile,
    bundle: Annotated[Path | None, typer.Option(help="Trained decoder; default bundles/NAME")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after this long")] = None,
    display: Annotated[bool, typer.Option(help="Serve the page too")] = True,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Decode a live LSL stream and publish pictures over MQTT."""
    from minddiffuser.console import set_up_logging
    from minddiffuser.live import run_live

    set_up_logging(verbose)
    _answer(_run(lambda stop: run_live(config_file, bundle, stop, seconds=seconds, display=display)), as_json=as_json)


@app.command()
def replay(
    recordings: Annotated[
        list[Path],
        typer.Argument(
            help="XDF, FIF, EDF/BDF, BrainVision, EEGLAB, CSV, NPZ or NIfTI files, or BIDS folders; several are played "
            "side by side, each begun as long after the first as it was recorded"
        ),
    ],
    speed: Annotated[float, typer.Option(min=0.1, max=100, help="1 is the recording's own time")] = 1.0,
    loop: Annotated[bool, typer.Option(help="Begin again at the end")] = False,
    name: Annotated[str | None, typer.Option(help="LSL name and source id of the first stream")] = None,
    wait: Annotated[bool, typer.Option(help="Begin when somebody listens")] = True,
    subject: Annotated[str | None, typer.Option(help="Of the run in a BIDS folder")] = None,
    session: Annotated[str | None, typer.Option(help="Of the run in a BIDS folder")] = None,
    task: Annotated[str | None, typer.Option(help="Of the run in a BIDS folder")] = None,
    run: Annotated[str | None, typer.Option(help="Of the run in a BIDS folder")] = None,
    label: Annotated[str | None, typer.Option(help="Column of BIDS' events.tsv that names events")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Send recordings as live LSL streams: their data, and their events as string markers."""
    from minddiffuser.console import progress, set_up_logging
    from stream.bids import run_at
    from stream.recordings import read
    from stream.replay import replay as send

    set_up_logging(verbose)
    stop = _stop_on_signal()
    entities = {"subject": subject, "session": session, "task": task, "run": run, "label": label}
    in_bids = {name: value for name, value in entities.items() if value is not None}
    runs = [run_at(path) for path in recordings]
    if in_bids and not any(runs):
        raise AppError(f"--{next(iter(in_bids))} chooses in a BIDS folder; none is named")
    loaded = [
        read(found.model_copy(update=in_bids) if found else path) for path, found in zip(recordings, runs, strict=True)
    ]
    if name and loaded[0].streams:
        first = replace(loaded[0].streams[0], name=name, source_id=name)
        loaded[0] = replace(loaded[0], streams=(first, *loaded[0].streams[1:]))
    title = " + ".join(one.name for one in loaded)
    with progress() as report:
        send(
            *loaded,
            speed=speed,
            loop=loop,
            wait_for_consumers=wait,
            progress=lambda done, total: report(f"replaying {title}", round(done), round(total)),
            stop=stop,
        )
    _answer({"replayed": title, "stopped": stop.is_set()}, as_json=as_json)


@app.command()
def record(
    file: Annotated[Path, typer.Argument(help="New XDF file")],
    stream: Annotated[
        list[str] | None, typer.Option(help="Name of a stream, or type=..., source_id=...; repeat; default all")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after this long")] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to look for the streams")] = 10.0,
    fail_on_loss: Annotated[bool, typer.Option(help="Exit with 3 if samples are missing")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write incoming LSL streams, markers among them, to an XDF file; Ctrl-C ends it."""
    from minddiffuser.console import console, set_up_logging
    from stream.record import RecordAccount
    from stream.record import record as write
    from stream.sources import selector

    set_up_logging(verbose)
    stop = _stop_on_signal()

    with console.status(f"looking for streams to record to {file}") as line:

        def show(account: RecordAccount) -> None:
            parts = [f"{one.name} {one.samples}" + f" ({one.lost} lost)" * bool(one.lost) for one in account.streams]
            line.update(f"{account.file}  {account.seconds:.0f} s  {account.bytes / 1e6:.1f} MB  {'  '.join(parts)}")

        wanted = [selector(text) for text in stream or ()]
        try:
            account = write(file, wanted, seconds=seconds, timeout_s=timeout, progress=show, stop=stop)
        except SourceError:
            if stop.is_set():
                raise AppError("stopped before the streams were found: nothing is recorded") from None
            raise
    _answer({**asdict(account), "lost": account.lost}, as_json=as_json)
    raise typer.Exit(LOST if fail_on_loss and account.lost else 0)


@app.command()
def display(
    broker: Annotated[str, typer.Option(help="HOST:PORT, or a broker section as JSON")] = "127.0.0.1:1883",
    session: Annotated[str, typer.Option(help="Which session; + for all")] = "+",
    host: Annotated[
        str, typer.Option(help="Address of the page; another than loopback asks for a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8765,
    verbose: Verbose = False,
) -> None:
    """Serve the page for sessions on any broker."""
    from minddiffuser.console import console, set_up_logging
    from minddiffuser.display.server import Display

    set_up_logging(verbose)

    async def serve(stop: asyncio.Event) -> None:
        async with Display(_broker(broker), host, port, session=session) as page:
            console.print(f"The page is at [bold]{page.url}[/bold] (Ctrl-C ends it)")
            await stop.wait()

    _run(serve)


@app.command()
def subscribe(
    broker: Annotated[str, typer.Option(help="HOST:PORT, or a broker section as JSON")] = "127.0.0.1:1883",
    session: Annotated[str, typer.Option(help="Which session; + for all")] = "+",
    save: Annotated[Path | None, typer.Option(help="Folder for pictures and their metadata")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1)] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many pictures")] = None,
    show: Annotated[bool, typer.Option(help="Draw pictures in the terminal")] = False,
    fail_on_loss: Annotated[bool, typer.Option(help="Exit with 3 if a published picture never came")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Receive pictures without a browser: save, count, time."""
    from contextlib import nullcontext

    from minddiffuser.console import console, set_up_logging
    from minddiffuser.subscribe import saver
    from minddiffuser.subscribe import subscribe as receive
    from minddiffuser.terminal import TerminalView

    set_up_logging(verbose)
    view = TerminalView(console) if show else None

    def ready() -> None:
        if as_json:
            typer.echo(json.dumps({"ready": True}))

    with view or nullcontext():
        summary = _run(
            lambda stop: receive(
                _broker(broker),
                session,
                keep=saver(save, session) if save else None,
                seconds=seconds,
                count=count,
                on_picture=view.draw if view else None,
                on_ready=ready,
                stop=stop,
            )
        )
    _answer(summary.to_dict(), as_json=as_json)
    raise typer.Exit(LOST if fail_on_loss and summary.lost else 0)


@app.command()
def train(
    config_file: ConfigFile,
    data: DataDir = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the bundle; default bundles/NAME")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Move this bundle to the recording; a few minutes of it are enough")
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Fit a decoder to a calibration recording and write it as a bundle."""
    from minddiffuser.console import set_up_logging
    from minddiffuser.training import train_from_file

    set_up_logging(verbose)
    _answer(train_from_file(config_file, data, out, start), as_json=as_json)


@app.command()
def evaluate(
    bundle: Annotated[
        Path,
        typer.Argument(
            help="Trained decoder, the archive of a session, or a config: cross-validated on all its recordings"
        ),
    ],
    data: DataDir = None,
    live_too: Annotated[
        bool, typer.Option("--live/--offline", help="Also replay the recording and decode it live")
    ] = True,
    pictures: Annotated[Path | None, typer.Option(help="Folder for the reconstructed pictures")] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Only the first so many windows")] = None,
    live_limit: Annotated[
        int | None, typer.Option(min=2, help="Of those, only the first so many live, which takes as long as they last")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page: figures, and pictures from best to worst")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say how good a bundle is on its test recording, or what a session published, beside chance and the mean image.

    Of a config, its decoder is trained and tested on all recordings, every window by what never saw its picture or run.
    """
    from minddiffuser.archive import is_session
    from minddiffuser.console import set_up_logging
    from minddiffuser.evaluate import evaluate_session, run_evaluate

    set_up_logging(verbose)
    if bundle.suffix in {".yaml", ".yml"}:
        from minddiffuser.crossval import evaluate_config

        if pictures or limit or live_limit or report:
            options = "--pictures, --limit, --live-limit and --report"
            raise AppError(f"{bundle} is a config: {options} go with what it trains, a bundle")
        _answer(evaluate_config(bundle, data), as_json=as_json)
        return
    if is_session(bundle):
        _answer(evaluate_session(bundle, report), as_json=as_json)
        return
    answer = _run(
        lambda stop: run_evaluate(
            bundle, data, stop, live=live_too, folder=pictures, limit=limit, live_limit=live_limit, page=report
        )
    )
    _answer(answer, as_json=as_json)


@app.command()
def maps(
    bundle: Annotated[Path, typer.Argument(help="Trained decoder")],
    data: DataDir = None,
    out: Annotated[Path | None, typer.Option(help="Folder for figures and page; default BUNDLE-maps")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show which channels and latencies carry each feature: patterns, and time courses beside chance."""
    from minddiffuser.console import set_up_logging
    from minddiffuser.maps import run_maps

    set_up_logging(verbose)
    _answer(run_maps(bundle, data, out), as_json=as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what works on this machine, and what to do about the rest."""
    from minddiffuser.doctor import examine

    findings = examine()
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings]))
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'MISS' if finding.needed else 'none'}  {finding.text}")
    raise typer.Exit(0 if all(finding.ok or not finding.needed for finding in findings) else 1)


def _interrupt(*_: object) -> None:
    """End a command that has no way of its own to stop; asyncio leaves it alone, as it would not Python's own."""
    raise KeyboardInterrupt


def _stop_on_signal() -> threading.Event:
    """Give an event that Ctrl-C or SIGTERM sets."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _run(work: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    """Run `work` with an event that Ctrl-C or SIGTERM sets; a Ctrl-C after that ends the program at once."""

    async def watched() -> T:
        stop = asyncio.Event()

        def interrupt() -> None:
            if stop.is_set():
                os._exit(STOPPED)
            stop.set()

        def listen() -> None:
            loop.add_signal_handler(signal.SIGINT, interrupt)
            loop.add_signal_handler(signal.SIGTERM, stop.set)

        loop = asyncio.get_running_loop()
        # Not before the work waits for the first time: until then no handler of the loop's would be heard.
        loop.call_soon(listen)
        return await work(stop)

    try:
        return asyncio.run(watched())
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the answer is still to be said


def _broker(text: str) -> BrokerSpec:
    """Read HOST:PORT, or a broker section written as JSON."""
    from pydantic import ValidationError

    from stream.broker import BrokerSpec

    try:
        if text.lstrip().startswith("{"):
            return BrokerSpec.model_validate_json(text)
        host, _, port = text.partition(":")
        return BrokerSpec.model_validate({"host": host, "port": port or None})
    except ValidationError as error:
        raise AppError(f"broker {text!r}: {error.errors()[0]['msg']}; wanted HOST:PORT") from None


def _answer(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer))
        return
    for name, value in answer.items():
        typer.echo(f"{name}: {value}")
