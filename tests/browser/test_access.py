"""The page for everybody: axe-core finds nothing in any state, mode or colour scheme; downloads are whole."""

import asyncio
import io
import json
import zipfile
from contextlib import AsyncExitStack
from importlib.metadata import files
from pathlib import Path

import pytest

from minddiffuser.display.server import Display
from minddiffuser.workflows.evaluate_session import evaluate_session
from stream.mqtt.broker import EmbeddedBroker
from stream.mqtt.publisher import Publisher
from tests.browser.test_page import LABEL, Browser, broker, browser, publish, pytestmark, shared_browser

__all__ = ["broker", "browser", "pytestmark", "shared_browser"]

AXE = next(Path(str(path.locate())) for path in files("axe-playwright-python") or [] if path.name == "axe.min.js")
RUN = "const done = arguments[0]; axe.run(document).then((found) => done(JSON.stringify(found.violations)));"
SCHEMES = ("dark", "light")
MODES = ("operate", "view")
METRICS = {
    "ingest": {
        "samples": 12345, "lost": 3, "gap_count": 1, "gaps": [{"lost": 3, "length": 0.01}], "windows": 9, "rejected": 1,
        "events": 5, "ignored": 2, "problems": ["'Fp1' is flat: check its electrode"],
        "state": "streaming", "channel_rms": {"Fz": 1e-5, "Cz": 1e-5, "Pz": 1e-7, "Oz": 1e-4, "F3": 1e-5, "F4": 1e-5},
    },
    "rates": {"pictures": 1.0}, "queues": {"windows": 0}, "drops": {"rejected": 1},
    "latency_ms": {"total": {"p50": 200.0, "p99": 300.0}},
}  # fmt: skip


