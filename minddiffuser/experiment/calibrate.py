"""`minddiffuser calibrate`: checks, presents, records and trains, one participant's session in one folder.

The folder is all there is to know of how far a session is: the tables of trials say what was shown, the recordings hold
the signal, and the same command goes on where it was, whatever ended it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from minddiffuser.archive.trials import read_rows
from minddiffuser.config.yamlfile import read_yaml
from minddiffuser.errors import AppError
from minddiffuser.experiment.plan import SETS, SetName
from minddiffuser.experiment.present import Experiment, events_file, prepare, seconds_of
from minddiffuser.subprocesses import subcommand
from stream.atomic import check_folder, write_whole, write_with_fallback
from stream.types.source_spec import StreamSelector, is_marker_type

if TYPE_CHECKING:
    from minddiffuser.config.spec import Config
    from stream.recording.record import RecordAccount

logger = logging.getLogger(__name__)

CHECK_S = 4.0
"""Of signal that is looked at before anything is shown."""
RATE_OFF = 0.02
"""How far a measured rate may be from the declared one."""
MOST_BAD = 0.5
"""Share of channels that may be flat, without numbers or of an impossible level."""
SPARE_BYTES = 500e6
"""Room on the disk for the bundle and all else."""
SAMPLE_BYTES = 8
FLASHES = 40
"""By which the delay from marker to light is measured before the pictures."""
SAME_DELAY_S = 1e-3
"""A delay that differs from `window.delay` by less is left as it stands."""
MARKER_S = 5.0
"""A marker that was sent is in the recording after that at the latest."""
LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is there of a set: trials shown of those planned, and the recordings."""

    which: SetName
    shown: int
    planned: int
    files: tuple[Path, ...]

    @property
    def left(self) -> int:
        """Trials that are not shown yet."""
        return self.planned - self.shown


def recorded(folder: Path, experiment: Experiment) -> list[Recorded]:
    """Return what a session's folder holds of each set that is planned."""
    return [
        Recorded(
            which,
            len(read_rows(table)[0]) if (table := events_file(folder, which)).exists() else 0,
            len(experiment.trials[which]),
            tuple(sorted(folder.glob(f"{which}-[0-9][0-9].xdf"))),
        )
        for which in SETS
        if experiment.trials[which]
    ]


def selectors(config: Config, experiment: Experiment) -> list[StreamSelector]:
    """Return the streams of a session: the source, those that join it, the photodiode and the markers."""
    photodiode = config.experiment.photodiode
    wanted = [config.source, *config.extra, *([photodiode.stream] if photodiode and photodiode.stream else [])]
    own = set(StreamSelector.model_fields)
    return [
        *(StreamSelector(**each.model_dump(include=own)) for each in wanted),
        StreamSelector(name=experiment.stream),
    ]


def check_markers(config: Config, experiment: Experiment) -> None:
    """Check that windows will be cut by the markers that the presenter sends.

    Raises
    ------
    AppError
        The config goes by another stream, or by a trigger channel.
    """
    for each in config.source.markers:
        other = each.name not in {None, experiment.stream} or each.source_id or each.properties
        if each.channel is not None or other or (each.type and not is_marker_type(each.type)):
            chosen = f"the channel {each.channel!r}" if each.channel is not None else f"a stream with {each}"
            raise AppError(
                f"source.markers goes by {chosen}, and calibrate shows the pictures itself, with markers on the stream "
                f"{experiment.stream!r}: leave source.markers out, or name that stream"
            )


