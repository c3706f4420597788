"""The documentation holds: links lead somewhere, and the code on its pages runs."""

import asyncio
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiomqtt
import numpy as np
import pytest
import typer
import yaml

from docs import generate
from minddiffuser.cli.commands import app
from minddiffuser.config.spec import Config
from stream.lsl.discovery import describe, find, load_lsl
from stream.mqtt.broker import EmbeddedBroker
from stream.types.source_spec import StreamSelector
from tests.conftest import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
Run = Callable[[str], dict[str, Any]]
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language on a page."""
    return [code for name, code in BLOCK.findall(page.read_text("utf-8")) if name == language]


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings have on GitHub."""
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_named_in_the_text_are_settings(page: Path) -> None:
    """What the text calls `engine.steps` is a setting of that name."""
    text = BLOCK.sub("", page.read_text("utf-8"))
    parts = "|".join(name for name, field in Config.model_fields.items() if "Spec" in str(field.annotation))
    named = set(re.findall(rf"`((?:{parts})(?:\.[a-z_]+)+)(?::[^`]*)?`", text))
    assert not {name for name in named if not is_setting(name) and not is_module(name)}


def is_setting(name: str) -> bool:
    """Check whether a config has a setting of this name."""
    schema = Config.model_json_schema()
    places = [schema]
    for part in name.split("."):
        places = [inner for place in places for inner in within(place, part, schema["$defs"])]
    return bool(places)


