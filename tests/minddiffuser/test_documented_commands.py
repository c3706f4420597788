"""Every command of the documentation runs as it stands there, in a folder whose configs are smaller.

The pages come in the order of the site's navigation, in which a reader finds them: a bundle that one page trains is
there for the next.
"""

import asyncio
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mne
import nibabel
import numpy as np
import pytest
import yaml

from decoder.data.stimuli import write_stimuli
from engine.composing.compose import load_test_stimuli
from minddiffuser.training.data import stimulus_table
from stream.mqtt.broker import EmbeddedBroker
from tests.conftest import ROOT, Cli
from tests.minddiffuser.conftest import QUICK_STAGE2

pytestmark = pytest.mark.slow

BLOCK = re.compile(r"^```console( until-stopped)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
DOCUMENTED_BROKER = "127.0.0.1:1883"
WITHOUT_GPU = {"sd-turbo": "tiny", "cuda": "cpu"}
"""Words of commands for a GPU, and what they are tried with here."""
BRIEFLY = ("--repeats", "1", "--batch", "1", "--unproven")
"""What the test adds to a benchmark."""
SHORTER = {
    "evaluate": ["--limit", "6"],
    "engine": ["--repeats", "3"],
    "pool": ["--port", "0"],
}
"""What the test adds to a command so that it takes seconds."""
READY = re.compile(r"Page|The page is at|Pool: http")


def commands(page: Path) -> list[tuple[str, bool]]:
    """Give a page's commands, and whether each runs until it is stopped."""
    return [
        (line.removeprefix("$ "), bool(until_stopped))
        for until_stopped, block in BLOCK.findall(page.read_text("utf-8"))
        for line in block.splitlines()
    ]


NAVIGATION = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:")[1])
PAGES = [page for name in NAVIGATION if not name.startswith("project/") and commands(page := ROOT / "docs" / name)]
PRESENTATIONS = 100
"""Pictures of the calibration that is trained on here."""


@pytest.fixture(scope="module")
def world(small_config: Path, small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder of somebody who follows the documentation: configs, a calibration, pictures, a scan."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "configs").mkdir()
    (folder / "configs" / "demo.yaml").write_text(small_config.read_text("utf-8").replace("name: small", "name: demo"))
    (simulated,) = small_bundle.with_name("cache").glob("simulated/eeg-demo-*")
    recording = mne.io.read_raw_fif(simulated / "test_raw.fif")
    recording.crop(tmax=recording.annotations.onset[PRESENTATIONS]).save(folder / "test_raw.fif")
    write_stimuli(stimulus_table(load_test_stimuli()), folder / "pictures")
    own = yaml.safe_load((ROOT / "configs" / "own-eeg.yaml").read_text("utf-8"))
    own["data"] |= {"train": "test_raw.fif", "image_bank": 96}
    own["display"] = {"port": 0}
    own["decoder"] = {"structure_prior": {"epochs": 1, "width": 16}}  # the default's would take minutes to train
    own["engine"] = {"structure": QUICK_STAGE2}
    (folder / "configs" / "own-eeg.yaml").write_text(yaml.safe_dump(own), "utf-8")
    (folder / "experiment").mkdir()
    page = re.search(
        r"^```html\n(.*?)^```", (ROOT / "docs/how-to/browser.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert page
    (folder / "experiment" / "index.html").write_text(page[1], "utf-8")
    rng = np.random.default_rng(1)
    scan = nibabel.Nifti1Image(rng.normal(100, 1, (4, 4, 4, 12)).astype(np.float32), np.eye(4))
    scan.header.set_zooms((3, 3, 3, 2))
    scan.header.set_xyzt_units("mm", "sec")
    nibabel.save(scan, folder / "run-1_bold.nii.gz")
    (folder / "run-1_events.tsv").write_text("onset\tduration\ttrial_type\n2\t2\tface\n8\t2\thouse\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def amplifier(cli: Cli, world: Path) -> Iterator[None]:
    """Stream the simulated recording over LSL, round and round."""
    command = [sys.executable, "-m", "minddiffuser", "replay", "test_raw.fif", "--loop", "--no-wait"]
    environment = cli.environment | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=world, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.timeout(900)  # each command has a limit of its own
@pytest.mark.usefixtures("amplifier")
async def test_the_documented_commands_run(page: Path, cli: Cli, world: Path) -> None:
    """Each ends with exit code 0; those that run until they are stopped get ready first, and stop on Ctrl-C."""
    async with EmbeddedBroker(0) as broker:
        for command, until_stopped in commands(page):
            text = command.replace(DOCUMENTED_BROKER, f"127.0.0.1:{broker.spec.port}")
            await asyncio.to_thread(carry_out, text, cli, world, until_stopped=until_stopped)


def carry_out(command: str, cli: Cli, world: Path, *, until_stopped: bool) -> None:
    """Run one command as it stands."""
    words = shlex.split(command)
    if words[0] == "make":
        words = ["make", "--dry-run", *words[1:]]
        run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
        assert run.returncode == 0, (command, run.stderr)
        return
    if words[:2] == ["python", "-m"]:
        assert words[2].startswith("benchmarks."), command
        arguments = [sys.executable, *(WITHOUT_GPU.get(word, word) for word in words[1:]), *BRIEFLY]
    else:
        assert words[0] == "minddiffuser", command
        arguments = [sys.executable, "-m", "minddiffuser", *words[1:], *SHORTER.get(words[1], [])]
    environment = cli.environment | {"PYTHONPATH": str(ROOT)}
    log = world / "said.txt"
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(arguments, cwd=world, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        if until_stopped:
            deadline = time.monotonic() + 120
            while not READY.search(said := log.read_text("utf-8")):
                assert process.poll() is None, (command, said)
                assert time.monotonic() < deadline, (command, said)
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
        process.wait(280)
    finally:
        process.kill()
        process.wait()
    said = log.read_text("utf-8")
    # `doctor` tells by its exit code whether something needed is missing, which here it is not
    assert process.returncode == 0, (command, said)
