"""The client: aiomqtt's, with what it does not offer, and the MQTT 5 properties and size of a packet.

No other module depends on how aiomqtt works inside. A test fails where another version than `WRITTEN_FOR` is installed.
"""

from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from stream.mqtt.messages import content_type
from stream.mqtt.topics import TOPICS

WRITTEN_FOR = "2.5"
"""aiomqtt's version (major and minor) whose private names `Client` uses."""


class Client(aiomqtt.Client):
    """aiomqtt's client, which also reports denied publishes and refused connections.

    There a publish that the broker denies (MQTT 5: reason code of the PUBACK) looks like success, and a socket closed
    before the CONNACK like a time-out.

    Attributes
    ----------
    version : str
        The MQTT version spoken, '5' or '3.1.1'.
    denied : ReasonCode or None
        Why the broker refused the last publish; None if it took it.
    max_packet : int or None
        Largest packet in bytes that the broker takes, where it says so (MQTT 5).
    """

    version = "3.1.1"
    denied: ReasonCode | None = None
    max_packet: int | None = None

    def forget(self) -> None:
        """Retrieve the error of a connection that never came about, or asyncio logs it as never retrieved."""
        if self._disconnected.done():
            self._disconnected.exception()

    def _on_connect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        self.max_packet = getattr(properties, "MaximumPacketSize", None)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_publish(
        self, client: Any, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        self.denied = reason_code if reason_code.is_failure else None
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def _on_disconnect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttError("closed the connection before accepting it"))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)


def properties_of(name: str, payload: bytes, tags: tuple[tuple[str, str], ...] = ()) -> Properties:
    """Return the MQTT 5 properties of a message: content type, expiry, and `tags` as user properties."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    topic = TOPICS[name]
    properties.ContentType = content_type(payload) if topic.carries == "picture" else "application/json"
    if topic.expiry_s is not None:
        properties.MessageExpiryInterval = topic.expiry_s
    if tags:
        properties.UserProperty = [(name, _printable(text)) for name, text in tags]
    return properties


def packet_size(name: str, payload: bytes, properties: Properties | None) -> int:
    """Return the bytes of a PUBLISH packet, with its headers at their longest."""
    described = len(properties.pack()) if properties is not None else 0  # type: ignore[no-untyped-call]
    return 5 + 2 + len(name.encode()) + 2 + described + len(payload)


def _printable(text: str) -> str:
    """Return a text as MQTT 5 properties can carry it: no control characters, 200 letters; the meta has it whole."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])
