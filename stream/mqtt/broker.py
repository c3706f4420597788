"""MQTT brokers: how to reach one, the one that lives inside the program, and connections with plain errors."""

import asyncio
import contextlib
import logging
import os
import random
import socket
import ssl
import stat
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream.errors import PublishError
from stream.mqtt.client import Client
from stream.tasks import one_line

logger = logging.getLogger(__name__)

Protocol = Literal["auto", "5", "3.1.1"]
_BAD_VERSION = {1, 132}
"""CONNACK: unacceptable (3.1.1) or unsupported (5) protocol version."""
NEWER_S = 2.0
"""Seconds that a broker has to answer in MQTT 5, before 3.1.1 is tried."""
USUAL_PORT = 1883
"""Where MQTT clients look for a broker that nobody told them of."""
_BAD_CREDENTIALS = {4, 5, 134, 135}


class BrokerSpec(BaseModel):
    """Where the broker is and how to be let in; secrets come from the environment or a 0600 file, never from YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str | None = Field(
        default=None, min_length=1, description="Host name or address; null starts an embedded broker."
    )
    port: int | None = Field(
        default=None, ge=0, le=65535, description="Null: 1883, with TLS 8883; embedded any free port if 1883 is taken."
    )
    username: str | None = Field(default=None, min_length=1, description="User name, where the broker asks for one.")
    password_env: str | None = Field(default=None, description="Environment variable that holds the password.")
    password_file: Path | None = Field(
        default=None, description="File that holds the password, readable by its owner only."
    )
    tls: bool = Field(
        default=False, description="Encrypt; the system's authorities are trusted unless `ca` names others."
    )
    ca: Path | None = Field(default=None, description="PEM file of the authority that signed the broker's certificate.")
    cert: Path | None = Field(default=None, description="PEM file of the client's certificate.")
    key: Path | None = Field(default=None, description="PEM file of the client's key.")
    protocol: Protocol = Field(default="auto", description="MQTT version; auto tries 5 and falls back to 3.1.1.")
    keepalive: int = Field(default=15, ge=5, le=600, description="Seconds after which a silent connection is checked.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.password_env and self.password_file:
            raise ValueError("give password_env or password_file, not both")
        if (self.password_env or self.password_file) and not self.username:
            raise ValueError("a password needs a username")
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: give both or neither")
        if self.host is None and (self.username or self.uses_tls):
            raise ValueError("the embedded broker knows neither users nor TLS: name a host")
        return self

    @property
    def uses_tls(self) -> bool:
        """True if the connection is encrypted."""
        return self.tls or self.ca is not None or self.cert is not None

    @property
    def address(self) -> str:
        """Host and port, for messages and logs."""
        return f"{self.host or 'embedded'}:{self.resolved_port}"

    @property
    def resolved_port(self) -> int:
        """The port, with the default of the kind of connection filled in."""
        if self.port is not None:
            return self.port
        if self.host is None:
            return 0
        return 8883 if self.uses_tls else USUAL_PORT

    @property
    def who(self) -> str:
        """Who we are to the broker, for messages."""
        return f"user {self.username!r}" if self.username else "a client without a name"

    def password(self) -> str | None:
        """Read the password where the spec says it is.

        Raises
        ------
        PublishError
            The variable is not set, or the file is missing or readable by others.
        """
        if self.password_env:
            secret = os.environ.get(self.password_env)
            if secret is None:
                raise PublishError(f"broker password: environment variable {self.password_env} is not set")
            return secret
        if self.password_file is None:
            return None
        try:
            mode = stat.S_IMODE(self.password_file.stat().st_mode)
            if mode & 0o077:
                raise PublishError(
                    f"broker password: {self.password_file} is readable by others (mode {mode:o}); "
                    f"run `chmod 600 {self.password_file}`"
                )
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise PublishError(f"broker password: cannot read {self.password_file}: {error}") from error

    def tls_context(self) -> ssl.SSLContext | None:
        """Build the TLS context, or None for a plain connection.

        Raises
        ------
        PublishError
            A certificate or key cannot be read.
        """
        if not self.uses_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert and self.key:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(p) for p in (self.ca, self.cert, self.key) if p)
            raise PublishError(f"broker TLS: cannot use {files}: {error}") from error
        return context


@contextlib.asynccontextmanager
async def connect(
    broker: BrokerSpec,
    will: aiomqtt.Will | None = None,
    *,
    answer_s: float = 10.0,
    accept_s: float = 10.0,
    speak: str | None = None,
) -> AsyncIterator[Client]:
    """Open one connection to a broker, speaking MQTT 5 where it can and 3.1.1 where it must.

    Parameters
    ----------
    broker : BrokerSpec
        `host` must be set.
    will : aiomqtt.Will, optional
        What the broker says in our name when we vanish.
    answer_s : float
        Seconds for each answer of the broker.
    accept_s : float
        Seconds to let us in.
    speak : str, optional
        The MQTT version that this broker spoke last: tried first, so that coming back takes no detour.

    Yields
    ------
    Client

    Raises
    ------
    PublishError
        The broker cannot be reached or does not let us in. Errors after that are aiomqtt.MqttError.
    """
    client = await _open(broker, will, accept_s, speak)
    client.timeout = answer_s
    try:
        yield client
    finally:
        with contextlib.suppress(aiomqtt.MqttError):  # a connection that is already gone needs no good-bye
            await client.__aexit__(None, None, None)


async def until_started(
    run: Callable[[asyncio.Future[None]], Coroutine[Any, Any, None]], name: str
) -> asyncio.Task[None]:
    """Start a task that keeps a connection, and wait until it has one or says why it will not.

    Parameters
    ----------
    run : callable
        Takes the future that it resolves once it is connected, or fails with the reason.
    name : str
        Of the task.
    """
    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run(started), name=name)
    try:
        await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            error = None if task.cancelled() else task.exception()
            reason = one_line(error) if error else "it was cancelled"
            raise PublishError(f"{name} ended before it was connected: {reason}") from error
        await started
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    return task


def backoff(jitter: random.Random, first: float = 0.25, longest: float = 1.0) -> Iterator[float]:
    """Yield seconds to wait between attempts to reconnect: doubling, and half of each by chance.

    A broker that is back is found within a second; one attempt a second is no load for one that is not.
    """
    while True:
        yield first * (0.5 + 0.5 * jitter.random())
        first = min(2 * first, longest)


async def _open(broker: BrokerSpec, will: aiomqtt.Will | None, accept_s: float, speak: str | None) -> Client:
    if broker.host is None:
        raise PublishError("no broker named: set broker.host, or start the embedded broker and use its spec")
    password, context = broker.password(), broker.tls_context()
    versions = ["5", "3.1.1"] if broker.protocol == "auto" else [broker.protocol]
    versions.sort(key=lambda version: version != speak)
    while True:
        version = versions.pop(0)
        client = Client(
            broker.host,
            broker.resolved_port,
            username=broker.username,
            password=password,
            identifier=f"minddiffuser-{uuid.uuid4().hex[:12]}",
            protocol=aiomqtt.ProtocolVersion.V5 if version == "5" else aiomqtt.ProtocolVersion.V311,
            will=will,
            timeout=min(accept_s, NEWER_S) if versions else accept_s,
            keepalive=broker.keepalive,
            tls_context=context,
            logger=logging.getLogger("stream.mqtt.broker.paho"),
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        client.version = version
        try:
            await client.__aenter__()
        except aiomqtt.MqttError as error:
            client.forget()
            if not (versions and _may_speak_another(error)):
                raise PublishError(_plain_reason(broker, error)) from error
        except UnicodeError as error:
            words = f"{broker.host!r} can be no host: its parts, between dots, have 1 to 63 letters"
            raise PublishError(f"broker {broker.address} cannot be reached: {words}") from error
        else:
            return client


def _may_speak_another(error: aiomqtt.MqttError) -> bool:
    """Check if another MQTT version is worth a try: wrong version, hung up on an unknown CONNECT, or no answer.

    amqtt takes the properties of an MQTT 5 will for the length of a text, and waits for the rest of it.
    """
    code = _code_of(error)
    return code in _BAD_VERSION or (
        code is None and any(word in str(error) for word in ("before accepting", "timed out"))
    )


def _code_of(error: aiomqtt.MqttError) -> int | None:
    code = getattr(error, "rc", None)
    return code.value if isinstance(code, ReasonCode) else code


def _plain_reason(broker: BrokerSpec, error: aiomqtt.MqttError) -> str:
    code = _code_of(error)
    if code in _BAD_CREDENTIALS:
        return f"broker {broker.address} does not let {broker.who} in: check broker.username and the password ({error})"
    if code is not None:
        return f"broker {broker.address} refuses the connection: {error}"
    hint = f"is it running, and {'are its port and ca' if broker.uses_tls else 'is the port'} right?"
    return f"broker {broker.address} cannot be reached: {error}; {hint}"


class EmbeddedBroker:
    """A broker inside this program, for one machine: loopback only, no users, no promise of confidentiality.

    Use as an async context manager. It speaks MQTT 3.1.1 (amqtt).

    Parameters
    ----------
    port : int or None
        0 takes any free port; None the usual one, 1883, and any free port where something else has that.

    Attributes
    ----------
    port : int
        The port it listens on.
    spec : BrokerSpec
        How clients reach it.
    """

    host = "127.0.0.1"

    def __init__(self, port: int | None = 0) -> None:
        self.port = port if port is not None else USUAL_PORT if _is_free(self.host, USUAL_PORT) else 0
        self._broker: Any = None

    @property
    def spec(self) -> BrokerSpec:
        """The spec by which clients reach this broker."""
        return BrokerSpec(host=self.host, port=self.port, protocol="3.1.1")

    async def __aenter__(self) -> Self:
        # amqtt drags in a good part of its plug-ins: only those who embed a broker pay for the import.
        from amqtt.broker import Broker
        from amqtt.errors import BrokerError

        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        logging.getLogger("asyncio").addFilter(_not_of_amqtt)
        requested, self.port = self.port, self.port or _free_port(self.host)
        config = {
            "listeners": {
                "default": {"type": "tcp", "bind": f"{self.host}:{self.port}", "max_connections": -1}
            },  # it never gives back those of clients that first try MQTT 5
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
        self._broker = Broker(config)
        try:
            await self._broker.start()
        except BrokerError as error:
            way_out = f"is something else listening on port {requested}? Choose another, or 0 for any free one"
            raise PublishError(f"embedded broker cannot listen on {self.host}:{self.port}; {way_out}") from error
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._broker.shutdown()


def _not_of_amqtt(record: logging.LogRecord) -> bool:
    """Keep amqtt's tracebacks from the log: it has them for clients that first try MQTT 5 or leave with mail unread."""
    frame = record.exc_info[2] if record.exc_info else None
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__", "").startswith("amqtt."):
            return False
        frame = frame.tb_next
    return True


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":  # a port of which connections linger is free; elsewhere this would take one in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
