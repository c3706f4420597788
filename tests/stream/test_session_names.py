"""Names of sessions: part of a topic and a plain file name on every system, or refused everywhere."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from minddiffuser.archive.archive import Archive
from minddiffuser.config.spec import ArchiveSpec, PublishSpec
from stream.errors import PublishError
from stream.mqtt.broker import BrokerSpec
from stream.mqtt.publisher import Publisher
from stream.mqtt.subscriber import Subscriber
from stream.mqtt.topics import is_session_name, topic_of

BAD = (
    "", ".", "..", "...", ".hidden", "-rf", "s.", "s..", "a/b", "a\\b", "../x", "a b", "ä", "x" * 65, "a\n", "\u202ea",
    "CON", "con", "nul.txt", "Aux", "PRN.", "COM1", "lpt9.tar.gz", "a\0", "\ud800", "#", "a+",
)  # fmt: skip
BROKER = BrokerSpec(host="h")


@pytest.mark.parametrize("name", BAD)
def test_names_that_are_no_plain_file_name_are_refused_everywhere(name: str, tmp_path: Path) -> None:
    """Topic, publisher, subscriber, archive and config refuse the name in one line each; nothing is written."""
    assert not is_session_name(name)
    for refusing in (
        lambda: topic_of(name, "meta"),
        lambda: Publisher(BROKER, name),
        lambda: Subscriber(BROKER, name),
        lambda: Archive(ArchiveSpec(folder=tmp_path / "archive"), name, {}),
    ):
        with pytest.raises(PublishError, match="session name") as caught:
            refusing()
        assert "\n" not in str(caught.value)
    with pytest.raises(ValidationError):
        PublishSpec.model_validate({"session": name})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["demo", "lab.1", "s_1", "2026-01-02", "_x", "A" * 64, "CONSOLE", "com10", "a..b"])
def test_plain_names_are_taken(name: str) -> None:
    """Names that are in use pass."""
    assert is_session_name(name)
    assert topic_of(name, "meta") == f"minddiffuser/{name}/meta"
    assert PublishSpec.model_validate({"session": name}).session == name


@given(st.text(st.sampled_from("aZ09._-/\\ :~\0\n"), max_size=70))
def test_a_session_is_one_component_of_a_path(name: str) -> None:
    """Whatever is taken is one plain component, neither hidden nor an option nor changed by any file system."""
    if is_session_name(name):
        assert Path(name).parts == (name,)
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name)
        assert not name.endswith(".")
