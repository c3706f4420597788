"""Controls do what they say, and what the experimenter needs is on the page."""

import asyncio
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops
from pylsl import StreamInlet, resolve_byprop

from minddiffuser.archive.trials import EventLog, Trial
from minddiffuser.config.experiment import TaskSpec
from minddiffuser.display.local import Local
from minddiffuser.display.progress import Announcement
from minddiffuser.display.server import Display
from minddiffuser.display.traces import Traces
from stream.lsl.notes import NOTES, NoteOutlet
from stream.lsl.tap import Tap
from stream.mqtt.broker import EmbeddedBroker
from stream.mqtt.messages import lsl_clock
from stream.mqtt.publisher import Publisher
from stream.types.windows import Channels
from tests.browser.test_page import SHOWN, Browser, broker, browser, pytestmark, shared_browser
from tests.browser.test_stays import send

__all__ = ["broker", "browser", "pytestmark", "shared_browser"]

MOVES = ("#identity", "#rooms", "#strip", ".panels")
NAMES = ("Fz", "Cz", "Pz", "Oz", "T7", "T8")
TEXTS = "return Object.fromEntries(arguments[0].map((id) => [id, document.getElementById(id).textContent]))"
CATCH_PNG = """
window.got = null;
URL.createObjectURL = ((create) => (blob) => {
  if (blob.type === "image/png") blob.arrayBuffer().then((b) => { window.got = [...new Uint8Array(b)]; });
  return create(blob);
})(URL.createObjectURL.bind(URL));
"""
CLOCK = "return document.getElementById('clock').textContent"
UNTITLED = """
return [...document.querySelectorAll(".tools button, #strip button")].filter((button) => !button.title).length;
"""
TICKS = """
return Object.fromEntries([...document.querySelectorAll(".slot .checklist li")]
  .map((li) => [li.querySelector("b").textContent, li.dataset.there]));
"""


def metrics(**more: object) -> dict[str, Any]:
    """Make metrics of six channels: T7 is dead, Oz four times as loud as in the calibration."""
    levels = dict.fromkeys(NAMES, 1e-5) | {"T7": 1e-9, "Oz": 4e-5}
    channels = [
        {"name": name, "level": level, "reference_level": 1e-5, "unit": "V", "status": "good", "reason": None}
        for name, level in levels.items()
    ]
    channels[NAMES.index("T7")] |= {"status": "bad", "reason": "flat: check its electrode"}
    ingest = {"state": "streaming", "samples": 5000, "events": 7, "unmatched": 2}
    return {"ingest": ingest, "signal": {"channels": channels}, "abstain_below": 0.3} | more


async def streaming(tap: Tap) -> None:
    """Feed a tap with a second of noise and a mains line, over and over."""
    tap.sfreq = 250.0
    generator = np.random.default_rng(1)
    while True:
        times = lsl_clock() + np.arange(25) / 250
        mains = np.sin(2 * np.pi * 50 * times)[:, None]
        tap.feed(1e-5 * (generator.normal(size=(25, len(NAMES))) + mains), times)
        await asyncio.sleep(0.1)


def alike(some: list[Image.Image], others: list[Image.Image]) -> bool:
    """Compare pictures of a page; round corners are not drawn twice in quite the same colours."""
    differences = [ImageChops.difference(a, b).getextrema() for a, b in zip(some, others, strict=True)]
    return max(highest for channels in differences for _, highest in channels) <= 8


async def shots(browser: Browser) -> list[Image.Image]:
    """Take pictures of all that may move."""
    elements = [browser.driver.find_element("css selector", selector) for selector in MOVES]
    files = [await asyncio.to_thread(lambda element=element: element.screenshot_as_png) for element in elements]
    return [Image.open(io.BytesIO(file)).convert("RGB") for file in files]


async def settled(browser: Browser) -> list[Image.Image]:
    """Take pictures of all that may move, once what was being drawn is drawn."""
    async with asyncio.timeout(10.0):
        before = await shots(browser)
        while not alike(now := await shots(browser), before):
            before = now
    return now


