"""What a session gives to pages of its own machine only: raw traces, and a place for the experimenter's notes.

A page that the session's own process serves asks `Local` itself. One that another process of this machine serves
(`minddiffuser display`) asks over loopback, with a token that only its user can read
(`minddiffuser.display.neighbours`):

    GET /traces?after=N      a frame as `Traces.frame` has it; 204 where there is none yet
    POST /note               {"text": ..., "ago": seconds since the button was pressed}; answers with the note
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from minddiffuser.display.http import LOOPBACK, listen, runner_of
from minddiffuser.display.neighbours import Address
from minddiffuser.display.traces import Traces, mains_in
from minddiffuser.errors import AppError
from stream.mqtt.messages import lsl_clock, to_json
from stream.mqtt.refusals import Refusals
from stream.mqtt.wire_models import printable

if TYPE_CHECKING:
    from minddiffuser.archive.archive import Archive
    from stream.lsl.live import LiveIngest
    from stream.lsl.notes import NoteOutlet

logger = logging.getLogger(__name__)

MOST_TEXT = 500
"""Characters of a note."""
MOST_AGO_S = 3600.0
"""Seconds that a note may have taken to write."""
MOST_BYTES = 8192
"""Of a request's body."""


@dataclass(frozen=True, slots=True)
class Note:
    """An experimenter's note: LSL time of the press, date and time of day with the zone, text."""

    time: float
    wall: str
    text: str


class Access(Protocol):
    """What a page of this machine may ask of a session."""

    async def traces(self, after: int | None) -> dict[str, Any] | None:
        """Return the newest raw traces, see `Traces.frame`."""

    async def note(self, text: object, ago: object) -> dict[str, Any]:
        """Record a note; see `Local.note`."""


class Local:
    """The session's own end.

    Parameters
    ----------
    session : str
    archive : Archive, optional
        Gets the notes, the problems seen and the account at the end.
    outlet : NoteOutlet, optional
        Sends notes as LSL markers; without one they are kept and logged only.

    Attributes
    ----------
    notes : int
        Taken down so far.
    last : Note or None
    tracer : Traces or None
        Set once the stream was found.
    """

    def __init__(self, session: str, archive: Archive | None = None, outlet: NoteOutlet | None = None) -> None:
        self.session, self.notes = session, 0
        self.last: Note | None = None
        self.tracer: Traces | None = None
        self._archive, self._outlet = archive, outlet

    def find(self, name: str) -> Access | None:
        """Return this session by its name, None by any other."""
        return self if name == self.session else None

    async def traces(self, after: int | None = None) -> dict[str, Any] | None:
        """Return the newest raw traces, None where there are none yet; from the first call on they are kept."""
        return await asyncio.to_thread(self.tracer.frame, after) if self.tracer else None

    async def note(self, text: object, ago: object = 0.0) -> dict[str, Any]:
        """Record a note: as an LSL marker, in the log and in the archive.

        Parameters
        ----------
        text : str
            1 to `MOST_TEXT` characters.
        ago : float
            Seconds since the button was pressed: the marker bears that time.

        Returns
        -------
        dict
            `time`, `wall` and `text` as taken down.

        Raises
        ------
        AppError
            It is no note.
        """
        made = note_of(text, ago)
        if self._outlet is not None:
            self._outlet.push(made.text, made.time)
        self.notes, self.last = self.notes + 1, made
        logger.info("note: %s", made.text)
        if self._archive is not None:
            await asyncio.to_thread(self._archive.note, asdict(made))
        return asdict(made)

    def watch(self, ingest: LiveIngest, decoded: Collection[str], notches: Sequence[float]) -> None:
        """Show traces of an ingest that has found its stream."""
        assert ingest.source is not None
        self.tracer = Traces(ingest.tap, ingest.source.channels, decoded, mains_in(notches))

    def metrics(self) -> dict[str, Any] | None:
        """Return how many notes there are, and the last one; None where there are none."""
        return {"count": self.notes, "time": self.last.time, "text": self.last.text} if self.last else None

    def problems(self, lines: Iterable[str]) -> None:
        """Write what is wrong at present to the archive."""
        if self._archive is not None:
            self._archive.problems(lines)

    def finish(self, account: Mapping[str, Any]) -> None:
        """Write the account of a session that is over to the archive."""
        if self._archive is not None:
            self._archive.finish(account)


def note_of(text: object, ago: object) -> Note:
    """Check a note, and stamp it with the time of the press.

    Raises
    ------
    AppError
        It is none.
    """
    if not isinstance(text, str) or not (words := printable(" ".join(text.split()), len(text))):
        raise AppError("a note is a text of a letter or more")
    if len(words) > MOST_TEXT:
        raise AppError(f"a note of {len(words)} characters: {MOST_TEXT} are the most")
    if isinstance(ago, bool) or not isinstance(ago, int | float) or not 0 <= ago <= MOST_AGO_S:
        raise AppError(f"ago is {ago!r:.40}: seconds since the press, from 0 to {MOST_AGO_S:g}")
    wall = datetime.now().astimezone() - timedelta(seconds=ago)
    return Note(lsl_clock() - ago, wall.isoformat(timespec="milliseconds"), words)


@asynccontextmanager
async def answering(local: Local) -> AsyncIterator[Address]:
    """Answer other processes of this machine while the block runs, on loopback, to whoever has the token."""
    token = secrets.token_urlsafe(24)

    @web.middleware
    async def guard(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        if (request.url.host or "") not in LOOPBACK or not same(
            request.headers.get("Authorization", ""), f"Bearer {token}"
        ):
            raise web.HTTPForbidden(text="The session's token is needed.\n")
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(middlewares=[guard], client_max_size=MOST_BYTES)
    app.router.add_get("/traces", lambda request: traces_answer(request, local))
    app.router.add_post("/note", lambda request: note_answer(request, local))
    runner = runner_of(app, Refusals())
    await runner.setup()
    try:
        server = await listen(runner, LOOPBACK[0], 0)
        try:
            yield Address(server.sockets[0].getsockname()[1], token)
        finally:
            server.close()
    finally:
        await runner.cleanup()


async def traces_answer(request: web.Request, access: Access) -> web.Response:
    """Answer a request for raw traces; `after` is `next` of the last frame."""
    after = request.query.get("after", "")
    frame = await access.traces(int(after) if after.isdecimal() and len(after) < 16 else None)
    return web.Response(status=204) if frame is None else json_answer(frame)


async def note_answer(request: web.Request, access: Access) -> web.Response:
    """Record a note, and answer with it."""
    try:
        body = await request.json()
        note = await access.note(body.get("text"), body.get("ago", 0.0))
    except (ValueError, AttributeError, RecursionError):
        raise web.HTTPBadRequest(text='A note is JSON: {"text": ..., "ago": ...}.\n') from None
    except AppError as error:
        raise web.HTTPBadRequest(text=f"{error}.\n") from None
    return json_answer(note)


def json_answer(value: Mapping[str, Any]) -> web.Response:
    """Answer with JSON that nobody keeps."""
    return web.Response(body=to_json(value), content_type="application/json", headers={"Cache-Control": "no-store"})


def same(given: str, wanted: str) -> bool:
    """Compare secrets in a time that tells nothing of them."""
    return hmac.compare_digest(given.encode(errors="surrogatepass"), wanted.encode())
