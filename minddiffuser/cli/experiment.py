"""Commands of the experiment: present and calibrate."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from minddiffuser.cli.common import LOST, ConfigFile, Json, Verbose, answer, config_at, run, stop_event
from minddiffuser.errors import AppError
from minddiffuser.stopping import stopping

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from rich.console import RenderableType

    from minddiffuser.config.spec import Config
    from minddiffuser.experiment.calibrate import Recorded

Subject = Annotated[str, typer.Option(help="Participant's label, as BIDS has it; names the folder")]
SessionLabel = Annotated[str, typer.Option("--session", help="Session's label, as BIDS has it; names the folder")]
Window = Annotated[bool, typer.Option("--window", help="In a window, not full screen")]
ScreenNumber = Annotated[int, typer.Option("--screen", min=0, help="Which screen, from 0")]
LABEL = re.compile(r"[A-Za-z0-9]{1,32}")


def session_folder(subject: str, session: str, out: Path | None = None) -> Path:
    """Return the folder of a participant's session.

    Raises
    ------
    AppError
        A label is none as BIDS has them.
    """
    parts = []
    for name, prefix, label in (("--subject", "sub", subject), ("--session", "ses", session)):
        plain = label.removeprefix(f"{prefix}-")
        if not LABEL.fullmatch(plain):
            raise AppError(f"{name} {label!r}: a label is letters and digits, such as 01")
        parts.append(f"{prefix}-{plain}")
    return out or Path("sessions", *parts)


def present(
    config_file: ConfigFile,
    which: Annotated[
        Literal["both", "calibration", "test"], typer.Option("--set", help="They share no picture")
    ] = "both",
    window: Window = False,
    screen: ScreenNumber = 0,
    subject: Subject = "01",
    session: SessionLabel = "01",
    resume: Annotated[bool, typer.Option("--resume", help="Show what an earlier run left")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the tables of trials; default sessions/sub-SUBJECT/ses-SESSION")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Begin when anybody reads the markers; LSL does not say who")
    ] = False,
    timing: Annotated[
        bool, typer.Option("--timing", help="Measure the delay from marker to light by experiment.photodiode instead")
    ] = False,
    flashes: Annotated[int, typer.Option(min=10, max=2000, help="With --timing")] = 100,
    write: Annotated[
        bool, typer.Option("--write/--no-write", help="With --timing: set window.delay in CONFIG, if steady")
    ] = True,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show the pictures of a config's `experiment`, each with an LSL marker at its flip; escape or Ctrl-C ends it."""
    folder = session_folder(subject, session, out)
    config = config_at(config_file)
    from minddiffuser.console import print_line, set_up_logging
    from minddiffuser.display.progress import Announcement
    from minddiffuser.experiment.plan import SETS
    from minddiffuser.experiment.present import run_present

    set_up_logging(verbose)
    stopping.interrupt()
    stop = stop_event()
    if timing:
        _measure(config_file, config, stop, screen, flashes, windowed=window, write=write, as_json=as_json)
        return
    with Announcement() as announcement:
        accounts = run_present(
            config,
            folder,
            SETS if which == "both" else (which,),
            stop,
            screen=screen,
            windowed=window,
            resume=resume,
            wait=wait,
            say=print_line,
            announce=announcement.update,
        )
    found: dict[str, Any] = {
        "sets": [asdict(each) | {"left": each.left} for each in accounts],
        "stopped": stop.is_set(),
    }
    answer(found, as_json=as_json, show=_presented)
    raise typer.Exit(LOST if any(each["left"] for each in found["sets"]) else 0)


