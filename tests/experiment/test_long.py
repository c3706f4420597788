"""Two thousand pictures at eight a second, with a kill in the middle and stalls from outside: every marker once."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.archive.trials import EventLog
from minddiffuser.config.spec import load_config
from minddiffuser.experiment.present import Presenter, prepare
from stream.files.registry import read
from stream.lsl.discovery import load_lsl
from tests.conftest import Cli
from tests.experiment.conftest import PATCH
from tests.experiment.test_present import FRAME_S, MARKERS, METER, Stalling, light_onsets, recorded, rows_of
from tests.experiment.virtual_screen import light_meter

logger = logging.getLogger(__name__)
TRIALS = 2000
STALL_S = 0.08


def shown_in(table: Path) -> int:
    """Return how many trials a table holds."""
    return max(0, table.read_bytes().count(b"\n") - 1) if table.exists() else 0


def until(process: subprocess.Popen[str], table: Path, trials: int) -> None:
    """Wait until a presenter has shown so many trials."""
    while shown_in(table) < trials:
        assert process.poll() is None
        time.sleep(0.02)


@pytest.mark.big
@pytest.mark.timeout(900)
def test_two_thousand_trials(
    on_screen: Cli, screen: tuple[str, Path], config_of: Callable[..., Path], tmp_path: Path
) -> None:
    """Markers, table and light agree over all of them, and the trials that were stalled from outside are flagged."""
    config = config_of(test_share=0, repeats=TRIALS // 20, blocks=4, task=None)
    planned = [trial.picture for trial in prepare(load_config(config)).trials["calibration"]]
    assert len(planned) == TRIALS
    out, file, stalls = tmp_path / "out", tmp_path / "long.xdf", list[float]()
    table = out / "calibration_events.tsv"
    command = ("present", str(config), "--set", "calibration", "--out", str(out), "--wait", "--json")
    clock = load_lsl().local_clock
    with light_meter(screen[1], METER, PATCH), recorded(file, METER, MARKERS):
        first = on_screen.start(*command)
        until(first, table, TRIALS // 2 - 11)
        first.kill()
        first.communicate()
        second = on_screen.start(*command, "--resume")
        for trials in (TRIALS * 3 // 5, TRIALS * 7 // 10):
            until(second, table, trials)
            stalls.append(clock())
            os.kill(second.pid, signal.SIGSTOP)
            time.sleep(STALL_S)
            os.kill(second.pid, signal.SIGCONT)
        answer, errors = second.communicate(timeout=600)
    assert second.returncode == 0, errors
    rows, recording = rows_of(out), read(file)
    assert [row["stim_id"] for row in rows] == planned
    assert [event.label for event in recording.events] == planned
    stamps, onsets = np.array([event.time for event in recording.events]), light_onsets(recording)
    # Each marker beside its nearest light: what was lit when the program was killed has no end of its own.
    nearest = onsets[np.abs(onsets[None, :] - stamps[:, None]).argmin(axis=1)]
    late = np.abs(nearest - stamps)
    logger.warning("marker to light over %d trials: median %.2f ms, p99 %.2f ms, most %.2f ms",
                   len(late), *(1e3 * np.percentile(late, [50, 99, 100])))  # fmt: skip
    assert np.median(late) <= FRAME_S
    assert np.percentile(late, 99) <= 2 * FRAME_S
    starts = np.array([float(row["lsl_time"]) for row in rows])
    stalled = {int(np.searchsorted(starts, stall)) for stall in stalls}  # the trial in course; or the next one's flip
    flagged = {int(row["trial"]) for row in rows if row["dropped_frames"] not in {"0", "n/a"}}
    account = json.loads(answer)["sets"][0]
    logger.warning("stalled %s, flagged %s; %d of %d frames dropped", stalled, sorted(flagged), account["dropped"],
                   account["frames"])  # fmt: skip
    assert all(flagged & {trial, trial + 1} for trial in stalled)


@pytest.mark.big
@pytest.mark.timeout(900)
def test_a_thousandth_of_the_frames_is_dropped(display: str, config_of: Callable[..., Path], tmp_path: Path) -> None:
    """Frames are made late at random: flagged are the trials in which flips came late, those among them, no other."""
    experiment = prepare(load_config(config_of(test_share=0, repeats=TRIALS // 20, blocks=1, task=None)))
    trials = experiment.trials["calibration"]
    frames, lead = 8, 6 + 60  # of a trial; of the break, and of the background after it
    late = np.random.default_rng(0).choice(TRIALS * frames, TRIALS * frames // 1000, replace=False)
    screen = Stalling(experiment.spec, experiment.background, experiment.size)
    try:
        screen.times, screen.stalls = [], frozenset((lead + late).tolist())
        with EventLog(tmp_path / "events.tsv", trials, resume=False) as log:
            account = Presenter(screen, experiment, lambda *_: None, threading.Event()).run("calibration", trials, log)
    finally:
        screen.close()
    missed = np.maximum(np.round(np.diff(screen.times) / screen.period) - 1, 0)[lead - 1 :]
    by_trial = missed.reshape(TRIALS, frames).sum(axis=1)
    logger.warning("%d frames made late, %d of %d dropped in %d trials", len(late), account.dropped, account.frames,
                   len(account.flagged))  # fmt: skip
    assert set((late // frames + 1).tolist()) <= set(account.flagged)
    assert account.flagged == tuple(np.flatnonzero(by_trial) + 1)
    with (tmp_path / "events.tsv").open(encoding="utf-8") as file:
        assert [int(row["dropped_frames"]) for row in csv.DictReader(file, delimiter="\t")] == by_trial.tolist()
