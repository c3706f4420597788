"""Background tasks whose death is heard."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
logger = logging.getLogger(__name__)


def supervised(
    work: Coroutine[Any, Any, T], name: str, on_death: Callable[[BaseException], object] | None = None
) -> asyncio.Task[T]:
    """Start a background task; an error that ends it is logged at once, and its owner is called.

    asyncio itself reports such an error only when the task is collected, and not at all while somebody holds it.

    Parameters
    ----------
    work : coroutine
    name : str
        Of the task; the log line begins with it.
    on_death : callable, optional
        Called on the event loop with the error: here the owner stops, restarts or reports. Not called when the task
        returns or is cancelled.
    """

    def ended(task: asyncio.Task[T]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        logger.error("%s died: %s", name, one_line(error))
        logger.debug("%s died", name, exc_info=error)
        if on_death is not None:
            on_death(error)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(ended)
    return task


def one_line(error: BaseException) -> str:
    """Return the type, the first line and the place of an error that nobody expected."""
    words = next(iter(str(error).strip().splitlines()), "")[:300]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if words else ''}{words}{place}"
