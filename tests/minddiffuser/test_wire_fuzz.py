"""Whatever a client of the broker sends, a session beside it is shown, received and archived to the last picture."""

import asyncio
import hashlib
import io
import json
import math
import queue
import struct
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiomqtt
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from minddiffuser.archive.archive import Archive
from minddiffuser.config.spec import Config, parse_config
from minddiffuser.display.server import Display
from minddiffuser.live.publishing import archiving
from minddiffuser.viewing.subscribe import Summary, saver, subscribe
from minddiffuser.viewing.terminal import TerminalView
from stream.mqtt.broker import EmbeddedBroker
from stream.mqtt.publisher import Publisher
from stream.mqtt.topics import PICTURES
from tests.conftest import ROOT
from tests.minddiffuser.test_display import Page

T = TypeVar("T")
Sent = tuple[str, bytes, bool]  # topic, payload, retained


def picture(number: int, file_format: str = "PNG") -> bytes:
    """Make a small picture file, another for every number."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256 % 256, 7)).save(buffer, file_format)
    return buffer.getvalue()


# ---- what a hostile or a broken client may send

HUGE = st.sampled_from([10**9, 2**53, 2**63, 10**30, 10**400, -(10**30), -1])
ODD = st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324])
TEXTS = st.one_of(
    st.text(max_size=30),
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=3),  # halves of surrogate pairs
    st.sampled_from(["", "..", "../../x", "CON", "\x1b[2J\x07", "<script>", "x" * 5000, "1e9", "true", "\ud800"]),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), HUGE, st.floats(), ODD, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
DEEP = st.builds(lambda depth, pair: pair[0] * depth + pair[1] * depth, st.sampled_from([9, 200, 900, 5000, 100_000]),
                 st.sampled_from([("[", "]"), ('{"a":', "1" + "}"), ("[", "")]))  # fmt: skip


def meta(number: int, digest: str = "0" * 64) -> dict[str, Any]:
    """Make a meta as our publisher would."""
    return {
        "window_id": f"hostile-{number}", "stage": "picture", "n": number, "sha256": {"picture": digest},
        "times": {"acquired": 1.0, "published": 2.0}, "event": {"label": "cat", "code": 3, "time": 1.0},
        "confidence": 0.5, "categories": {"a": 0.5}, "data": "hostile", "config": "demo", "seed": "7", "backend": "cpu",
        "models": {"unet": "x"}, "reason": "none", "samples_lost": 0, "steps_ms": {"decode": 1.0}, "caption": "a cat",
        "state": "published", "names": ["cat", "dog"], "truth": "cat", "right": True, "index": 3, "of": 60,
        "repeats": 1, "told": {"right": 1, "of": 2, "chance": 0.01}, "interpolated": ["Oz"], "abstain_below": 0.1,
    }  # fmt: skip


STATUS: dict[str, Any] = {
    "state": "running", "detail": "x", "data": "hostile", "config": "demo", "time": 1.0, "participant": "01",
    "started": "2026-01-01T00:00:00+01:00", "versions": {"python": "3.11"},
}  # fmt: skip
METRICS: dict[str, Any] = {
    "time": 1.0,
    "ingest": {
        "state": "streaming", "samples": 5, "lost": 1, "gap_count": 1, "windows": 2, "rejected": 0, "events": 3,
        "gaps": [{"start": 1.0, "length": 0.1, "lost": 4}], "channel_rms": {"Fz": 1e-5}, "problems": ["none"],
        "bad_channels": ["Fz"], "flat_channels": ["Oz"],
        "streams": {"EEG": {"state": "lost", "lost": 3, "measured_hz": 250.0, "drift_ppm": 3.0}},
    },
    "rates": {"pictures": 1.0}, "queues": {"windows": 0}, "drops": {"dropped": 0},
    "signal": {"channels": [{"name": "Fz", "level": 1e-5, "reference_level": 1e-5, "unit": "V", "status": "bad",
                             "reason": "flat", "x": 0.0, "y": 0.5}]},
    "notes": {"count": 1, "time": 3.0, "text": "moved"},
    "rejection": {"text": "2 markers", "markers": 2, "used": 1, "unmatched": 0, "interpolated": 0,
                  "rejected": {"limit": 1}, "channels": {"Oz": 1}},
    "latency_ms": {"total": {"p50": 200.0, "p99": 300.0}},
}  # fmt: skip


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from paths(inner, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], by: Any) -> Any:
    """Return a copy with the value at one place replaced."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = by
    return copy


