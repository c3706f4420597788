"""`events.tsv`: a line a trial, written while it is shown, so that a killed program loses none.

A line is begun at the flip that shows the picture, with all that is known then, and ended when the trial is over. A
program that is killed in between leaves a line without an end: the picture was shown, and `resume` fills in 'n/a'.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from minddiffuser.errors import AppError
from stream.atomic import check_file, reason_of

if TYPE_CHECKING:
    from minddiffuser.config.experiment import TaskSpec

BEGUN = (
    "onset",
    "duration",
    "trial_type",
    "stim_file",
    "stim_id",
    "marker",
    "trial",
    "block",
    "lsl_time",
    "flip_error",
)
"""Written at the onset. The first two are BIDS' own, in seconds; onsets count from the first picture of the set."""
ENDED = ("shown", "dropped_frames", "response", "response_time")
"""Written when the trial is over: seconds that the picture was there, frames dropped meanwhile, the first key."""
COLUMNS = BEGUN + ENDED
NOTHING = "n/a"
TrialType = Literal["picture", "repeat", "target"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One presentation of a picture.

    Attributes
    ----------
    number, block : int
        Counted from 1 within the set.
    picture : str
        Its id.
    trial_type : str
        'picture', or what asks for a response: 'repeat' (the picture of the trial before again) or 'target'.
    blank_s : float
        Seconds of background after it, jitter included.
    """

    number: int
    block: int
    picture: str
    trial_type: TrialType
    blank_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """A trial that was shown.

    Attributes
    ----------
    trial, block : int
    picture, trial_type, marker : str
    lsl_time : float
        Of the flip, in seconds.
    dropped_frames : int or None
        None where the program was killed before it was known.
    response : str or None
        Name of the first key that was pressed; None where there was none.
    response_time : float or None
        Seconds from the onset to its press.
    """

    trial: int
    block: int
    picture: str
    trial_type: str
    marker: str
    lsl_time: float
    dropped_frames: int | None
    response: str | None
    response_time: float | None


def read_rows(path: Path) -> tuple[list[Row], int]:
    """Read a table of trials.

    Returns
    -------
    rows : list of Row
    whole : int
        Bytes of the file up to the end of the last line that was begun whole; what lies behind them is no trial.

    Raises
    ------
    AppError
        It is no such table.
    """
    content = path.read_bytes()
    lines = content.split(b"\n")
    if lines[0].decode("utf-8", "replace").split("\t") != list(COLUMNS):
        raise AppError(f"{path}: is no table of trials of `minddiffuser present`; name another --out or --session")
    rows: list[Row] = []
    whole = len(lines[0]) + 1
    for number, line in enumerate(lines[1:], 1):
        cells = line.decode("utf-8", "replace").split("\t")
        try:
            rows.append(_row(cells))
        except ValueError:
            if number == len(lines) - 1:  # cut while it was written
                break
            raise AppError(f"{path}, line {len(rows) + 2}: is no trial of `minddiffuser present`") from None
        whole += len(line) + 1
    return rows, min(whole, len(content))


def _row(cells: Sequence[str]) -> Row:
    if len(cells) < len(BEGUN):
        raise ValueError("the line was not begun whole")
    values = dict(zip(COLUMNS, [*cells, *([NOTHING] * len(ENDED))], strict=False))
    dropped, response, response_time = (values[name] for name in ("dropped_frames", "response", "response_time"))
    return Row(
        trial=int(values["trial"]),
        block=int(values["block"]),
        picture=values["stim_id"],
        trial_type=values["trial_type"],
        marker=values["marker"],
        lsl_time=float(values["lsl_time"]),
        dropped_frames=None if dropped in {NOTHING, ""} else int(dropped),
        response=None if response in {NOTHING, ""} else response,
        response_time=None if response_time in {NOTHING, ""} else float(response_time),
    )


class EventLog:
    """The table while it grows.

    Parameters
    ----------
    path : Path
    trials : sequence of Trial
        All that are planned.
    resume : bool
        Go on with a table that is there; without it, there must be none.

    Attributes
    ----------
    shown : list of Row
        Trials that an earlier run has shown; `resume` only.

    Raises
    ------
    AppError, stream.errors.OutputError
        The table exists, is of another plan, or cannot be written.
    """

    def __init__(self, path: Path, trials: Sequence[Trial], *, resume: bool) -> None:
        self.path, self.shown = path, list[Row]()
        self._zero: float | None = None
        if path.exists() and not resume:
            raise AppError(f"{path}: exists already; --resume shows what is left of it, or name another --session")
        whole = 0
        if path.exists() and path.stat().st_size:
            self.shown, whole = read_rows(path)
            _check_plan(path, self.shown, trials)
        else:
            check_file(path)
            path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        if whole:
            self._mend(whole)
        else:
            self._file.write("\t".join(COLUMNS).encode() + b"\n")
        if self.shown:
            self._zero = self.shown[0].lsl_time

    def _mend(self, whole: int) -> None:
        """Remove what is no line, and end a line that was only begun."""
        self._file.truncate(whole)
        last = self.path.read_bytes().rpartition(b"\n")[2]
        if last:
            missing = len(COLUMNS) - len(last.split(b"\t"))
            self._file.write(b"\t".join([b"", *[NOTHING.encode()] * missing]) + b"\n" if missing else b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def begin(self, trial: Trial, *, file: str, marker: str, time: float, duration: float, error: float) -> None:
        """Write what is known of a trial at its onset, at `time` in the LSL clock; `duration` is the one planned."""
        if self._zero is None:
            self._zero = time
        # The LSL clock counts from the start of a machine: after another start, earlier onsets tell nothing.
        onset = f"{time - self._zero:.6f}" if time >= self._zero else NOTHING
        cells = (
            onset, f"{duration:.6f}", trial.trial_type, file, trial.picture, marker, str(trial.number),
            str(trial.block), f"{time:.6f}", f"{error:.6f}",
        )  # fmt: skip
        self._write("\t".join(cells).encode())

    def end(self, *, shown: float, dropped: int, response: str | None, response_time: float | None) -> None:
        """Write what became of the trial that was begun last."""
        reaction = NOTHING if response_time is None else f"{response_time:.6f}"
        self._write("\t".join(("", f"{shown:.6f}", str(dropped), response or NOTHING, reaction)).encode() + b"\n")

    def _write(self, part: bytes) -> None:
        """Write a part of a line; what a full disk takes of it is no trial, or one without an end.

        Raises
        ------
        AppError
            It could not be written whole.
        """
        try:
            written, reason = self._file.write(part), "the disk is full"
        except OSError as error:
            written, reason = 0, reason_of(error)
        if written != len(part):
            raise AppError(f"{self.path}: cannot be written any more ({reason}); mend that, and --resume goes on")

    def sync(self) -> None:
        """Sync what was written to the disk, which takes longer than a frame."""
        os.fsync(self._file.fileno())


def _check_plan(path: Path, shown: Sequence[Row], trials: Sequence[Trial]) -> None:
    """Check that what was shown is how the plan begins.

    Raises
    ------
    AppError
        It is of another plan.
    """
    for row, trial in zip(shown, trials, strict=False):
        planned = (trial.number, trial.block, trial.picture, trial.trial_type)
        if (row.trial, row.block, row.picture, row.trial_type) != planned:
            break
    else:
        if len(shown) <= len(trials):
            return
    raise AppError(
        f"{path}: was shown by another plan: pictures, seed or other settings of `experiment` have changed since; set "
        "them as they were, or begin anew with another --session"
    )


@dataclass(frozen=True, slots=True)
class Attention:
    """The participant's hits, misses and false alarms.

    Attributes
    ----------
    hits, misses : int
        Trials that asked for a response and got one in time, or none.
    false_alarms : int
        Presses that no trial asked for.
    """

    hits: int
    misses: int
    false_alarms: int


def attention(rows: Sequence[Row], task: TaskSpec | None, now: float = math.inf) -> Attention | None:
    """Score the task; None where there was none.

    Only presses of the task's key count: each for the earliest trial that asked for one at most `task.within_s` before
    and has none yet; such a trial is missed once that time is over at `now`, an LSL time.
    """
    if task is None:
        return None
    waiting = [row.lsl_time for row in rows if row.trial_type != "picture"]
    presses = [
        row.lsl_time + row.response_time
        for row in rows
        if row.response_time is not None and row.response == task.key.lower()
    ]
    hits = false_alarms = 0
    for press in presses:
        answered = next((time for time in waiting if 0 <= press - time <= task.within_s), None)
        if answered is None:
            false_alarms += 1
        else:
            waiting.remove(answered)
            hits += 1
    return Attention(hits, sum(time + task.within_s < now for time in waiting), false_alarms)
