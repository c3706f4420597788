"""Commands that fit a decoder and judge it, and the one that looks at the machine: train, evaluate, maps, doctor."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from minddiffuser.cli import say
from minddiffuser.cli.common import (
    ConfigFile,
    DataDir,
    Json,
    Verbose,
    answer,
    check_bundle,
    check_data,
    check_new_bundle,
    config_at,
    run,
)
from minddiffuser.errors import AppError
from minddiffuser.stopping import stopping
from stream.atomic import check_file, check_folder, kept, write_whole


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
    config = config_at(config_file)
    check_data(data)
    check_new_bundle(out or Path("bundles") / config.name)
    if start:
        check_bundle(start)
    from minddiffuser.cache import check_cache
    from minddiffuser.console import set_up_logging

    check_cache()
    set_up_logging(verbose)
    from minddiffuser.training import train_from_file

    stopping.interrupt()
    answer(train_from_file(config_file, data, out, start), as_json=as_json)


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
    from minddiffuser.cache import check_cache
    from minddiffuser.console import set_up_logging

    check_data(data)
    check_cache()
    set_up_logging(verbose)
    if bundle.suffix.lower() in {".yaml", ".yml"}:
        if pictures or limit or live_limit or report:
            options = "--pictures, --limit, --live-limit and --report"
            raise AppError(f"{bundle} is a config: {options} go with what it trains, a bundle")
        config_at(bundle)
        from minddiffuser.crossval import evaluate_config

        stopping.interrupt()
        answer(evaluate_config(bundle, data), as_json=as_json)
        return
    from minddiffuser.archive import is_session

    of_session = is_session(bundle)
    if not of_session:
        check_bundle(bundle)
    if report:
        check_file(report)
    if pictures:
        check_folder(pictures)
    from minddiffuser.evaluate import evaluate_session, run_evaluate

    stopping.interrupt()
    if of_session:
        found = evaluate_session(bundle, page=report is not None)
    else:
        found = run(
            lambda stop: run_evaluate(
                bundle,
                data,
                stop,
                live=live_too,
                folder=pictures,
                limit=limit,
                live_limit=live_limit,
                page=report is not None,
            )
        )
    answer(found.answer, as_json=as_json)
    if report:
        if found.page is None:
            raise AppError(f"{report}: not written, there is nothing to show")
        kept(report, partial(write_whole, content=found.page))


def maps(
    bundle: Annotated[Path, typer.Argument(help="Trained decoder")],
    data: DataDir = None,
    out: Annotated[Path | None, typer.Option(help="Folder for figures and page; default BUNDLE-maps")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show which channels and latencies carry each feature: patterns, and time courses beside chance."""
    check_data(data)
    check_bundle(bundle)
    folder = out or bundle.parent / f"{bundle.name}-maps"
    check_folder(folder)
    from minddiffuser.cache import check_cache
    from minddiffuser.console import set_up_logging

    check_cache()
    set_up_logging(verbose)
    from minddiffuser.maps import run_maps

    stopping.interrupt()
    answer(run_maps(bundle, data, out), as_json=as_json)


def doctor(as_json: Json = False) -> None:
    """Say what works on this machine, and what to do about the rest."""
    from minddiffuser.doctor import examine

    findings = examine()
    if as_json:
        say(json.dumps([finding.as_dict() for finding in findings]))
    else:
        for finding in findings:
            say(f"{'ok  ' if finding.ok else 'MISS' if finding.needed else 'none'}  {finding.text}")
    raise typer.Exit(0 if all(finding.ok or not finding.needed for finding in findings) else 1)