def encoded(value: Any) -> bytes:
    """Encode as Python does by default: NaN, infinity and halves of surrogate pairs included."""
    return json.dumps(value).encode()


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw a message of ours with one value replaced by anything: every field that is read is reached."""
    kind, base = draw(st.sampled_from([("meta", meta(1)), ("status", STATUS), ("metrics", METRICS)]))
    if kind == "meta" and draw(st.booleans()):
        base = {**base, "stage": "abstained", "sha256": {}}  # complete without a picture
    return kind, encoded(replaced(base, draw(st.sampled_from(list(paths(base)))), draw(VALUES)))


@st.composite
def nested(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw a message of ours with a field of the user's own that is nested deeply, or a key twice."""
    kind, base = draw(st.sampled_from([("meta", {**meta(1), "stage": "abstained", "sha256": {}}), ("status", STATUS)]))
    own = draw(st.one_of(DEEP, st.just('1,"own":2'), st.just("NaN"), st.just("-Infinity"), st.just("1e999")))
    return kind, encoded(base)[:-1] + b',"own":' + own.encode() + b"}"


JSONS = st.one_of(
    mutated(),
    nested(),
    st.tuples(st.sampled_from(["meta", "status", "metrics"]), VALUES.map(encoded)),
    st.tuples(st.sampled_from(["meta", "status", "metrics"]), DEEP.map(str.encode)),
    st.tuples(st.sampled_from(["meta", "status", "metrics"]), st.binary(max_size=200)),
)


def claiming(width: int, height: int) -> bytes:
    """Make a PNG of a few bytes that claims any size."""
    whole = bytearray(picture(1))
    whole[16:24] = struct.pack(">II", width, height)
    return bytes(whole)


FILES = st.one_of(
    st.binary(max_size=100),
    st.sampled_from(
        [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\xff\xd8\xff", b"GIF89a", b"%PDF-1"]
    ),
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF"]).flatmap(
        lambda name: st.integers(0, len(picture(1, name))).map(lambda length: picture(1, name)[:length])
    ),
    st.sampled_from([(60_000, 60_000), (2**31 - 1, 2**31 - 1), (0, 0), (1, 2**30)]).map(lambda size: claiming(*size)),
)


@st.composite
def false_pictures(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """Draw bytes that may be no picture, as each kind, and a meta that names them."""
    payload, kind = draw(FILES), draw(st.sampled_from(PICTURES))
    named = {**meta(draw(st.integers(0, 9))), "stage": kind, "sha256": {kind: hashlib.sha256(payload).hexdigest()}}
    if draw(st.booleans()):
        named["window_id"] = draw(TEXTS)
    order = [(kind, payload), ("meta", encoded(named))]
    return order if draw(st.booleans()) else order[::-1]


SESSIONS = st.sampled_from(["good", "good", "good", "other", "..", ".", "CON", "a" * 65, "-x", "s.", "\u202e", "a b"])
ATTACKS = st.lists(st.one_of(JSONS.map(lambda one: [one]), false_pictures()), min_size=1, max_size=3)


# ---- a good session, and those who look at it


@dataclass
class Lab:
    """A session, its display with a page, its archive, two subscribers, and a stranger, in the loop of a thread."""

    loop: asyncio.AbstractEventLoop
    folder: Path
    publisher: Publisher
    archive: Archive
    page: Page
    stranger: aiomqtt.Client
    watching: list[asyncio.Task[Summary]]
    sent: list[str] = field(default_factory=list)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the lab's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    async def attack(self, messages: list[Sent]) -> None:
        """Send what a stranger sends, then one window of the session, which must arrive everywhere."""
        for where, payload, retain in messages:
            await self.stranger.publish(where, payload, qos=1, retain=retain)
        number = len(self.sent) + 1
        self.sent.append(f"w{number}")
        for kind in PICTURES:
            meta = {"window_id": f"w{number}", "event": {"label": "cat"}}
            self.publisher.publish_picture(kind, picture(number), meta)
        await self.publisher.flush()
        deadline = time.monotonic() + 15
        while lacking := self.missing(f"w{number}"):
            assert not any(task.done() for task in self.watching), "subscribe has ended"
            assert time.monotonic() < deadline, f"w{number} has not come to {lacking}"
            await asyncio.sleep(0.005)

    def missing(self, name: str) -> list[str]:
        """Return where a window has not arrived."""
        folders = [self.archive.folder, self.folder / "one", self.folder / "all" / "good"]
        places = [str(folder) for folder in folders if not (folder / f"{name}.picture.json").exists()]
        return places if name in self.page.finals() else [*places, "page"]

    def closing_account(self) -> None:
        """Check that each picture of the session came everywhere, once, and that nothing failed on the way."""
        finals = set(self.sent)
        assert [name for name in self.page.finals() if name in finals] == self.sent
        assert self.archive.failed == 0
        assert {header["session"] for header, _ in self.page.frames} <= {"good", "other"}
        assert {path.name for path in (self.folder / "all").iterdir()} <= {"good", "other"}
        for task in self.watching:
            summary = task.result()
            assert summary.failed == 0, summary.refusals
            assert summary.pictures >= len(self.sent)


def config_of(broker: EmbeddedBroker, folder: Path) -> Config:
    """Make a config of a session called 'good' with an archive."""
    raw = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text("utf-8"))
    raw |= {"broker": {"host": "127.0.0.1", "port": broker.port, "protocol": "3.1.1"}}
    raw |= {"archive": {"folder": str(folder)}, "publish": {**raw.get("publish", {}), "session": "good"}}
    return parse_config(raw, "test")


