"""`minddiffuser present` on a virtual screen: markers, light, the table of trials, and what is left after an end."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from minddiffuser.archive.trials import EventLog
from minddiffuser.cli.experiment import session_folder
from minddiffuser.config.experiment import ExperimentSpec
from minddiffuser.config.spec import load_config
from minddiffuser.errors import AppError
from minddiffuser.experiment.present import Presenter, prepare, run_present
from minddiffuser.experiment.screen import Screen, check_screen, geometry
from stream.files.registry import read
from stream.recording.record import record
from stream.types.recording import Recording
from stream.types.source_spec import StreamSelector
from tests.conftest import Cli
from tests.experiment.conftest import PATCH
from tests.experiment.virtual_screen import light_meter

MARKERS = f"markers-{os.getpid()}"
METER = f"meter-{os.getpid()}"
FRAME_S = 1 / 60


@contextmanager
def recorded(path: Path, *names: str) -> Iterator[None]:
    """Record streams while the block runs; they may come meanwhile."""
    stop, failed = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            record(path, [StreamSelector(name=name) for name in names], stop=stop, timeout_s=60)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not failed, failed


def rows_of(folder: Path, which: str = "calibration") -> list[dict[str, str]]:
    """Read a table of trials as any program would."""
    with (folder / f"{which}_events.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def light_onsets(recording: Recording) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return when the patch turned white."""
    meter = recording.streams[0]
    lit = meter.data[:, 0] > 0.5
    return meter.times[1:][lit[1:] & ~lit[:-1]]


def test_every_marker_is_at_its_light_and_in_the_table(
    on_screen: Cli, screen: tuple[str, Path], config_of: Callable[..., Path], tmp_path: Path
) -> None:
    """An independent light meter sees each picture within a frame of its marker, of both sets, which share none."""
    file = tmp_path / "session.xdf"
    with light_meter(screen[1], METER, PATCH), recorded(file, METER, MARKERS):
        run = on_screen("present", str(config_of()), "--out", str(tmp_path), "--wait", "--json")
    assert run.returncode == 0, run.stderr
    sets = {each["set"]: each for each in json.loads(run.stdout)["sets"]}
    recording = read(file)
    calibration, test = rows_of(tmp_path), rows_of(tmp_path, "test")
    assert [event.label for event in recording.events] == [row["marker"] for row in [*calibration, *test]]
    assert len(calibration) == sets["calibration"]["planned"] == sets["calibration"]["shown"] == 18
    assert len(test) == sets["test"]["planned"] == 10
    assert not {row["stim_id"] for row in calibration} & {row["stim_id"] for row in test}
    assert {row["stim_file"] for row in calibration} <= {f"p{number:02d}.png" for number in range(20)}
    stamps = np.array([event.time for event in recording.events])
    in_table = np.array([float(row["lsl_time"]) for row in [*calibration, *test]])
    assert np.abs(np.diff(stamps) - np.diff(in_table)).max() < 1e-3
    onsets = light_onsets(recording)
    assert len(onsets) == len(stamps)
    assert np.median(np.abs(onsets - stamps)) <= FRAME_S
    assert np.percentile(np.abs(onsets - stamps), 99) <= 2 * FRAME_S


def test_a_killed_presentation_goes_on_where_it_was(
    on_screen: Cli, config_of: Callable[..., Path], tmp_path: Path
) -> None:
    """After kill -9 in the middle, --resume shows exactly what is left; markers and table hold every trial once."""
    config, out, file = config_of(repeats=2), tmp_path / "out", tmp_path / "session.xdf"
    command = ("present", str(config), "--set", "calibration", "--out", str(out), "--wait")
    planned = [trial.picture for trial in prepare(load_config(config)).trials["calibration"]]
    with recorded(file, MARKERS):
        first = on_screen.start(*command)
        table = out / "calibration_events.tsv"
        deadline = time.monotonic() + 60
        while not table.exists() or table.read_bytes().count(b"\n") < 12:
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.kill()
        first.communicate()
        before = len(rows_of(out))
        assert 11 <= before < len(planned)
        with pytest.raises(AppError, match="--resume"):
            run_present(load_config(config), out, ("calibration",), threading.Event())
        second = on_screen(*command, "--resume", "--json")
    assert second.returncode == 0, second.stderr
    account = json.loads(second.stdout)["sets"][0]
    assert (account["before"], account["shown"], account["left"]) == (before, len(planned) - before, 0)
    rows = rows_of(out)
    assert [row["stim_id"] for row in rows] == planned
    assert [event.label for event in read(file).events] == planned
    assert all(None not in row.values() for row in rows)


