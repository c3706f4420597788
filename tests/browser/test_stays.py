"""The picture stays until the next one is there, the cards change in step, and nothing else moves or is cut."""

import asyncio
import io
from typing import Any

from PIL import Image

from minddiffuser.display.server import Display
from stream.mqtt.broker import EmbeddedBroker
from stream.mqtt.messages import lsl_clock
from stream.mqtt.publisher import Publisher
from tests.browser.test_access import METRICS
from tests.browser.test_page import SHOWN, Browser, broker, browser, pytestmark, shared_browser

__all__ = ["broker", "browser", "pytestmark", "shared_browser"]

SIZES = ((1280, 720), (1400, 900), (1920, 1080), (2560, 1440), (390, 844), (844, 390))
SMALL = ((390, 844), (844, 390))
WINDOWS = 7
AGAIN = {WINDOWS: "w2"}  # the recording plays in a loop, and this window has the id of an earlier one
WITHOUT_ORIGINAL = 4

# On every frame of the screen: how long since the last one, and which window each card's uppermost picture is of.
WATCH = """
const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
const context = canvas.getContext("2d", {willReadFrequently: true});
const top = (kind) => [...document.querySelectorAll(`.slot[data-kind="${kind}"] .frame img`)].at(-1);
const number = (kind) => {
  const image = top(kind);
  if (!image) return null;
  if (!image.complete || !image.naturalWidth) return -1;
  context.drawImage(image, 0, 0, 1, 1);
  return Math.round(context.getImageData(0, 0, 1, 1).data[0] / 20);
};
window.seen = [];
let before = performance.now();
const look = (now) => {
  const image = top("picture");
  const whole = Boolean(image?.complete && image.naturalWidth && image.getAnimations().length === 0 &&
    getComputedStyle(image).opacity === "1" && image.offsetWidth > 100);
  window.seen.push([now - before, whole, number("original"), number("preview"), number("picture")]);
  before = now;
  window.watching = requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""

# What sticks out of the page, and what is cut: elements that hold more than they show.
CUT = """
const [wide, high] = [innerWidth, innerHeight];
const name = (e) => `${e.tagName.toLowerCase()}#${e.id}.${e.className} "${e.textContent.slice(0, 30)}"`;
const shown = [...document.querySelectorAll("body *:not(svg *)")]
  .filter((e) => e.checkVisibility() && e.getClientRects().length && !e.closest("dialog, .toast"));
