"""Which sessions a display shows, and that its background tasks are heard."""

import json
from pathlib import Path

import aiomqtt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minddiffuser.archive.archive import Archive
from minddiffuser.config.spec import ArchiveSpec
from minddiffuser.display.server import Display
from minddiffuser.display.sessions import ENDED, MAX_SESSIONS, OVER, RUNS, SILENT_S, Sessions
from stream.errors import PublishError
from stream.mqtt.broker import BrokerSpec, EmbeddedBroker
from stream.mqtt.frames import Frame
from stream.mqtt.messages import Message
from stream.mqtt.publisher import Publisher
from stream.mqtt.refusals import Refusals
from tests.brokers import PROGRAM, Mosquitto
from tests.minddiffuser.test_archive import files_end_at
from tests.minddiffuser.test_display import Page, broker, picture, until

__all__ = ["broker"]

NEEDED = pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed (Debian: mosquitto)")


async def retain(port: int, *names: str, state: str = "offline") -> None:
    """Leave sessions on a broker as they are when they have ended: status, picture and meta retained."""
    async with aiomqtt.Client("127.0.0.1", port) as stranger:
        for name in names:
            await stranger.publish(f"minddiffuser/{name}/picture", picture(1), qos=1, retain=True)
            await stranger.publish(f"minddiffuser/{name}/status", json.dumps({"state": state}), qos=1, retain=True)


def shown(page: Page) -> dict[str, object]:
    """Return the display's own last word to a page."""
    return next(note for note in reversed(page.notes) if note["type"] == "display")


OLD = [f"old-{number:02d}" for number in range(40)]


async def test_a_running_session_takes_the_place_of_one_that_is_over(broker: EmbeddedBroker) -> None:
    """Beside forty ended sessions, one that begins now is shown, with every picture; the page learns who left."""
    await retain(broker.port, *OLD)
    async with Display(broker.spec) as display, Page(display) as page:
        await until(lambda: len(display._sessions) == MAX_SESSIONS)
        async with Publisher(broker.spec, "today") as publisher:
            for number in range(5):
                publisher.picture(picture(number), {"window_id": f"w{number}"})
            await until(lambda: page.finals() == [f"w{number}" for number in range(5)])
        assert len(display._sessions) == MAX_SESSIONS
        sessions = shown(page)["sessions"]
        assert isinstance(sessions, list)
        assert "today" in sessions
        assert len(sessions) == MAX_SESSIONS


@pytest.mark.parametrize("program", ["embedded", pytest.param("mosquitto", marks=NEEDED)])
async def test_who_opens_the_display_later_finds_the_session_that_runs(
    broker: EmbeddedBroker, tmp_path: Path, program: str
) -> None:
    """A display that starts beside forty old sessions shows the running one with its last picture and its status."""
    mosquitto = Mosquitto(tmp_path, "allow_anonymous true") if program == "mosquitto" else None
    if mosquitto:
        mosquitto.start()
    spec = BrokerSpec(host="127.0.0.1", port=mosquitto.port) if mosquitto else broker.spec
    try:
        await retain(spec.resolved_port, *OLD)
        async with Publisher(spec, "today") as publisher:
            publisher.status({"state": "running"})
            publisher.picture(picture(7), {"window_id": "last"})
            await publisher.flush()
            async with Display(spec) as display, Page(display) as page:
                await until(lambda: page.finals() and page.finals()[-1] == "last")
                status = [note["status"]["state"] for note in page.notes if note.get("session") == "today"]
                assert status == ["running"]
                assert len(display._sessions) == MAX_SESSIONS
    finally:
        if mosquitto:
            mosquitto.kill()


async def test_its_own_session_always_has_a_place(broker: EmbeddedBroker) -> None:
    """Even where all places are taken by sessions that run, the display's own is shown, at once."""
    async with Display(broker.spec, own="mine") as display, Page(display) as page:
        async with aiomqtt.Client("127.0.0.1", broker.port) as stranger:
            for number in range(MAX_SESSIONS + 5):
                await stranger.publish(f"minddiffuser/run-{number}/status", b'{"state": "running"}', qos=1)
            await until(lambda: len(display._sessions) == MAX_SESSIONS)
            await until(lambda: shown(page)["unshown"] == 5)
            async with Publisher(broker.spec, "mine") as publisher:
                publisher.picture(picture(1), {"window_id": "w"})
                await until(lambda: page.finals() == ["w"])
            for number in range(MAX_SESSIONS):
                await stranger.publish(f"minddiffuser/more-{number}/status", b'{"state": "running"}', qos=1)
            await until(lambda: shown(page)["unshown"] > 5)  # type: ignore[operator]
        assert "mine" in display._sessions
        assert shown(page)["own"] == "mine"


KINDS_OF_MESSAGES = st.tuples(
    st.integers(0, MAX_SESSIONS + 8),
    st.sampled_from(["starting", "running", "ended", "offline", "metrics"]),
    st.booleans(),
    st.sampled_from([0.0, 0.0, 1.0, 2 * SILENT_S]),
)