async def run_lab(folder: Path, opened: queue.Queue[Lab], over: asyncio.Event) -> None:
    """Start everything, hand the lab over, and end everything when it is over."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        broker = await enter(EmbeddedBroker())
        publisher = await enter(Publisher(broker.spec, "good", data="simulated EEG"))
        archive = await enter(archiving(config_of(broker, folder / "archive"), "simulated EEG"))
        page = await enter(Page(await enter(Display(broker.spec, own="good"))))
        stranger = await enter(aiomqtt.Client("127.0.0.1", broker.port))
        view = TerminalView(Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "xterm"}))
        watching = []
        for session, name in (("good", "one"), ("+", "all")):
            ready, keep = asyncio.Event(), saver(folder / name, session)
            receiving = subscribe(
                broker.spec, session, keep=keep, on_picture=view.draw, on_ready=ready.set, stop=stop, quiet_s=0.3
            )
            watching.append(asyncio.create_task(receiving))
            await ready.wait()
        assert archive is not None
        opened.put(Lab(asyncio.get_running_loop(), folder, publisher, archive, page, stranger, watching))
        await over.wait()
        stop.set()
        await asyncio.gather(*watching, return_exceptions=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Run a lab for all examples, and close its account at the end."""
    opened: queue.Queue[Lab] = queue.Queue()
    over = asyncio.Event()
    thread = threading.Thread(target=lambda: asyncio.run(run_lab(tmp_path_factory.mktemp("lab"), opened, over)))
    thread.start()
    lab = opened.get(timeout=60)
    yield lab
    lab.loop.call_soon_threadsafe(over.set)
    thread.join(60)
    lab.closing_account()


def attacks(session: str, messages: list[list[tuple[str, bytes]]], retain: bool) -> list[Sent]:
    """Address messages to a session."""
    return [(f"minddiffuser/{session}/{kind}", payload, retain) for one in messages for kind, payload in one]


ABSTAINED = {"window_id": "w", "stage": "abstained", "sha256": {}}


@given(session=SESSIONS, messages=ATTACKS, retain=st.booleans())
@example(session="good", messages=[[("meta", encoded({**ABSTAINED, "times": {"published": [1]}}))]], retain=False)
@example(session="other", messages=[[("meta", encoded({**ABSTAINED, "times": {"published": 10**400}}))]], retain=False)
@example(session="good", messages=[[("meta", encoded(ABSTAINED)[:-1] + b',"x":' + b"[" * 900 + b"]" * 900 + b"}")]],
         retain=False)  # fmt: skip
@example(session="good", messages=[[("status", b'{"x":' + b"[" * 900 + b"]" * 900 + b"}")]], retain=True)
@example(session="good", messages=[[("preview", b"hello"), ("meta", encoded(
    {**meta(1, hashlib.sha256(b"hello").hexdigest()), "stage": "preview", "sha256": {
        "preview": hashlib.sha256(b"hello").hexdigest()}}))]], retain=False)  # fmt: skip
@example(session="good", messages=[[("meta", encoded({**ABSTAINED, "window_id": "\ud800"}))]], retain=False)
@example(session="..", messages=[[("meta", encoded(ABSTAINED))]], retain=False)
@example(session="CON", messages=[[("meta", encoded(ABSTAINED))]], retain=True)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.timeout(600)
def test_one_bad_message_costs_that_message(
    lab: Lab, session: str, messages: list[list[tuple[str, bytes]]], retain: bool
) -> None:
    """After whatever a stranger has sent, the session's next window is on the page, saved and archived."""
    lab.run(lab.attack(attacks(session, messages, retain)))


@pytest.mark.parametrize("n", [10**6, 10**9, 2**53 - 1, 10**30])
def test_a_huge_running_number_takes_no_memory(lab: Lab, n: int) -> None:
    """A true picture with any number is taken, or refused, in the time of any other."""
    payload = picture(1234)
    message = {**meta(n, hashlib.sha256(payload).hexdigest()), "window_id": f"huge-{n}"}
    lab.run(lab.attack(attacks("good", [[("picture", payload), ("meta", encoded(message))]], retain=False)))
