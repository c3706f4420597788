"""The sending end of the MQTT wire: a publisher that never waits.

Topics are in `stream.mqtt.topics`, what they carry in `stream.mqtt.messages`.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import aiomqtt
from paho.mqtt.properties import Properties

from stream.errors import PublishError
from stream.mqtt.broker import BrokerSpec, backoff, connect, until_started
from stream.mqtt.client import Client, packet_size, properties_of
from stream.mqtt.messages import content_type, lsl_clock, to_json
from stream.mqtt.outbox import Counts, Outbox, Outcome, Parcel
from stream.mqtt.size_limit import SizeLimit
from stream.mqtt.topics import JSON_TOPICS, MAX_PICTURE, PICTURES, TOPICS, checked_session, topic_of
from stream.tasks import one_line

logger = logging.getLogger(__name__)

MAY_TAKE_S = 2.0
"""Seconds a broker that is back has to let us in, before the next attempt."""
PACKET_TOO_LARGE = 149
"""MQTT 5 reason code."""
COUNTED = (*PICTURES, "abstained", *JSON_TOPICS)
"""What is counted: a picture and its meta as one, and a meta without a picture as 'abstained'."""


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
        Topics and payloads, retained, that are published whenever a connection begins (`stream.mqtt.homeassistant`).
    seed : int, optional
        Of the jitter between attempts to reconnect.

    Attributes
    ----------
    counts : dict of str to Counts
        By kind of message; a picture and its meta count once, under the picture's kind. After leaving, each parcel that
        was put is counted as published, dropped or denied.
    connected : bool
        Whether there is a connection, and the task that keeps it lives.
    reconnects : int
    error : str or None
        The last thing the broker refused, or why it is away; None while all is well.
    on_published : callable or None
        Called on the event loop with kind, time of the hand-over and time now for each picture that the broker took
        (with QoS 1: acknowledged). An error of it is logged and costs nothing else.

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
        checked_session(session)
        self._announce = tuple(announce)
        self.broker, self.session, self.data = broker, session, data
        self.reconnects = 0
        self.error: str | None = None
        self.on_published: Callable[[str, float, float], None] | None = None
        self._qos, self._retain, self._clock = qos, retain, clock
        self._jitter = random.Random(seed)  # noqa: S311  spreads reconnects, keeps no secret
        self._lock = threading.Lock()
        self._parcels = Outbox(COUNTED, queue)
        self._sizes = SizeLimit()
        self._connected = False
        self._speaks: str | None = None
        self._refusals: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._digests: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._status, self._ending = b"", "the session ended"

    @property
    def counts(self) -> dict[str, Counts]:
        """What became of the parcels of each kind."""
        return self._parcels.counts

    @property
    def connected(self) -> bool:
        """True while there is a connection, and the task that keeps it lives."""
        return self._connected and not self._task.done()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._status = self._status_json({"state": "starting"})
        self._task = await until_started(self._run, f"publisher {self.session}")
        self._task.add_done_callback(self._over)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.status({"state": "offline", "detail": self._ending})
        if self.connected:
            with contextlib.suppress(PublishError):  # leaving must not hang on a broker that went away
                await self.flush(timeout=3.0)
        self._task.remove_done_callback(self._over)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        left = self._parcels.close()
        if unsent := [f"{count} {kind}" for kind, count in left.items() if kind in {*PICTURES, "abstained"}]:
            logger.warning("left without sending %s: %s", ", ".join(unsent), self.error or "there was no time")

    async def ended(self) -> None:
        """Wait until the task that keeps the connection has ended of itself, which it does only by a fault.

        Raises
        ------
        PublishError
            Then, with the reason.
        """
        await asyncio.wait({self._task})
        raise PublishError(self._fault())

    def _over(self, _: object) -> None:
        """Record that the task has ended, and let nothing pile up for it."""
        self.error = self._fault()
        logger.error("%s", self.error)
        self._parcels.hold()

    def _fault(self) -> str:
        error = None if self._task.cancelled() else self._task.exception()
        return f"publisher of session {self.session} ended: {one_line(error) if error else 'its task was cancelled'}"

    def original(self, payload: bytes, meta: Mapping[str, Any]) -> None:
        """Publish the picture the person was shown; see `publish_picture`."""
        self.publish_picture("original", payload, meta)

    def preview(self, payload: bytes, meta: Mapping[str, Any]) -> None:
        """Publish the stage-1 picture of a window; see `publish_picture`."""
        self.publish_picture("preview", payload, meta)

    def picture(self, payload: bytes, meta: Mapping[str, Any]) -> None:
        """Publish the final picture of a window; see `publish_picture`."""
        self.publish_picture("picture", payload, meta)

    def publish_picture(self, stage: str, payload: bytes, meta: Mapping[str, Any]) -> None:
        """Publish a picture and its meta.

        Parameters
        ----------
        stage : str
            A topic that carries pictures, one of `PICTURES`.
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
        retain = self._retain and TOPICS[stage].retained
        retain_meta = self._retain and stage == "picture"
        if len(payload) > MAX_PICTURE:
            raise PublishError(f"{stage} of {len(payload)} bytes: {MAX_PICTURE} are the most; set publish.size")
        described = self._meta_json(stage, payload, meta)
        tags = (("window_id", meta["window_id"]), ("stage", stage), ("session", self.session))
        self._put(Parcel(stage, ((stage, payload, retain), ("meta", described, retain_meta)), tags, self._clock()))

    def abstained(self, meta: Mapping[str, Any]) -> None:
        """Publish that a window gave no picture; `meta` holds `window_id` and, in `reason`, why."""
        self._put(Parcel("abstained", (("meta", self._meta_json("abstained", None, meta), False),)))

    def status(self, status: Mapping[str, Any]) -> None:
        """Publish what the session is doing: `state` and, for people, `detail`.

        States a display knows: 'starting', 'waiting' (for a stream), 'running', 'source-lost', 'engine-lost' (with
        `detail`), 'ended' (its `detail` stays: the last status has it, too), 'offline'.
        """
        if status.get("state") == "ended":
            self._ending = str(status.get("detail") or self._ending)
        self._status = self._status_json(status)
        self._put(Parcel("status", (("status", self._status, TOPICS["status"].retained),)))

    def metrics(self, metrics: Mapping[str, Any]) -> None:
        """Publish what was measured lately.

        Displays read, where present: `ingest` {samples, lost, gap_count, gaps, windows, rejected, state, channel_rms
        {name: rms}}, `rates` {name: a second}, `queues` {name: length}, `drops` {name: count} and `latency_ms`
        {step: {p50, p99}}.
        """
        self.publish("metrics", {"time": self._clock(), **metrics})

    def publish(self, name: str, message: Mapping[str, Any]) -> None:
        """Publish a JSON message under a topic of the registry.

        Parameters
        ----------
        name : str
            One of `JSON_TOPICS`; metas go with their pictures, see `picture` and `abstained`.
        message : mapping

        Raises
        ------
        PublishError
            No such topic, or the message is nested too deep.
        """
        if name not in JSON_TOPICS:
            raise PublishError(f"no topic {name!r} for a JSON message; there are {', '.join(JSON_TOPICS)}")
        self._put(Parcel(name, ((name, to_json(message), TOPICS[name].retained),)))

    async def flush(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109  the callers' word for it
        """Wait until all that was published has been taken by the broker.

        Raises
        ------
        PublishError
            Time ran out.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self._parcels.idle:  # other threads fill it
                    if self._task.done():
                        raise PublishError(self._fault())
                    await asyncio.sleep(0.005)
        except TimeoutError:
            why = f": {self.error}" if self.error else ""
            raise PublishError(
                f"broker {self.broker.address} did not take everything within {timeout:g} s{why}"
            ) from None

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
            fields = {"stage": stage, "n": number, "sha256": dict(digests), "session": self.session, "data": self.data}
        times = {**meta.get("times", {}), "published": self._clock()}
        return to_json({**meta, **fields, **about, "times": times, "wall": _wall()})

    def _status_json(self, status: Mapping[str, Any]) -> bytes:
        return to_json({"data": self.data, **status, "time": self._clock(), "wall": _wall()})

    def _put(self, parcel: Parcel) -> None:
        self._parcels.put(parcel)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the parcel is counted, and nobody waits for it
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _run(self, started: asyncio.Future[None]) -> None:
        """Keep a connection, whatever happens to the broker."""
        waits = backoff(self._jitter)
        while True:
            try:
                await self._connection(started)
            except (PublishError, aiomqtt.MqttError) as error:
                if not started.done():
                    refused = f"broker {self.broker.address} went away: {error}"
                    started.set_exception(error if isinstance(error, PublishError) else PublishError(refused))
                    return
                waits = self._lost(str(error.__cause__ or error), waits)
            except Exception as error:  # what else a connection may raise cannot be listed; a new one is made
                if not started.done():
                    raise
                logger.error("the connection to broker %s failed: %s", self.broker.address, one_line(error))
                waits = self._lost(one_line(error), waits)
            await asyncio.sleep(next(waits))

    async def _connection(self, started: asyncio.Future[None]) -> None:
        """Connect, and send what waits until the connection breaks."""
        will = aiomqtt.Will(topic_of(self.session, "status"), to_json({"state": "offline", "data": self.data}), 1, True)
        accept_s = MAY_TAKE_S if started.done() else 10.0
        async with connect(self.broker, will, accept_s=accept_s, speak=self._speaks) as client:
            self._speaks, self.error = client.version, None
            name, properties = topic_of(self.session, "status"), None
            if client.version == "5":
                properties = properties_of("status", self._status)
            await self._send(client, name, self._status, qos=self._qos, retain=True, properties=properties)
            for where, payload in self._announce:
                await self._send(client, where, payload, qos=1, retain=True)
            if started.done():
                self.reconnects += 1
                logger.warning("broker %s is back", self.broker.address)
            elif self.error:
                raise PublishError(self.error)
            self._sizes.back(client.max_packet, self._clock())
            self._connected = True
            self._parcels.resume()
            if not started.done():
                started.set_result(None)
            await self._drain(client)

    def _lost(self, why: str, waits: Iterator[float]) -> Iterator[float]:
        """Record that there is no connection; return the waits until the next attempts."""
        self.error = why
        self._parcels.hold()
        if not self._connected:
            self._sizes.away()
            return waits
        logger.warning("broker %s lost: %s; trying again", self.broker.address, why)
        self._connected = False
        self._sizes.broke(self._clock())
        return backoff(self._jitter)

    async def _drain(self, client: Client) -> None:
        """Send what waits, until the connection breaks."""
        lost = asyncio.create_task(_until_lost(client))
        lost.add_done_callback(lambda _: self._wake.set())
        try:
            while not lost.done():
                parcel = self._parcels.take()
                if parcel is None:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                sending = asyncio.create_task(self._transmit(client, parcel))
                try:
                    # aiomqtt waits out its time for an acknowledgement even when the connection is gone.
                    await asyncio.wait({sending, lost}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
                if not sending.cancelled():
                    sending.result()
            await lost
        finally:
            self._parcels.give_back()
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)

    async def _transmit(self, client: Client, parcel: Parcel) -> None:
        """Send one parcel and count it; a fault of its own costs the parcel, one of the connection is raised."""
        try:
            outcome, n_bytes = await self._send_parts(client, parcel)
        except aiomqtt.MqttError:
            raise
        except Exception as error:  # whatever the client library finds wrong with a message
            logger.error("%s cannot be sent: %s", parcel, one_line(error))
            self._parcels.settle("dropped")
            return
        self._parcels.settle(outcome, n_bytes)
        if outcome == "published" and self.on_published and parcel.kind in PICTURES:
            try:
                self.on_published(parcel.kind, parcel.put, self._clock())
            except Exception as error:  # the callback is not ours
                logger.error("the callback for what the broker took failed: %s", one_line(error))

    async def _send_parts(self, client: Client, parcel: Parcel) -> tuple[Outcome, int]:
        messages = []
        for kind, payload, retain in parcel.parts:
            properties = properties_of(kind, payload, parcel.tags) if client.version == "5" else None
            name = topic_of(self.session, kind)
            size = packet_size(name, payload, properties)
            if self._sizes.refuses(size, self._clock()):
                limit = self._sizes.stated_limit
                most = f"takes {limit} bytes at most" if limit else "hung up twice on messages so large"
                self._refuse(most, f"and {parcel} is not sent")
                return "dropped", 0
            messages.append((kind, name, payload, retain, properties, size))
        n_bytes = 0
        for kind, name, payload, retain, properties, size in messages:
            topic_qos = TOPICS[kind].qos
            qos = self._qos if topic_qos is None else topic_qos
            self._sizes.sent(size, self._clock())
            if not await self._send(client, name, payload, qos=qos, retain=retain, properties=properties):
                return "denied", n_bytes
            if qos:
                self._sizes.taken()
            n_bytes += len(payload)
        return "published", n_bytes

    def _refuse(self, what: str, about: str) -> None:
        """Keep as the error, and say once in the log, that the broker does not take messages so large."""
        way_out = "lower publish.size or publish.quality, or raise the broker's limit"
        self.error = f"broker {self.broker.address} {what} {about}; {way_out}"
        logger.log(logging.INFO if what in self._refusals else logging.ERROR, "%s", self.error)
        self._refusals.add(what)

    async def _send(
        self, client: Client, name: str, payload: bytes, *, qos: int, retain: bool, properties: Properties | None = None
    ) -> bool:
        """Publish one message; False, told once in the log, where the broker denies it."""
        client.denied = None
        await client.publish(name, payload, qos, retain, properties)
        if client.denied is None:
            return True
        if client.denied.value == PACKET_TOO_LARGE:
            self._refuse("denies messages that are too large:", f"{len(payload)} bytes on {name}")
            return False
        denial = f"broker {self.broker.address} denies {self.broker.who} the topic {name}: {client.denied}"
        if self.error != denial:
            logger.error("%s", denial)
        self.error = denial
        return False


def _wall() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


async def _until_lost(client: Client) -> None:
    """Wait for the connection to break; aiomqtt says so only to who reads messages, and a publisher gets none."""
    async for _ in client.messages:
        pass
