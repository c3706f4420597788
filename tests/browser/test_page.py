"""The display's page in headless Chromium: the pictures it shows are those that were published."""

import asyncio
import contextlib
import hashlib
import io
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from minddiffuser.display.server import Display
from stream.mqtt.broker import EmbeddedBroker, connect
from stream.mqtt.messages import lsl_clock
from stream.mqtt.publisher import Publisher

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromium-driver is not installed (Debian)"),
    pytest.mark.timeout(180),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
DIGEST = """
const [selector, done] = arguments, image = document.querySelector(selector);
fetch(image.src).then((r) => r.arrayBuffer()).then((b) => crypto.subtle.digest("SHA-256", b))
  .then((d) => done([...new Uint8Array(d)].map((v) => v.toString(16).padStart(2, "0")).join("")));
"""
FOREIGN = "return performance.getEntriesByType('resource').map(e => e.name).filter(u => !u.startsWith(location.origin))"
SHOWN = '.slot[data-kind="%s"] .frame img:not(.leaving)'
FINAL_IS_THERE = """
const [card, tile] = [".slot[data-kind=picture] img:not(.leaving)", ".tile:has(.what:not(:empty)) > .frame img"];
const image = document.querySelector(document.body.dataset.mode === "view" ? tile : card);
return image?.offsetWidth > 100 && /^Final/.test(image.alt) && [...document.images].every((image) => image.complete);
"""
LABEL = """return document.querySelector('.slot[data-kind="original"] .about').textContent"""


def picture(number: int) -> bytes:
    """Make a JPEG, another for every number."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 40 + number % 50).convert("RGB").save(buffer, "JPEG", comment=str(number).encode())
    return buffer.getvalue()


class Browser:
    """Chromium, driven from a thread so that the servers beside it go on."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        self.driver.set_script_timeout(20)

    async def run(self, script: str, *arguments: object) -> Any:
        """Run a script in the page and return its value."""
        return await asyncio.to_thread(self.driver.execute_script, script, *arguments)

    async def until(self, script: str, *arguments: object, seconds: float = 20.0) -> Any:
        """Run a script until its value is true, with a deadline."""
        async with asyncio.timeout(seconds):
            while not (value := await self.run(script, *arguments)):  # noqa: ASYNC110  the page is another process
                await asyncio.sleep(0.05)
        return value

    async def key(self, key: str) -> None:
        """Press a key."""
        await self.run(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))", key
        )

    async def size(self, width: int, height: int) -> None:
        """Give the page a size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await asyncio.to_thread(self.driver.execute_cdp_cmd, "Emulation.setDeviceMetricsOverride", metrics)

    async def open(self, url: str) -> None:
        """Open a page and wait until its socket has spoken."""
        await asyncio.to_thread(self.driver.get, url)
        await self.until("return document.body.dataset.state && document.body.dataset.state !== 'connecting'")

    async def state(self, state: str, seconds: float = 20.0) -> None:
        """Wait until the page says that it is in a state."""
        script = "return document.getElementById('state').dataset.state === arguments[0]"
        await self.until(script, state, seconds=seconds)

    async def blameless(self) -> None:
        """Nothing was logged as an error, and nothing was asked of any other host."""
        log = await asyncio.to_thread(self.driver.get_log, "browser")
        assert [entry for entry in log if entry["level"] == "SEVERE"] == []
        assert await self.run(FOREIGN) == []


@pytest.fixture(scope="module")
def shared_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start Chromium once: it takes seconds."""
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(shared_browser: Browser) -> Browser:
    """Give the one browser, on an empty page of a small desktop's size and with an empty log."""
    size = {"width": 1280, "height": 720, "deviceScaleFactor": 1, "mobile": False}
    shared_browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    shared_browser.driver.get("about:blank")
    shared_browser.driver.get_log("browser")
    return shared_browser


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    """Run an embedded broker."""
    async with EmbeddedBroker() as running:
        yield running


def publish(publisher: Publisher, number: int, **more: object) -> dict[str, bytes]:
    """Publish all three pictures of one window; returns their bytes."""
    sent = {kind: picture(3 * number + i) for i, kind in enumerate(("original", "preview", "picture"))}
    now = lsl_clock()
    times = {step: now - ago for step, ago in (("acquired", 0.4), ("ready", 0.39), ("decoded", 0.37), ("stage1", 0.2))}
    meta = {"window_id": f"w{number}", "event": {"label": f"stim_{number}"}, "confidence": 0.7, "times": times, **more}
    for kind, payload in sent.items():
        if kind == "picture":
            times["stage2"] = lsl_clock()
        getattr(publisher, kind)(payload, meta)
    return sent


