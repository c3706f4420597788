"""Commands of ours in processes of their own: started, waited for and ended without leaving one behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, Any

from minddiffuser.errors import AppError
from minddiffuser.stopping import GRACE, TIED
from stream.system import ask_to_end, interrupt, own_group


class Subprocess:
    """One `minddiffuser` command in a process of its own; its stdout is JSON, a line each.

    A thread reads its output: not every event loop can, and Windows has none that can both do that and speak MQTT.
    """

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self._process = process
        self._name = name
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        threading.Thread(target=self._read, name=name, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._call(self._lines.put_nowait, line)
        code = self._process.wait()
        self._call(self._lines.put_nowait, b"")
        self._call(self._end, code)

    def _call(self, function: Any, value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(function, value)

    def _end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    async def line(self, seconds: float) -> dict[str, Any]:
        """Wait for the next JSON line.

        Raises
        ------
        AppError
            The process ended, or said nothing in time.
        """
        try:
            async with asyncio.timeout(seconds):
                raw = await self._lines.get()
        except TimeoutError:
            raise AppError(f"{self._name} said nothing for {seconds:g} s") from None
        if not raw:
            raise AppError(f"{self._name} ended early with exit code {await self.wait()}")
        answer: dict[str, Any] = json.loads(raw)
        return answer

    async def wait(self) -> int:
        """Wait for the end; return the exit code."""
        return await asyncio.shield(self._ended)

    def interrupt(self) -> None:
        """Ask the process to end, as Ctrl-C does."""
        if self._process.poll() is None:
            interrupt(self._process)

    async def stop(self) -> None:
        """Ask the process to end, and end it if it has not after `GRACE` seconds."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                ask_to_end(self._process)
        try:
            async with asyncio.timeout(GRACE):
                await self.wait()
        except TimeoutError:
            self._process.kill()
            await self.wait()


@asynccontextmanager
async def subcommand(*arguments: str, errors: IO[str] | None = None) -> AsyncIterator[Subprocess]:
    """Run `minddiffuser ARGUMENTS` while the block runs; it is gone when the block is left.

    Parameters
    ----------
    *arguments : str
    errors : file, optional
        Gets its stderr; left out, it goes where ours goes.
    """
    process = subprocess.Popen(  # noqa: ASYNC220, S603  takes milliseconds; our own program
        [sys.executable, "-m", "minddiffuser", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=os.environ | {TIED: "1"},
        **own_group(),  # Ctrl-C reaches us alone, and we end our subprocesses in order
    )
    with process:
        started = Subprocess(process, f"minddiffuser {arguments[0]}")
        try:
            yield started
        finally:
            try:
                await started.stop()
            finally:
                process.kill()  # if that was cancelled
