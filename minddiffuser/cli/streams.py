"""Commands between LSL and files: replay and record."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from minddiffuser.cli.common import LOST, Json, Verbose, answer, stop_event
from minddiffuser.errors import AppError
from minddiffuser.stopping import stopping
from stream.atomic import check_file
from stream.errors import SourceError


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
    for path in recordings:
        if not path.exists():
            raise AppError(f"{path}: no such file or folder")
    from minddiffuser.console import progress, set_up_logging
    from stream.bids import run_at
    from stream.recordings import read
    from stream.replay import replay as send

    set_up_logging(verbose)
    stopping.interrupt()
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
    stop = stop_event()
    with progress() as report:
        send(
            *loaded,
            speed=speed,
            loop=loop,
            wait_for_consumers=wait,
            progress=lambda done, total: report(f"replaying {title}", round(done), round(total)),
            stop=stop,
        )
    answer({"replayed": title, "stopped": stop.is_set()}, as_json=as_json)


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
    check_file(file, new=True)
    if not file.parent.is_dir():
        raise AppError(f"{file}: there is no folder {file.parent}; make it first")
    from minddiffuser.console import console, set_up_logging
    from stream.record import RecordAccount
    from stream.record import record as write
    from stream.sources import selector

    set_up_logging(verbose)
    stop = stop_event()

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
    answer({**asdict(account), "lost": account.lost}, as_json=as_json)
    raise typer.Exit(LOST if fail_on_loss and account.lost else 0)