async def test_shows_the_very_pictures_that_were_published(broker: EmbeddedBroker, browser: Browser) -> None:
    """The bytes behind each of the three pictures on the page have the digest of those that were published."""
    async with Display(broker.spec) as display, Publisher(broker.spec, "lab", data="simulated EEG") as publisher:
        await browser.open(display.url)
        sent = publish(publisher, 1)
        await browser.until("return document.querySelector(arguments[0])?.complete", SHOWN % "picture")
        for kind, payload in sent.items():
            await browser.until("return document.querySelector(arguments[0])?.complete", SHOWN % kind)
            digest = await asyncio.to_thread(browser.driver.execute_async_script, DIGEST, SHOWN % kind)
            assert digest == hashlib.sha256(payload).hexdigest()
            assert await browser.run("return document.querySelector(arguments[0]).naturalWidth", SHOWN % kind) == 64
        await browser.state("live")
        assert await browser.run("return document.getElementById('data').textContent") == "simulated EEG"
        assert await browser.run("return document.getElementById('confidence').textContent") == "0.70"
        assert "stim_1" in await browser.run("return document.querySelector(arguments[0]).alt", SHOWN % "picture")
        assert await browser.run("return document.querySelectorAll('#bars .step').length") == 5
        await browser.blameless()


async def test_says_what_is_wrong(broker: EmbeddedBroker, browser: Browser) -> None:
    """The page names each state: nothing yet, live, abstained, source lost, stale, session ended."""
    async with Display(broker.spec) as display:
        await browser.open(display.url)
        await browser.state("waiting")
        async with Publisher(broker.spec, "lab") as publisher:
            publisher.status({"state": "running"})
            publish(publisher, 1)
            await browser.state("live")
            publisher.abstained({"window_id": "w2", "reason": "the signal was flat"})
            await browser.state("abstained")
            await browser.until("return document.getElementById('notice').textContent.includes('the signal was flat')")
            publisher.status({"state": "source-lost"})
            await browser.state("error")
            await browser.until("return document.getElementById('state-text').textContent.startsWith('Source lost')")
            publisher.status({"state": "engine-lost", "detail": "cannot reach the pool"})
            await browser.until("return document.getElementById('state-text').textContent.startsWith('Engine lost')")
            await browser.until("return document.getElementById('notice').textContent.includes('reach the pool')")
            publisher.status({"state": "running"})
            publish(publisher, 3)
            await browser.state("live")
            await browser.state("stale")
        await browser.state("ended")
        await browser.blameless()


