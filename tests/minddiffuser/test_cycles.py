"""Starting and stopping live sessions again and again leaves nothing behind."""

import asyncio
import gc
import os
import threading
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from decoder.models.bundle import Bundle
from engine.reconstructor import Reconstructor
from minddiffuser.config.spec import Config
from minddiffuser.live.engines import ready_engine
from minddiffuser.live.session import Session
from stream.mqtt.broker import EmbeddedBroker
from stream.mqtt.messages import lsl_clock
from stream.mqtt.publisher import Publisher
from tests.soak.chaos import Source
from tests.soak.live import LiveProgram, plan_of

CYCLES = int(os.environ.get("MINDDIFFUSER_CYCLES", "10"))
WARM = 3
KILL_EVERY = 2
SECONDS = 600
SETTLE_S = 20.0


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


async def cycle(config: Config, bundle: Bundle, engine: Reconstructor, kill: Source | None) -> int:
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
            await asyncio.to_thread(kill.kill_sender, 0.0)
        account = await running
        first.cancel()
    return account.windows


@pytest.mark.slow
def test_sessions_leave_nothing_behind(program: LiveProgram, tmp_path: Path) -> None:
    """After many sessions no thread, socket, file or child more is there than after the first few."""
    engine = ready_engine(program.config.engine, program.bundle)
    plan = replace(plan_of(program, f"cycles-{uuid.uuid4().hex[:8]}", SECONDS, 0, tmp_path / "source"), marker_every=50)
    source = Source(plan, plan.write())
    source.start_sender()
    try:
        source.go(lsl_clock())
        spec = program.config.source.model_copy(update={"name": plan.name, "type": None, "timeout_s": 30.0})
        filters = program.config.filters.model_copy(update={"channels": program.bundle.channels.names})
        config = program.config.model_copy(update={"source": spec, "filters": filters})
        before: dict[str, int] = {}
        for number in range(CYCLES):
            # Each in a loop of its own, as every `minddiffuser live` is.
            assert asyncio.run(cycle(config, program.bundle, engine, source if number % KILL_EVERY else None))
            if number == WARM:
                before = held()
        deadline = time.monotonic() + SETTLE_S
        while more := {name: (before[name], now) for name, now in held().items() if now > before[name]}:
            assert time.monotonic() < deadline, more
            time.sleep(0.2)
    finally:
        source.close()