def check(config: Config, experiment: Experiment, folder: Path, say: Callable[[str], None]) -> None:
    """Check what can be before anybody is shown anything; nothing is left behind.

    Parameters
    ----------
    config : Config
    experiment : Experiment
    folder : Path
        Of the session.
    say : callable
        Takes a line for each check that is passed, or passed with a doubt.

    Raises
    ------
    AppError, stream.errors.StreamError
        The first that is not, in one line.
    """
    from minddiffuser.evaluation.verdict import LEAST_PICTURES
    from minddiffuser.experiment.timing import photodiode_of
    from minddiffuser.setup.inspection import inspect
    from stream.files.formats.mne_files import apply_reading_spec
    from stream.files.registry import read
    from stream.recording.record import record
    from stream.types.recording import choose_streams

    check_folder(folder)
    source = selectors(config, experiment)[0]
    with tempfile.TemporaryDirectory(prefix="minddiffuser-calibrate-") as scratch:
        file = Path(scratch) / "signal.xdf"
        record(file, [source], seconds=CHECK_S, timeout_s=config.source.timeout_s, peers=config.source.peers)
        recording = apply_reading_spec(read(file), config.source)
    if not recording.streams or not len(recording.streams[0].times):
        raise AppError(f"the stream with {source} was found and sends no sample: is the amplifier started?")
    report = inspect(recording, "live", None, None)
    stream = next(each for each in report.streams if each.name == choose_streams(recording, None)[0].name)
    rate, declared = stream.measured_hz or 0.0, config.source.sfreq or stream.declared_hz
    if declared and abs(rate / declared - 1) > RATE_OFF:
        raise AppError(
            f"stream {stream.name!r} declares {declared:g} Hz and sends {rate:.4g} Hz: mend it at the amplifier's "
            "app, or state the true rate as source.sfreq"
        )
    say(f"stream: {stream.name!r}, {len(stream.channels)} channels, {rate:.4g} Hz as declared")
    used = [each for each in stream.channels if each.kind not in {"misc", "stim"}] or list(stream.channels)
    bad = [f"{each.name} ({each.state})" for each in used if each.state != "ok"]
    if len(bad) > MOST_BAD * len(used):
        raise AppError(f"{len(bad)} of {len(used)} channels are not usable: {', '.join(bad[:4])}; check the electrodes")
    say(f"channels: {len(used) - len(bad)} of {len(used)} usable" + (f"; not {', '.join(bad[:6])}" if bad else ""))
    if config.experiment.photodiode is not None:
        _, channel = photodiode_of(config)
        say(f"photodiode: channel {channel!r}")
    seconds = sum(seconds_of(trials, config.experiment) for trials in experiment.trials.values())
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    needed = 2 * seconds * rate * len(stream.channels) * SAMPLE_BYTES + SPARE_BYTES
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise AppError(f"{existing}: {free / 1e9:.1f} GB are free and {needed / 1e9:.1f} GB needed; make room")
    if 0 < (tested := len({trial.picture for trial in experiment.trials["test"]})) < LEAST_PICTURES:
        say(f"test: {tested} pictures are too few for a verdict, which takes {LEAST_PICTURES} (experiment.test_share)")
    say(f"disk: {free / 1e9:.1f} GB free; the pictures take {seconds / 60:.0f} minutes, breaks not counted")


async def check_timing(
    config_file: Path, config: Config, stop: asyncio.Event, *, options: Sequence[str], say: Callable[[str], None]
) -> None:
    """Measure by the photodiode how late the light is, and have windows cut about it where that is steady.

    Parameters
    ----------
    config_file : Path
        Gets the delay as `window.delay`, where it has another.
    config : Config
    stop : asyncio.Event
        Ends it; nothing is written then.
    options : sequence of str
        Of `present`.
    say : callable

    Raises
    ------
    AppError
        The flashes are not to be seen, in the words of `present --timing`.
    """
    from minddiffuser.experiment.timing import Timing, record_delay

    arguments = ["present", str(config_file), "--timing", "--flashes", str(FLASHES), "--no-write", "--json"]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        async with subcommand(*arguments, *options, errors=errors) as child:
            ended, asked = asyncio.create_task(child.wait()), asyncio.create_task(stop.wait())
            await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if not ended.done():
                ended.cancel()
                return
            if ended.result() not in {0, 3}:
                errors.seek(0)
                said = [line for line in errors.read().splitlines() if line.startswith("minddiffuser: ")]
                reason = said[-1].partition(": ")[2] if said else f"exit code {ended.result()}"
                raise AppError(f"photodiode: {reason}")
            answer = await child.line(1.0)
    timing = Timing(**{name: answer[name] for name in Timing.__dataclass_fields__})
    say(f"photodiode: the timing is {timing.verdict}")
    if timing.steady and abs(timing.delay_ms / 1e3 - config.window.delay) > SAME_DELAY_S:
        record_delay(config_file, timing)
        say(f"written to {config_file} as window.delay: windows are cut about the light")