def test_ctrl_c_ends_after_the_trial_and_says_how_to_go_on(
    on_screen: Cli, config_of: Callable[..., Path], tmp_path: Path
) -> None:
    """What was shown is kept whole, exit code 3 says that something is left, and --resume is named."""
    process = on_screen.start("present", str(config_of(repeats=9)), "--out", str(tmp_path))
    table, deadline = tmp_path / "calibration_events.tsv", time.monotonic() + 60
    while not table.exists() or table.read_bytes().count(b"\n") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    answer, errors = process.communicate(timeout=30)
    assert process.returncode == 3, errors
    assert "--resume" in answer
    assert "Traceback" not in errors
    assert table.read_bytes().endswith(b"\n")
    assert all(row["shown"] != "n/a" for row in rows_of(tmp_path))


class Stalling(Screen):
    """A screen whose flips can be made late, and which notes when each was."""

    stalls: frozenset[int] = frozenset()

    def flip(self) -> float:
        """Flip, later than it should where a stall is due."""
        self.times: list[float] = getattr(self, "times", [])
        if len(self.times) in self.stalls:
            time.sleep(3 * self.period)
        self.times.append(super().flip())
        return self.times[-1]


def test_the_trials_that_dropped_frames_hit_are_flagged(
    display: str, config_of: Callable[..., Path], tmp_path: Path
) -> None:
    """Stalls are put in at chosen frames; flagged are the trials in which frames were missed, and no other."""
    experiment = prepare(load_config(config_of(blocks=1, repeats=2)))
    screen = Stalling(experiment.spec, experiment.background, experiment.size)
    trials = experiment.trials["calibration"]
    frames = 8  # of a trial: six of picture, two of blank
    lead = 6 + 60  # of the break, and of the background after it
    stalled = {4: lead + 3 * frames, 9: lead + 8 * frames + 3, 20: lead + 19 * frames + 7}
    pushed: list[tuple[str, float]] = []
    try:
        screen.times, screen.stalls = [], frozenset(stalled.values())
        presenter = Presenter(screen, experiment, lambda text, at: pushed.append((text, at)), threading.Event())
        with EventLog(tmp_path / "events.tsv", trials, resume=False) as log:
            account = presenter.run("calibration", trials, log)
    finally:
        screen.close()
    missed = np.maximum(np.round(np.diff(screen.times) / screen.period) - 1, 0)[lead - 1 :]
    by_trial = missed.reshape(len(trials), frames).sum(axis=1)
    assert set(stalled) <= set(account.flagged)
    assert account.flagged == tuple(np.flatnonzero(by_trial) + 1)
    assert account.dropped == by_trial.sum() >= 6
    with (tmp_path / "events.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [int(row["dropped_frames"]) for row in rows] == by_trial.tolist()
    assert float(rows[3]["flip_error"]) > 2 * screen.period  # the flip that was late is the picture's own
    assert [text for text, _ in pushed] == [trial.picture for trial in trials]
    assert account.worst_error_ms >= 2e3 * screen.period


def refusal(run: subprocess.CompletedProcess[str]) -> str:
    """Return the one line by which a command refuses."""
    assert run.returncode == 1, run.stderr
    lines = [line for line in run.stderr.splitlines() if line.startswith("minddiffuser: ")]
    assert len(lines) == 1, run.stderr
    assert "Traceback" not in run.stderr
    return lines[0]


def test_no_screen_is_one_line(
    on_screen: Cli, cli: Cli, display: str, config_of: Callable[..., Path], tmp_path: Path
) -> None:
    """None at all, or not that many, or a key that no keyboard has; nothing is written."""
    present = ("present", str(config_of()), "--out", str(tmp_path / "out"))
    without = Cli({name: value for name, value in cli.environment.items() if name != "DISPLAY"})
    assert "no screen" in refusal(without(*present))
    assert "0: 320 x 240" in refusal(on_screen(*present, "--screen", "3"))
    for name, why in (("spacebar", "is no key"), ("return", "is called 'enter'"), ("escape", "ends the presentation")):
        with pytest.raises(AppError, match=why):
            check_screen(ExperimentSpec(size_deg=1, task={"key": name}), number=0, windowed=False)
    assert not (tmp_path / "out").exists()


def test_pictures_have_the_size_that_is_asked_for() -> None:
    """Degrees of visual angle in pixels by screen and distance; too large, or over the patch, is refused."""
    spec = ExperimentSpec(size_deg=10, screen_cm=32, distance_cm=57, patch_cm=3, patch="top-right")
    lies = geometry(spec, (320, 240), 320, (200, 100))
    left, bottom, width, height = lies.picture
    assert width == pytest.approx(2 * 57 * np.tan(np.radians(5)) * 10) == pytest.approx(2 * height)
    assert (left + width / 2, bottom + height / 2) == pytest.approx((160, 120))
    assert lies.patch == pytest.approx((290, 210, 30))
    with pytest.raises(AppError, match="size_deg 60"):
        geometry(spec.model_copy(update={"size_deg": 60}), (320, 240), 320, (1, 1))
    with pytest.raises(AppError, match="covered"):
        geometry(spec.model_copy(update={"patch_cm": 12}), (320, 240), 320, (1, 1))


def test_labels_name_folders() -> None:
    """A participant and a session as BIDS has them, with and without the prefix."""
    assert session_folder("sub-01", "a2") == Path("sessions/sub-01/ses-a2")
    for wrong in ("a b", "..", "", "a/b", "sub-"):
        with pytest.raises(AppError, match="--subject"):
            session_folder(wrong, "01")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file\np00.png\nnowhere.png\n", "nowhere.png"),
        ("id,file\nx,p00.png\nx,p01.png\n", "'x' occurs more than once"),
    ],
)
def test_pictures_that_are_not_there_or_share_an_id_are_refused(
    config_of: Callable[..., Path], pictures: Path, tmp_path: Path, table: str, words: str
) -> None:
    """Before anything is shown, in the words of whoever reads the folder for training."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "p00.png").write_bytes((pictures / "p00.png").read_bytes())
    (folder / "p01.png").write_bytes((pictures / "p01.png").read_bytes())
    (folder / "stimuli.csv").write_text(table, "utf-8")
    with pytest.raises(Exception, match=words):
        prepare(load_config(config_of(pictures=str(folder))))


class Pressed(Screen):
    """A screen at which keys are pressed at chosen flips, by the window system's own events."""

    keys: ClassVar[dict[int, int]] = {}

    def flip(self) -> float:
        """Flip, and press what is due."""
        self.flips: int = getattr(self, "flips", 0) + 1
        if key := self.keys.get(self.flips):
            self._window.dispatch_event("on_key_press", key, 0)
        return super().flip()


