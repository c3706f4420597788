"""`minddiffuser present`: pictures to a participant, with a marker at the flip that shows each."""

from __future__ import annotations

import gc
import hashlib
import logging
import math
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minddiffuser.archive.trials import Attention, EventLog, Trial, attention, read_rows
from minddiffuser.errors import AppError
from minddiffuser.experiment.codes import codes_for, write_codes
from minddiffuser.experiment.plan import SETS, SetName, groups_of, plan, split_sets, without_targets
from stream.lsl.discovery import load_lsl

if TYPE_CHECKING:
    from decoder.data.stimuli import StimulusTable
    from minddiffuser.config.experiment import ExperimentSpec, TaskSpec
    from minddiffuser.config.spec import Config
    from minddiffuser.experiment.screen import Screen

logger = logging.getLogger(__name__)

MARKERS = "minddiffuser-present"
"""Name of the marker stream, where the config's `source.markers` names none."""
LEAD_S = 1.0
"""Background before a block's first picture."""
LINGER_S = 1.0
"""An outlet takes with it what was not fetched yet."""
READER_S = 0.05
GO_ON = "space"
SHOWN_TARGETS = 4
"""Targets of the task that participants are told by name."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is presented.

    Attributes
    ----------
    spec : ExperimentSpec
    stimuli : StimulusTable
        All pictures.
    trials : dict
        Of each set.
    markers : dict of str to str
        The marker's text of each picture: its id, or its code.
    codes : dict of str to int
        Empty where markers are ids.
    background : str
    stream : str
        Name of the marker stream.
    """

    spec: ExperimentSpec
    stimuli: StimulusTable
    trials: dict[SetName, tuple[Trial, ...]]
    markers: dict[str, str]
    codes: dict[str, int]
    background: str
    stream: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures in pixels."""
        return self.stimuli.images.shape[2], self.stimuli.images.shape[1]


def prepare(config: Config) -> Experiment:
    """Read pictures and codes, and plan both sets; nothing is written.

    Raises
    ------
    AppError, decoder.errors.StimulusError, stream.errors.StreamError
        No pictures are named, one is missing, two bear one id, or codes do not fit.
    """
    from decoder.data.stimuli import read_stimuli
    from minddiffuser.config.experiment import rgb

    spec = config.experiment
    folder = spec.pictures or config.data.stimuli
    if folder is None:
        raise AppError("there are no pictures to present: name their folder as experiment.pictures or data.stimuli")
    stimuli = read_stimuli(folder, rgb(config.data.background), config.data.picture_size)
    ids = without_targets(stimuli.ids, spec.task)
    contents = {
        name: hashlib.sha256(image.tobytes()).hexdigest()
        for name, image in zip(stimuli.ids, stimuli.images, strict=True)
    }
    groups = groups_of(contents, dict(zip(stimuli.ids, stimuli.groups, strict=True)))
    sets = split_sets(ids, [groups[name] for name in ids], spec.test_share, spec.seed)
    trials = {which: plan(sets[which], spec, which) if sets[which] else () for which in SETS}
    codes: dict[str, int] = {}
    if spec.codes is not None:
        if config.labels is None:
            raise AppError(f"experiment.codes writes codes as markers: set labels: {spec.codes} in the config, too")
        codes = codes_for(spec.codes, stimuli.ids, stimuli.files)
    markers = {name: str(codes[name]) if codes else name for name in stimuli.ids}
    named = next((each.name for each in config.source.markers if each.name), None)
    return Experiment(spec, stimuli, trials, markers, codes, config.data.background, named or MARKERS)


class MarkerOutlet:
    """The stream on which pictures are announced.

    Parameters
    ----------
    name : str
        Of the stream; its source id is the same in every run on a machine, so that whoever reads it goes on.
    """

    def __init__(self, name: str) -> None:
        lsl = load_lsl()
        info = lsl.StreamInfo(name, "Markers", 1, 0.0, "string", f"{name}-{socket.gethostname()}")
        self._outlet: Any = lsl.StreamOutlet(info)

    def push(self, text: str, time: float) -> None:
        """Send a marker, stamped with an LSL time of this machine."""
        self._outlet.push_sample([text], time)

    @property
    def read(self) -> bool:
        """Check whether anybody reads the markers."""
        return bool(self._outlet.have_consumers())


@dataclass(frozen=True, slots=True)
class Account:
    """What became of a presentation.

    Attributes
    ----------
    set : str
    file : str
        The table of trials.
    planned, shown, before : int
        Trials: all, in this run, and in earlier ones.
    frames, dropped : int
        Shown and missed during trials.
    flagged : tuple of int
        Numbers of the trials that dropped frames hit.
    worst_error_ms : float
        The largest delay of a picture's flip behind its frame.
    attention : Attention or None
        Of all runs together.
    """

    set: SetName
    file: str
    planned: int
    shown: int
    before: int
    frames: int
    dropped: int
    flagged: tuple[int, ...]
    worst_error_ms: float
    attention: Attention | None

    @property
    def left(self) -> int:
        """Trials that nobody has seen yet."""
        return self.planned - self.before - self.shown


class Presenter:
    """Shows trials one by one.

    Parameters
    ----------
    screen : Screen
    experiment : Experiment
    push : callable
        Takes the text of a marker and the LSL time of its flip.
    stop : threading.Event
        Ends the presentation after the trial that is shown.
    """

    def __init__(
        self, screen: Screen, experiment: Experiment, push: Callable[[str, float], None], stop: threading.Event
    ) -> None:
        self._screen, self._push, self._stop = screen, push, stop
        self._spec, self._markers = experiment.spec, experiment.markers
        self._pictures = dict(zip(experiment.stimuli.ids, experiment.stimuli.images, strict=True))
        self._files = dict(zip(experiment.stimuli.ids, experiment.stimuli.files or experiment.stimuli.ids, strict=True))
        self._flagged: list[int] = []
        self._frames_shown = self._dropped = 0
        self._worst = 0.0

    def run(self, which: SetName, trials: Sequence[Trial], log: EventLog) -> Account:
        """Show the trials that are left, block by block; ends early if `stop` is set or the participant presses escape.

        Parameters
        ----------
        which : {'calibration', 'test'}
        trials : sequence of Trial
            All of the set.
        log : EventLog
        """
        left, screen = trials[len(log.shown) :], self._screen
        n_blocks = trials[-1].block if trials else 0
        shown = 0
        for block in dict.fromkeys(trial.block for trial in left):
            own = [trial for trial in left if trial.block == block]
            screen.load({trial.picture: self._pictures[trial.picture] for trial in own})
            gc.collect()
            if not self._break(f"{which}: block {block} of {n_blocks}"):
                break
            for trial in self._uninterrupted(own):
                self._show(trial, log)
                shown += 1
            log.sync()
            if self._stop.is_set():
                break
        rows, _ = read_rows(log.path)
        return Account(
            set=which,
            file=str(log.path),
            planned=len(trials),
            shown=shown,
            before=len(log.shown),
            frames=self._frames_shown,
            dropped=self._dropped,
            flagged=tuple(self._flagged),
            worst_error_ms=round(self._worst * 1e3, 3),
            attention=attention(rows, self._spec.task),
        )

    def _uninterrupted(self, trials: Sequence[Trial]) -> Any:
        """Yield trials until `stop` is set, while nothing else of ours may take the time of a frame."""
        gc.disable()
        try:
            for trial in trials:
                if self._stop.is_set():
                    return
                yield trial
        finally:
            gc.enable()

    def _frames(self, seconds: float) -> int:
        return round(seconds / self._screen.period)

    def _keys(self) -> list[tuple[str, float]]:
        """Return the keys that were pressed; escape ends the presentation."""
        presses = self._screen.presses()
        if any(name == "escape" for name, _ in presses):
            self._stop.set()
        return [press for press in presses if press[0] != "escape"]

    def _break(self, words: str) -> bool:
        """Wait for the participant, or for the time that breaks last; return whether the experiment goes on."""
        screen, spec = self._screen, self._spec
        words = "\n\n".join([words, *([instruction(spec.task)] if spec.task else [])])
        screen.rest()
        self._keys()
        if spec.break_s is None:
            text = f"{words}\n\nPress space when you are ready."
            while not self._stop.is_set():
                screen.draw(text=text)
                screen.flip()
                if any(name == GO_ON for name, _ in self._keys()):
                    break
        else:
            for _ in range(self._frames(spec.break_s)):
                screen.draw(text=words)
                screen.flip()
                self._keys()
                if self._stop.is_set():
                    break
        for _ in range(max(1, self._frames(LEAD_S)) if not self._stop.is_set() else 0):
            screen.draw()
            screen.flip()
            self._keys()
        return not self._stop.is_set()

    def _show(self, trial: Trial, log: EventLog) -> None:
        """Show a picture and the blank after it; dropped frames from its own flip on are the trial's."""
        screen, spec = self._screen, self._spec
        n_picture, n_blank = max(1, self._frames(spec.picture_s)), self._frames(trial.blank_s)
        marker, presses, before = self._markers[trial.picture], list[tuple[str, float]](), screen.dropped
        due = screen.due
        screen.draw(trial.picture, lit=True)
        onset = screen.flip()
        self._push(marker, onset)
        error = max(0.0, onset - due)
        log.begin(
            trial,
            file=self._files[trial.picture],
            marker=marker,
            time=onset,
            duration=n_picture * screen.period,
            error=error,
        )
        presses += self._keys()
        for _ in range(n_picture - 1):
            screen.draw(trial.picture, lit=True)
            screen.flip()
            presses += self._keys()
        gone = screen.due
        for frame in range(n_blank):
            screen.draw()
            flip = screen.flip()
            gone = flip if frame == 0 else gone
            presses += self._keys()
        dropped = screen.dropped - before
        asked = spec.task.key.lower() if spec.task else None
        name, pressed = min(presses, key=lambda press: press[0] != asked, default=(None, None))
        log.end(
            shown=gone - onset,
            dropped=dropped,
            response=name,
            response_time=None if pressed is None else max(0.0, pressed - onset),
        )
        self._worst = max(self._worst, error)
        self._frames_shown += n_picture + n_blank
        self._dropped += dropped
        if dropped:
            self._flagged.append(trial.number)


