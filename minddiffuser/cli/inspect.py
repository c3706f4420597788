"""The command that says what is understood of a recording or of the streams that run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minddiffuser.cli.common import Json, Verbose, answer, config_at, stop_event
from minddiffuser.errors import AppError
from minddiffuser.stopping import stopping


def inspect(
    recording: Annotated[
        Path | None,
        typer.Argument(help="XDF, FIF, EDF/BDF, BrainVision, EEGLAB, CSV, NPZ or NIfTI file, or a BIDS folder"),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="The LSL streams that run, in place of a recording")] = False,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long to listen")] = 5.0,
    config: Annotated[
        Path | None, typer.Option(help="A config: its unit, rate, markers, labels and pictures are used")
    ] = None,
    stimuli: Annotated[Path | None, typer.Option(help="Folder of pictures that the events should name")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what is understood of a recording or of running streams: channels, units, rates, gaps, events."""
    if live == (recording is not None):
        raise AppError("inspect wants a recording, or --live for the streams that run")
    if recording is not None and not recording.exists():
        raise AppError(f"{recording}: no such file or folder")
    if stimuli is not None and not stimuli.is_dir():
        raise AppError(f"--stimuli {stimuli}: no such folder")
    settings = config_at(config) if config else None
    from minddiffuser.console import set_up_logging
    from minddiffuser.setup.inspection import inspect_live, inspect_recording, next_step, show

    set_up_logging(verbose, quiet=not verbose)  # what is warned of is part of the answer
    stopping.interrupt()
    if recording is None:
        report = inspect_live(seconds, stop_event(), settings, stimuli)
    else:
        report = inspect_recording(recording, settings, stimuli)
    following = next_step(report, config, marked=settings is None or settings.window.mode != "sliding")
    if as_json:
        answer({**report.to_dict(), "next_step": following}, as_json=True)
    else:
        from rich.console import Console

        show(report, Console(), following)