def within(schema: dict[str, Any], name: str, parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schemas of a setting inside a part of a config, or inside one of several that it may be."""
    own = parts[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    found = [own["properties"][name]] if name in own.get("properties", {}) else []
    several = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *([schema["items"]] if "items" in schema else ())]
    return found + [inner for one in several for inner in within(one, name, parts)]


def is_module(name: str) -> bool:
    """Check whether a package of ours holds what is called so."""
    path = ROOT / name.replace(".", "/")
    return any(place.is_dir() or place.with_suffix(".py").is_file() for place in (path, path.parent))


def forms(page: Path) -> list[str]:
    """Return the commands of a page that nobody runs: in its text, and in blocks of no language or of plain text."""
    text = page.read_text("utf-8")
    lines = [line for language in ("", "text") for code in blocks(page, language) for line in code.splitlines()]
    spans = re.findall(r"`(minddiffuser [a-z][^`]*)`", BLOCK.sub("", text))
    return [line.split("  #")[0] for line in (*lines, *spans) if re.match(r"minddiffuser [a-z]+", line)]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "command-line.md"], ids=lambda page: page.name)
def test_commands_in_the_text_are_commands(page: Path) -> None:
    """The command line has each command that is named, and each of its options; nothing is run."""
    group: Any = typer.main.get_group(app)
    for form in forms(page):
        if "<" in form or " | " in form:
            continue  # no command, but what a device or a session is called
        for each in form.split(" && "):
            words, command = shlex.split(each)[1:], group
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            assert command is not group, form
            options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            assert {word for word in words if word.startswith("-")} <= options, form


def test_every_extra_is_in_the_table_of_the_installation() -> None:
    """The page of the installation says of each extra what it is for."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    rows = [line for line in (ROOT / "docs" / "install.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    assert set(extras) == {name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}


def test_the_generated_pages_are_what_the_code_says() -> None:
    """Nobody edits them, and nobody forgets them: `python -m docs.generate` would change nothing."""
    different = [
        str(path.relative_to(ROOT)) for path, text in generate.pages().items() if path.read_text("utf-8") != text
    ]
    assert not different, "run python -m docs.generate"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Every page is reached, links and anchors lead somewhere, code is code, and nothing is fetched from elsewhere."""
    pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert build.returncode == 0, build.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text("utf-8")
        assert "<p>```" not in text, f"{page}: a block of code is not seen as one"
        loaded = re.findall(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"?(https?://[^\s\">]+)", text)
        assert not [address for address in loaded if "canonical" not in address], page


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
    names = run("how-to/calibrate.md")
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
    source = describe(run("how-to/fmri.md")["info"], None)
    assert len(source.channels) == 4000
    assert set(source.channels.kinds) == {"voxel"}
    assert source.sfreq == 0.5


Edits = dict[str, list[tuple[str, str]]]


def with_additions(folder: Path, additions: dict[str, str], edits: Edits, script: str) -> str:
    """Follow a page of `develop` in a copy of the packages, and return what a script prints there.

    Parameters
    ----------
    folder : Path
    additions : dict of str to str
        New modules by their path.
    edits : dict of str to list of (str, str)
        By the path of a module, lines that stand there once and what is written above them (ends in two empty lines)
        or below.
    script : str
        Run with the copy in place of the packages.
    """
    for package in ("stream", "decoder", "engine"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in additions.items():
        (folder / path).write_text(text, "utf-8")
    for path, changes in edits.items():
        text = (folder / path).read_text("utf-8")
        for line, entry in changes:
            assert text.count(f"\n{line}\n") == 1, (path, line)
            both = f"{entry}{line}\n" if entry.endswith("\n\n\n") else f"{line}\n{entry}\n"
            text = text.replace(f"\n{line}\n", f"\n{both}")
        (folder / path).write_text(text, "utf-8")
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", f"import stream; assert stream.__path__[0].startswith({str(folder)!r})\n{script}"]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def written(page: str, language: str) -> str:
    """Return the code of a page of `develop` in one language."""
    return "\n".join(blocks(ROOT / "docs" / "develop" / page, language))


def test_the_code_on_the_pages_for_developers_passes_lint(tmp_path: Path) -> None:
    """What is copied from a page passes ruff and `mypy --strict` as the project's own code does."""
    for page in sorted((ROOT / "docs" / "develop").glob("*.md")):
        if code := written(page.name, "python"):
            file = tmp_path / f"{page.stem.replace('-', '_')}.py"
            file.write_text(f'"""As {page.stem} has it."""\n\n{code}', "utf-8")
    settings = str(ROOT / "pyproject.toml")
    for command in (
        ["ruff", "check", "--no-cache", "--config", settings],
        ["ruff", "format", "--check", "--no-cache", "--config", settings],
        ["mypy", "--config-file", settings],
    ):
        files = [str(file) for file in tmp_path.glob("*.py")]
        line = [sys.executable, "-m", *command, *files]
        run = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
        assert run.returncode == 0, run.stdout + run.stderr


def test_the_documented_decoder_is_as_a_family_must_be(tmp_path: Path) -> None:
    """The page's module keeps to what every family is held to, which finds it by its name."""
    file = ROOT / "tests" / "decoder" / "test_families.py"
    script = f"""
import pytest, decoder
assert pytest.main([{str(file)!r}, "-k", "nearest", "-p", "no:cacheprovider", "--rootdir", {str(ROOT)!r}, "-vv"]) == 0
assert decoder.__path__[0].startswith({str(tmp_path)!r})
"""
    out = with_additions(tmp_path, {"decoder/models/nearest.py": written("adding-a-decoder.md", "python")}, {}, script)
    passed, failed = (len(re.findall(word, out)) for word in ("PASSED", "FAILED|ERROR"))
    assert (passed > 2, failed) == (True, 0), out


def test_the_documented_decoder_is_trained_by_its_name(tmp_path: Path) -> None:
    """A config may name the page's decoder; it is fitted, scored by held-out pictures, and its bundle loaded again."""
    (entry,) = blocks(ROOT / "docs" / "develop" / "adding-a-decoder.md", "text")
    (tmp_path / "own.yaml").write_text(
        f"name: own\ndata: {{dataset: simulated-eeg}}\nsource: {{type: EEG}}\n{entry}", "utf-8"
    )
    script = """
from pathlib import Path
import numpy as np
from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets
from decoder.models.bundle import Bundle
from decoder.training.train import fit_targets
from minddiffuser.config.spec import load_config
from stream.types.events import Event
from stream.types.windows import Channels, Quality, Window
spec = load_config(Path("own.yaml")).decoder
rng = np.random.default_rng(5)
ids = tuple(f"p{number}" for number in range(40))
cause = rng.normal(size=(40, 24)).astype(np.float32)
targets = Targets(c=cause.reshape(40, 4, 6), z=cause[:, :16].reshape(40, 4, 2, 2))
channels = Channels(("a", "b", "c"), ("eeg",) * 3, ("V",) * 3)
data = (cause @ rng.normal(size=(24, 24)).astype(np.float32)).reshape(40, 3, 8)
seen = [(row, Event(0.0, name)) for name, row in zip(ids, data)]
windows = [Window(event.label, row, channels, 100.0, 0.0, 0.0, event, 0.0, 0.0, Quality()) for row, event in seen]
stimuli = StimulusTable(ids, rng.integers(0, 256, (40, 8, 8, 3), np.uint8))
bundle = fit_targets(windows, stimuli, targets, spec)
print(*sorted(bundle.meta["scores"]), all(one["two_way"] > 0.6 for one in bundle.meta["scores"].values()))
bundle.save(Path("own"))
print(Bundle.load(Path("own")).models["all"].family)
"""
    additions = {"decoder/models/nearest.py": written("adding-a-decoder.md", "python")}
    assert with_additions(tmp_path, additions, {}, script).split() == ["c", "z", "True", "nearest"]


def test_the_documented_format_is_read(tmp_path: Path) -> None:
    """A table of NumPy is a recording like any other once the page's module lies in its folder, and in SI units."""
    table = np.zeros((500, 3))
    table[:, 0] = 20.0  # uV
    table[250, 2] = 7
    np.save(tmp_path / "run.npy", table)
    script = """
from pathlib import Path
from stream.files.registry import read
recording = read(Path("run.npy"))
(only,) = recording.streams
print(only.data[0, 0] * 1e6, only.channels.units[0], recording.events[0].label, recording.events[0].time)
"""
    out = with_additions(tmp_path, {"stream/files/formats/npy.py": written("adding-a-format.md", "python")}, {}, script)
    level, unit, label, onset = out.split()
    assert float(level) == pytest.approx(20)
    assert (unit, label, float(onset)) == ("V", "7", 1.0)


def test_the_documented_topic_is_published(tmp_path: Path) -> None:
    """A message under the page's topic arrives as it was sent, and one that its model forbids is an error of a line."""
    page = ROOT / "docs" / "develop" / "adding-a-topic.md"
    (model,), (entry, call) = blocks(page, "python"), blocks(page, "text")
    script = f"""
import asyncio
from stream.errors import WireError
from stream.mqtt.broker import EmbeddedBroker
from stream.mqtt.publisher import Publisher
from stream.mqtt.subscriber import Subscriber
async def main():
    async with (
        EmbeddedBroker(0) as broker,
        Subscriber(broker.spec, "room") as subscriber,
        Publisher(broker.spec, "room") as publisher,
    ):
        {call.strip()}
        async for message in subscriber:
            if message.kind == "gaze":
                print(message.json()["x"])
                break
        {call.strip().replace("0.2", "20")}
        async for message in subscriber:
            if message.kind == "gaze":
                try:
                    message.json()
                except WireError as error:
                    print(str(error).partition(": ")[2])
                return
asyncio.run(asyncio.wait_for(main(), 30))
"""
    opening = "TOPICS: dict[str, Topic] = {"
    changes = [(opening, model.partition("\n\n\n")[2] + "\n\n"), ("        *_PICTURES,", entry.rstrip())]
    x, words = with_additions(tmp_path, {}, {"stream/mqtt/topics.py": changes}, script).splitlines()
    assert float(x) == 0.2
    assert words.startswith("x is 20: ")


def test_the_documented_metric_measures(tmp_path: Path) -> None:
    """A metric that is one entry more is scored: 0 for the same pictures, and 1 for black in place of white."""
    page = ROOT / "docs" / "develop" / "adding-a-metric.md"
    (entry,), (code,) = blocks(page, "text"), blocks(page, "python")
    script = """
import numpy as np
from decoder.evaluation.metric_registry import picture_scores
pictures = np.stack([np.full((8, 8, 3), grey, np.uint8) for grey in (0, 255)])
for own in ([0, 1], [1, 0]):
    print(picture_scores(pictures, np.array(own), pictures)["luminance_error"].mean())
"""
    entries = {
        "decoder/evaluation/metric_registry.py": [
            ("PICTURE_METRICS = _by_key(", entry.rstrip()),
            ("PICTURE_METRICS = _by_key(", code.partition("\n\n\n")[2] + "\n\n"),
        ],
    }
    same, opposite = with_additions(tmp_path, {}, entries, script).split()
    assert (float(same), float(opposite)) == (0, pytest.approx(1))


def test_the_documented_term_is_weighed(tmp_path: Path) -> None:
    """The page's term is a setting and is minimised: weighed heavily, it leaves a latent with less than half of it."""
    page = ROOT / "docs" / "develop" / "adding-a-loss-term.md"
    (code,), (weight, entry) = blocks(page, "python"), blocks(page, "text")
    script = """
import numpy as np, torch
from decoder.features import Features, LayerTarget
from engine.spec import EngineSpec
from engine.stage2.optimise import optimise_latent
from engine.stage2.targets import make_targets
from engine.stage2_loss.terms import Iterate, roughness
rng = np.random.default_rng(0)
layer = LayerTarget(rng.normal(size=16).astype(np.float32), np.ones(16, bool))
targets = make_targets([Features("a", np.zeros((1, 4), np.float32), s={1: layer})], (1.0,), 16)
x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
def rough(weight):
    settings = {"iterations": 40, "weights": {"smoothness": weight, "proximal": 0}}
    spec = EngineSpec.model_validate({"structure": settings}).structure
    moved = optimise_latent(x, lambda x, blocks: {1: x.flatten(1)}, targets, spec)
    return roughness(Iterate(moved, {}, x, None)).item()
print(rough(100) / rough(0))
"""
    opening = "class LossWeights(BaseModel):"
    changes = [
        (opening, code.partition("\n\n\n")[2] + "\n\n"),
        ('    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)', weight.rstrip()),
        ('TERMS: "dict[str, Callable[[Iterate], Tensor | None]]" = {', entry.rstrip()),
    ]
    share = with_additions(tmp_path, {}, {"engine/stage2_loss/terms.py": changes}, script)
    assert float(share) < 0.5


def test_the_documented_backend_agrees_with_torch(run: Run, tmp_path: Path) -> None:
    """The page's runner gives what eager torch gives, for an exported network."""
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 1)).eval()
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    file = tmp_path / "network.onnx"
    torch.onnx.export(network, (x,), file, dynamo=True, verbose=False)
    with torch.no_grad():
        expected = network(x)
    runner = run("develop/adding-a-backend.md")["PlainRunner"](str(file))
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
    watch = run("how-to/display.md")["watch"]
    async with EmbeddedBroker(0) as broker:
        assert broker.spec.port
        async with aiomqtt.Client("127.0.0.1", broker.spec.port) as client:
            await client.publish("minddiffuser/documented/picture", b"a picture", qos=1, retain=True)
        watching = asyncio.create_task(watch("127.0.0.1", broker.spec.port))
        await asyncio.to_thread(wait_for, written)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert written.read_bytes() == b"a picture"