@given(st.lists(KINDS_OF_MESSAGES, max_size=300))
@settings(max_examples=200, deadline=None)
def test_places_go_to_those_that_run(messages: list[tuple[int, str, bool, float]]) -> None:
    """In any course of messages places are bounded, no running session loses its own, and none waits beside a dead one.

    Session 0 is the display's own: once it has spoken it has a place for good.
    """
    now = 0.0
    sessions = Sessions(8, "s0", Refusals(), clock=lambda: now)
    own_spoke = False
    for number, what, retained, pause in messages:
        now += pause
        name = f"s{number}"
        value = {} if what == "metrics" else {"state": what}
        kind = "metrics" if what == "metrics" else "status"
        running = {one for one in sessions if sessions[one].rank(now) == RUNS}
        over = {one for one in sessions if sessions[one].rank(now) == OVER} - {"s0"}
        fresh = not retained and what not in ENDED
        try:
            sessions.take(Message(name, kind, json.dumps(value).encode(), retained))
        except PublishError:
            assert name != "s0"
            assert not (fresh and over), "a running session found no place beside one that is over"
        own_spoke |= name == "s0"
        assert len(sessions) <= MAX_SESSIONS
        assert ("s0" in sessions) == own_spoke
        lost = running - set(sessions)
        assert not lost or name == "s0"


async def test_an_error_of_our_own_costs_its_message(broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture) -> None:
    """A frame that the display cannot remember, by a fault of ours, is logged as an error; the next one is shown."""
    async with Display(broker.spec) as display, Page(display) as page, Publisher(broker.spec, "lab") as publisher:
        del display._memory._bytes
        publisher.picture(picture(1), {"window_id": "w1"})
        await until(lambda: "AttributeError" in caplog.text)
        display._memory._bytes = 0
        publisher.picture(picture(2), {"window_id": "w2"})
        await until(lambda: page.finals() == ["w2"])
        assert "refused: meta of session lab: AttributeError" in caplog.text


async def test_a_reading_that_dies_is_said_on_the_page_and_begins_anew(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Should the display's reading end by an error, pages are told in a second, and pictures come again."""
    async with Display(broker.spec) as display, Page(display) as page, Publisher(broker.spec, "lab") as publisher:
        display._subscriber._messages.append(None)  # type: ignore[arg-type]  no message: a fault that nobody expects
        display._subscriber._arrived.set()
        await until(lambda: "the display stopped reading" in str(shown(page)["problem"]))
        assert "display died: AttributeError" in caplog.text
        publisher.picture(picture(1), {"window_id": "w1"})
        await until(lambda: page.finals() == ["w1"])
        await until(lambda: shown(page)["problem"] == "")


async def test_a_viewer_whose_sending_dies_is_let_go_and_may_come_back(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in sending to one viewer closes its connection, is logged, and touches no other viewer."""
    async with Display(broker.spec) as display, Page(display) as one:
        await until(lambda: display.viewers == 1)
        (viewer,) = display._viewers
        async with Page(display) as other, Publisher(broker.spec, "lab") as publisher:
            await until(lambda: display.viewers == 2)
            viewer._sent = None  # type: ignore[assignment]
            publisher.picture(picture(1), {"window_id": "w1"})
            await until(lambda: one.closed is not None)
            await until(lambda: other.finals() == ["w1"])
            await until(lambda: display.viewers == 1)
            assert "viewer died: AttributeError" in caplog.text
            async with Page(display) as again:
                await until(lambda: again.finals() == ["w1"])


async def test_what_could_not_be_archived_is_counted_on_the_page(broker: EmbeddedBroker, tmp_path: Path) -> None:
    """A page learns how many frames the archive beside it could not write."""
    archive = Archive(ArchiveSpec(folder=tmp_path), "lab", {})
    async with Display(broker.spec, archive=archive) as display, Page(display) as page:
        with files_end_at(100):
            archive.add(Frame("lab", "w", "picture", {"window_id": "w"}, {"picture": picture(1)}))
        async with Publisher(broker.spec, "lab") as publisher:
            publisher.metrics({})
            await until(lambda: shown(page)["unarchived"] == 1)


async def test_refused_messages_are_counted_on_the_page(broker: EmbeddedBroker) -> None:
    """A page learns how many messages of anybody were none of ours."""
    async with Display(broker.spec) as display, Page(display) as page:
        async with aiomqtt.Client("127.0.0.1", broker.port) as stranger:
            for payload in (b"{", b"[]", b'{"state": 3}'):
                await stranger.publish("minddiffuser/lab/status", payload, qos=1)
        await until(lambda: shown(page)["refused"] == 3)
        assert display._subscriber.refusals.as_dict() == {
            "status: not JSON": 1, "status: not an object": 1, "status: state": 1,
        }  # fmt: skip
        assert len(display._sessions) == 0
