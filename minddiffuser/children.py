"""Programs of ours in processes of their own: started, waited for and ended without leaving one behind."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from minddiffuser.errors import AppError
from minddiffuser.stopping import GRACE, TIED


class Child:
    """One `minddiffuser` command in a process of its own; its stdout is JSON, a line each."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name

    async def line(self, seconds: float) -> dict[str, Any]:
        """Wait for the next JSON line.

        Raises
        ------
        AppError
            The child ended, or said nothing in time.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                raw = await self._process.stdout.readline()
        except TimeoutError:
            raise AppError(f"{self._name} said nothing for {seconds:g} s") from None
        if not raw:
            raise AppError(f"{self._name} ended early with exit code {await self._process.wait()}")
        answer: dict[str, Any] = json.loads(raw)
        return answer

    async def wait(self) -> int:
        """Wait for the end; return the exit code."""
        return await self._process.wait()

    def interrupt(self) -> None:
        """Ask the child to end, as Ctrl-C does."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)

    async def stop(self) -> None:
        """Ask the child to end (SIGTERM), and end it (SIGKILL) if it has not after `GRACE` seconds."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(GRACE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[Child]:
    """Run `minddiffuser ARGUMENTS` while the block runs; it is gone when the block is left."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "minddiffuser", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {TIED: "1"},
        start_new_session=True,  # Ctrl-C reaches us alone, and we end our children in order
    )
    running = Child(process, f"minddiffuser {arguments[0]}")
    try:
        yield running
    finally:
        await running.stop()
