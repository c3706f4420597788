"""Reports and maps as a browser shows them: no markup in any text, nothing wider than the page, no errors."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decoder.evaluation.patterns import patterns
from decoder.evaluation.timecourse import Decodability, edges, sliding
from minddiffuser.evaluation.examples import trios
from minddiffuser.maps.figures import write_figures
from minddiffuser.maps.maps import Maps
from minddiffuser.maps.page import map_page
from minddiffuser.report.notes import CHECKS
from minddiffuser.report.report import report_page
from stream.types.windows import Channels
from tests.browser.test_access import AXE, RUN
from tests.browser.test_page import Browser, browser, pytestmark, shared_browser
from tests.conftest import ROOT
from tests.reportable import examples_of

__all__ = ["browser", "pytestmark", "shared_browser"]

RESULTS = ROOT / "docs" / "results"
COMMITTED = sorted(path.name for path in RESULTS.glob("*.html"))
NASTY = """<dt>"Tom" & 'Ann'</dt>"""
WIDTHS = (1400, 390)
SCALP = tuple("Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 Fz Cz Pz Oz".split())  # noqa: SIM905  as a cap is written down
TEXTS = "return [...document.querySelectorAll('h1,h2,h3,p,li,dt,dd,th,td,figcaption')].map(e => e.textContent)"
TOO_WIDE = """
const width = document.documentElement.clientWidth;
return [...document.querySelectorAll('body *')].filter(e => !(e instanceof SVGElement) || e.tagName === 'svg')
  .filter(e => e.getBoundingClientRect().width)
  .filter(e => e.getBoundingClientRect().right > width + 0.5 || e.getBoundingClientRect().left < -0.5)
  .map(e => `${e.tagName}.${e.className}: ${e.textContent.slice(0, 40)}`)
  .concat(document.documentElement.scrollWidth > width ? [`page: ${document.documentElement.scrollWidth}`] : [])
"""
CUT = """
return [...document.querySelectorAll('main *')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
  .filter(e => getComputedStyle(e).overflowX !== 'visible').map(e => e.tagName)
"""
ROWS = """
return [...document.querySelectorAll('table[aria-label="Checks"] tbody tr')]
  .map(row => [...row.cells].map(cell => cell.textContent))
"""
MARKUP = ("<", ">", "&amp;", "&lt;", "&gt;", "&#", "{{", "{%")


def map_of(channels: Channels, folder: Path, data: str) -> str:
    """Make a page of maps of a signal that tells of 'c' from 100 ms on."""
    folder.mkdir()
    rng, times = np.random.default_rng(0), np.arange(100) / 250
    centres, binning = sliding(times)
    score = np.where(centres > 0.1, 0.6, 0.0)[None]
    told = Decodability(("c",), score, score * 0 - 0.1, score * 0 + 0.1, 0.2, 100)
    found = patterns(1e-6 * rng.normal(size=(40, len(channels), 100)), rng.normal(size=(40, 3)))
    places = tuple(f"{centre:.3f} s" for centre in centres)
    maps = Maps(
        channels, times, {"c": found}, places, centres, told, 40, 40, "5 folds by picture", edges=edges(times, binning)
    )
    return map_page(maps, data, write_figures(maps, folder), "minddiffuser maps bundles/demo", {"numpy": "2"})


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a page of every kind: of pictures, of categories, cross-validated, of maps."""
    folder = tmp_path_factory.mktemp("pages")
    answers: dict[str, Any] = {
        name: json.loads((RESULTS / f"{name}.json").read_text("utf-8"))["answer"]
        for name in ("demo", "muse-faces", "muse-faces-folds", "v4-photos-folds")
    }
    examples, received, stimuli = examples_of(n=20)
    answers["demo"] |= {"offline": answers["demo"]["offline"] | {"examples": examples}, "participant": "P07"}
    texts = {name: report_page(answer, command="minddiffuser evaluate x", path="x") for name, answer in answers.items()}
    shown = list(trios(examples, received, stimuli))
    texts["demo"] = report_page(answers["demo"], shown, command="minddiffuser evaluate x", path="x")
    named = answers["demo"] | {"config": NASTY, "data": NASTY, "participant": NASTY}
    named["offline"] = named["offline"] | {"examples": [one | {"label": NASTY} for one in examples]}
    texts["nasty"] = report_page(named, shown, command=NASTY, path=NASTY)
    eeg = Channels(SCALP, ("eeg",) * len(SCALP), ("V",) * len(SCALP))
    texts["maps"] = map_of(eeg, folder / "eeg", "simulated EEG")
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, "utf-8")
    return {name: folder / f"{name}.html" for name in texts}


