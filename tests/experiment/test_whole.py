"""The experiment, whole: a simulated amplifier, pictures on a screen, a calibration, and a live session on others."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from decoder.data.stimuli import StimulusTable, write_stimuli
from decoder.data.targets import compute_targets
from decoder.evaluation.identify import identification
from decoder.evaluation.metrics import correlation_matrix
from decoder.models.bundle import Bundle
from engine.models.loading import Models
from minddiffuser.archive.archive import read_received
from minddiffuser.config.spec import load_config
from minddiffuser.evaluation.agreement import agreement
from minddiffuser.live.engines import ready_engine
from minddiffuser.workflows.evaluate import offline_pictures, usable_windows
from stream.files.registry import read
from stream.quality.signal_profile import profile_of
from stream.types.windows import Window
from tests.conftest import ROOT, Cli
from tests.experiment.conftest import SMALL
from tests.experiment.test_present import recorded, rows_of

logger = logging.getLogger(__name__)
AMPLIFIER, MARKERS = f"amp-{os.getpid()}", f"pictures-{os.getpid()}"
PICTURES, CALIBRATION, TEST = 70, 49, 21
REJECTED = 2
"""Most windows that noise takes over the limit: where it falls depends on when the trials come."""
TIMES = {"picture_s": 0.1, "blank_s": 0.2, "test_share": 0.3, "test_repeats": 1, "blocks": 1, "task": None,
         "break_s": 6}  # fmt: skip


class Lines:
    """Collects what a program says on stderr, so that one can wait for a line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.text, self._process = "", process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self.text += line

    def wait_for(self, words: str, seconds: float = 240) -> None:
        """Wait until the program has said something."""
        deadline = time.monotonic() + seconds
        while words not in self.text:
            assert self._process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)


@dataclass(frozen=True)
class Rehearsed:
    """A calibrated session whose amplifier still runs."""

    folder: Path
    answer: dict[str, Any]
    run: Callable[..., subprocess.Popen[str]]


