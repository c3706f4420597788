"""The whole loop on one machine: a recording replayed over LSL, decoded live, and received by a subscriber.

The replay and the subscriber are processes of their own, reached over the network as anybody's would be; the
demo, the live half of `evaluate` and the tests of the loop are this one function.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decoder.models.bundle import Bundle
from minddiffuser.archive.archive import Received, count_of, read_received
from minddiffuser.config.spec import Config
from minddiffuser.display.local import Local, answering
from minddiffuser.display.neighbours import findable
from minddiffuser.display.running import announced
from minddiffuser.live.beside import beside_for, check_retrieval
from minddiffuser.live.publishing import archiving, publisher_of
from minddiffuser.live.session import Account, Session
from minddiffuser.loading import unless_stopped
from minddiffuser.subprocesses import Subprocess, subcommand
from minddiffuser.training.preprocessing import check_preprocessing
from minddiffuser.versions import versions_of
from stream.lsl.notes import NoteOutlet
from stream.mqtt.broker import BrokerSpec, EmbeddedBroker
from stream.types.labels import LabelMatcher

if TYPE_CHECKING:
    from decoder.data.stimuli import StimulusTable
    from engine.reconstructor import Reconstructor

logger = logging.getLogger(__name__)

CHILD_START = 60.0
"""Seconds a child process may take until it is ready, on a busy machine."""
DELIVERY = 10.0
"""Seconds after the last picture was taken by the broker in which the subscriber may still get it."""
SETTLE = 30.0
"""Seconds without a picture after which, once the replay has ended, no more is awaited."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a loopback run came to: the session's account, the subscriber's summary, and its pictures."""

    account: Account
    summary: dict[str, Any]
    received: list[Received]

    @property
    def lost(self) -> int:
        """Pictures published that the subscriber did not get."""
        return self.account.published - int(self.summary["pictures"])


