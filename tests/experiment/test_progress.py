"""How far a presentation is, as the page of its machine shows it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import aiohttp
import pytest

from minddiffuser.archive.trials import EventLog, Trial, TrialType, attention, read_rows
from minddiffuser.config.experiment import TaskSpec
from minddiffuser.display.progress import Announcement, experiment, folder
from minddiffuser.display.server import Display
from minddiffuser.errors import AppError
from stream.mqtt.broker import EmbeddedBroker
from tests.minddiffuser.test_archive import files_end_at

TYPES: tuple[TrialType, ...] = ("picture", "picture", "repeat", "picture", "repeat", "picture")
TRIALS = tuple(Trial(number, 1 + (number > 3), f"p{number // 2}", each, 0.1) for number, each in enumerate(TYPES, 1))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep announcements of other tests away."""
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path / "cache"))


def show(log: EventLog, trials: tuple[Trial, ...], presses: dict[int, float]) -> None:
    """Write trials half a second apart, with a press so long after some."""
    for trial in trials:
        log.begin(trial, file="f.png", marker=trial.picture, time=100 + trial.number / 2, duration=0.1, error=0.0)
        pressed = presses.get(trial.number)
        log.end(shown=0.1, dropped=trial.number % 2, response=pressed and "space", response_time=pressed)


async def test_the_page_gets_trial_block_and_attention(tmp_path: Path) -> None:
    """What the table of trials says, for as long as the presenter runs; 204 before and after."""
    async with EmbeddedBroker(0) as broker, Display(broker.spec) as display, aiohttp.ClientSession() as client:
        url = f"{display.url}experiment"
        async with client.get(url) as answer:
            assert answer.status == 204
        with Announcement() as announcement, EventLog(tmp_path / "e.tsv", TRIALS, resume=False) as log:
            task = TaskSpec(within_s=1.0)
            facts = {"set": "calibration", "events": str(log.path), "trials": 6, "blocks": 2}
            announcement.update({**facts, "task": task.model_dump(mode="json")})
            show(log, TRIALS[:5], {3: 0.3, 1: 0.1})
            async with client.get(url) as answer:
                assert await answer.json() == {
                    "set": "calibration", "trial": 5, "trials": 6, "block": 2, "blocks": 2, "dropped": 3,
                    "hits": 1, "misses": 0, "false_alarms": 1,
                }  # fmt: skip
            async with client.get(url, headers={"X-Forwarded-For": "192.0.2.1"}) as answer:
                assert answer.status == 204
        async with client.get(url) as answer:
            assert answer.status == 204


def test_a_killed_presenter_is_forgotten(tmp_path: Path) -> None:
    """An announcement of a process that is gone, or what is none, is no experiment."""
    folder().mkdir(parents=True)
    (folder() / "1.json").write_text(json.dumps({"pid": 2**22 + 1, "set": "test"}), "utf-8")
    (folder() / "2.json").write_text("{}", "utf-8")
    (folder() / "3.json").write_text(json.dumps({"pid": os.getpid(), "set": "x", "events": "nowhere"}), "utf-8")
    assert experiment() is None
    assert not (folder() / "1.json").exists()


@pytest.mark.parametrize(
    ("presses", "hits", "misses", "false_alarms"),
    [
        ({}, 0, 2, 0),
        ({3: 0.2, 5: 0.4}, 2, 0, 0),
        ({3: 1.2}, 1, 1, 0),
        ({3: 2.2}, 0, 2, 1),
        ({4: 0.3}, 1, 1, 0),
        ({3: 0.2, 4: 0.1}, 1, 1, 1),
    ],
)
def test_attention_is_scored(
    tmp_path: Path, presses: dict[int, float], hits: int, misses: int, false_alarms: int
) -> None:
    """A press within a second of a repeat is a hit, whichever trial is then shown; another is a false alarm."""
    with EventLog(tmp_path / "e.tsv", TRIALS, resume=False) as log:
        show(log, TRIALS, presses)
    scored = attention(read_rows(log.path)[0], TaskSpec())
    assert scored is not None
    assert (scored.hits, scored.misses, scored.false_alarms) == (hits, misses, false_alarms)
    assert attention(read_rows(log.path)[0], None) is None
    other = attention(read_rows(log.path)[0], TaskSpec(key="enter"))  # those were presses of space
    assert other is not None
    assert (other.hits, other.false_alarms) == (0, 0)


def test_a_line_without_an_end_is_ended(tmp_path: Path) -> None:
    """Wherever a kill cut the table, resuming keeps each trial whose onset was written, and only whole lines."""
    whole = tmp_path / "whole.tsv"
    with EventLog(whole, TRIALS, resume=False) as log:
        show(log, TRIALS[:3], {})
    content = whole.read_bytes()
    for end in range(content.rindex(b"\n", 0, len(content) - 1) + 1, len(content) + 1):
        cut = tmp_path / "cut.tsv"
        cut.write_bytes(content[:end])
        with EventLog(cut, TRIALS, resume=True) as log:
            n = len(log.shown)
            show(log, TRIALS[n:], {})
        rows, _ = read_rows(cut)
        assert n in {2, 3}
        assert [row.trial for row in rows] == [1, 2, 3, 4, 5, 6]
        assert len({line.count(b"\t") for line in cut.read_bytes().splitlines()}) == 1


def test_a_full_disk_ends_with_the_file_and_the_way_out(tmp_path: Path) -> None:
    """What it took of a line is no trial or one without an end, and resuming goes on from there."""
    path = tmp_path / "e.tsv"
    with EventLog(path, TRIALS, resume=False) as log:
        show(log, TRIALS[:2], {})
        with files_end_at(path.stat().st_size + 20), pytest.raises(AppError, match=r"e\.tsv.*--resume goes on"):
            show(log, TRIALS[2:], {})
    with EventLog(path, TRIALS, resume=True) as log:
        show(log, TRIALS[len(log.shown) :], {})
    assert [row.trial for row in read_rows(path)[0]] == [1, 2, 3, 4, 5, 6]


def test_a_table_of_another_plan_is_refused(tmp_path: Path) -> None:
    """What was shown must be how the plan begins; what is no table of trials is let be."""
    path = tmp_path / "e.tsv"
    with EventLog(path, TRIALS, resume=False) as log:
        show(log, TRIALS[:3], {})
    before = path.read_bytes()
    with pytest.raises(AppError, match="another plan"):
        EventLog(path, TRIALS[1:], resume=True)
    with pytest.raises(AppError, match="--resume"):
        EventLog(path, TRIALS, resume=False)
    assert path.read_bytes() == before
    path.write_text("onset\tduration\n1\t2\n", "utf-8")
    with pytest.raises(AppError, match="no table of trials"):
        EventLog(path, TRIALS, resume=True)
