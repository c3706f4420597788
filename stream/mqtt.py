"""The sending end of the MQTT wire: a publisher that never waits.

Topics and payloads are described in `stream.messages`.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from stream.broker import BrokerSpec, Client, backoff, connect, until_started
from stream.errors import PublishError
from stream.messages import MAX_PAYLOAD, PICTURES, Kind, content_type, lsl_clock, to_json, topic

logger = logging.getLogger(__name__)

COUNTED = ("original", "preview", "picture", "abstained", "status", "metrics")
_EXPIRY_S = {"preview": 60, "metrics": 10}


@dataclass(slots=True)
class Counts:
    """What became of the messages of one kind."""

    published: int = 0
    dropped: int = 0
    denied: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Parcel:
    """What goes out together or not at all; its parts are topic kind, payload, retained or not.

    `tags` go beside each part as MQTT 5 user properties, for those who look at one topic alone.
    """

    kind: str
    parts: tuple[tuple[Kind, bytes, bool], ...]
    tags: tuple[tuple[str, str], ...] = ()
    put: float = 0.0


class Publisher:
    """Sends pictures, metadata, status and metrics of one session to a broker.

    Use as an async context manager: entering connects and says 'starting', leaving says 'offline'. The methods that
    publish may be called from any thread and return at once. While the broker is away, only the newest message of each
    kind is kept; what is let go is counted. It reconnects by itself.

    Parameters
    ----------
    broker : BrokerSpec
    session : str
        1 to 64 letters, digits, '.', '_' or '-'.
    data : str
        What the pictures are made from ('simulated EEG'); goes into every meta and status.
    qos : int
        0 or 1, of pictures, metas and status.
    retain : bool
        Whether the broker keeps the last original, picture and meta for late joiners.
    queue : int
        Messages of one kind that may wait while connected; beyond, the oldest is dropped.
    clock : callable
        Gives the time that is published; the LSL clock by default.
    announce : sequence of (str, bytes)
        Topics and payloads, retained, that are published whenever a connection begins (`stream.homeassistant`).
    seed : int, optional
        Of the jitter between attempts to reconnect.

    Attributes
    ----------
    counts : dict of str to Counts
        By kind of message; a picture and its meta count once, under the picture's kind.
    connected : bool
    reconnects : int
    error : str or None
        The last thing the broker refused, or why it is away; None while all is well.
    on_taken : callable or None
        Called on the event loop with kind, time of the hand-over and time now for each picture that the broker took
        (with QoS 1: acknowledged).

    Raises
    ------
    PublishError
        On entering: the broker cannot be reached, lets us not in, or denies our topics.
    """

    def __init__(
        self,
        broker: BrokerSpec,
        session: str,
        *,
        data: str = "",
        qos: int = 1,
        retain: bool = True,
        queue: int = 32,
        clock: Callable[[], float] = lsl_clock,
        announce: Sequence[tuple[str, bytes]] = (),
        seed: int | None = None,
    ) -> None:
        topic(session, "status")
        self._announce = tuple(announce)
        self.broker, self.session, self.data = broker, session, data
        self.counts: dict[str, Counts] = {kind: Counts() for kind in COUNTED}
        self.connected = False
        self.reconnects = 0
        self.error: str | None = None
        self.on_taken: Callable[[str, float, float], None] | None = None
        self._qos, self._retain, self._limit, self._clock = qos, retain, queue, clock
        self._jitter = random.Random(seed)  # noqa: S311  spreads reconnects, keeps no secret
        self._lock = threading.Lock()
        self._parcels: deque[_Parcel] = deque()
        self._numbers: dict[str, int] = {}
        self._digests: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._status: bytes = b""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._wake, self._idle = asyncio.Event(), asyncio.Event()
        self._status = self._status_json({"state": "starting"})
        self._task = await until_started(self._run, f"publisher {self.session}")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.status({"state": "offline", "detail": "the session ended"})
        if self.connected:
            with contextlib.suppress(PublishError):  # leaving must not hang on a broker that went away
                await self.flush(timeout=3.0)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with self._lock:
            for parcel in self._parcels:
                self.counts[parcel.kind].dropped += 1
            self._parcels.clear()

    def original(self, payload: bytes, meta: Mapping[str, Any]) -> None:
        """Publish the picture the person was shown; see `picture`."""
        self._send_picture("original", payload, meta)

    def preview(self, payload: bytes, meta: Mapping[str, Any]) -> None:
        """Publish the stage-1 picture of a window; see `picture`."""
        self._send_picture("preview", payload, meta)

    def picture(self, payload: bytes, meta: Mapping[str, Any]) -> None:
        """Publish the final picture of a window.

        Parameters
        ----------
        payload : bytes
            The file: JPEG, PNG, WebP or GIF.
        meta : mapping
            At least `window_id`. Displays also read `event` (label), `confidence` (0 to 1), `seed`, `backend`,
            `models`, `caption`, and `times`: LSL seconds of 'acquired', 'ready', 'decoded', 'stage1', 'stage2';
            'published' is added here.

        Raises
        ------
        PublishError
            The bytes are no picture or too many, or the meta lacks `window_id`.
        """
        self._send_picture("picture", payload, meta)

    def abstained(self, meta: Mapping[str, Any]) -> None:
        """Say that a window gave no picture; `meta` holds `window_id` and, in `reason`, why."""
        self._put(_Parcel("abstained", (("meta", self._meta_json("abstained", None, meta), False),)))

    def status(self, status: Mapping[str, Any]) -> None:
        """Publish what the session is doing: `state` and, for people, `detail`.

        States a display knows: 'starting', 'waiting' (for a stream), 'running', 'source-lost', 'ended', 'offline'.
        """
        self._status = self._status_json(status)
        self._put(_Parcel("status", (("status", self._status, True),)))

    def metrics(self, metrics: Mapping[str, Any]) -> None:
        """Publish what was measured lately.

        Displays read, where present: `ingest` {samples, lost, gap_count, gaps, windows, rejected, state, channel_rms
        {name: rms}}, `rates` {name: a second}, `queues` {name: length}, `drops` {name: count} and `latency_ms`
        {step: {p50, p99}}.
        """
        self._put(_Parcel("metrics", (("metrics", to_json({"time": self._clock(), **metrics}), False),)))

    async def flush(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109  the callers' word for it
        """Wait until all that was published has been taken by the broker.

        Raises
        ------
        PublishError
            Time ran out.
        """
        try:
            async with asyncio.timeout(timeout):
                while self._parcels or not self._idle.is_set():  # noqa: ASYNC110  other threads fill the queue
                    await asyncio.sleep(0.005)
        except TimeoutError:
            why = f": {self.error}" if self.error else ""
            raise PublishError(
                f"broker {self.broker.address} did not take everything within {timeout:g} s{why}"
            ) from None

    def _send_picture(self, kind: Kind, payload: bytes, meta: Mapping[str, Any]) -> None:
        retain = self._retain and kind != "preview"
        retain_meta = self._retain and kind == "picture"
        if len(payload) > MAX_PAYLOAD:
            raise PublishError(f"{kind} of {len(payload)} bytes: {MAX_PAYLOAD} are the most; set publish.size")
        described = self._meta_json(kind, payload, meta)
        tags = (("window_id", _printable(meta["window_id"])), ("stage", kind), ("session", self.session))
        self._put(_Parcel(kind, ((kind, payload, retain), ("meta", described, retain_meta)), tags, self._clock()))

    def _meta_json(self, stage: str, payload: bytes | None, meta: Mapping[str, Any]) -> bytes:
        window_id = meta.get("window_id")
        if not isinstance(window_id, str) or not window_id:
            raise PublishError(f"meta of a {stage} has window_id {window_id!r}: give the window's id")
        about = {"content_type": content_type(payload), "bytes": len(payload)} if payload is not None else {}
        with self._lock:
            digests = self._digests.setdefault(window_id, {})
            if payload is not None:
                digests[stage] = hashlib.sha256(payload).hexdigest()
            while len(self._digests) > 256:
                self._digests.popitem(last=False)
            self._numbers[stage] = number = self._numbers.get(stage, 0) + 1
            own = {"stage": stage, "n": number, "sha256": dict(digests), "session": self.session, "data": self.data}
        times = {**meta.get("times", {}), "published": self._clock()}
        return to_json({**meta, **own, **about, "times": times, "wall": _wall()})

    def _status_json(self, status: Mapping[str, Any]) -> bytes:
        return to_json({"data": self.data, **status, "time": self._clock(), "wall": _wall()})

    def _put(self, parcel: _Parcel) -> None:
        with self._lock:
            self._parcels.append(parcel)
            self._trim(parcel.kind)
        self._loop.call_soon_threadsafe(self._notify)

    def _notify(self) -> None:
        self._idle.clear()
        self._wake.set()

    def _trim(self, kind: str) -> None:
        """Let the oldest of a kind go when more wait than may; while the broker is away only the newest may."""
        waiting = [parcel for parcel in self._parcels if parcel.kind == kind]
        for parcel in waiting[: -self._limit if self.connected else -1]:
            self._parcels.remove(parcel)
            self.counts[kind].dropped += 1

    async def _run(self, started: asyncio.Future[None]) -> None:
        """Keep a connection, whatever happens to the broker."""
        will = aiomqtt.Will(topic(self.session, "status"), to_json({"state": "offline", "data": self.data}), 1, True)
        waits = backoff(self._jitter)
        while True:
            try:
                async with connect(self.broker, will) as client:
                    self.error = None
                    await self._transmit(client, _Parcel("status", (("status", self._status, True),)))
                    for where, payload in self._announce:
                        await self._send(client, where, payload, qos=1, retain=True)
                    if started.done():
                        self.reconnects += 1
                        logger.info("broker %s is back", self.broker.address)
                    elif self.error:
                        raise PublishError(self.error)
                    else:
                        started.set_result(None)
                    self.connected, waits = True, backoff(self._jitter)
                    await self._drain(client)
            except (PublishError, aiomqtt.MqttError) as error:
                if not started.done():
                    refused = f"broker {self.broker.address} went away: {error}"
                    started.set_exception(error if isinstance(error, PublishError) else PublishError(refused))
                    return
                self._lost(str(error))
            await asyncio.sleep(next(waits))

    def _lost(self, why: str) -> None:
        if self.connected:
            logger.warning("broker %s lost: %s; trying again", self.broker.address, why)
        self.connected, self.error = False, why
        with self._lock:
            for kind in COUNTED:
                self._trim(kind)

    async def _drain(self, client: Client) -> None:
        """Send what waits, oldest first, until the connection breaks."""
        lost = asyncio.create_task(_until_lost(client))
        lost.add_done_callback(lambda _: self._wake.set())
        try:
            while not lost.done():
                with self._lock:
                    parcel = self._parcels.popleft() if self._parcels else None
                if parcel is None:
                    self._wake.clear()
                    self._idle.set()
                    await self._wake.wait()
                    continue
                try:
                    await self._transmit(client, parcel)
                except aiomqtt.MqttError:
                    with self._lock:
                        self._parcels.appendleft(parcel)
                    raise
            await lost
        finally:
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)

    async def _transmit(self, client: Client, parcel: _Parcel) -> None:
        counts = self.counts[parcel.kind]
        for kind, payload, retain in parcel.parts:
            qos = 0 if kind == "metrics" else self._qos
            properties = _properties(kind, payload, parcel.tags) if client.version == "5" else None
            name = topic(self.session, kind)
            if not await self._send(client, name, payload, qos=qos, retain=retain, properties=properties):
                counts.denied += 1
                return
            counts.bytes += len(payload)
        counts.published += 1
        if self.on_taken and parcel.kind in PICTURES:
            self.on_taken(parcel.kind, parcel.put, self._clock())

    async def _send(
        self, client: Client, name: str, payload: bytes, *, qos: int, retain: bool, properties: Properties | None = None
    ) -> bool:
        """Publish one message; False, told once in the log, where the broker denies the topic."""
        client.denied = None
        await client.publish(name, payload, qos, retain, properties)
        if client.denied is None:
            return True
        denial = f"broker {self.broker.address} denies {self.broker.who} the topic {name}: {client.denied}"
        if self.error != denial:
            logger.error("%s", denial)
        self.error = denial
        return False


def _wall() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _printable(text: str) -> str:
    """Give a text as MQTT 5 properties can carry it: no control characters, nothing endless; the meta has it whole."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])


def _properties(kind: Kind, payload: bytes, tags: tuple[tuple[str, str], ...]) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = content_type(payload) if kind in PICTURES else "application/json"
    if kind in _EXPIRY_S:
        properties.MessageExpiryInterval = _EXPIRY_S[kind]
    if tags:
        properties.UserProperty = list(tags)
    return properties


async def _until_lost(client: Client) -> None:
    """Wait for the connection to break; aiomqtt says so only to who reads messages, and a publisher gets none."""
    async for _ in client.messages:
        pass
