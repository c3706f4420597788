"""Commands that fit a decoder and judge it, and the one that looks at the machine: train, evaluate, maps, doctor."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from minddiffuser.cli.common import (
    Cluster,
    ConfigFile,
    DataDir,
    Jobs,
    Json,
    Verbose,
    answer,
    check_bundle,
    check_data,
    check_new_bundle,
    config_at,
    run,
)
from minddiffuser.cli.output import say
from minddiffuser.errors import AppError
from minddiffuser.stopping import stopping
from stream.atomic import check_file, check_folder, write_whole, write_with_fallback


def train(
    config_file: ConfigFile,
    data: DataDir = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the bundle; default bundles/NAME")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Move this bundle to the recording; a few minutes of it are enough")
    ] = None,
    jobs: Jobs = 1,
    cluster: Cluster = None,
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
    from decoder.parallel import workers
    from minddiffuser.evaluation.verdict import verdict_of_training
    from minddiffuser.report.answers import training
    from minddiffuser.training.training import train_from_file

    stopping.interrupt()
    with workers(jobs, cluster):
        found = train_from_file(config_file, data, out, start)
    judged = verdict_of_training(found, str(config_file))
    answer(found | {"verdict": judged and judged.to_dict()}, as_json=as_json, show=training)


def evaluate(
    bundle: Annotated[
        Path,
        typer.Argument(
            help="Trained decoder, a kept session (its archive's folder, or the page's zip), or a config: "
            "cross-validated on all its recordings"
        ),
    ],
    data: DataDir = None,
    live_too: Annotated[
        bool, typer.Option("--live/--offline", help="Also replay the recording and decode it live")
    ] = True,
    recording: Annotated[
        Path | None, typer.Option(help="Test recording, in place of the config's; its pictures in data.stimuli, too")
    ] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for the pictures, as they were received live")] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Only the first so many windows")] = None,
    live_limit: Annotated[
        int | None, typer.Option(min=2, help="Of those, only the first so many live, which takes as long as they last")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page: figures, and pictures from best to worst")] = None,
    jobs: Jobs = 1,
    cluster: Cluster = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Score a bundle on its test recording, or what a session published, beside chance and the mean image.

    Of a config, its decoder is trained and tested on all recordings, every window by what never saw its picture or run.
    """
    from minddiffuser.cache import check_cache
    from minddiffuser.console import set_up_logging

    check_data(data)
    check_cache()
    set_up_logging(verbose)
    if bundle.suffix.lower() in {".yaml", ".yml"}:
        if pictures or limit or live_limit or recording:
            options = "--recording, --pictures, --limit and --live-limit"
            raise AppError(f"{bundle} is a config: {options} go with what it trains, a bundle")
        _evaluate_config(bundle, data, report, jobs, cluster, as_json=as_json)
        return
    _check_one_process(bundle, jobs, cluster)
    from minddiffuser.archive.sessions_kept import holds_sessions

    of_session = holds_sessions(bundle)
    if not of_session:
        check_bundle(bundle)
    if of_session and (recording or pictures or limit or live_limit):
        options = "--recording, --pictures, --limit and --live-limit"
        raise AppError(f"{bundle} is a kept session: {options} go with a bundle")
    if not live_too and (pictures or live_limit):
        raise AppError("--offline leaves out the live half, which --pictures and --live-limit go with; see --report")
    if recording and not recording.exists():
        raise AppError(f"--recording {recording}: no such file")
    if report:
        check_file(report)
    if pictures:
        check_folder(pictures)
    from minddiffuser.report.answers import evaluation

    stopping.interrupt()
    if of_session:
        from minddiffuser.workflows.evaluate_session import evaluate_session

        found = evaluate_session(bundle, page=report is not None)
    else:
        from minddiffuser.workflows.evaluate import run_evaluate

        found = run(
            lambda stop: run_evaluate(
                bundle,
                data,
                stop,
                live=live_too,
                folder=pictures,
                limit=limit,
                live_limit=live_limit,
                page=report,
                test_recording=recording,
            )
        )
    answer(found.answer, as_json=as_json, show=evaluation)
    if report:
        if found.page is None:
            raise AppError(f"{report}: not written, there is nothing to show")
        write_with_fallback(report, partial(write_whole, content=found.page))


def _check_one_process(bundle: Path, jobs: int, cluster: str | None) -> None:
    """Check that options of fitting were not given with what is fitted already."""
    if jobs > 1 or cluster:
        raise AppError(f"{bundle} is no config: --jobs and --cluster go with one, whose folds are fitted")


def _evaluate_config(
    config: Path, data: Path | None, report: Path | None, jobs: int, cluster: str | None, *, as_json: bool
) -> None:
    """Cross-validate a config on all its recordings, and print and write what comes of it."""
    config_at(config)
    if report:
        check_file(report)
    from decoder.parallel import workers
    from minddiffuser.evaluation.verdict import verdict_of_evaluation
    from minddiffuser.report.answers import evaluation
    from minddiffuser.workflows.crossval import evaluate_config

    stopping.interrupt()
    with workers(jobs, cluster):
        found = evaluate_config(config, data)
    judged = verdict_of_evaluation(found, str(config))
    answer(found | {"verdict": judged and judged.to_dict()}, as_json=as_json, show=evaluation)
    if report:
        from minddiffuser.report.report import report_page

        page = report_page(found, command=f"minddiffuser evaluate {config}", path=str(config), config=str(config))
        write_with_fallback(report, partial(write_whole, content=page))


def maps(
    bundle: Annotated[Path, typer.Argument(help="Trained decoder")],
    data: DataDir = None,
    out: Annotated[Path | None, typer.Option(help="Folder for figures and page; default BUNDLE-maps")] = None,
    jobs: Jobs = 1,
    cluster: Cluster = None,
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
    from decoder.parallel import workers
    from minddiffuser.maps.run import run_maps
    from minddiffuser.report.answers import maps as tables

    stopping.interrupt()
    with workers(jobs, cluster):
        found = run_maps(bundle, data, out)
    answer(found, as_json=as_json, show=tables)


def doctor(as_json: Json = False) -> None:
    """Check what works on this machine, and what to do about the rest."""
    from minddiffuser.setup.doctor import examine

    findings = examine()
    if as_json:
        say(json.dumps([finding.as_dict() for finding in findings]))
    else:
        from minddiffuser.cli.accounts import doctor as account
        from minddiffuser.report.tables import text_of

        say(text_of(account(findings)))
    raise typer.Exit(0 if all(finding.ok or not finding.needed for finding in findings) else 1)
