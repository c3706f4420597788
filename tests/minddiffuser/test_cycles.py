"""Starting and stopping live sessions again and again leaves nothing behind."""

import asyncio
import gc
import threading
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from decoder.bundle import Bundle
from engine.reconstructor import Reconstructor
from minddiffuser.config import Config
from minddiffuser.live import ready_engine
from minddiffuser.session import Session
from stream.broker import EmbeddedBroker
from stream.messages import lsl_clock
from stream.mqtt import Publisher
from tests.soak.chaos import end, start
from tests.soak.live import LiveProgram, plan_of

CYCLES = 50
SECONDS = 600
SETTLE_S = 20.0


class Killable:
    """A source that never lasts long."""

    def __init__(self, live: LiveProgram, folder: Path) -> None:
        self.plan = plan_of(live, f"cycles-{uuid.uuid4().hex[:8]}", SECONDS, 0, folder)
        self._path = self.plan.write()
        self._incarnation = 0
        self.process = start("tests.soak.sender", str(self._path), "0", "0")
        self.begin = 0.0

    def go(self, begin: float) -> None:
        """Let the samples flow from an LSL time on."""
        self.begin = begin
        assert self.process.stdin
        self.process.stdin.write(f"{begin!r}\n")
        self.process.stdin.flush()

    def again(self) -> None:
        """Kill it and start it anew."""
        end(self.process)
        self._incarnation += 1
        self.process = start("tests.soak.sender", str(self._path), repr(self.begin), str(self._incarnation))


@pytest.fixture
def program(small_config: Path, small_bundle: Path) -> Iterator[LiveProgram]:
    """Give the small bundle and its config."""
    program = LiveProgram(small_config, small_bundle)
    yield program
    program.kill()


def held() -> dict[str, int]:
    """Count what this process holds."""
    gc.collect()
    me = psutil.Process()
    return {
        "threads of Python": threading.active_count(),
        "threads": me.num_threads(),
        "file descriptors": me.num_fds(),
        "sockets": len(me.net_connections()),
        "children": len(me.children(recursive=True)),
    }


async def cycle(config: Config, bundle: Bundle, engine: Reconstructor, kill: Killable | None) -> int:
    """Run one session until its first window, stop it, and kill its source in the middle of that if asked to."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        broker = (await stack.enter_async_context(EmbeddedBroker(0))).spec
        publisher = await stack.enter_async_context(Publisher(broker, "cycles"))
        session = Session(config, bundle, engine, publisher)
        running = asyncio.create_task(session.run(stop))
        first = asyncio.create_task(session.first_window())
        await asyncio.wait({running, first}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        stop.set()
        if kill:
            await asyncio.to_thread(kill.again)
        account = await running
        first.cancel()
    return account.windows


@pytest.mark.slow
async def test_fifty_sessions_leave_nothing_behind(program: LiveProgram, tmp_path: Path) -> None:
    """After fifty sessions no thread, socket, file or child more is there than after the first few."""
    engine = ready_engine(program.config.engine, program.bundle)
    source = Killable(program, tmp_path / "source")
    try:
        source.go(lsl_clock())
        spec = program.config.source.model_copy(update={"name": source.plan.name, "type": None, "timeout_s": 30.0})
        filters = program.config.filters.model_copy(update={"channels": program.bundle.channels.names})
        config = program.config.model_copy(update={"source": spec, "filters": filters})
        before: dict[str, int] = {}
        for number in range(CYCLES):
            windows = await cycle(config, program.bundle, engine, source if number % 10 == 9 else None)
            assert windows
            if number == 4:
                before = held()
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        while more := {name: (before[name], now) for name, now in held().items() if now > before[name]}:
            assert asyncio.get_running_loop().time() < deadline, more
            await asyncio.sleep(0.2)
    finally:
        end(source.process)