def instruction(task: TaskSpec) -> str:
    """Return what a participant is asked to do, in a line for the screen."""
    key = task.key.replace("_", " ").lower()
    if task.kind == "repeat":
        return f"Press {key} whenever a picture comes twice in a row."
    names = ", ".join(task.targets[:SHOWN_TARGETS]) + (", ..." if len(task.targets) > SHOWN_TARGETS else "")
    return f"Press {key} whenever you see {'one of ' if len(task.targets) > 1 else ''}{names}."


def events_file(folder: Path, which: SetName) -> Path:
    """Return where the trials of a set are written."""
    return folder / f"{which}_events.tsv"


def run_present(
    config: Config,
    folder: Path,
    sets: Sequence[SetName],
    stop: threading.Event,
    *,
    screen: int = 0,
    windowed: bool = False,
    resume: bool = False,
    wait: bool = False,
    say: Callable[[str], None] = logger.info,
    announce: Callable[[Mapping[str, Any]], Any] | None = None,
) -> list[Account]:
    """Carry out `minddiffuser present`.

    Parameters
    ----------
    config : Config
    folder : Path
        Gets the tables of trials.
    sets : sequence of {'calibration', 'test'}
        Shown one after the other.
    stop : threading.Event
    screen : int
        Which, from 0.
    windowed : bool
    resume : bool
        Show what earlier runs have left.
    wait : bool
        Begin when somebody reads the markers.
    say : callable
        Takes a line for the experimenter.
    announce : callable, optional
        Takes what others on this machine may know of a set that begins, see `minddiffuser.display.progress`.

    Raises
    ------
    AppError, stream.errors.StreamError, decoder.errors.StimulusError
        In one line, before anything is shown.
    """
    from minddiffuser.experiment.screen import Screen

    experiment = prepare(config)
    files = {which: events_file(folder, which) for which in sets}
    if empty := [which for which in sets if not experiment.trials[which]]:
        raise AppError(f"there is no {empty[0]} set: experiment.test_share is 0")
    if not resume and (there := [file for file in files.values() if file.exists()]):
        raise AppError(f"{there[0]}: exists already; --resume shows what is left, or name another --session")
    window = Screen(experiment.spec, experiment.background, experiment.size, number=screen, windowed=windowed)
    try:
        if experiment.spec.codes is not None:
            write_codes(experiment.spec.codes, experiment.codes)
        outlet = MarkerOutlet(experiment.stream)
        say(f"Markers: LSL stream {experiment.stream!r}; {1 / window.period:.4g} frames a second")
        accounts = []
        for which in sets:
            trials = experiment.trials[which]
            with EventLog(files[which], trials, resume=resume) as log:
                left = len(log.shown) < len(trials)
                if wait and left:
                    _wait(window, outlet, stop)
                elif left and not outlet.read:
                    logger.warning("nobody reads the markers yet: is the recording running?")
                if announce:
                    announce(
                        {
                            "set": which,
                            "events": str(files[which].resolve()),
                            "trials": len(trials),
                            "blocks": trials[-1].block,
                            "task": experiment.spec.task and experiment.spec.task.model_dump(mode="json"),
                        }
                    )
                if left:
                    begins = "each begins with the space bar; " if experiment.spec.break_s is None else ""
                    say(f"{which}: {trials[-1].block} blocks; {begins}escape ends after the picture that is shown")
                presenter = Presenter(window, experiment, outlet.push, stop)
                accounts.append(presenter.run(which, trials, log))
            if stop.is_set():
                break
        threading.Event().wait(LINGER_S)
        return accounts
    finally:
        window.close()


def _wait(window: Screen, outlet: MarkerOutlet, stop: threading.Event) -> None:
    """Show the background until somebody reads the markers, or the participant presses escape."""
    window.rest()
    while not outlet.read and not stop.wait(READER_S):
        window.draw()
        window.flip()
        if any(name == "escape" for name, _ in window.presses()):
            stop.set()


def seconds_of(trials: Sequence[Trial], spec: ExperimentSpec) -> float:
    """Return how long trials take without their breaks, in seconds."""
    return math.fsum(spec.picture_s + trial.blank_s for trial in trials)
