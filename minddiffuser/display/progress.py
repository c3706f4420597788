"""Presentations that run on this machine: each leaves a small file meanwhile, by which the page shows how far it is.

The file says where the presenter writes its trials and how many there are to be; how many were shown is read from that
table, so that the presenter spends no time on it between two frames.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from minddiffuser.archive.trials import attention, read_rows
from minddiffuser.cache import cache_dir
from minddiffuser.config.experiment import TaskSpec
from minddiffuser.display.running import alive
from minddiffuser.errors import AppError
from stream.atomic import write_whole
from stream.errors import OutputError

logger = logging.getLogger(__name__)


def folder() -> Path:
    """Return the folder of the files, one a process: it goes with the user's cache."""
    return cache_dir() / "presenting"


class Announcement:
    """What the page may know of the presentation of this process; gone when the block is left."""

    def __init__(self) -> None:
        self._file = folder() / f"{os.getpid()}.json"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # it is stale then, and ignored
            self._file.unlink(missing_ok=True)

    def update(self, facts: Mapping[str, Any]) -> None:
        """Announce a set: its name, its table of trials, how many trials and blocks there are, and the task."""
        try:
            write_whole(self._file, json.dumps({"pid": os.getpid(), **facts}) + "\n")
        except (OSError, AppError, OutputError) as error:
            logger.warning("the page cannot show how far the experiment is: %s", error)


def experiment() -> dict[str, Any] | None:
    """Return how far the presentation on this machine is, the newest of several; None where there is none.

    Returns
    -------
    dict or None
        `set`, `trial` of `trials`, `block` of `blocks`, `dropped` (frames), and `hits`, `misses` and `false_alarms`
        where there is a task.
    """
    newest = None
    for file in sorted(folder().glob("*.json"), key=_changed):
        try:
            facts = json.loads(file.read_text("utf-8"))
            runs = alive(int(facts["pid"]))
            newest = _how_far(facts) if runs else newest
        except (OSError, ValueError, KeyError, TypeError, AppError):  # being written, removed, or none of ours
            continue
        if not runs:
            with contextlib.suppress(OSError):
                file.unlink()
    return newest


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _how_far(facts: Mapping[str, Any]) -> dict[str, Any]:
    rows, _ = read_rows(Path(facts["events"]))
    task = TaskSpec.model_validate(facts["task"]) if facts["task"] else None
    scored = attention(rows, task, rows[-1].lsl_time if rows else 0.0)
    return {
        "set": str(facts["set"]),
        "trial": len(rows),
        "trials": int(facts["trials"]),
        "block": rows[-1].block if rows else 1,
        "blocks": int(facts["blocks"]),
        "dropped": sum(row.dropped_frames or 0 for row in rows),
        **(asdict(scored) if scored else {}),
    }
