"""The documentation holds: links lead somewhere, and the code on its pages runs."""

import asyncio
import re
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiomqtt
import numpy as np
import pytest
import yaml

import decoder.bundle as bundles
from minddiffuser.config import Config
from stream.broker import EmbeddedBroker
from stream.sources import StreamSelector, describe, find, load_lsl
from stream.windows import Channels, Quality, Window
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
Run = Callable[[str], dict[str, Any]]
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Give the fenced blocks of a language on a page."""
    return [code for name, code in BLOCK.findall(page.read_text("utf-8")) if name == language]


def anchors(page: Path) -> set[str]:
    """Give the anchors that a page's headings have on GitHub."""
    text = BLOCK.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the project finds the file, and its anchor a heading."""
    text = BLOCK.sub("", page.read_text("utf-8"))
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_on_the_pages_are_settings(page: Path) -> None:
    """Every YAML block is a part of a valid config."""
    whole = {"name": "documented", "data": {"dataset": "recording"}, "source": {"type": "EEG"}, "window": {}}
    for block in blocks(page, "yaml"):
        Config.model_validate(whole | yaml.safe_load(block))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a page's Python and give what it defines."""

    def define(page: str) -> dict[str, Any]:
        file = tmp_path / "documented.py"
        file.write_text("\n".join(blocks(ROOT / "docs" / page, "python")), "utf-8")
        return runpy.run_path(str(file))

    return define


def test_the_documented_marker_stream_is_understood(run: Run) -> None:
    """The marker that the calibration page sends is one that the ingest reads, at the time of the flip."""
    lsl = load_lsl()
    names = run("calibrate.md")
    inlet = lsl.StreamInlet(find(StreamSelector(name="pictures", type="Markers"), 10, lsl=lsl))
    inlet.open_stream(timeout=10)
    before = lsl.local_clock()
    names["shown"]("cat-01")
    sample, stamp = inlet.pull_sample(timeout=10)
    inlet.close_stream()
    assert sample == ["cat-01"]
    assert before <= stamp <= lsl.local_clock()


def test_the_documented_scanner_is_a_source(run: Run) -> None:
    """The stream that the fMRI page announces has voxels with known units at the scanner's rate."""
    source = describe(run("fmri.md")["info"], None)
    assert len(source.channels) == 4000
    assert set(source.channels.kinds) == {"voxel"}
    assert source.sfreq == 0.5


def test_the_documented_decoder_goes_through_a_bundle(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's decoder finds training windows again, and comes back from its bundle with the same answers."""
    names = run("adding-a-decoder.md")
    monkeypatch.setattr(bundles, "_family", lambda _: names["NearestModel"])
    rng = np.random.default_rng(5)
    seen = rng.normal(size=(20, 3, 8)).astype(np.float32)
    c, z = (rng.normal(size=(20, *shape)).astype(np.float32) for shape in ((4, 6), (4, 2, 2)))
    channels = Channels(("a", "b", "c"), ("eeg",) * 3, ("V",) * 3)
    model = names["NearestModel"](seen, c, z, k=1)
    bundle = bundles.Bundle({bundles.WHOLE: model}, channels, sfreq=100.0, n_times=8, tmin=0.0)
    windows = [Window(str(i), seen[i], channels, 100.0, 0.0, 0.0, None, 0.0, 0.0, Quality()) for i in range(3)]
    bundle.save(tmp_path / "nearest")
    for trained in (bundle, bundles.Bundle.load(tmp_path / "nearest")):
        for row, features in enumerate(trained.decode(windows)):
            np.testing.assert_array_equal(features.c, c[row])
            np.testing.assert_array_equal(features.z, z[row])


def test_the_documented_backend_agrees_with_torch(run: Run, tmp_path: Path) -> None:
    """The page's runner gives what eager torch gives, for an exported network."""
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 1)).eval()
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    file = tmp_path / "network.onnx"
    torch.onnx.export(network, (x,), file, dynamo=True, verbose=False)
    with torch.no_grad():
        expected = network(x)
    runner = run("adding-a-backend.md")["PlainRunner"](str(file))
    torch.testing.assert_close(runner.run((x,), tuple(expected.shape)), expected, rtol=0, atol=1e-5)


def wait_for(file: Path) -> None:
    """Wait until a file holds something."""
    deadline = time.monotonic() + 20
    while not (file.is_file() and file.stat().st_size):
        assert time.monotonic() < deadline, f"{file} was not written"
        time.sleep(0.02)


async def test_the_documented_subscriber_gets_pictures(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's program writes the picture that a broker keeps for late joiners."""
    monkeypatch.chdir(tmp_path)
    written = tmp_path / "picture.jpg"
    watch = run("display.md")["watch"]
    async with EmbeddedBroker(0) as broker:
        assert broker.spec.port
        async with aiomqtt.Client("127.0.0.1", broker.spec.port) as client:
            await client.publish("minddiffuser/documented/picture", b"a picture", qos=1, retain=True)
        watching = asyncio.create_task(watch("127.0.0.1", broker.spec.port))
        await asyncio.to_thread(wait_for, written)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert written.read_bytes() == b"a picture"