class Relay:
    """A network between browser and display, which can be cut."""

    def __init__(self, port: int) -> None:
        self._port, self._writers = port, set[asyncio.StreamWriter]()

    async def __aenter__(self) -> "Relay":
        await self.mend(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()

    async def mend(self, port: int) -> None:
        """Connect whoever comes."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", port)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Break all connections, without a word, and take no other."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, back}
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        writer.close()


async def test_broker_and_server_lost_and_back(browser: Browser) -> None:
    """The page says that the broker or the display is lost, keeps the picture, and comes back by itself."""
    starts = "return document.getElementById('state-text').textContent.startsWith(arguments[0])"
    async with EmbeddedBroker() as first:
        spec = first.spec
        display = await Display(spec).__aenter__()
        publisher = await Publisher(spec, "lab").__aenter__()
        relay = await Relay(display.port).__aenter__()
        await browser.open(f"http://127.0.0.1:{relay.port}/")
        publish(publisher, 1)
        await browser.state("live")
    await browser.until(starts, "Broker lost")
    assert await browser.run("return Boolean(document.querySelector(arguments[0]))", SHOWN % "picture")
    async with EmbeddedBroker(spec.resolved_port):
        publisher.status({"state": "running"})
        await browser.state("live")
        relay.cut()
        await browser.until(starts, "Display server lost")
        assert await browser.run("return Boolean(document.querySelector(arguments[0]))", SHOWN % "picture")
        await relay.mend(relay.port)
        await browser.until(f"return !({starts.removeprefix('return ')})", "Display server lost")
        await display.__aexit__(None, None, None)
        await browser.state("ended")
        async with Display(spec, port=display.port):
            await browser.until(f"return !({starts.removeprefix('return ')})", "Ended")
        relay.cut()
        await publisher.__aexit__(None, None, None)


async def test_keys_pause_go_back_and_change_the_mode(broker: EmbeddedBroker, browser: Browser) -> None:
    """Space holds the picture while others come, arrows go back and forth, V shows the full picture, O the original."""
    async with Display(broker.spec) as display, Publisher(broker.spec, "lab") as publisher:
        await browser.open(display.url)
        for number in (1, 2, 3):
            publish(publisher, number)
            await browser.until(f"{LABEL} === arguments[0]", f"stim_{number}")
        await browser.until("return document.querySelectorAll('#strip li').length === 3")
        await browser.key(" ")
        await browser.state("paused")
        publish(publisher, 4)
        await browser.until("return document.getElementById('notice').textContent.endsWith('; 1 more since.')")
        assert await browser.run(LABEL) == "stim_3"
        assert await browser.run("return document.querySelectorAll('#strip li').length") == 3
        await browser.key("ArrowLeft")
        await browser.until(f"{LABEL} === 'stim_2'")
        await browser.key("Escape")
        await browser.until(f"{LABEL} === 'stim_4'")
        await browser.key("v")
        await browser.until("return document.querySelector('.tile .frame img:not(.leaving)')?.complete")
        assert await browser.run("return getComputedStyle(document.getElementById('desk')).display") == "none"
        assert await browser.run("return document.querySelector('.tile .what').textContent") == "Final"
        await browser.key("o")
        await browser.until("return document.querySelector('.tile .inset:not([hidden]) img')")
        await browser.key("Escape")
        await browser.until("return document.body.dataset.mode === 'operate'")
        await browser.key("?")
        assert await browser.run("return document.getElementById('keys').open")
        await browser.blameless()


async def test_sessions_side_by_side(broker: EmbeddedBroker, browser: Browser) -> None:
    """Two sessions stand beside each other in the full picture, each under its own data's name."""
    async with (
        Display(broker.spec) as display,
        Publisher(broker.spec, "eeg", data="simulated EEG") as first,
        Publisher(broker.spec, "v4", data="macaque V4 spikes") as second,
    ):
        await browser.open(display.url + "?mode=view")
        publish(first, 1)
        publish(second, 2)
        await browser.until("return document.querySelectorAll('.tile .frame img').length >= 2")
        names = await browser.run(
            "return [...document.querySelectorAll('.tile .source')].map(e => e.textContent).sort()"
        )
        assert names == ["macaque V4 spikes", "simulated EEG"]
        await browser.blameless()


@pytest.mark.parametrize("width", [320, 768, 1440, 3840])
async def test_no_width_scrolls_sideways(broker: EmbeddedBroker, browser: Browser, width: int) -> None:
    """From a phone to a wall nothing sticks out sideways, in either mode, and the picture is there."""
    async with Display(broker.spec) as display, Publisher(broker.spec, "lab", data="macaque V4 spikes") as publisher:
        await browser.size(width, max(568, width * 9 // 16))
        for mode in ("operate", "view"):
            await browser.open(f"{display.url}?mode={mode}")
            publish(publisher, 1)
            await browser.until(FINAL_IS_THERE)
            assert await browser.run("return document.documentElement.scrollWidth") <= width
        await browser.blameless()


async def test_labels_from_outside_stay_text(broker: EmbeddedBroker, browser: Browser) -> None:
    """Markup in labels, reasons and names of data is shown as text and runs nothing."""
    evil = "<img src=x onerror=window.hit=1>"
    async with Display(broker.spec) as display, Publisher(broker.spec, "lab", data=evil) as publisher:
        await browser.open(display.url)
        publisher.status({"state": evil, "detail": evil})
        ingest = {"state": evil, "channel_rms": {evil: 1}, "problems": [evil], "streams": {evil: {"state": "lost"}}}
        publisher.metrics({"ingest": ingest, "drops": {evil: 1}, "queues": {evil: 1}})
        publish(publisher, 1, event={"label": evil}, backend=evil, seed=evil, models={"unet": evil})
        await browser.until("return document.getElementById('data').textContent === arguments[0]", evil)
        await browser.until("return document.querySelector(arguments[0])?.complete", SHOWN % "picture")
        await browser.until("return document.querySelector('#problems li')?.textContent === arguments[0]", evil)
        await browser.key("v")
        await browser.until("return document.querySelector('.tile .source')?.textContent === arguments[0]", evil)
        assert await browser.run("return window.hit === undefined")
        await browser.blameless()


FACTS = """
return Object.fromEntries([...document.querySelectorAll("#markers div, #rates div")]
  .map((row) => [row.querySelector("dt").textContent, row.querySelector("dd").textContent + (row.className && " !")]))
"""


async def test_what_is_wrong_with_the_signal_is_said_while_it_is(broker: EmbeddedBroker, browser: Browser) -> None:
    """A problem's line is there while the metrics name it and gone afterwards; so are markers without a window."""
    lines = "return [...document.querySelectorAll('#problems li')].map((line) => line.textContent)"
    visible = "return document.getElementById('problems').offsetHeight > 0"
    problem = "the marker stream 'cues' is gone since 3 s: start its program again"
    async with Display(broker.spec) as display, Publisher(broker.spec, "lab") as publisher:
        await browser.open(display.url)
        publisher.status({"state": "running"})
        publish(publisher, 1)
        streams = {
            "EEG": {"state": "streaming", "lost": 0, "declared_hz": 250, "measured_hz": 249.987, "drift_ppm": -52.1},
            "cues": {"state": "lost", "lost": 0},
        }
        marks = {"events": 9, "ignored": 3, "incomplete": 2, "pending": 1, "duplicates": 0, "windows": 3}
        publisher.metrics({"ingest": {"problems": [problem, "second"], "streams": streams, **marks}})
        await browser.until(f"{visible} && true")
        assert await browser.run(lines) == [problem, "second"]
        rows = await browser.run(FACTS)
        assert rows["cues"] == "lost !"
        assert rows["EEG"] == "249.99 Hz, declared 250 Hz, -52 ppm"
        assert await browser.run("return document.getElementById('marker-count').textContent") == "9"
        assert rows["No window"] == "3 that are no events, 2 outside the data, 1 waiting !"
        publisher.metrics({"ingest": {"problems": ["second"], "events": 9, "measured_hz": 200.0, "declared_hz": 256}})
        await browser.until(f"{lines.replace('return', 'return JSON.stringify(')}) === arguments[0]", '["second"]')
        rows = await browser.run(FACTS)
        assert (rows["Measured"], rows["Declared"]) == ("200 Hz !", "256 Hz")
        publisher.metrics({"ingest": {"problems": [], "events": 9}})
        await browser.until(f"{visible.replace('return', 'return !(')})")
        assert await browser.run(lines) == []
        assert "No window" not in await browser.run(FACTS)
        await browser.blameless()


async def test_the_page_shows_its_own_session_whatever_else_there_is(broker: EmbeddedBroker, browser: Browser) -> None:
    """With forty old sessions retained on the broker, the page opens on the one that runs beside it, and names it."""
    chosen = "return document.getElementById('session').value"
    async with connect(broker.spec) as stranger:
        for number in range(40):
            await stranger.publish(f"minddiffuser/old-{number:02d}/status", b'{"state": "offline"}', 1, retain=True)
    async with Display(broker.spec, own="today") as display, Publisher(broker.spec, "today") as publisher:
        await browser.open(display.url)
        publish(publisher, 1)
        await browser.state("live")
        assert await browser.run(chosen) == "today"
        assert await browser.run("return document.getElementById('session').options.length") == 32
        assert await browser.run(LABEL) == "stim_1"
        await browser.blameless()


async def test_a_picture_that_breaks_off_is_said_to_be_none(broker: EmbeddedBroker, browser: Browser) -> None:
    """A picture whose header is sound and whose pixels are missing leaves the page alive; the next one is shown."""
    async with Display(broker.spec) as display, Publisher(broker.spec, "lab") as publisher:
        await browser.open(display.url)
        whole = picture(1)
        publisher.picture(whole[: len(whole) // 2], {"window_id": "cut"})
        await browser.until("return document.querySelectorAll('#strip li').length === 1")
        publish(publisher, 2)
        await browser.until(f"{LABEL} === 'stim_2'")
        await browser.until("return document.querySelector(arguments[0])?.naturalWidth === 64", SHOWN % "picture")