async def violations(browser: Browser, modes: tuple[str, ...] = MODES) -> list[str]:
    """Give the rules that axe-core finds broken on the page, in both modes and colour schemes."""
    found = []
    source = await asyncio.to_thread(AXE.read_text, "utf-8")
    for scheme in SCHEMES:
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        await asyncio.to_thread(browser.driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", features)
        for mode in modes:
            if await browser.run("return document.body.dataset.mode") != mode:
                await browser.key("v")
            await browser.until("return document.body.dataset.mode === arguments[0]", mode)
            await browser.run("document.dispatchEvent(new Event('pointermove'))")  # the bar is there
            # Colours and pictures on their way would be judged half-way.
            await browser.until("return document.getAnimations().every(a => !(a instanceof CSSTransition))")
            if await browser.run("return typeof axe === 'undefined'"):
                await browser.run(source)
            for rule in json.loads(await asyncio.to_thread(browser.driver.execute_async_script, RUN)):
                nodes = "; ".join(str(node["target"]) for node in rule["nodes"][:3])
                found.append(f"{scheme} {mode}: {rule['id']}: {nodes}")
    return found


async def test_axe_finds_nothing_in_any_state(broker: EmbeddedBroker, browser: Browser) -> None:
    """Nothing yet, live, paused, abstained, source lost, stale, ended: in both modes, dark and light."""
    found: dict[str, list[str]] = {}
    async with Display(broker.spec) as display:
        await browser.size(1280, 900)
        await browser.open(display.url)
        await browser.state("waiting")
        found["waiting"] = await violations(browser)
        async with Publisher(broker.spec, "lab", data="simulated EEG") as publisher:
            publisher.status({"state": "running"})
            publisher.metrics(METRICS)
            for number in (1, 2):
                publish(publisher, number)
            await browser.state("live")
            found["live"] = await violations(browser)
            await browser.key(" ")
            await browser.state("paused")
            found["paused"] = await violations(browser)
            await browser.key(" ")
            publisher.abstained({"window_id": "w3", "reason": "the signal was flat"})
            await browser.state("abstained")
            found["abstained"] = await violations(browser)
            publisher.status({"state": "source-lost"})
            await browser.state("error")
            found["source lost"] = await violations(browser)
            publisher.status({"state": "running"})
            publish(publisher, 4)
            await browser.state("stale", 90)  # four times the usual pause, which axe has made long
            found["stale"] = await violations(browser)
        await browser.state("ended")
        found["ended"] = await violations(browser)
        await browser.blameless()
    assert {state: issues for state, issues in found.items() if issues} == {}


async def test_axe_with_a_lost_broker_two_sessions_and_the_help(browser: Browser) -> None:
    """The broker lost, several sessions side by side and the open help are as accessible."""
    found = {}
    async with AsyncExitStack() as stack:
        async with EmbeddedBroker() as doomed:
            display = await stack.enter_async_context(Display(doomed.spec))
            # They outlive the broker: a session that has ended says that it has, not that the broker is lost.
            one = await stack.enter_async_context(Publisher(doomed.spec, "a", data="simulated EEG"))
            other = await stack.enter_async_context(Publisher(doomed.spec, "b"))
            await browser.size(390, 844)
            await browser.open(display.url)
            publish(one, 1)
            publish(other, 2)
            await browser.until("return document.getElementById('session').options.length === 2")
            found["two sessions"] = await violations(browser)
            await browser.key("?")
            found["help"] = await violations(browser, ("view",))  # keys do not change the mode below it
            await browser.run("document.getElementById('keys').close()")
        await browser.until("return document.getElementById('state-text').textContent.startsWith('Broker lost')")
        found["broker lost"] = await violations(browser)
    assert {state: issues for state, issues in found.items() if issues} == {}


async def test_every_control_is_reached_by_the_tab_key(broker: EmbeddedBroker, browser: Browser) -> None:
    """Tab goes through every button of the bar and every picture of the strip, and Enter holds that picture."""
    from selenium.webdriver.common.keys import Keys

    async with Display(broker.spec) as display, Publisher(broker.spec, "lab") as publisher:
        await browser.size(1280, 900)
        await browser.open(display.url)
        for number in (1, 2):
            publish(publisher, number)
        await browser.until("return document.querySelectorAll('#strip li').length === 2")
        reached = []
        for _ in range(12):
            active = browser.driver.switch_to.active_element
            await asyncio.to_thread(active.send_keys, Keys.TAB)
            reached.append(
                await browser.run(
                    "return document.activeElement.id || document.activeElement.getAttribute('aria-label')"
                )
            )
            if "stim_1" in str(reached[-1]):
                break
        wanted = ["mode", "pause", "save", "download", "help"]  # a note needs a session of this machine
        assert [name for name in reached if name in wanted] == wanted
        assert any("stim_2" in str(name) for name in reached)
        await asyncio.to_thread(browser.driver.switch_to.active_element.send_keys, Keys.ENTER)
        await browser.state("paused")
        assert await browser.run(LABEL) == "stim_1"


async def test_the_download_is_a_session_that_evaluate_reads(
    broker: EmbeddedBroker, browser: Browser, tmp_path: Path
) -> None:
    """The button gives a zip with every published file; unpacked, it is an archive."""
    async with Display(broker.spec) as display, Publisher(broker.spec, "lab", data="simulated EEG") as publisher:
        await browser.open(display.url)
        sent = [publish(publisher, number) for number in (1, 2, 3)]
        await browser.until("return document.querySelectorAll('#strip li').length === 3")
        await browser.run(
            "window.got = null; URL.createObjectURL = (create => (blob) => { if (blob.type === 'application/zip') "
            "blob.arrayBuffer().then(b => { window.got = Array.from(new Uint8Array(b)); }); return create(blob); }"
            ")(URL.createObjectURL.bind(URL)); document.getElementById('download').click()"
        )
        content = bytes(await browser.until("return window.got"))
        await browser.blameless()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    for number, files_of_window in enumerate(sent, 1):
        for kind, payload in files_of_window.items():
            assert (tmp_path / "lab" / f"w{number}.{kind}.jpg").read_bytes() == payload
    answer = evaluate_session(tmp_path / "lab").answer
    assert (answer["pictures"], answer["data"], answer["n"]) == (3, "simulated EEG", 3)


@pytest.fixture(autouse=True)
async def default_scheme(browser: Browser) -> None:
    """Begin with no colour scheme or size emulated."""
    await asyncio.to_thread(browser.driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"features": []})