def pictures() -> StimulusTable:
    """Draw pictures of two halves of some grey each, as small as the tiny models' own."""
    halves = np.random.default_rng(0).integers(0, 256, (PICTURES, 1, 2, 1), dtype=np.uint8)
    names = tuple(f"halves-{number:02d}" for number in range(PICTURES))
    words = np.array(["black", "dark", "light", "white"])[halves // 64].reshape(PICTURES, 2)
    captions = tuple((f"{left} and {right}",) for left, right in words)
    return StimulusTable(names, halves.repeat(32, 1).repeat(16, 2).repeat(3, 3), captions)


def windows_of(recording: Path, session: Path) -> list[Window]:
    """Cut a recording as the session's decoder was trained, without what it rejects."""
    config, bundle = load_config(session / "config.yaml"), Bundle.load(session / "bundle")
    return usable_windows(read(recording), config, profile_of(bundle.meta))


def documented(name: str) -> str:
    """Return the page's command of a name, as it stands there."""
    page = (ROOT / "docs" / "how-to" / "experiment.md").read_text("utf-8")
    blocks = re.findall(r"^```console rehearsed\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (command,) = [
        line.removeprefix("$ ") for block in blocks for line in block.splitlines() if f"minddiffuser {name} " in line
    ]
    return command


@pytest.fixture(scope="module")
def rehearsed(
    cli: Cli, tiny: Models, screen: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rehearsed]:
    """Calibrate a simulated participant by the documented commands, in an empty folder."""
    folder = tmp_path_factory.mktemp("whole")
    environment = cli.environment | {"DISPLAY": screen[0], "PYTHONPATH": str(ROOT)}
    write_stimuli(pictures(), folder / "pictures")
    own = yaml.safe_load((ROOT / "configs" / "own-eeg.yaml").read_text("utf-8"))
    own["data"] |= {"image_bank": None}
    own["source"] |= {"name": AMPLIFIER, "markers": {"name": MARKERS}, "timeout_s": 120}
    own["decoder"] = {"features": ["c", "z"]}
    own["engine"] = {"models": {"folder": tiny.spec.folder}, "backend": "torch", "structure": {"mode": "none"}}
    own["publish"] = {"session": f"whole-{os.getpid()}", "format": "png", "abstain_below": 0}
    own |= {"queue": {"policy": "every"}, "archive": {"folder": "archive"}, "experiment": SMALL | TIMES}
    (folder / "configs").mkdir()
    (folder / "configs" / "own-eeg.yaml").write_text(yaml.safe_dump(own), "utf-8")

    def run(name: str, *more: str) -> subprocess.Popen[str]:
        words = shlex.split(documented(name))
        return subprocess.Popen(
            [sys.executable, "-m", *words, *more],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    amplifier = run("simulate", "--seed", "0", "--run", "0")
    try:
        Lines(amplifier).wait_for("waits for markers")
        calibration = run("calibrate", "--json")
        answer, errors = calibration.communicate(timeout=280)
        assert calibration.returncode == 0, errors
        yield Rehearsed(folder, json.loads(answer), run)
    finally:
        amplifier.send_signal(signal.SIGINT)
        amplifier.wait(30)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_command_calibrates_a_rehearsed_participant(rehearsed: Rehearsed) -> None:
    """Everything lies in the session's folder, every marker is in file and table, and the decoder beats chance."""
    answer, session = rehearsed.answer, rehearsed.folder / "sessions" / "sub-01" / "ses-01"
    for each in answer["sets"]:
        rows = rows_of(session, each["set"])
        (file,) = each["files"]
        assert [event.label for event in read(rehearsed.folder / file).events] == [row["marker"] for row in rows]
        assert len(rows) == each["planned"] == each["shown"] == (CALIBRATION if each["set"] == "calibration" else TEST)
    assert answer["rejection"]["markers"] == CALIBRATION
    assert answer["verdict"]["word"] in {"Works", "Weak"}, answer["scores"]  # captions tell pictures apart by words
    scores = answer["scores"]["z"]
    assert scores["two_way_interval"][0] > scores["two_way_chance"][1]
    assert answer["next"] == documented("live")
    test = answer["test"]
    assert (test["on_training_data"], test["overlap"]["pictures"]) == (False, 0)
    usable = len(windows_of(session / "test-01.xdf", session))
    assert TEST - REJECTED <= usable <= TEST
    assert (test["offline"]["pictures"], test["offline"]["n"]) == (usable, usable)
    assert test["verdict"]["word"] in {"Works", "Weak", "Does not work"}
    assert test["verdict"]["word"] in (rehearsed.folder / test["report"]).read_text("utf-8")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_live_on_a_second_presentation(rehearsed: Rehearsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that the decoder never saw: each marker is in file, table and account, and live is as offline."""
    monkeypatch.chdir(rehearsed.folder)
    live = rehearsed.run("live", "--no-display", "--json")
    lines, file = Lines(live), tmp_path / "second.xdf"
    try:
        lines.wait_for("Looking for")
        presenter = rehearsed.run("present", "--wait", "--json")  # begins when the live session reads its markers
        lines.wait_for("Found")
        with recorded(file, AMPLIFIER, MARKERS):
            _, errors = presenter.communicate(timeout=200)
            assert presenter.returncode == 0, errors
            time.sleep(2)
    finally:
        live.send_signal(signal.SIGINT)
        assert live.stdout
        output = live.stdout.read()
        live.wait(60)
    account = json.loads(output)
    rows = rows_of(Path("sessions/sub-01/ses-02"), "test")
    recording = read(file)
    assert [event.label for event in recording.events] == [row["marker"] for row in rows]
    assert len(rows) == account["ingest"]["events"] == account["windows"] == TEST, account
    session = Path("sessions/sub-01/ses-01")
    windows = windows_of(file, session)
    assert account["published"] == len(windows) == TEST - account["rejected"] >= TEST - REJECTED, account
    config, bundle = load_config(session / "config.yaml"), Bundle.load(session / "bundle")
    (archive,) = Path("archive").iterdir()
    received = read_received(archive, ("preview", "picture"))
    features = [bundle.decode([window])[0] for window in windows]
    reconstructor = ready_engine(config.engine, bundle)
    offline = offline_pictures(windows, features, reconstructor, lambda *_: None)
    agreed = agreement(offline, received, config.publish)
    targets = compute_targets(pictures(), reconstructor.models, features=("z",))
    true, decoded = (np.stack(each).reshape(len(each), -1) for each in (targets.z, [one.z for one in features]))
    mean = true.mean(axis=0)
    rows = pictures().rows(window.event.label for window in windows if window.event)
    tested = np.unique(rows)
    r = correlation_matrix((true - mean)[tested], decoded - mean)
    told = identification(r, np.searchsorted(tested, rows), np.random.default_rng(0))
    logger.warning("%s %s", agreed, told)
    assert agreed.windows == agreed.same_seed == len(windows)
    assert not agreed.missing
    assert not agreed.extra
    # They began at different samples, of which filters know a little for ever; those of other windows are no match.
    unlike = [
        np.abs(one.stages["picture"].astype(int) - other.stages["picture"].astype(int)).mean()
        for one, other in pairwise(offline)
    ]
    assert min(unlike) > 20 * agreed.mean_difference
    assert told["two_way_interval"][0] > told["two_way_chance"][1], told