async def look_at(browser: Browser, page: Path, width: int) -> list[str]:
    """Open a page at a width; return the text of everything that holds any, once it is found to be in order."""
    await browser.size(width, 900)
    await asyncio.to_thread(browser.driver.get, page.as_uri())
    assert await browser.run("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert await browser.run(TOO_WIDE) == [], f"{page.name} at {width} px"
    assert await browser.run(CUT) == [], f"{page.name} at {width} px"
    log = await asyncio.to_thread(browser.driver.get_log, "browser")
    assert [entry for entry in log if entry["level"] == "SEVERE"] == []
    texts = await browser.run(TEXTS)
    assert len(texts) > 10
    return [str(text) for text in texts]


KINDS = ["demo", "muse-faces", "muse-faces-folds", "v4-photos-folds", "maps", *COMMITTED]


@pytest.mark.parametrize("name", KINDS)
async def test_a_page_is_text_and_fits(browser: Browser, pages: dict[str, Path], name: str) -> None:
    """No text holds markup, no cell is empty, nothing is wider than the page or cut off, on a desk and on a phone."""
    for width in WIDTHS:
        texts = await look_at(browser, pages.get(name, RESULTS / name), width)
        wrong = [text for text in texts if any(part in text for part in MARKUP)]
        assert wrong == []
        cells = await browser.run(
            "return [...document.querySelectorAll('tbody :is(th, td):not(.track)')].map(e => e.textContent.trim())"
        )
        assert all(cells)


async def test_the_table_of_checks_has_its_values_beside_their_meaning(
    browser: Browser, pages: dict[str, Path]
) -> None:
    """What each check means, and the figure of the JSON with three decimals: three cells a row, not one a letter."""
    await look_at(browser, pages["demo"], 1400)
    rows = await browser.run(ROWS)
    checks = json.loads((RESULTS / "demo.json").read_text("utf-8"))["answer"]["checks"]
    for row, key, value in ((0, "hard_two_way", checks["hard_two_way"]), (1, "collapse.c", checks["collapse"]["c"])):
        label, meaning = CHECKS[key]
        assert rows[row] == [label, f"{value:.3f}", meaning]
    assert len(rows) == 7
    assert {len(row) for row in rows} == {3}


async def test_what_looks_like_markup_is_shown_as_it_is(browser: Browser, pages: dict[str, Path]) -> None:
    """A participant, a label, a command with brackets, quotes and ampersands are read letter by letter as typed."""
    texts = await look_at(browser, pages["nasty"], 390)
    assert sum(NASTY in text for text in texts) >= 3 + 18
    assert not any("&lt;" in text or "&#" in text for text in texts)
    assert await browser.run("return document.querySelector('figure img').alt") == f"Shown: {NASTY}"
    assert await browser.run("return document.title") == f"Evaluation of {NASTY}"


async def test_pictures_are_large_enough_to_see(browser: Browser, pages: dict[str, Path]) -> None:
    """Each picture has 150 px a side on a desk and 100 px on a phone, all three of a window side by side."""
    for width, least in ((1400, 150), (390, 100)):
        await look_at(browser, pages["demo"], width)
        boxes = await browser.run(
            "return [...document.querySelectorAll('.trio')].map(trio => [...trio.querySelectorAll('img')]"
            ".map(image => { const box = image.getBoundingClientRect(); return [box.width, box.top] }))"
        )
        assert len(boxes) == 18
        for trio in boxes:
            assert len({top for _, top in trio}) == 1
            assert min(side for side, _ in trio) >= least


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["demo", "maps"])
async def test_axe_finds_nothing_serious(browser: Browser, pages: dict[str, Path], name: str, scheme: str) -> None:
    """Contrast, names and structure of a report and of maps are accessible in both colour schemes."""
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    await asyncio.to_thread(browser.driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", features)
    for width in WIDTHS:
        await look_at(browser, pages[name], width)
        await browser.run(await asyncio.to_thread(AXE.read_text, "utf-8"))
        found = json.loads(await asyncio.to_thread(browser.driver.execute_async_script, RUN))
        serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
        assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in serious] == []
