"""Sessions that run on this machine: each leaves a small file while it does, by which others find its broker."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minddiffuser.cache import cache_dir
from minddiffuser.errors import AppError
from stream.atomic import write_whole
from stream.errors import OutputError

if TYPE_CHECKING:
    from stream.mqtt.broker import BrokerSpec

logger = logging.getLogger(__name__)

ANSWER_S = 0.5
"""Seconds that a broker has to take a connection: it is on this machine, or in its network."""


@dataclass(frozen=True, slots=True)
class Running:
    """A session that runs: its process, its name and how to reach its broker."""

    pid: int
    session: str
    broker: BrokerSpec

    def __str__(self) -> str:
        """Return what tells it from others."""
        return f"{self.session} (process {self.pid}, broker {self.broker.address})"


def folder() -> Path:
    """Return the folder of the files, one a process: it goes with the user's cache."""
    return cache_dir() / "running"


@contextmanager
def announced(session: str, broker: BrokerSpec) -> Iterator[None]:
    """Announce a session on this machine while the block runs; log a warning where that fails.

    The file names where a password is kept, never the password.
    """
    file = folder() / f"{os.getpid()}.json"
    words = {
        "pid": os.getpid(),
        "host": broker.host,
        "port": broker.resolved_port,
        "session": session,
        "broker": broker.model_dump(mode="json", exclude_defaults=True),
    }
    try:
        write_whole(file, json.dumps(words) + "\n")
    except (OSError, AppError, OutputError) as error:
        logger.warning("`subscribe` and `display` cannot find this session by themselves: %s", error)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it is stale then, and ignored
            file.unlink(missing_ok=True)


def running() -> list[Running]:
    """Return the sessions that run here, by name; files that a killed process left behind are removed."""
    found = []
    for file in sorted(folder().glob("*.json")):
        try:
            one = _read(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError):  # being written, removed meanwhile, or none of ours
            continue
        if not alive(one.pid):
            with contextlib.suppress(OSError):  # another command was faster, or it stays and is ignored
                file.unlink()
        elif _answers(one.broker):
            found.append(one)
    return sorted(found, key=lambda one: (one.session, one.pid))


def _read(words: dict[str, Any]) -> Running:
    from stream.mqtt.broker import BrokerSpec

    return Running(int(words["pid"]), str(words["session"]), BrokerSpec.model_validate(words["broker"]))


def find_session(name: str | None) -> tuple[BrokerSpec, str] | None:
    """Find the one session of this machine, or the one of a name.

    Returns
    -------
    broker : BrokerSpec
    session : str

    None where none runs.

    Raises
    ------
    AppError
        Several run; lists them.
    """
    found = [one for one in running() if name in {None, "+", one.session}]
    if not found:
        return None
    if len({one.broker.address for one in found}) == 1:  # one broker has them all
        names = {one.session for one in found}
        return found[0].broker, name or (names.pop() if len(names) == 1 else "+")
    listed = "; ".join(map(str, found))
    raise AppError(f"{len(found)} sessions run on this machine: {listed}; say which with --session or --broker")


def alive(pid: int) -> bool:
    """Check whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _answers(broker: BrokerSpec) -> bool:
    """Check whether something listens at a broker's address: a process number may be another program's by now."""
    try:
        with socket.create_connection((str(broker.host), broker.resolved_port), ANSWER_S):
            return True
    except OSError:
        return False
