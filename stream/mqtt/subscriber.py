"""The receiving end of the MQTT wire: a subscriber that never gives up.

Topics and payloads are described in `stream.mqtt.messages`.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

import aiomqtt

from stream.errors import PublishError, WireError
from stream.mqtt.broker import BrokerSpec, backoff, connect, until_started
from stream.mqtt.client import Client
from stream.mqtt.messages import Message, lsl_clock, to_json
from stream.mqtt.refusals import EVERY_S, Refusals
from stream.mqtt.topics import MAX_JSON, TOPICS, is_session_name, topic_of
from stream.tasks import one_line

logger = logging.getLogger(__name__)


class Subscriber:
    """Receives the messages of one session, or of all.

    Use as an async context manager and iterate. It reconnects by itself; the broker going away and coming back shows
    as a message of kind 'connection'. A reader that falls behind loses the oldest messages, and they are counted.

    Parameters
    ----------
    broker : BrokerSpec
    session : str
        '+' for every session.
    queue : int
        Messages that may wait for the reader.
    clock : callable
        Stamps what is received; the LSL clock by default.

    Attributes
    ----------
    connected : bool
    reconnects, dropped, refused : int
        `refused`: messages that are too large, or of a session that cannot be.
    refusals : Refusals
        Of these by reason, and of whatever those who read the messages add to it.

    Raises
    ------
    PublishError
        On entering: the broker cannot be reached, does not let us in, or denies the topics.
    """

    def __init__(
        self,
        broker: BrokerSpec,
        session: str = "+",
        *,
        queue: int = 512,
        clock: Callable[[], float] = lsl_clock,
        seed: int | None = None,
    ) -> None:
        # Statuses first: who listens to many sessions knows which of them run before their pictures come.
        self._topics = [topic_of(session, name) for name in sorted(TOPICS, key=lambda name: name != "status")]
        self.broker, self.session = broker, session
        self.connected = False
        self.reconnects = self.dropped = self.refused = 0
        self.refusals = Refusals()
        self._limit, self._clock = queue, clock
        self._next_word = 0.0
        self._jitter = random.Random(seed)  # noqa: S311  spreads reconnects, keeps no secret
        self._messages: deque[Message] = deque()
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = await until_started(self._run, f"subscriber {self.session}")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        while not self._messages:
            self._arrived.clear()
            await self._arrived.wait()
        return self._messages.popleft()

    async def _run(self, started: asyncio.Future[None]) -> None:
        waits = backoff(self._jitter)
        speaks: str | None = None
        while True:
            try:
                async with connect(self.broker, speak=speaks) as client:
                    speaks = client.version
                    await self._subscribe(client)
                    self.connected, waits = True, backoff(self._jitter)
                    if started.done():
                        self.reconnects += 1
                    else:
                        started.set_result(None)
                    self._tell(connected=True)
                    async for message in client.messages:
                        self._take(message)
            except Exception as error:  # a subscriber never gives up, and its task dies unheard of nothing
                expected = isinstance(error, PublishError | aiomqtt.MqttError)
                if not expected:
                    logger.error("subscriber %s: %s; connecting anew", self.session, one_line(error))
                words = str(error) if expected else one_line(error)
                if not started.done():
                    gone = f"broker {self.broker.address} went away: {words}"
                    started.set_exception(error if isinstance(error, PublishError) else PublishError(gone))
                    return
                if self.connected:
                    self._tell(connected=False, error=words)
                self.connected = False
            await asyncio.sleep(next(waits))

    async def _subscribe(self, client: Client) -> None:
        # Within a connection TCP loses nothing, and a clean session forgets what was under way when it breaks: QoS 0
        # is as good. With 1, amqtt (3.1.1) at times misses a PUBACK and lets a newcomer wait 5 s for each topic.
        qos = 1 if client.version == "5" else 0
        codes = await client.subscribe([(name, qos) for name in self._topics])
        denied = {
            name: code
            for name, code in zip(self._topics, list[Any](codes), strict=True)
            if (code if isinstance(code, int) else code.value) >= 0x80
        }
        for name in (topic_of(self.session, each) for each in TOPICS):
            if name in denied:
                words = f"does not let {self.broker.who} read {name}: {denied[name]}"
                raise PublishError(f"broker {self.broker.address} {words}")

    def _take(self, message: aiomqtt.Message) -> None:
        payload = message.payload
        parts = message.topic.value.split("/")
        size = len(payload) if isinstance(payload, bytes) else 0
        most = TOPICS[parts[-1]].max_size if parts[-1] in TOPICS else MAX_JSON
        if len(parts) != 3 or not is_session_name(parts[1]) or size > most:
            self.refused += 1
            reason = "size" if size > most else "session name"
            words = f"{reason} of a message of {size} bytes on {message.topic.value!r:.200}"
            self.refusals.add("message", WireError(reason, words))
            return
        if not isinstance(payload, bytes):  # what paho makes of an empty payload
            payload = b""
        self._append(Message(parts[1], parts[2], payload, message.retain, self._clock()))

    def _tell(self, *, connected: bool, error: str = "") -> None:
        self._append(Message("", "connection", to_json({"connected": connected, "error": error})))

    def _append(self, message: Message) -> None:
        if len(self._messages) >= self._limit:
            self._messages.popleft()
            self.dropped += 1
            if (now := time.monotonic()) >= self._next_word:
                logger.warning("messages come faster than they are read: %d dropped so far", self.dropped)
                self._next_word = now + EVERY_S
        self._messages.append(message)
        self._arrived.set()
