"""Long work that can be left at once: models that load while somebody presses Ctrl-C."""

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from minddiffuser.stopping import STOPPED

T = TypeVar("T")

_abandoned: list[threading.Thread] = []


async def unless_stopped(load: Callable[[], T], stop: asyncio.Event) -> T:
    """Call `load` in a thread and return what it gives; when `stop` is set meanwhile, leave it to itself.

    Nothing can end a thread that imports torch or reads gigabytes. It is a daemon, so it holds up nobody.

    Raises
    ------
    KeyboardInterrupt
        `stop` was set before `load` was done.
    """
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if not loaded.done():
            if error is not None:
                loaded.set_exception(error)
            else:
                loaded.set_result(result)

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = load()
        except BaseException as caught:
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    thread = threading.Thread(target=work, name="load", daemon=True)
    stopped = asyncio.create_task(stop.wait())
    try:
        thread.start()
        either: set[asyncio.Future[Any]] = {loaded, stopped}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if loaded.done():
            return loaded.result()
        _abandoned.append(thread)
        raise KeyboardInterrupt
    finally:
        stopped.cancel()
        loaded.cancel()


def leave(code: int) -> None:
    """End the program with an exit code where a thread was left that still runs; else do nothing.

    torch aborts when Python is taken down before it.
    """
    if any(thread.is_alive() for thread in _abandoned):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


atexit.register(leave, STOPPED)