def test_keys_begin_blocks_answer_the_task_and_end_the_experiment(
    display: str, config_of: Callable[..., Path], tmp_path: Path
) -> None:
    """A block waits for the space bar; a press is in the table with its time; after escape the trial is finished."""
    from pyglet.window import key

    experiment = prepare(load_config(config_of(blocks=1, break_s=None, task={"share": 0.1})))
    trials, stop = experiment.trials["calibration"], threading.Event()
    repeat = next(trial.number for trial in trials if trial.trial_type == "repeat")
    screen = Pressed(experiment.spec, experiment.background, experiment.size)
    try:
        began, lead, frames = 30, 60, 8
        onset = began + lead + frames * (repeat - 1) + 1  # the flip that shows the repeated picture
        screen.flips, Pressed.keys = 0, {
            began: key.SPACE, onset + 3: key.SPACE, onset + 4 * frames: key.ESCAPE, onset + 9 * frames: key.SPACE,
        }  # fmt: skip
        with EventLog(tmp_path / "events.tsv", trials, resume=False) as log:
            account = Presenter(screen, experiment, lambda *_: None, stop).run("calibration", trials, log)
    finally:
        screen.close()
    assert stop.is_set()
    with (tmp_path / "events.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == account.shown == min(len(trials), repeat + 3 + 1)
    assert {row["trial"]: row["response"] for row in rows if row["response"] != "n/a"} == {str(repeat): "space"}
    assert 2 * screen.period < float(rows[repeat - 1]["response_time"]) < 0.5
    assert account.attention is not None
    assert (account.attention.hits, account.attention.false_alarms) == (1, 0)
    assert account.left == len(trials) - account.shown
