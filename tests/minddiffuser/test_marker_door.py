"""The marker door by HTTP, and the clock of a page, without a browser; with one in tests/browser."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.errors import AppError
from minddiffuser.experiment.door.messages import AT_ONCE, MOST_BYTES, MOST_LABEL
from minddiffuser.experiment.door.page_clock import LEAST_ROUNDS, PageClock, Round, round_of
from minddiffuser.experiment.door.server import Door
from stream.lsl.discovery import load_lsl
from tests.conftest import Cli

ways = st.tuples(st.floats(0, 0.2), st.floats(0, 0.2))


@given(offset=st.floats(-1e6, 1e6), trips=st.lists(ways, min_size=1, max_size=60))
def test_the_best_round_trip_bounds_the_error(offset: float, trips: list[tuple[float, float]]) -> None:
    """However unequal the two ways: a time is wrong by the stated error at most, and that is half of the best trip."""
    clock = PageClock()
    for second, (there, back) in enumerate(trips):
        sent = 100.0 + second
        clock.add(round_of(sent, sent + there - offset, sent + there + back))
    assert clock.ready == (len(trips) >= LEAST_ROUNDS)
    now = 100.0 + len(trips)
    assert abs(clock.lsl(now - offset) - now) <= clock.error_s + 1e-6
    assert clock.error_s <= min(sum(trip) for trip in trips) / 2 + 50e-6 * len(trips) + 1e-6


def test_a_clock_that_jumps_is_measured_anew() -> None:
    """After a jump that no round trip explains older ones count no more; what is no round trip is passed over."""
    clock = PageClock()
    for at in range(10):
        clock.add(Round(float(at), offset=5.0, delay=0.001))
    clock.add(Round(10.0, offset=65.0, delay=0.02))
    assert not clock.ready
    assert clock.lsl(1.0) == 66.0
    clock.add(round_of(1.0, float("nan"), 2.0))
    clock.add(round_of(2.0, 1.0, 1.0))
    assert clock.lsl(1.0) == 66.0


class Page:
    """A page that speaks HTTP; its clock is 50 s behind LSL's."""

    def __init__(self, door: Door, http: aiohttp.ClientSession) -> None:
        self.door, self.http, self.rounds = door, http, list[list[float]]()
        self.lsl = load_lsl()

    def now(self) -> float:
        """Return the page's milliseconds."""
        return 1000 * (self.lsl.local_clock() - 50)

    async def measure(self) -> None:
        """Measure the clock by round trips."""
        for _ in range(LEAST_ROUNDS):
            sent = self.now()
            async with self.http.get(f"{self.door.urls[0]}/clock") as answer:
                times = await answer.json()
            self.rounds.append([sent, times["received"], times["replied"], self.now()])

    async def post(self, headers: dict[str, str] | None = None, **message: Any) -> tuple[int, dict[str, Any]]:
        """Send a marker; return status and answer."""
        whole = {"page": "p", "id": "1", "label": "cat", "time": self.now(), "rounds": self.rounds} | message
        headers = {"Authorization": f"Bearer {self.door.token}"} | (headers or {})
        async with self.http.post(f"{self.door.urls[0]}/marker", data=json.dumps(whole), headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else {"text": text}


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """Open a door, and a page that has measured its clock."""
    async with Door("door-test", origins=("https://lab.example",)) as door, aiohttp.ClientSession() as http:
        page = Page(door, http)
        await page.measure()
        yield page


async def test_a_marker_by_http_is_sent_once_with_its_flip(page: Page) -> None:
    """The stamp is the flip's, which was 200 ms ago, in LSL's clock; the same id again is no second marker."""
    lsl = load_lsl()
    (info,) = lsl.resolve_byprop("name", "door-test", 1, 10.0)
    inlet = lsl.StreamInlet(info)
    inlet.open_stream(5.0)
    flip = page.now() - 200
    status, answer = await page.post(time=flip)
    assert status == 200
    assert answer["stamp"] == pytest.approx(flip / 1000 + 50, abs=0.02)
    assert await page.post(time=flip) == (200, answer)
    assert (await page.post(id="2", label="dog"))[0] == 200
    labels, stamps = inlet.pull_chunk(timeout=2.0, max_samples=8, min_samples=2)
    assert [row[0] for row in labels] == ["cat", "dog"]
    assert stamps[0] == pytest.approx(answer["stamp"], abs=1e-6)
    account = page.door.account
    assert (account.sent, account.again, account.unheard) == (2, 1, 0)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"label": ""}, "label"),
        ({"label": "x" * (MOST_LABEL + 1)}, "label"),
        ({"label": "two\nlines"}, "label"),
        ({"label": 7}, "label"),
        ({"id": None}, "id"),
        ({"page": {}}, "page"),
        ({"time": "now"}, "time"),
        ({"time": True}, "time"),
        ({"time": 1e300}, "time"),
        ({"time": -1e12}, "time"),
        ({"rounds": []}, "clock"),
        ({"rounds": [[1, 2, 3]]}, "clock"),
        ({"rounds": "many"}, "clock"),
        ({"rounds": [[0, 0, 0, -5]] * 9}, "clock"),
        ({"more": "x" * MOST_BYTES}, "size"),
    ],
)
async def test_what_is_no_marker_is_refused_and_counted(page: Page, message: dict[str, Any], reason: str) -> None:
    """Nothing of it reaches LSL; the answer says what is wrong."""
    status, answer = await page.post(**message)
    assert (status, answer.get("reason", reason)) == (413 if reason == "size" else 400, reason)
    assert page.door.account.sent == 0
    assert page.door.refused.get(reason) == 1


