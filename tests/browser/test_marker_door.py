"""The marker door with real pages in headless Chromium: each marker once, with the page's own flip time."""

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from minddiffuser.experiment.door.server import Door
from stream.lsl.discovery import load_lsl
from tests.browser.test_page import Browser, browser, pytestmark, shared_browser
from tests.conftest import ROOT

__all__ = ["browser", "pytestmark", "shared_browser"]

COUNT = 1000
PAGE = """<!doctype html><meta charset="utf-8"><title>Experiment</title>
<link rel="icon" href="data:,"><script src="{source}/markers.js"></script>
<script>
const markers = new Markers();
markers.ready.then(() => {{ document.title = "ready"; }}, (error) => {{ document.title = error.message; }});
// Wall clock and page clock are one in Chromium: the label says when the flip was, whatever the door makes of it.
function show(count) {{
  let shown = 0, failed = 0;
  window.failed = () => failed;
  const timer = setInterval(() => {{
    const time = performance.now() - 300 * Math.random();
    markers.push(`${{shown++}} ${{performance.timeOrigin + time}}`, time).catch(() => {{ failed += 1; }});
    if (shown === count) {{ clearInterval(timer); window.done = true; }}
  }}, 6);
}}
</script>"""


class Listener:
    """Reads the door's stream as LSL has it."""

    def __init__(self, name: str) -> None:
        self._lsl = load_lsl()
        (info,) = self._lsl.resolve_byprop("name", name, 1, 10.0)
        self._inlet = self._lsl.StreamInlet(info)
        self._inlet.open_stream(5.0)
        self.labels: list[str] = []
        self.stamps: list[float] = []

    def pull(self) -> None:
        """Take what has come."""
        rows, stamps = self._inlet.pull_chunk(timeout=0.2, max_samples=4096)
        self.labels += [row[0] for row in rows]
        self.stamps += stamps

    async def until(self, count: int, seconds: float = 40.0) -> None:
        """Wait for so many markers, and a moment longer for any that are too many."""
        async with asyncio.timeout(seconds):
            while len(self.labels) < count:
                await asyncio.to_thread(self.pull)
        for _ in range(3):
            await asyncio.to_thread(self.pull)


@pytest.fixture
async def elsewhere(tmp_path: Path) -> AsyncIterator[str]:
    """Serve pages from another origin; return it."""
    app = web.Application()
    app.router.add_static("/", tmp_path)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def page(folder: Path, source: str = "") -> str:
    """Write a page that takes the door's script from somewhere; return its name."""
    (folder / "page.html").write_text(PAGE.format(source=source), "utf-8")
    return "page.html"


async def test_a_thousand_markers_each_once_with_its_own_time(browser: Browser, tmp_path: Path) -> None:
    """None is lost or doubled though the connection breaks twice; stamps are the flips' to 5 ms, 99 of 100."""
    lsl = load_lsl()
    async with Door("flips", pages=tmp_path) as door:
        listener = await asyncio.to_thread(Listener, "flips")
        url = f"{door.urls[0]}/{page(tmp_path)}#token={door.token}"
        await asyncio.to_thread(browser.driver.get, url)
        await browser.until("return document.title === 'ready'")
        wall = min((time.time() - lsl.local_clock() for _ in range(100)), default=0.0)
        await browser.run("show(arguments[0])", COUNT)
        for part in (3, 1.5):
            await listener.until(int(COUNT / part) - 200)
            await door.hang_up()
        await listener.until(COUNT)
        assert await browser.run("return [window.done, failed(), markers.unanswered]") == [True, 0, 0]
        await browser.blameless()
    numbers = [int(label.split()[0]) for label in listener.labels]
    assert sorted(numbers) == list(range(COUNT))
    flips = np.array([float(label.split()[1]) / 1000 - wall for label in listener.labels])
    errors = np.abs(np.array(listener.stamps) - flips)
    assert np.percentile(errors, 99) <= 0.005, np.percentile(errors, [50, 99, 100])
    account = door.account
    assert (account.sent, account.pages, account.unheard, account.refused) == (COUNT, 3, 0, {})
    assert account.most_error_ms <= 5


DEAF = """<script>
// While window.deaf is set the page does not get the door's answers, as when the connection breaks before they arrive.
globalThis.WebSocket = class extends WebSocket {{
  set onmessage(take) {{
    super.onmessage = (event) => {{ if (!window.deaf || JSON.parse(event.data).type !== "sent") take(event); }};
  }}
}};
</script>"""


