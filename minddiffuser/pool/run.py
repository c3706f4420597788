"""`minddiffuser pool`: the door and the replicas behind it, from start to end."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from aiohttp import web

from minddiffuser.config.engine import PoolSpec, is_loopback
from minddiffuser.config.spec import Config
from minddiffuser.errors import AppError
from minddiffuser.pool.account import PoolAccount
from minddiffuser.pool.door import Door
from minddiffuser.pool.ray_cluster import Replicas, end_ray, ray_started, slots_of
from minddiffuser.pool.replica import LocalEngine, Make
from minddiffuser.remote.protocol import About
from minddiffuser.remote.secret import read_token, server_context

logger = logging.getLogger(__name__)

FINISH_S = 5.0
"""Seconds that windows in work have at the end."""


async def run_pool(
    config: Config,
    stop: asyncio.Event,
    *,
    address: str | None = None,
    on_ready: Callable[[str, About], None] | None = None,
    make: Make = LocalEngine,
) -> dict[str, Any]:
    """Serve rooms until `stop` is set.

    Parameters
    ----------
    config : Config
        Its `engine` and `pool`.
    stop : asyncio.Event
    address : str, optional
        Of a Ray cluster to join; by default Ray is started on this machine.
    on_ready : callable, optional
        Called with the pool's address and what it is, once every replica is warm.
    make : callable
        Makes a replica's engine.

    Returns
    -------
    dict
        The account (`PoolAccount`).

    Raises
    ------
    AppError
        Token, certificate, port, cluster or engines cannot be had.
    """
    spec = config.pool
    token, context = read_token(spec.token_file), server_context(spec.certificate, spec.key)
    account = PoolAccount()
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(spec))
        engine = config.engine

        def start() -> Replicas:
            return Replicas(stack.enter_context(ray_started(spec, address)), engine, account, make)

        replicas = await _started(start, stop)
        door = Door(spec, replicas.about, replicas, token, slots_of(spec), account)
        runner = web.AppRunner(door.app(), access_log=None, handler_cancellation=True, shutdown_timeout=FINISH_S)
        await runner.setup()
        try:
            await web.SockSite(runner, listener, ssl_context=context).start()
            if on_ready is not None:
                on_ready(_url(listener, spec, tls=context is not None), replicas.about)
            await stop.wait()
        finally:
            await runner.cleanup()
    return account.to_dict()


async def _started(start: Callable[[], Replicas], stop: asyncio.Event) -> Replicas:
    """Start Ray and the replicas in a thread; where `stop` is set meanwhile, end Ray under them.

    Raises
    ------
    KeyboardInterrupt
        `stop` was set first.
    """
    starting = asyncio.create_task(asyncio.to_thread(start))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if starting.done():
        return starting.result()
    await asyncio.to_thread(end_ray)
    await asyncio.gather(starting, return_exceptions=True)
    raise KeyboardInterrupt


def _listener(spec: PoolSpec) -> socket.socket:
    """Return the socket that rooms reach, before anything slower is started."""
    try:
        family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET
        return socket.create_server((spec.host.strip("[]"), spec.port), family=family, backlog=256)
    except OSError as error:
        raise AppError(f"pool.host {spec.host}, pool.port {spec.port}: {error.strerror or error}") from None


def _url(listener: socket.socket, spec: PoolSpec, *, tls: bool) -> str:
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    if not is_loopback(spec.host) and spec.host in {"0.0.0.0", "::"}:  # noqa: S104  the user asked for it
        host = socket.getfqdn()
    return f"{'https' if tls else 'http'}://{host}:{listener.getsockname()[1]}"
