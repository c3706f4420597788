"""Home Assistant's ids of sessions."""

import json
import re

from hypothesis import example, given
from hypothesis import strategies as st

from stream.mqtt.homeassistant import announcement
from stream.mqtt.topics import is_session_name

NAMES = st.text("ab._-1", min_size=1, max_size=12).filter(is_session_name)


def ids(session: str) -> set[str]:
    """Return all that Home Assistant tells a session's entities by: topics, entities and device."""
    found: set[str] = set()
    for where, payload in announcement(session, "homeassistant", "image/jpeg"):
        entity = json.loads(payload)
        found |= {where, entity["unique_id"], *entity["device"]["identifiers"]}
    return found


@given(NAMES, NAMES)
@example("s.1", "s_1")
@example("s_.1", "s._1")
@example("a", "a_")
def test_no_two_sessions_share_an_id(one: str, other: str) -> None:
    """Sessions of different names share no topic, entity or device, and all are of the letters that discovery takes."""
    if one != other:
        assert ids(one).isdisjoint(ids(other))
    assert all(re.fullmatch(r"[A-Za-z0-9_/-]+", name) for name in ids(one))