async def test_pause_stops_all_that_moves_and_a_note_becomes_a_marker(broker: EmbeddedBroker, browser: Browser) -> None:
    """Traces, clock, pictures and figures stand still while paused, and go on; a note is a marker on LSL."""
    local, tap = Local("lab", outlet=NoteOutlet("lab")), Tap()
    local.tracer = Traces(tap, Channels(NAMES, ("eeg",) * len(NAMES), ("V",) * len(NAMES)), NAMES)
    feeding = asyncio.create_task(streaming(tap))
    notes = StreamInlet((await asyncio.to_thread(resolve_byprop, "name", NOTES, 1, 10.0))[0])
    await asyncio.to_thread(notes.open_stream, 10.0)
    sessions = {"lab": local}
    del local
    async with (
        Display(broker.spec, own="lab", find=sessions.get) as display,
        Publisher(broker.spec, "lab") as publisher,
    ):
        await browser.size(1280, 720)
        await browser.open(display.url)
        publisher.status({"state": "running"})
        publisher.metrics(metrics())
        send(publisher, 1)
        await browser.until("return document.getElementById('curves-about').textContent.endsWith('mains 50 Hz')")
        moving, time = await shots(browser), await browser.run(CLOCK)
        await browser.until("return document.getElementById('clock').textContent !== arguments[0]", time)
        assert not alike((await shots(browser))[-1:], moving[-1:])
        await browser.key(" ")
        await browser.state("paused")
        still = await settled(browser)
        send(publisher, 2, confidence=0.1)
        publisher.metrics(metrics(windows=99, signal=None))
        await browser.until("return document.getElementById('notice').textContent.includes('1 more since')")
        await asyncio.sleep(1.1)  # the clock would have gone on
        assert alike(await shots(browser), still)
        await browser.run("document.getElementById('pause').click()")
        await browser.state("live")
        await browser.until("return document.querySelector('.slot[data-kind=picture]').dataset.window === 'w2'")
        assert await browser.run("return document.getElementById('pause').textContent.trim()") == "Pause"
        await browser.key("n")
        await browser.until("return document.activeElement.id === 'note-text'")
        await asyncio.to_thread(browser.driver.switch_to.active_element.send_keys, "coughed\n")
        await browser.until("return document.getElementById('said').textContent === 'Noted: coughed'")
        marker, _ = await asyncio.to_thread(notes.pull_sample, 10.0)
        assert marker == ["coughed"]
        await browser.blameless()
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    notes.close_stream()
    sessions.clear()  # and with it the outlet: other tests look for streams, too


async def test_save_makes_one_picture_of_the_three_and_says_so(broker: EmbeddedBroker, browser: Browser) -> None:
    """The PNG holds what was shown, preview and final side by side, of the window that stands, with a toast."""
    async with Display(broker.spec) as display, Publisher(broker.spec, "lab", data="simulated EEG") as publisher:
        await browser.open(display.url)
        send(publisher, 5)
        await browser.until("return document.querySelector(arguments[0])?.complete", SHOWN % "picture")
        await browser.run(CATCH_PNG)
        await browser.key("s")
        await browser.until("return document.getElementById('said').textContent === 'Saved as w5.png'")
        content = bytes(await browser.until("return window.got"))
        await browser.blameless()
    with Image.open(io.BytesIO(content)) as saved:
        assert saved.size == (3 * 512 + 4 * 16, 56 + 512 + 64 + 16)
        middles = [saved.convert("RGB").getpixel((16 + 256 + i * 528, 56 + 256)) for i in range(3)]
    assert middles == [(100, len(kind), 90) for kind in ("original", "preview", "picture")]


