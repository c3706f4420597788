"""The page's way to what sessions give to pages of their own machine: raw traces, and a place for notes.

    GET /experiment                      how far a presentation on this machine is, see `minddiffuser.display.progress`;
                                         204 where there is none, or the page is on another machine
    GET /sessions/NAME/traces?after=N    a frame of `minddiffuser.display.traces`, 204 before the first; asked again and
    again,
                                         about ten times a second, for as long as somebody looks
    POST /note                           {"session": NAME, "text": ..., "ago": seconds since the button was pressed}

Traces are given only where browser and display are on one machine: the connection comes from loopback, to a loopback
name, and says of no proxy between. A note may come from wherever the page may be seen, with its token.
"""

import asyncio
import json
from collections.abc import Callable
from ipaddress import ip_address

from aiohttp import web

from minddiffuser.display.http import LOOPBACK
from minddiffuser.display.local import Access, json_answer, note_answer, same, traces_answer
from minddiffuser.display.progress import experiment
from minddiffuser.errors import AppError

FORWARDED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")
"""What a proxy adds: the browser may be anywhere."""
Find = Callable[[str], Access | None]
"""From a session's name to the session, where it runs on this machine."""


def nobody(_: str) -> None:
    """Return no session: the default where none is looked for."""


def add_local_routes(app: web.Application, find: Find, token: Callable[[], str | None]) -> None:
    """Add the routes of this machine's sessions to an app.

    Parameters
    ----------
    app : aiohttp.web.Application
    find : callable
        Finds a session of this machine by its name.
    token : callable
        Gives the token that the page asks for; None where it asks for none.
    """

    async def traces(request: web.Request) -> web.Response:
        check_page(request, token())
        if not on_this_machine(request):
            raise web.HTTPForbidden(text="Raw signals stay on the machine that decodes them: open the page there.\n")
        try:
            return await traces_answer(request, _found(find, request.match_info["name"]))
        except AppError as error:
            raise web.HTTPBadGateway(text=f"{error}\n") from None

    async def note(request: web.Request) -> web.Response:
        check_page(request, token())
        try:
            name = json.loads(await request.read()).get("session")
        except (ValueError, AttributeError, RecursionError):
            name = None
        return await note_answer(request, _found(find, name))

    async def progress(request: web.Request) -> web.Response:
        check_page(request, token())
        there = await asyncio.to_thread(experiment) if on_this_machine(request) else None
        return web.Response(status=204) if there is None else json_answer(there)

    app.router.add_get("/experiment", progress)
    app.router.add_get("/sessions/{name}/traces", traces)
    app.router.add_post("/note", note)


def check_page(request: web.Request, token: str | None) -> None:
    """Turn away whoever is neither our own page nor a program that has the token.

    Raises
    ------
    aiohttp.web.HTTPForbidden, aiohttp.web.HTTPUnauthorized
        It is another site's page, or the token is missing.
    """
    origin = request.headers.get("Origin")
    foreign = origin is not None and origin.split("://")[-1] != request.headers.get("Host")
    if foreign or request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise web.HTTPForbidden(text="This display talks to its own page only.\n")
    if token is not None and not same(request.headers.get("Authorization", ""), f"Bearer {token}"):
        raise web.HTTPUnauthorized(text="The token of the page's address is needed.\n")


def on_this_machine(request: web.Request) -> bool:
    """Check whether a request comes from this machine, through nobody else."""
    try:
        near = ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return False
    near = getattr(near, "ipv4_mapped", None) or near
    return near.is_loopback and request.url.host in LOOPBACK and not any(name in request.headers for name in FORWARDED)


def _found(find: Find, name: object) -> Access:
    access = find(name) if isinstance(name, str) else None
    if access is None:
        raise web.HTTPNotFound(text="No such session runs on this machine.\n")
    return access
