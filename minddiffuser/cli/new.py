"""The command that writes a config from what streams now, by a few questions."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minddiffuser.cli.common import Json, Verbose, answer, stop_event
from minddiffuser.errors import AppError
from minddiffuser.stopping import stopping
from stream.atomic import check_file

if TYPE_CHECKING:
    from minddiffuser.setup.recipes import Draft


def new(
    config_file: Annotated[Path, typer.Argument(help="YAML file to write")] = Path("own.yaml"),
    headset: Annotated[
        str | None, typer.Option(help="Begin with the recipe of a headset, such as muse, without a stream")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: take what was measured, or is best")] = False,
    stream: Annotated[str | None, typer.Option(help="Name of the amplifier's stream")] = None,
    mains: Annotated[int | None, typer.Option(help="Mains frequency: 50, 60, or 0 for no notch")] = None,
    reference: Annotated[str | None, typer.Option(help="average, none, or channels with a comma between")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder of the pictures")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Recording to train on, made or still to be made")] = None,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="How long to listen to the streams")] = 2.0,
    force: Annotated[bool, typer.Option(help="Write over a config that is there")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a config from what streams now, by a few questions, with its reasons."""
    if config_file.exists() and not force:
        raise AppError(f"{config_file}: is there already; another name, or --force to write over it")
    if mains not in {None, 0, 50, 60}:
        raise AppError(f"--mains {mains}: mains have 50 or 60 Hz; 0 for no notch")
    check_file(config_file)
    from minddiffuser.console import console, set_up_logging
    from minddiffuser.setup.recipes import from_headset
    from minddiffuser.setup.starter import LEAST_FOR_AVERAGE, complete, name_from, write

    set_up_logging(verbose, quiet=not verbose)
    stopping.interrupt()
    draft = from_headset(headset) if headset else _from_what_streams(stream, seconds, yes=yes)
    measured = draft.mains is not None
    best = str(draft.mains or (50 if headset else 0))
    seen = f" (a hum of {draft.mains} Hz is in the signal)" if measured else "" if headset else " (no hum is seen)"
    chosen = str(mains) if mains is not None else _ask(f"Mains frequency{seen}", best, ["50", "60", "0"], yes=yes)
    few = draft.electrodes is not None and draft.electrodes < LEAST_FOR_AVERAGE
    usual = draft.values["filters"].get("reference", "none") if headset else "none" if few else "average"
    against = reference or _ask("Reference: average, none (as recorded), or channels (M1, M2)", usual, yes=yes)
    folder = str(pictures or _ask("Folder of the pictures", "pictures", yes=yes))
    recording = str(calibration or _ask("Calibration recording", "calibration.xdf", yes=yes))
    complete(
        draft, name=name_from(config_file), mains=int(chosen) or None, measured=measured and int(chosen) == draft.mains,
        reference=against, train=recording, stimuli=folder,
    )  # fmt: skip
    write(draft, config_file)
    following = _next(config_file, draft, Path(recording))
    if not Path(folder).is_dir():
        console.print(f"{folder}: not there yet: a folder with stimuli.csv and the pictures", markup=False)
    lines = [f"Written: {config_file}", f"Next: {following}"]
    answer({"config": str(config_file), "next": following}, as_json=as_json, show=lambda _: lines)


def _from_what_streams(wanted: str | None, seconds: float, *, yes: bool) -> Draft:
    """Listen to what streams, choose one of it, and begin with that."""
    from minddiffuser.console import console
    from minddiffuser.setup.recipes import headsets
    from minddiffuser.setup.starter import from_stream
    from minddiffuser.setup.starter_streams import look

    with console.status(f"looking for streams, and listening to them for {seconds:g} s"):
        streams, markers = look(seconds, stop=stop_event())
    if not streams:
        also = f" (marker streams: {', '.join(markers)})" if markers else ""
        raise AppError(
            f"no amplifier's stream is running{also}: start its LSL app, or a simulated one in another terminal "
            f"(minddiffuser simulate configs/own-eeg.yaml), or begin with a recipe: --headset {' | '.join(headsets())}"
        )
    by_name = {one.source.name: one for one in streams}
    if wanted is not None and wanted not in by_name:
        raise AppError(f"--stream {wanted}: not running; there are {', '.join(map(repr, by_name))}")
    for number, one in enumerate(streams, 1):
        console.print(f"{number}. {one}", markup=False, highlight=False)
    number = 1
    if wanted is None and len(streams) > 1:
        numbers = [str(place) for place in range(1, len(streams) + 1)]
        number = int(_ask("Which is the amplifier's", "1", numbers, yes=yes))
    chosen = by_name[wanted] if wanted else streams[number - 1]
    return from_stream(chosen, markers)


def _ask(question: str, best: str, choices: list[str] | None = None, *, yes: bool) -> str:
    """Ask a question, or return the best answer.

    Raises
    ------
    AppError
        There is nobody to answer.
    """
    if yes:
        return best
    from rich.prompt import Prompt

    from minddiffuser.console import console

    try:
        return Prompt.ask(question, console=console, default=best, choices=choices).strip() or best
    except EOFError:
        raise AppError(f"no answer to {question!r}: --yes takes the proposed ones without asking") from None


def _next(config_file: Path, draft: Draft, recording: Path) -> str:
    """Return the command that comes next; where nobody sends markers, that is the one that shows the pictures, too."""
    if recording.exists():
        return f"minddiffuser train {shlex.quote(str(config_file))}"
    if not draft.markers and not draft.values["source"].get("markers"):
        return f"minddiffuser calibrate {shlex.quote(str(config_file))}"
    record = f"minddiffuser record {shlex.quote(str(recording))}"
    if len(draft.markers) > 1:
        return record  # all that runs: which markers count is told later
    source = draft.values["source"]
    wanted = source.get("name") or f"type={source.get('type', 'EEG')}"
    return f"{record} --stream {shlex.quote(wanted)} --stream type=Markers"