async def test_a_checklist_until_the_first_picture_then_all_that_is_known(
    broker: EmbeddedBroker, browser: Browser
) -> None:
    """Each point is ticked when it is there; with the first picture come names, counts, levels and thresholds."""
    async with Display(broker.spec) as display:
        await browser.size(1280, 720)
        await browser.open(display.url)
        await browser.state("waiting")
        nothing = {"Broker": "true", "Bundle": "false", "Stream": "false", "Markers": "false"}
        await browser.until("return document.querySelector('.checklist')")
        assert await browser.run(TICKS) == nothing
        async with Publisher(broker.spec, "lab") as publisher:
            publisher.status({"state": "waiting", "participant": "P01"})
            await browser.until("return document.querySelectorAll('.slot [data-there=true]').length === 2")
            assert await browser.run(TICKS) == nothing | {"Bundle": "true"}
            publisher.status({"state": "running", "participant": "P01"})
            await browser.until("return document.querySelectorAll('.slot [data-there=true]').length === 3")
            publisher.metrics(metrics())
            await browser.until("return document.querySelectorAll('.slot [data-there=true]').length === 4")
            told = {"right": 41, "of": 60, "chance": 0.02}
            of_pool = {"batch": 4, "steps_ms": {"network": 12.5, "queue": 31.0}}
            send(
                publisher, 3, names=["bell", "pepper"], told=told, index=3, of=60, seed="8745816941287783136", **of_pool
            )
            await browser.until("return document.querySelector(arguments[0])?.complete", SHOWN % "picture")
            assert await browser.run("return document.querySelector('.checklist')") is None
            ids = ["participant", "session-name", "counted", "threshold-text", "told", "head-legend", "bad-channels"]
            assert await browser.run(TEXTS, ids) == {
                "participant": "P01",
                "session-name": "lab",
                "counted": "3 of 60",
                "threshold-text": "below 0.3: abstained",
                "told": "told right so far 41 of 60; chance 2 %",
                "head-legend": "level against the calibration's",
                "bad-channels": "Bad: T7 (flat: check its electrode)",
            }
            assert await browser.run("return document.querySelector('#markers div').textContent") == "Unmatched2"
            about = "return document.querySelector('.slot[data-kind=picture] .about').textContent"
            assert await browser.run(about) == "guess: bell, pepper"
            assert await browser.run("return document.getElementById('threshold').style.left") == "30%"
            assert await browser.run("return document.querySelectorAll('#head .l8').length") == 1
            assert await browser.run("return document.querySelectorAll('#head .l4').length") == 4
            assert await browser.run("return document.querySelector('#pipeline').checkVisibility()") is False
            await browser.run("document.querySelector('#details summary').click()")
            await browser.until("return document.querySelector('#pipeline').checkVisibility()")
            details = await browser.run("return document.getElementById('pipeline').textContent")
            assert all(words in details for words in ("8745816941287783136", "together4 windows", "network13 ms"))
            assert await browser.run(UNTITLED) == 0
        await browser.blameless()


async def test_the_experiment_of_this_machine_is_beside_its_markers(
    broker: EmbeddedBroker, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While pictures are presented, the page says which trial it is, and how attentive the participant."""
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path))
    shown = "return document.getElementById('experiment').checkVisibility()"
    trials = [Trial(number, 1, "cat", "repeat" if number == 2 else "picture", 0.4) for number in (1, 2, 3)]
    async with (
        Display(broker.spec, own="lab", find={"lab": Local("lab")}.get) as display,
        Publisher(broker.spec, "lab") as publisher,
    ):
        await browser.size(1280, 720)
        await browser.open(display.url)
        publisher.status({"state": "running"})
        send(publisher, 1)
        with Announcement() as announcement, EventLog(tmp_path / "events.tsv", trials, resume=False) as log:
            for trial in trials[:2]:
                log.begin(trial, file="cat.png", marker="cat", time=trial.number, duration=0.3, error=0.0)
                log.end(shown=0.3, dropped=0, response="space", response_time=0.5 if trial.number == 2 else None)
            facts = {"set": "calibration", "events": str(log.path), "trials": 3, "blocks": 1}
            announcement.update({**facts, "task": TaskSpec().model_dump(mode="json")})
            await browser.until(shown)
            words = await browser.run("return document.getElementById('experiment').textContent")
            assert words == "calibration: trial 2 of 3, block 1 of 1; 1 hits, 0 misses, 0 false alarms"
        await browser.until("return !document.getElementById('experiment').checkVisibility()")
        await browser.blameless()