async def test_a_marker_whose_answer_was_lost_is_sent_again_and_marked_once(browser: Browser, tmp_path: Path) -> None:
    """The page sends it anew on its next connection and gets the first stamp; nothing more comes over LSL."""
    (tmp_path / "page.html").write_text((DEAF + PAGE).format(source=""), "utf-8")
    async with Door("again", pages=tmp_path) as door:
        listener = await asyncio.to_thread(Listener, "again")
        await asyncio.to_thread(browser.driver.get, f"{door.urls[0]}/page.html#token={door.token}")
        await browser.until("return document.title === 'ready'")
        await browser.run("window.deaf = true; markers.push('once').then((stamp) => { window.stamp = stamp; })")
        await listener.until(1)
        assert await browser.run("return [markers.unanswered, window.stamp ?? null]") == [1, None]
        await browser.run("window.deaf = false")
        await door.hang_up()
        await browser.until("return markers.unanswered === 0 && window.stamp > 0")
        await listener.until(1)
        assert await browser.run("return window.stamp") == pytest.approx(listener.stamps[0], abs=1e-4)
    assert listener.labels == ["once"]
    assert (door.account.sent, door.account.again, door.account.pages) == (1, 1, 2)


async def test_a_wrong_token_and_a_foreign_origin_are_refused(browser: Browser, tmp_path: Path, elsewhere: str) -> None:
    """Neither sends a marker, and both are counted; an origin that is named may send."""
    async with Door("shut", pages=tmp_path) as door:
        url = f"{door.urls[0]}/{page(tmp_path)}"
        await asyncio.to_thread(browser.driver.get, f"{url}#token=wrong-token")
        await browser.until("return document.title === 'the marker door refuses this page: token'")
        page(tmp_path, door.urls[0])
        await asyncio.to_thread(browser.driver.get, f"{elsewhere}/page.html#token={door.token}")
        await browser.until("return document.readyState === 'complete'")
        script = "const [url, done] = arguments; new WebSocket(url).onclose = (event) => done(event.code);"
        socket = f"{door.urls[0].replace('http', 'ws')}/ws"
        code = await asyncio.to_thread(browser.driver.execute_async_script, script, socket)
        assert code == 1006
        assert await browser.run("return document.title") == "Experiment"
    assert door.account.sent == 0
    assert door.account.pages == 0
    assert door.account.refused["token"] == 1
    assert door.account.refused["origin"] >= 2
    async with Door("open", origins=(elsewhere,)) as door:
        page(tmp_path, door.urls[0])
        await asyncio.to_thread(browser.driver.get, f"{elsewhere}/page.html?again#token={door.token}")
        await browser.until("return document.title === 'ready'")
        assert await until_sent(browser) > 0
    assert (door.account.sent, door.account.unheard) == (1, 1)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed (Debian)")
async def test_the_documented_page_runs_in_jspsych(browser: Browser, tmp_path: Path) -> None:
    """With jsPsych and its plugin as npm has them, each picture of the documentation's page is marked."""
    text = (ROOT / "docs" / "how-to" / "browser.md").read_text("utf-8")
    install = re.search(r"^npm (install .*)$", text, re.MULTILINE)
    html = re.search(r"^```html\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert install
    assert html
    command = ["npm", "--no-audit", "--no-fund", *install[1].split()]
    npm = await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=90)
    if npm.returncode:
        pytest.skip(f"npm's registry is not in reach: {npm.stderr[-200:]}")
    folder = tmp_path / "experiment"
    (folder / "index.html").write_text(html[1], "utf-8")
    (folder / "pictures").mkdir()
    names = re.search(r"pictures = \[(.*?)\]", html[1])
    assert names
    shown = [name.strip(' "') for name in names[1].split(",")]
    for name in shown:
        Image.new("RGB", (64, 64), "red").save(folder / "pictures" / f"{name}.png")
    async with Door("documented", pages=folder) as door:
        listener = await asyncio.to_thread(Listener, "documented")
        await asyncio.to_thread(browser.driver.get, f"{door.urls[0]}/index.html#token={door.token}")
        await listener.until(2 * len(shown))
        await browser.blameless()
    assert sorted(listener.labels) == sorted(2 * shown)
    assert np.diff(listener.stamps).min() > 0.7


async def until_sent(browser: Browser) -> Any:
    """Mark a flip, and return the stamp that the door answered."""
    script = "const done = arguments[0]; markers.flip('shown').then(done, () => done(0));"
    return await asyncio.to_thread(browser.driver.execute_async_script, script)