async def record_session(
    config_file: Path,
    config: Config,
    folder: Path,
    stop: asyncio.Event,
    *,
    screen: int,
    windowed: bool,
    say: Callable[[str], None],
) -> list[Recorded]:
    """Check, then present and record each set until all its trials are shown or `stop` is set.

    Parameters
    ----------
    config_file : Path
    config : Config
    folder : Path
        Of the session.
    stop : asyncio.Event
    screen : int
        Which, from 0.
    windowed : bool
    say : callable

    Raises
    ------
    AppError, stream.errors.StreamError
        A check failed, a program ended early, or markers do not arrive. What was recorded is kept.
    """
    from minddiffuser.experiment.screen import check_screen

    experiment = prepare(config)
    sets = recorded(folder, experiment)
    if not any(each.left for each in sets):
        return sets
    check_markers(config, experiment)
    check_screen(experiment.spec, experiment.size, number=screen, windowed=windowed)
    await asyncio.to_thread(check, config, experiment, folder, say)
    options = ["--screen", str(screen), *(["--window"] if windowed else [])]
    if config.experiment.photodiode is not None and not stop.is_set():
        await check_timing(config_file, config, stop, options=options, say=say)
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    for each in sets:
        if not each.left or stop.is_set():
            continue
        file = folder / f"{each.which}-{len(each.files) + 1:02d}.xdf"
        say(f"{each.which}: {each.left} of {each.planned} trials are to be shown; recording to {file}")
        arguments = ["present", str(config_file), "--set", each.which, "--out", str(folder), "--json", "--wait"]
        resumed = ["--resume"] if events_file(folder, each.which).exists() else []
        async with (
            subcommand(*arguments, *resumed, *options) as presenter,
            _recording(file, config, experiment) as streams,
        ):
            watch = asyncio.create_task(_watch(folder, each, experiment.stream, streams))
            ended = asyncio.create_task(presenter.wait())
            asked = asyncio.create_task(stop.wait())
            await asyncio.wait({watch, ended, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                presenter.interrupt()
                await ended
            for task in (watch, asked):
                task.cancel()
            outcomes = await asyncio.gather(watch, asked, return_exceptions=True)
            if isinstance(outcomes[0], AppError):
                raise outcomes[0]
        lost = sum(stream.lost for stream in streams[-1].streams) if streams else 0
        if discard_empty(file, events_file(folder, each.which), each.shown):
            say(f"{each.which}: nothing was shown, and no recording is kept")
        else:
            say(f"{each.which}: recorded, {lost} samples lost")
        if ended.result() not in {0, 3}:
            raise AppError(f"`minddiffuser present` ended with exit code {ended.result()}; what it says stands above")
    return recorded(folder, experiment)


def discard_empty(file: Path, table: Path, before: int) -> bool:
    """Remove a recording during which nothing was shown, and a table without a trial; return whether that was so.

    A recording without a marker would be one that training refuses.
    """
    shown = len(read_rows(table)[0]) if table.exists() and table.stat().st_size else 0
    if shown > before:
        return False
    file.unlink(missing_ok=True)
    if not shown:
        table.unlink(missing_ok=True)
    return True


@asynccontextmanager
async def _recording(file: Path, config: Config, experiment: Experiment) -> AsyncIterator[list[RecordAccount]]:
    """Record the session's streams while the block runs; yield a list that gets the account as it grows."""
    from stream.recording.record import record

    over, accounts = threading.Event(), list["RecordAccount"]()
    work = asyncio.create_task(
        asyncio.to_thread(
            record,
            file,
            selectors(config, experiment),
            timeout_s=max(config.source.timeout_s, 30.0),
            peers=config.source.peers,
            progress=accounts.append,
            stop=over,
            may_end={experiment.stream},  # what ends the presenter is said by it
        )
    )
    body = asyncio.current_task()
    assert body is not None
    work.add_done_callback(lambda _: None if over.is_set() else body.cancel())
    try:
        yield accounts
    except asyncio.CancelledError:
        if not work.done() or work.cancelled() or work.exception() is None:
            raise
        body.uncancel()
    finally:
        over.set()
        accounts.append(await work)


async def _watch(folder: Path, each: Recorded, marker_stream: str, accounts: list[RecordAccount]) -> None:
    """Check that what is presented arrives in the recording as markers; returns never.

    Raises
    ------
    AppError
        Pictures are shown and no marker arrives.
    """
    table = events_file(folder, each.which)
    while True:
        await asyncio.sleep(LOOK_S)
        shown = len(read_rows(table)[0]) - each.shown if table.exists() and table.stat().st_size else 0
        if shown > 0:
            break
    await asyncio.sleep(MARKER_S)
    arrived = sum(one.samples for one in accounts[-1].streams if one.name == marker_stream) if accounts else 0
    if not arrived:
        raise AppError(
            f"{shown} pictures were shown and no marker of {marker_stream!r} has arrived in the recording: does "
            "another program send under this name?"
        )
    await asyncio.Event().wait()


def write_config(config_file: Path, folder: Path, sets: Sequence[Recorded]) -> Path:
    """Write the session's own config: the given one, with the session's recordings.

    Of several test recordings the longest is the one to evaluate on.

    Returns
    -------
    Path
        `folder`/config.yaml.
    """
    raw = read_yaml(config_file).values
    files = {each.which: [file.as_posix() for file in each.files] for each in sets}
    data: dict[str, Any] = {key: value for key, value in raw["data"].items() if key not in {"train", "live"}}
    data["train"] = files["calibration"]
    if tests := next((each.files for each in sets if each.which == "test"), ()):
        data["live"] = max(tests, key=lambda file: file.stat().st_size).as_posix()
    path = folder / "config.yaml"
    note = f"# Written by `minddiffuser calibrate {config_file}`: its settings, with this session's recordings.\n"
    write_whole(path, note + yaml.safe_dump({**raw, "data": data}, sort_keys=False, allow_unicode=True))
    return path


def train_session(config: Path, folder: Path) -> dict[str, Any]:
    """Train on a session's recordings; return what `train` answers, with the verdict."""
    from minddiffuser.evaluation.verdict import verdict_of_training
    from minddiffuser.training.training import train_from_file

    found = train_from_file(config, None, folder / "bundle")
    judged = verdict_of_training(found, str(config))
    return found | {"verdict": judged and judged.to_dict()}


def live_arguments(folder: Path, config: Path) -> str:
    """Return what follows `minddiffuser live` to go live with a session's bundle, before or after the presenter."""
    return f"{config} --bundle {folder / 'bundle'} --wait forever"


async def score_test_set(folder: Path, config: Path, stop: asyncio.Event) -> dict[str, Any]:
    """Evaluate a session's bundle on its test set, offline, and write the page `folder`/report.html.

    Returns
    -------
    dict
        What `evaluate` answers, and `report`.

    Raises
    ------
    AppError, stream.errors.StreamError, decoder.errors.DecoderError
        Nothing of the test set can be scored.
    """
    from minddiffuser.workflows.evaluate import run_evaluate

    report, live = folder / "report.html", live_arguments(folder, config)
    found = await run_evaluate(folder / "bundle", None, stop, live=False, page=report, live_command=live)
    if found.page is not None:
        write_with_fallback(report, partial(write_whole, content=found.page))
    return found.answer | {"report": str(report) if found.page else None}
