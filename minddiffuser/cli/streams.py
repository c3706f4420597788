"""Commands that send or keep LSL streams: replay, record, markers and simulate."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from minddiffuser.cli.common import LOST, ConfigFile, Json, Verbose, answer, config_at, run, selector, stop_event
from minddiffuser.errors import AppError
from minddiffuser.stopping import stopping
from stream.atomic import check_file
from stream.errors import SourceError


class Modality(Enum):
    """What a simulated amplifier may send."""

    EEG = "eeg"
    MEG = "meg"


class Preset(Enum):
    """Simulated participants, by how easily they are read."""

    DEMO = "demo"
    THINGSLIKE = "thingslike"


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
    from stream.files.bids import run_at
    from stream.files.registry import read
    from stream.recording.replay import replay as send

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
    if file.suffix.lower() != ".xdf":  # by their names files are read again
        raise AppError(f"{file}: a recording is an XDF file; name it {file.with_suffix('.xdf')}")
    from minddiffuser.console import console, set_up_logging
    from stream.recording.record import RecordAccount
    from stream.recording.record import record as write

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
    from minddiffuser.cli.accounts import record as table

    answer({**asdict(account), "lost": account.lost}, as_json=as_json, show=table)
    raise typer.Exit(LOST if fail_on_loss and account.lost else 0)


def export(
    source: Annotated[Path, typer.Argument(help="Folder of a session, as `calibrate` makes it, or a recording")],
    bids: Annotated[Path, typer.Option(help="Folder of the BIDS data set, new or there already")],
    config: Annotated[
        Path | None, typer.Option(help="Says which stream, markers and pictures; default: config.yaml of the folder")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Label; default: the folder's sub-..., else 01")] = None,
    session: Annotated[str | None, typer.Option(help="Label; default: the folder's ses-...")] = None,
    task: Annotated[str | None, typer.Option(help="Label; default: each recording's name")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write recordings as a BIDS data set: raw data, events with their pictures, channels, electrodes, participants."""
    if config is not None:
        config_at(config)
    from minddiffuser.console import console, set_up_logging
    from minddiffuser.experiment.export import run_export

    set_up_logging(verbose)
    stopping.interrupt()
    with console.status(f"writing {bids}"):
        found = run_export(source, bids, config, subject=subject, session=session, task=task)
    from minddiffuser.cli.accounts import export as table

    answer(found, as_json=as_json, show=table)


def markers(
    name: Annotated[str, typer.Option(help="Of the LSL marker stream")] = "browser-markers",
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port")] = 8766,
    token: Annotated[
        str | None, typer.Option(envvar="MINDDIFFUSER_MARKERS_TOKEN", help="Asked of pages; default: a new one")
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option(help="Other site whose pages may send: http://localhost:5173; repeat")
    ] = None,
    pages: Annotated[Path | None, typer.Option(help="Folder with the experiment's page, to be served, too")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after this long")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Take markers from a page of a browser (jsPsych, lab.js) and send them to LSL with the page's flip times."""
    if token is not None and len(token) < 8:
        raise AppError("--token: wanted eight characters or more")
    if pages is not None and not pages.is_dir():
        raise AppError(f"--pages {pages}: no such folder")
    for one in origin or ():
        if one != "null" and not re.fullmatch(r"https?://[^/\s]+", one):
            raise AppError(f"--origin {one}: wanted scheme and host, such as http://localhost:5173, or null for files")
    from minddiffuser.console import print_line, set_up_logging
    from minddiffuser.experiment.door.server import Door

    set_up_logging(verbose)
    door = Door(name, host, port, token=token, origins=tuple(origin or ()), pages=pages)

    async def serve(stop: asyncio.Event) -> None:
        async with door:
            for line in door.invitation():
                print_line(line)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await stop.wait()

    run(serve)
    from minddiffuser.cli.accounts import markers as table

    answer(asdict(door.account), as_json=as_json, show=table)


def simulate(
    config_file: ConfigFile,
    modality: Annotated[Modality | None, typer.Option(help="Default: as the config's source says, else EEG")] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="thingslike is as hard as a person; default: data.preset")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Another seed, another participant; default: data.seed")
    ] = None,
    run_number: Annotated[
        int | None, typer.Option("--run", min=0, help="Seed of the noise; default: another one each time")
    ] = None,
    rate: Annotated[float, typer.Option(min=100, max=5000, help="Samples a second")] = 250.0,
    channels: Annotated[str | None, typer.Option(help="Electrodes: Oz,Pz,...; default: the config's, else 63")] = None,
    blinks: Annotated[bool, typer.Option("--blinks", help="Blink every two seconds")] = False,
    drift: Annotated[bool, typer.Option("--drift", help="Let the electrodes drift by 100 uV")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Lose 20 to 100 ms of samples every five seconds")] = False,
    jitter: Annotated[bool, typer.Option("--jitter", help="Stamp chunks with errors of 4 ms")] = False,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after this long")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Be an amplifier on a simulated participant, who looks at the pictures that LSL markers name."""
    config = config_at(config_file)
    from minddiffuser.console import console, print_line, set_up_logging

    set_up_logging(verbose)
    stopping.interrupt()
    from decoder.simulation.ongoing import Misbehaviour
    from minddiffuser.experiment.meanings import meanings_apart
    from minddiffuser.experiment.simulate import SimulationSpec, prepare
    from minddiffuser.experiment.simulate import simulate as send

    names = tuple(name.strip() for name in channels.split(",")) if channels else ()
    spec = SimulationSpec(modality and modality.value, preset and preset.value, seed, run_number, rate, names)
    with console.status("making a simulated participant"):
        rehearsal = prepare(config, spec, lambda pictures: meanings_apart(pictures, config.engine))

    def show(info: Any) -> None:
        text = (
            f"Simulated {rehearsal.participant.modality.upper()}: stream {info.name()!r} (type {info.type()}), "
            f"{info.channel_count()} channels at {info.nominal_srate():g} Hz; waits for markers (Ctrl-C ends it)"
        )
        print_line(text)

    account = send(
        rehearsal,
        Misbehaviour(blinks=blinks, drift=drift, drop=drop, jitter=jitter),
        seconds=seconds,
        stop=stop_event(),
        on_start=show,
    )
    from minddiffuser.cli.accounts import simulate as table

    answer(asdict(account), as_json=as_json, show=table)