async def run_loopback(
    config: Config,
    bundle: Bundle,
    engine: Callable[[], Reconstructor],
    recording: Path,
    folder: Path,
    *,
    originals: Mapping[str, NDArray[np.uint8]] | None = None,
    speed: float = 1.0,
    loop: bool = False,
    seconds: float | None = None,
    stop: asyncio.Event | None = None,
    on_display: Callable[[str], None] | None = None,
    started: float | None = None,
    labels: LabelMatcher | None = None,
    announce: bool = False,
    stimuli: StimulusTable | None = None,
    total: int | None = None,
) -> Outcome:
    """Replay a recording and decode it live.

    Parameters
    ----------
    config : Config
    bundle : Bundle
    engine : callable
        Gives the warmed-up engine; called in a thread while the other processes start.
    recording : Path
        What to replay; a file that `minddiffuser replay` reads.
    folder : Path
        Where the subscriber saves what it receives.
    originals : mapping of str to ndarray, optional
        Pictures shown, by event label.
    speed : float
        1 is the recording's own time.
    loop : bool
        Begin again at the end.
    seconds : float, optional
        How long to stream; to the end of the recording by default.
    stop : asyncio.Event, optional
        Ends it earlier.
    on_display : callable, optional
        Where given, the web page is served too, and this is called with its address.
    started : float, optional
        `time.monotonic()` from which the time to the first picture counts.
    labels : LabelMatcher, optional
        Finds the picture that a marker names; by default among those of `originals`.
    announce : bool
        Let `subscribe` and `display` of this machine find the session.
    stimuli : StimulusTable, optional
        What the pictures shown are called: where given, the final pictures are named.
    total : int, optional
        How many windows the recording has.

    Raises
    ------
    AppError
        The config prepares windows otherwise than the bundle was trained with.
    KeyboardInterrupt
        `stop` was set before the engine was there.
    """
    check_preprocessing(config, bundle)
    check_retrieval(config, bundle)
    stop = stop or asyncio.Event()
    name = f"{config.name}-{uuid.uuid4().hex[:8]}"
    source = config.source.model_copy(update={"name": name, "type": None, "source_id": None, "properties": {}})
    async with AsyncExitStack() as stack:
        broker = config.broker
        if broker.host is None:
            broker = (await stack.enter_async_context(EmbeddedBroker(broker.port))).spec
        config = config.model_copy(update={"source": source, "broker": broker})
        data = str(bundle.meta.get("data", ""))
        publisher = await stack.enter_async_context(publisher_of(config, data))
        archive = await stack.enter_async_context(archiving(config, data, versions_of(bundle)))
        noted = NoteOutlet(config.publish.session) if on_display else None
        local = Local(config.publish.session, archive, noted)
        if announce:
            stack.enter_context(announced(local.session, broker))
            door = await stack.enter_async_context(answering(local))
            stack.enter_context(findable(local.session, broker.address, door))
        subscriber = await stack.enter_async_context(subcommand(*_subscribe_arguments(broker, config, folder)))
        if on_display:
            from minddiffuser.display.server import Display

            where = config.display
            display = await stack.enter_async_context(
                Display(broker, where.host, where.port, archive=archive, own=local.session, find=local.find)
            )
            on_display(display.url)
        arguments = ["replay", str(recording), "--name", name, "--speed", str(speed), "--json"]
        replay = await stack.enter_async_context(subcommand(*arguments, *(["--loop"] if loop else [])))
        reconstructor = await unless_stopped(engine, stop)
        await subscriber.line(CHILD_START)
        beside = await unless_stopped(lambda: beside_for(config, bundle, reconstructor, stimuli), stop)
        session = Session(
            config,
            bundle,
            reconstructor,
            publisher,
            originals,
            started,
            labels,
            beside=beside,
            local=local,
            total=total,
        )
        running = asyncio.create_task(session.run(stop))
        waiting = asyncio.create_task(_until_over(replay, session, seconds))
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done() and not stop.is_set():
            session.ending = "the recording is over" if seconds is None else f"its {seconds:g} s are over"
        stop.set()
        account = await running
        if waiting.done():
            waiting.result()
        waiting.cancel()
        await replay.stop()
        await publisher.flush()
        summary = await _summary(subscriber, folder, account.published)
    return Outcome(account, summary, read_received(folder))


def _subscribe_arguments(broker: BrokerSpec, config: Config, folder: Path) -> list[str]:
    """Arguments that need no secret: a broker with a password is named by the config's own variables."""
    arguments = ["subscribe", "--session", config.publish.session, "--save", str(folder), "--json"]
    return [*arguments, "--broker", broker.model_dump_json(exclude_defaults=True)]


async def _until_over(replay: Subprocess, session: Session, seconds: float | None) -> None:
    """Wait until the time is up, or the replay has ended and its last windows have come out."""
    ended, first = asyncio.create_task(replay.wait()), asyncio.create_task(session.first_window())
    try:
        await asyncio.wait({ended, first}, return_when=asyncio.FIRST_COMPLETED)
        done, _ = await asyncio.wait({ended}, timeout=seconds)
        if done:
            if code := ended.result():
                logger.error("the replay ended early, with exit code %d", code)
            await _settled(session)
    finally:
        ended.cancel()
        first.cancel()


async def _settled(session: Session) -> None:
    """Wait until the last windows have come out, however many wait, or nothing has come for `SETTLE` seconds."""
    before = -1
    while session.account.published > before:
        before = session.account.published
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE):
                await session.idle()
                return


async def _summary(subscriber: Subprocess, folder: Path, published: int) -> dict[str, Any]:
    """Ask the subscriber for its account once it has everything, or has had the time to get it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DELIVERY):
            while await asyncio.to_thread(count_of, folder, "picture") < published:  # noqa: ASYNC110  another process writes
                await asyncio.sleep(0.05)
    subscriber.interrupt()
    return await subscriber.line(CHILD_START)
