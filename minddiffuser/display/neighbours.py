"""Sessions in other processes of this machine: how they are found, and how they are asked for traces and take notes.

A session leaves a file beside that of `minddiffuser.display.running`, which only its user can read: a port on loopback,
and the token that is asked for there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from minddiffuser.display.http import LOOPBACK
from minddiffuser.display.running import alive, folder
from minddiffuser.errors import AppError

logger = logging.getLogger(__name__)

SUFFIX = ".local"
ANSWER_S = 2.0
"""Seconds that a session may take to answer."""
LOOK_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a session of this machine answers: a port on loopback, and the token that it asks for."""

    port: int
    token: str


@contextmanager
def findable(session: str, broker: str, address: Address) -> Iterator[None]:
    """Announce a session to this user's other programs while the block runs; log a warning where that fails."""
    path = folder() / f"{os.getpid()}{SUFFIX}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        # Nobody else may read it, from its first moment on.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump({"session": session, "broker": broker, **asdict(address)}, file)
    except (OSError, AppError) as error:
        logger.warning("`minddiffuser display` has no raw traces of this session: %s", error)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it is stale then, and ignored
            path.unlink(missing_ok=True)


class Neighbours:
    """Finds sessions of this machine and user by name; looks around every few seconds at most.

    Parameters
    ----------
    broker : str
        Address of the broker that they publish to: another one may have sessions of the same names.
    """

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._found: dict[str, Elsewhere] = {}
        self._looked = -LOOK_EVERY_S

    def find(self, name: str) -> Elsewhere | None:
        """Return a session, None where none of that name runs."""
        if (now := time.monotonic()) - self._looked >= LOOK_EVERY_S:
            self._found, self._looked = dict(_around(self._broker)), now
        return self._found.get(name)


def _around(broker: str) -> Iterator[tuple[str, Elsewhere]]:
    for path in sorted(folder().glob(f"*{SUFFIX}")):
        try:
            if not alive(int(path.stem)):
                path.unlink()
                continue
            words = json.loads(path.read_text("utf-8"))
            if words["broker"] == broker:
                yield str(words["session"]), Elsewhere(Address(int(words["port"]), str(words["token"])))
        except (OSError, ValueError, KeyError, TypeError):  # another user's, being written, gone, or none of ours
            continue


class Elsewhere:
    """A session in another process of this machine.

    Parameters
    ----------
    address : Address
        From its run file.
    """

    def __init__(self, address: Address) -> None:
        self._address = address

    async def traces(self, after: int | None = None) -> dict[str, Any] | None:
        """Return the newest raw traces; see `Traces.frame`."""
        return await self._ask("GET", f"/traces?after={'' if after is None else after}")

    async def note(self, text: object, ago: object = 0.0) -> dict[str, Any]:
        """Record a note; see `Local.note`."""
        return await self._ask("POST", "/note", {"text": text, "ago": ago}) or {}

    async def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any] | None:
        url = f"http://{LOOPBACK[0]}:{self._address.port}{path}"
        headers = {"Authorization": f"Bearer {self._address.token}"}
        try:
            async with (
                ClientSession(timeout=ClientTimeout(ANSWER_S), headers=headers) as client,
                client.request(method, url, json=body) as answer,
            ):
                if answer.status == web.HTTPNoContent.status_code:
                    return None
                if answer.status != web.HTTPOk.status_code:
                    raise AppError((await answer.text()).strip().removesuffix("."))
                content: dict[str, Any] = await answer.json()
                return content
        except (ClientError, TimeoutError, OSError) as error:
            raise AppError(f"the session does not answer ({str(error) or type(error).__name__}); is it over?") from None