async def test_neither_without_token_nor_from_elsewhere(page: Page) -> None:
    """A wrong token, a foreign origin and a foreign host are turned away; a named origin may, with its preflight."""
    assert (await page.post({"Authorization": "Bearer nonsense"}))[0] == 401
    assert (await page.post({"Origin": "https://evil.example"}))[0] == 403
    assert (await page.post({"Host": "evil.example"}))[0] == 403
    assert page.door.account.sent == 0
    assert {reason: page.door.refused[reason] for reason in ("token", "origin", "host")} == {
        "token": 1, "origin": 1, "host": 1,
    }  # fmt: skip
    ours = {"Origin": "https://lab.example"}
    async with page.http.options(f"{page.door.urls[0]}/marker", headers=ours) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "https://lab.example"
    assert (await page.post(ours))[0] == 200


async def test_markers_that_come_too_fast_are_refused(page: Page) -> None:
    """A page that floods gets so many through at once, and the rest is counted."""
    over = 40
    statuses = [(await page.post(id=str(number), rounds=page.rounds))[0] for number in range(int(AT_ONCE) + over)]
    assert statuses[: int(AT_ONCE)] == [200] * int(AT_ONCE)
    refused = page.door.refused.get("rate", 0)
    assert statuses.count(400) == refused
    assert page.door.account.sent == len(statuses) - refused


async def test_a_socket_says_hello_first(page: Page) -> None:
    """A page without the token is told so and shut out; garbage of one that was let in costs it nothing but a count."""
    url = f"{page.door.urls[0]}/ws"
    async with page.http.ws_connect(url) as socket:
        await socket.send_json({"type": "hello", "page": "p", "token": "nonsense"})
        closing = await socket.receive(timeout=5)
        assert (closing.type, closing.data, closing.extra) == (aiohttp.WSMsgType.CLOSE, 4401, "token")
    async with page.http.ws_connect(url) as socket:
        await socket.send_json({"type": "hello", "page": "q", "token": page.door.token})
        for text in ("[" * 500, "nonsense", '{"type": "dance"}', '{"type": "pong", "n": [], "page": 1}'):
            await socket.send_str(text)
        told = []
        while "ready" not in told:
            message = await socket.receive_json(timeout=5)
            told.append(message["type"])
            if message["type"] == "ping":
                await socket.send_json({"type": "pong", "n": message["n"], "page": page.now()})
        await socket.send_json({"type": "marker", "id": "1", "label": "cat", "time": page.now()})
        while (message := await socket.receive_json(timeout=5))["type"] == "ping":
            pass
        assert message["type"] == "sent"
        assert abs(message["stamp"] - load_lsl().local_clock()) < 0.2
    assert told.count("refused") == 3
    assert page.door.refused == {"json": 2, "token": 1, "type": 1}


async def test_a_port_that_is_taken_is_told(page: Page) -> None:
    """One line says what to do."""
    with pytest.raises(AppError, match=f"cannot listen on 127.0.0.1:{page.door.port}: .*choose another port"):
        async with Door("another", port=page.door.port):
            pass


def test_the_command_opens_the_door_and_accounts(cli: Cli, tmp_path: Any) -> None:
    """It says where page and door are, ends by itself, and refuses what cannot be in one line."""
    (tmp_path / "my page.html").write_text("<p>hello", "utf-8")
    run = cli("markers", "--port", "0", "--pages", str(tmp_path), "--seconds", "0.3", "--json")
    assert run.returncode == 0, run.stderr
    assert "/my%20page.html#token=" in run.stderr
    assert json.loads(run.stdout) == {
        "sent": 0, "again": 0, "unheard": 0, "pages": 0, "most_error_ms": 0.0, "refused": {},
    }  # fmt: skip
    for arguments, words in (
        (("--pages", str(tmp_path / "none")), "no such folder"),
        (("--origin", "lab.example"), "wanted scheme and host"),
        (("--token", "short"), "wanted eight characters"),
    ):
        wrong = cli("markers", *arguments)
        assert (wrong.returncode, words in wrong.stderr) == (1, True), wrong.stderr