const out = shown.filter((e) => {
  const box = e.getBoundingClientRect();
  return box.left < -1 || box.top < -1 || box.right > wide + 1 || box.bottom > high + 1;
}).map((e) => `out: ${name(e)}`);
const more = (e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1;
const hides = (e) => {
  const {overflow, clipPath} = getComputedStyle(e);  // a clip path leaves words to screen readers alone
  return overflow !== "visible" && clipPath === "none" && !e.matches("select, svg, .frame");
};
const cut = shown.filter((e) => more(e) && hides(e)).map((e) => `cut: ${name(e)}`);
const {scrollWidth, scrollHeight} = document.documentElement;
return [...out, ...cut, ...(scrollHeight > high || scrollWidth > wide ? ["scrolls"] : [])];
"""
BOXES = """
return Object.fromEntries(arguments[0].map((s) => {
  const {left, top, right, bottom} = document.querySelector(s).getBoundingClientRect();
  return [s, [left, top, right, bottom].map((v) => Math.round(v))];
}));
"""
COLOURS = """
return arguments[0].map((s) => getComputedStyle(document.querySelector(s)).color);
"""
SPACE = """
const areas = [...document.querySelectorAll(".slot .frame img:not(.leaving)")]
  .map((image) => Math.min(image.offsetWidth, image.offsetHeight) ** 2);
return areas.reduce((a, b) => a + b, 0) / (innerWidth * innerHeight);
"""


def plain(number: int, kind: str) -> bytes:
    """Make a picture that is red by its window's number, and otherwise by its kind."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (20 * number, len(kind), 90)).save(buffer, "PNG")
    return buffer.getvalue()


def meta_of(number: int, **more: object) -> dict[str, Any]:
    """Describe a window as a session does."""
    now = lsl_clock()
    times = {"acquired": now - 0.4, "ready": now - 0.39, "decoded": now - 0.37, "stage1": now - 0.2, "stage2": now}
    return {
        "window_id": AGAIN.get(number, f"w{number}"),
        "event": {"label": f"stim_{number}"},
        "confidence": 0.7,
        "times": times,
    } | more


def send(publisher: Publisher, number: int, **more: object) -> None:
    """Publish the three pictures of a window at once."""
    for kind in ("original", "preview", "picture"):
        getattr(publisher, kind)(plain(number, kind), meta_of(number, **more))


async def test_the_final_picture_stays_and_the_cards_change_in_step(broker: EmbeddedBroker, browser: Browser) -> None:
    """At one picture a second, the preview 0.3 s before it: whole for 85 % of the time, and never of two windows."""
    async with Display(broker.spec) as display, Publisher(broker.spec, "lab") as publisher:
        await browser.size(1280, 720)
        await browser.open(display.url)
        send(publisher, 1)
        await browser.until("return document.querySelector(arguments[0])?.complete", SHOWN % "picture")
        await browser.run(WATCH)
        for number in range(2, WINDOWS + 1):
            if number != WITHOUT_ORIGINAL:
                publisher.original(plain(number, "original"), meta_of(number))
            await asyncio.sleep(0.3)
            publisher.preview(plain(number, "preview"), meta_of(number))
            await asyncio.sleep(0.3)
            publisher.picture(plain(number, "picture"), meta_of(number))
            if number == WITHOUT_ORIGINAL:
                publisher.abstained({"window_id": "bad", "reason": "flat", "state": "rejected"})
            await asyncio.sleep(0.4)
        await browser.until(
            "return window.seen.at(-1)[4] === arguments[0] && (cancelAnimationFrame(window.watching), true)", WINDOWS
        )
        seen = await browser.run("return window.seen")
        await browser.blameless()
    assert {shown[4] for shown in seen} == set(range(1, WINDOWS + 1))
    wrong = [
        (original, preview, picture)
        for _, _, original, preview, picture in seen
        if preview != picture or original != (None if picture == WITHOUT_ORIGINAL else picture)
    ]
    assert wrong == []
    whole = sum(passed for passed, is_whole, *_ in seen if is_whole) / sum(shown[0] for shown in seen)
    assert whole >= 0.85
    assert len(seen) > 60


async def test_no_state_moves_or_colours_anything_but_its_own_words(broker: EmbeddedBroker, browser: Browser) -> None:
    """Live, rejected, source lost and ended look the same, pictures and panels in the same places."""
    places = [".slot[data-kind=original]", ".slot[data-kind=picture]", "#strip", ".panel.signal", "#details", "#pause"]
    words = ["body", ".slot h2", ".panel h2", "#details summary", "#pause", "#clock"]
    looks = {}
    async with Display(broker.spec) as display:
        await browser.size(1280, 720)
        await browser.open(display.url)
        async with Publisher(broker.spec, "lab", data="simulated EEG") as publisher:

            async def look(state: str) -> None:
                await browser.state(state)
                looks[state] = (await browser.run(BOXES, places), await browser.run(COLOURS, words))

            publisher.status({"state": "running"})
            send(publisher, 1)
            await look("live")
            publisher.abstained({"window_id": "w2", "reason": "over 180 uV at Oz", "state": "rejected"})
            await look("abstained")
            assert await browser.run("return document.getElementById('state-text').textContent") == "Rejected"
            assert await browser.run("return document.getElementById('notice').textContent") == (
                "Rejected: over 180 uV at Oz"
            )
            publisher.status({"state": "source-lost"})
            await look("error")
        await look("ended")
        assert await browser.run("return Boolean(document.querySelector(arguments[0]))", SHOWN % "picture")
    assert looks == dict.fromkeys(looks, looks["live"])


async def test_a_normal_end_is_no_lost_server(broker: EmbeddedBroker, browser: Browser) -> None:
    """Where a session ends and its display with it, the page says so, and goes on showing the last picture."""
    async with Publisher(broker.spec, "lab") as publisher:
        async with Display(broker.spec, own="lab") as display:
            await browser.open(display.url)
            publisher.status({"state": "running"})
            send(publisher, 1)
            await browser.state("live")
            publisher.status({"state": "ended", "detail": "its 9 s are over"})
        await browser.state("ended")
        assert await browser.run("return document.getElementById('state-text').textContent") == "Ended"
        notice = await browser.run("return document.getElementById('notice').textContent")
        assert notice.startswith("The session has ended: its 9 s are over; last picture ")
        assert await browser.run("return Boolean(document.querySelector(arguments[0]))", SHOWN % "picture")


async def check_space(browser: Browser, *, several: bool) -> None:
    """Check each size: nothing cut or scrolled, edges shared, pictures large; on small screens both tabs."""
    for width, height in SIZES:
        await browser.size(width, height)
        await browser.until("return innerWidth === arguments[0] && document.querySelector('#strip li')", width)
        await browser.run("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found = [words for words in await browser.run(CUT) if not (several and ".about" in words)]
        assert found == [], f"{width}x{height}"
        small = (width, height) in SMALL
        if not several:
            assert await browser.run(SPACE) > 0.4
        edges = ["#rooms", ".slot[data-kind=picture]", "#strip", ".panels", ".bar h1", "#help"]
        if not small:
            boxes = await browser.run(BOXES, edges)
            assert boxes["#rooms"][0] == boxes["#strip"][0] == boxes[".bar h1"][0]
            assert boxes["#rooms"][1] == boxes[".panels"][1]
            assert boxes["#rooms"][2] == boxes["#strip"][2]
            assert boxes["#strip"][3] == boxes[".panels"][3]
            assert boxes[".panels"][2] == boxes["#help"][2]
            assert 0 < boxes[".panels"][0] - boxes["#rooms"][2] < 25
        else:
            await browser.run("document.getElementById('tab').click()")
            await browser.until("return document.querySelector('.panels').offsetHeight > 0")
            assert await browser.run(CUT) == [], f"{width}x{height}, signal"
            await browser.run("document.getElementById('tab').click()")


async def test_nothing_is_cut_or_scrolled_at_any_size(broker: EmbeddedBroker, browser: Browser) -> None:
    """From 390x844 to 2560x1440 all is on the page, in one grid; with two sessions side by side, too."""
    more = {"names": ["bell", "pepper", "lamp"], "index": 3, "of": 60, "told": {"right": 41, "of": 60, "chance": 0.02}}
    async with Display(broker.spec) as display, Publisher(broker.spec, "lab", data="simulated EEG") as publisher:
        await browser.open(display.url)
        publisher.status({"state": "running", "participant": "P01", "abstain_below": 0.3})
        publisher.metrics(METRICS)
        for number in (1, 2, 3):
            send(publisher, number, **more)
        await browser.until("return document.querySelectorAll('#strip li').length === 3")
        await browser.until("return document.querySelectorAll('#problems li').length === 1")
        await check_space(browser, several=False)
        async with Publisher(broker.spec, "other", data="macaque V4 spikes") as other:
            other.status({"state": "running"})
            send(other, 9)
            await browser.size(1280, 720)
            await browser.until("return document.querySelectorAll('.room').length === 2")
            await browser.until("return document.querySelectorAll('.room .slot[data-kind=picture] img').length === 2")
            titles = await browser.run("return [...document.querySelectorAll('.title')].map((e) => e.textContent)")
            named = [title.rsplit(" · ", 1)[0] for title in titles]
            assert named == ["lab · simulated EEG", "other · macaque V4 spikes"]
            await check_space(browser, several=True)
            await browser.run("document.querySelectorAll('.room .title')[1].click()")
            await browser.until("return document.getElementById('session').value === 'other'")
        await browser.blameless()
