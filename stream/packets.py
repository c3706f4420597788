"""MQTT packets of our messages: what MQTT 5 says beside a payload, and how large a packet is."""

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from stream.messages import PICTURES, Kind, content_type

_EXPIRY_S = {"preview": 60, "metrics": 10}


def properties_of(kind: Kind, payload: bytes, tags: tuple[tuple[str, str], ...] = ()) -> Properties:
    """Describe a message as MQTT 5 can: its content type, when it is out of date, and `tags` as user properties."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = content_type(payload) if kind in PICTURES else "application/json"
    if kind in _EXPIRY_S:
        properties.MessageExpiryInterval = _EXPIRY_S[kind]
    if tags:
        properties.UserProperty = [(name, _printable(text)) for name, text in tags]
    return properties


def packet_size(name: str, payload: bytes, properties: Properties | None) -> int:
    """Bytes of a PUBLISH packet, with its headers at their longest."""
    described = len(properties.pack()) if properties is not None else 0  # type: ignore[no-untyped-call]
    return 5 + 2 + len(name.encode()) + 2 + described + len(payload)


def _printable(text: str) -> str:
    """Give a text as MQTT 5 properties can carry it: no control characters, nothing endless; the meta has it whole."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])
