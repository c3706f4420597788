"""Home Assistant finds a session by itself: the retained messages of its MQTT discovery.

Source: home-assistant.io, integrations 'MQTT' (discovery), 'MQTT Image' and 'MQTT Sensor'.
"""

from stream.mqtt.messages import to_json
from stream.mqtt.topics import ROOT, topic_of

ENDED = ("offline", "ended")
"""States of a session in which Home Assistant shows its entities as unavailable."""


def announcement(session: str, prefix: str, content_type: str) -> list[tuple[str, bytes]]:
    """Describe a session's picture and its confidence as entities of one device.

    Parameters
    ----------
    session : str
    prefix : str
        Home Assistant's discovery prefix, 'homeassistant' unless it was told otherwise.
    content_type : str
        Of the pictures, such as 'image/jpeg'.

    Returns
    -------
    list of (str, bytes)
        Topic and JSON payload, to be retained. An empty payload on the same topic removes the entity again.
    """
    unique = _unique(session)
    gone = " or ".join(f"value_json.state == '{state}'" for state in ENDED)
    shared = {
        "availability": [
            {"topic": topic_of(session, "status"), "value_template": f"{{{{ 'offline' if {gone} else 'online' }}}}"}
        ],
        "device": {"identifiers": [unique], "name": f"minddiffuser {session}", "manufacturer": "minddiffuser"},
        "origin": {"name": "minddiffuser"},
    }
    image = {
        "name": "Picture",
        "unique_id": f"{unique}_picture",
        "image_topic": topic_of(session, "picture"),
        "content_type": content_type,
        "icon": "mdi:head-snowflake-outline",
    }
    confidence = {
        "name": "Confidence",
        "unique_id": f"{unique}_confidence",
        "state_topic": topic_of(session, "meta"),
        "value_template": "{{ value_json.confidence | default(None) }}",
        "json_attributes_topic": topic_of(session, "meta"),
        "state_class": "measurement",
        "icon": "mdi:gauge",
    }
    return [
        (f"{prefix}/{component}/{unique}/{name}/config", to_json({**entity, **shared}))
        for component, name, entity in (("image", "picture", image), ("sensor", "confidence", confidence))
    ]


def _unique(session: str) -> str:
    """Return an id for a session of the letters that discovery takes, another for each name.

    It takes no '.', which becomes '_'; a name that has a '_' of its own is told apart by what it begins with.
    """
    if "_" not in session:
        return f"{ROOT}_{session}".replace(".", "_")
    return f"{ROOT}-{session}".replace("_", "__").replace(".", "_-")