def calibrate(
    config_file: ConfigFile,
    subject: Subject = "01",
    session: SessionLabel = "01",
    window: Window = False,
    screen: ScreenNumber = 0,
    out: Annotated[Path | None, typer.Option(help="Folder; default sessions/sub-SUBJECT/ses-SESSION")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Calibrate a participant: check, present, record and train; the same command goes on after whatever ended it."""
    folder = session_folder(subject, session, out)
    config = config_at(config_file)
    if config.data.dataset != "recording":
        raise AppError(f"data.dataset is {config.data.dataset!r}; calibrate records one's own: set it to 'recording'")
    from minddiffuser.cache import check_cache
    from minddiffuser.console import print_line, set_up_logging

    check_cache()
    set_up_logging(verbose)
    from minddiffuser.experiment.calibrate import live_arguments, record_session, train_session, write_config

    again = f"minddiffuser calibrate {config_file} --subject {subject} --session {session}"
    again += f" --out {out}" if out else ""
    sets = run(
        lambda stop: record_session(config_file, config, folder, stop, screen=screen, windowed=window, say=print_line)
    )
    left = sum(each.left for each in sets)
    if not any(each.files for each in sets):
        raise AppError(f"stopped before anything was recorded; to begin again: {again}")
    own = write_config(config_file, folder, sets)
    found: dict[str, Any] = {"folder": str(folder), "config": str(own), "sets": [_of_set(each) for each in sets]}
    if left:
        found["next"] = again
        answer(found, as_json=as_json, show=_unfinished)
        raise typer.Exit(LOST)
    print_line(f"training; Ctrl-C keeps the recordings, and {again} trains again")
    stopping.interrupt()
    found |= train_session(own, folder)
    found["next"] = f"minddiffuser live {live_arguments(folder, own)}"
    found["test"] = _tested(folder, own) if any(each.which == "test" for each in sets) else None
    answer(found, as_json=as_json, show=_calibrated)


def _tested(folder: Path, config: Path) -> dict[str, Any]:
    """Return what `evaluate` answers of the test set, or why it has none; the bundle stands either way."""
    from decoder.errors import DecoderError
    from minddiffuser.console import print_line
    from minddiffuser.experiment.calibrate import score_test_set
    from stream.errors import StreamError

    print_line("testing on pictures that the calibration did not show; Ctrl-C keeps the decoder")
    try:
        return run(lambda stop: score_test_set(folder, config, stop))
    except KeyboardInterrupt:
        reason = "stopped"
    except (AppError, DecoderError, StreamError) as error:
        reason = str(error)
    return {"failed": f"{reason}; again: minddiffuser evaluate {folder / 'bundle'} --offline"}


def _calibrated(found: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield what training and test answer, and the command that goes live."""
    from minddiffuser.report.answers import evaluation, training
    from minddiffuser.report.tables import bold

    test, judged = found["test"], found["verdict"]
    if test and judged:
        judged = judged | {"next_step": "the test set, below"}
    yield from training(found | {"verdict": judged})
    if test:
        yield bold("The test set: pictures that the calibration did not show")
        if "failed" in test:
            yield f"No test: {test['failed']}"
        else:
            yield from evaluation(test)
            if test["report"]:
                yield f"Page with the pictures: {test['report']}"
    yield f"Live: {found['next']}"


def _of_set(each: Recorded) -> dict[str, Any]:
    files = [str(file) for file in each.files]
    return {"set": each.which, "shown": each.shown, "planned": each.planned, "left": each.left, "files": files}


def _unfinished(found: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield how far a calibration is that was ended, and how to go on."""
    for each in found["sets"]:
        yield f"{each['set']}: {each['shown']} of {each['planned']} trials shown and recorded"
    yield f"What was recorded is kept in {found['folder']}. To go on: {found['next']}"
    if any(each["set"] == "calibration" and each["shown"] for each in found["sets"]):
        yield f"To train on what there is: minddiffuser train {found['config']} --out {found['folder']}/bundle"


def _measure(
    config_file: Path,
    config: Config,
    stop: threading.Event,
    screen: int,
    flashes: int,
    *,
    windowed: bool,
    write: bool,
    as_json: bool,
) -> None:
    """Carry out `present --timing`."""
    from minddiffuser.experiment.screen import Screen
    from minddiffuser.experiment.timing import measure, photodiode_of, record_delay

    if config.experiment.patch is None:
        raise AppError("experiment.patch is null: there is no patch to flash; name a corner")
    photodiode_of(config)
    window = Screen(config.experiment, config.data.background, number=screen, windowed=windowed)
    try:
        timing = measure(config, window, flashes, stop)
    finally:
        window.close()
    written = write and timing.steady
    if written:
        record_delay(config_file, timing)
    found = {**asdict(timing), "written": str(config_file) if written else None}
    answer(found, as_json=as_json, show=_timed)
    raise typer.Exit(0 if timing.steady else LOST)


def _timed(found: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield what a photodiode says of the markers."""
    low, high = found["range_ms"]
    yield f"{found['seen']} of {found['flashes']} flashes seen"
    yield (
        f"marker to light: median {found['delay_ms']:.2f} ms, sd {found['sd_ms']:.2f} ms, "
        f"range {low:.2f} to {high:.2f} ms; a frame is {found['frame_ms']:.2f} ms"
    )
    yield f"frames dropped: {found['dropped']} of {found['frames']}"
    yield f"The timing is {found['verdict']}"
    if found["written"]:
        yield f"written to {found['written']} as window.delay: train, evaluate and live cut windows about the light"


def _presented(found: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield what became of a presentation."""
    for each in found["sets"]:
        text = f"{each['set']}: {each['before'] + each['shown']} of {each['planned']} trials shown, in {each['file']}"
        dropped = f"{each['dropped']} of {each['frames']} frames dropped"
        if each["flagged"]:
            few = ", ".join(map(str, each["flagged"][:5])) + (", ..." if len(each["flagged"]) > 5 else "")
            dropped += f", in {len(each['flagged'])} trials, which are flagged ({few})"
        yield f"{text}; {dropped}; worst flip {each['worst_error_ms']:.1f} ms late"
        if each["attention"]:
            yield "attention: {hits} hits, {misses} misses, {false_alarms} false alarms".format(**each["attention"])
        if each["left"]:
            yield f"{each['left']} trials are left: the same command with --resume shows them"
