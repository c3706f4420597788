"""The results that are shown: tables come from the JSONs alone, and what differs, fails or is missing is named."""

import base64
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.results import ceilings_page, tables
from benchmarks.results.ablations import FEW_CHANNELS, GROUPS
from benchmarks.results.ceilings import with_truth
from benchmarks.results.lab import changed
from benchmarks.results.reports import report_of
from benchmarks.results.setups import COMMITTED, FULL, SETUPS, Figure
from benchmarks.results.steps import figures_of_folds, figures_of_test, write_sheet
from decoder.data.targets import Targets
from decoder.features import Features, LayerTarget
from decoder.simulation.eeg import EEG_CHANNELS
from minddiffuser.config.spec import load_config
from tests.conftest import ROOT


def answer(name: str, **more: Any) -> dict[str, Any]:
    """Give what a step writes, with made-up figures."""
    setup = next(one for one in SETUPS if one.name == name)
    facts = {key: getattr(setup, key) for key in ("config", "protocol", "species", "modality", "data", "split", "note")}
    made = {"setup": name, "command": "c", "seconds": 3.0, "machine": "m", "versions": {"numpy": "2"}}
    made["answer"] = {"config": setup.config, "data": setup.data}
    return {**made, **facts, **more}


def figure(value: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    """Give one figure of a step."""
    return {"key": "auc", "label": "AUC", "value": value, "interval": [low, high], "chance": 0.5, **more}


DEMO = answer("demo", figures=[figure(0.7, 0.6, 0.8, stage1=0.65, mean_image=0.5, p=0.001)])
FACES = answer("muse-faces-folds", figures=[figure(0.735, 0.7, 0.76, chance=[0.45, 0.55], reported=0.727)])
VALUES = dict.fromkeys(tables.HEADS, 0.5)
FULL_ROW = {
    "name": "full",
    "n": 60,
    "values": VALUES,
    "intervals": {key: [0.4, 0.6] for key in VALUES},
    "differences": {},
}
LESS = {"mean": -0.1, "interval": [-0.15, -0.05]}
FEWER = {**FULL_ROW, "name": "8 channels", "differences": dict.fromkeys(VALUES, LESS)}
ABLATION = answer("ablations-channels", group="channels", rows=[FULL_ROW, FEWER])


def test_the_table_says_what_the_figures_are() -> None:
    """Species, stage 1, interval, chance, probability, baseline, and the reported figure or why there is none."""
    text = tables.main_table({"demo": DEMO, "muse-faces-folds": FACES}, "docs/results/")
    lines = text.splitlines()
    assert "[`demo`](docs/results/demo.html) | *simulated* EEG" in lines[2]
    assert "| .650 | **.700** [.600, .800] | .500 | .001 | .500 | none (1) |" in lines[2]
    assert "**.735** [.700, .760] | .450-.550 |  |  | .727 (2) |" in lines[3]
    assert "(1) simulated: no published figure is comparable." in text
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_the_readme_has_one_row_for_each_headline() -> None:
    """Of people first, simulated last, each with interval and chance; figures that are no headline stay out."""
    clip = {**figure(0.9, 0.8, 0.95, mean_image=0.5), "key": "two_way_clip", "label": "two-way, CLIP"}
    demo = {**DEMO, "figures": [*DEMO["figures"], clip]}
    lines = tables.headlines({"demo": demo, "muse-faces-folds": FACES}, "docs/results/").splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| [human EEG, 4 dry electrodes, one person](docs/results/muse-faces-folds.html) |")
    assert lines[2].endswith("| **.735** [.700, .760] | .450-.550 |  |")
    assert "[*simulated* EEG" in lines[3]
    assert lines[3].endswith("| **.900** [.800, .950] | .500 | .500 |")


def test_only_the_marked_part_of_the_readme_is_replaced() -> None:
    """What stands around the markers stays, a second time changes nothing, and a README without them is refused."""
    part = tables.readme_part({"demo": DEMO})
    once = tables.with_part(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter", part)
    assert once.startswith("before\n")
    assert once.endswith("\nafter")
    assert "old" not in once
    assert tables.with_part(once, part) == once
    with pytest.raises(ValueError, match="lacks"):
        tables.with_part("no markers", part)


def test_figures_outside_the_committed_interval_are_named() -> None:
    """A figure within passes, one outside and one that is gone are said, of ablations too."""
    for value, wrong in ((0.61, 0), (0.59, 1), (0.81, 1)):
        assert len(list(tables.differences(DEMO, {**DEMO, "figures": [figure(value, 0, 1)]}))) == wrong
    (gone,) = tables.differences(DEMO, {**DEMO, "figures": []})
    assert "gone" in gone
    off = {**FEWER, "values": {**VALUES, "ssim": 0.7}}
    (line,) = tables.differences(ABLATION, {**ABLATION, "rows": [FULL_ROW, off]})
    assert "8 channels, ssim is .700" in line


def test_pages_are_made_of_what_there_is(tmp_path: Path) -> None:
    """Each setup has a section whose links lead somewhere, ablations a page with a chart of every variant."""
    for one in (DEMO, FACES, ABLATION):
        (tmp_path / f"{one['setup']}.json").write_text(json.dumps(one), "utf-8")
    (tmp_path / "demo.html").write_text("page", "utf-8")
    tables.write_pages(tmp_path, None)
    index, page = ((tmp_path / name).read_text("utf-8") for name in ("README.md", "ablations.md"))
    assert "## demo\n" in index
    assert "8 channels | 60 | .500 [-.150, -.050]" in page
    for link in re.findall(r"\]\(([^)\s]+)\)", index + page):
        assert (tmp_path / link).exists(), link
    assert (tmp_path / "ablations.svg").read_text("utf-8").count("<circle") == 1


def test_figures_are_picked_from_what_evaluate_says() -> None:
    """Of pictures both stages and baselines, of categories chance and probability, of folds those of the feature."""
    stages = {"stage1": {"ssim": 0.1}, "stage2": {"ssim": 0.2}, "mean_image": {"ssim": 0.3}, "chance": {"ssim": 0.4}}
    wanted = (Figure("ssim", "SSIM"), Figure("position", "position", optional=True))
    (found,) = figures_of_test({**stages, "stage2_interval": {"ssim": [0, 1]}, "p": {}}, wanted)
    assert [found[name] for name in ("value", "stage1", "mean_image", "chance", "p")] == [0.2, 0.1, 0.3, 0.4, None]
    placed = {"position": {"stage1": 0.3, "stage2": 0.2, "stage2_interval": [0.1, 0.3], "chance": 0.4}}
    _, found = figures_of_test({**stages, "stage2_interval": {"ssim": [0, 1]}, "p": {}, "pose": placed}, wanted)
    assert [found[name] for name in ("key", "value", "stage1", "chance")] == ["position", 0.2, 0.3, 0.4]
    category = {"chance": 0.5, "auc": 0.7, "auc_interval": [0.6, 0.8], "auc_p": 0.01}
    (found,) = figures_of_test(category, (Figure("auc", "AUC"),))
    assert (found["value"], found["chance"], found["p"]) == (0.7, 0.5, 0.01)
    scores = {"s1": {"two_way": 0.9, "two_way_interval": [0, 1], "two_way_chance": [0.4, 0.6]}}
    (found,) = figures_of_folds(scores, (Figure("s1.two_way", "block 1"),), {"s1.two_way": 0.94})
    assert (found["value"], found["reported"]) == (0.9, 0.94)


def test_a_sheet_shows_all_pictures_of_a_page(tmp_path: Path) -> None:
    """Three groups of six trios, in the page's order."""
    sources = []
    for k in range(54):
        buffer = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), 4 * k, np.uint8)).save(buffer, "WEBP", lossless=True)
        sources.append(f'<img src="data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}" alt="">')
    (tmp_path / "page.html").write_text("".join(sources), "utf-8")
    write_sheet(tmp_path / "page.html", tmp_path / "page.webp")
    with Image.open(tmp_path / "page.webp") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))[..., 0].astype(int)
    assert pixels.shape == (3 * (2 * 130 + 16) - 16, 3 * (3 * 128 + 16) - 16)
    assert abs(pixels[64, 64 + 128] - 4) < 6  # the second picture of the first trio
    assert abs(pixels[130 + 64, 64] - 4 * 9) < 6  # the fourth window, on the next line
    assert abs(pixels[2 * 130 + 16 + 64, 64] - 4 * 18) < 6  # the first of the second group


def test_setups_name_what_exists() -> None:
    """Names are unique, few channels are the participant's, and every group of ablations is a setup with a title."""
    assert len({setup.name for setup in SETUPS}) == len(SETUPS)
    for n, names in FEW_CHANNELS.items():
        assert len(set(names.split())) == n
        assert set(names.split()) <= set(EEG_CHANNELS)
    assert {f"ablations-{group}" for group in GROUPS} <= {setup.name for setup in SETUPS}
    assert set(tables.GROUPS) == set(GROUPS)


def test_a_changed_config_differs_in_what_was_asked_for() -> None:
    """Keys are changed by their paths, the rest stays."""
    config = load_config(ROOT / "configs" / "demo.yaml")
    fewer = changed(config, {"filters.channels": ["Oz", "O1"], "window.tmax": 0.2})
    assert fewer.filters.channels == ("Oz", "O1")
    assert fewer.window.tmax == 0.2
    assert changed(config, {}) == config
    assert fewer.model_copy(update={"filters": config.filters, "window": config.window}) == config


def test_true_features_take_the_place_of_decoded_ones() -> None:
    """Only those that are named, structure behind the mask and with its own latent or none."""
    rng = np.random.default_rng(0)
    mask = np.array([True, False, True])
    c, z = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 4), (1, 2, 2)))
    decoded = Features("w", c, z, {1: LayerTarget(np.zeros(3, np.float32), mask)}, structure_latent=z)
    true = Targets(np.ones((5, 2, 4), np.float32), np.ones((5, 1, 2, 2), np.float32), {1: np.full((5, 3), 2, "f2")})
    by_s = with_truth(decoded, true, 3, ("s",))
    np.testing.assert_array_equal(by_s.s[1].values, [2, 0, 2])
    assert by_s.structure_latent is None
    assert by_s.c is c
    assert by_s.z is z
    np.testing.assert_array_equal(with_truth(decoded, true, 3, ("s",), 2 * z).structure_latent, 2 * z)
    by_z = with_truth(decoded, true, 3, ("z",))
    np.testing.assert_array_equal(by_z.z, true.z[3])
    assert by_z.s is decoded.s
    assert by_z.structure_latent is z


def ceilings_answer(all_true: float) -> dict[str, Any]:
    """Give the answer of ceilings in which all true features reach a share of PixCorr and of two-way, and s half."""
    reached = {
        ceilings_page.CHANCE: 0.1,
        ceilings_page.BASELINE: 0.2,
        "stage 1": 0.3,
        FULL: 0.4,
        "true c": 0.41,
        "true s": (0.4 + all_true) / 2,
        "true c, s": all_true,
    }
    rows = [
        {**FULL_ROW, "name": name, "values": {**VALUES, "pixcorr": share, "two_way_clip": share, "position": 1 - share}}
        for name, share in reached.items()
    ]
    lost = [{"feature": "c", "correlation": 0.5, "two_way": 0.75, "explained": 0.25}]
    ideal = {"pictures": 60, "stage1": 0.2, "ours": 0.3, "by_repeats": {"1": {"top1": 0.9, "top5": 1.0, "n": 60}}}
    return answer("ablations-ceilings", group="ceilings", rows=rows, lost=lost, ideal=ideal)


def test_ceilings_say_which_part_holds_the_figures_back() -> None:
    """Decoding where true features give back more than what lacks with them, else the engine; with the figures."""
    decoding = ceilings_page.sentence(ceilings_answer(0.9))
    assert decoding.startswith("**Decoding holds the figures back**")
    assert "PixCorr 0.400 of 1 lacks 0.500 by decoding and 0.100 by the engine" in decoding
    assert "most with true s: 0.650" in decoding
    assert "position error 0.600 of 0 lacks 0.500 by decoding" in decoding
    assert ceilings_page.sentence(ceilings_answer(0.6)).startswith("**The engine holds the figures back**")
    page = "\n".join(ceilings_page.parts(ceilings_answer(0.9), tables.HEADS, tables.short, tables.table))
    assert "| PixCorr | .100 | .200 | .300 | .400 | .410 | .650 | .900 |" in page
    assert "names it in .900 from 1 presentation;" in page
    assert "| c | .500 | .750 | .250 |" in page


def test_what_is_missing_is_skipped_and_what_fails_stops_nothing(tmp_path: Path) -> None:
    """Without its data a setup is skipped and named; one that fails leaves exit code 1 and no JSON."""
    (tmp_path / "data" / "muse_eeg_visual").mkdir(parents=True)
    environment = os.environ | {"MINDDIFFUSER_DATA": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.results", "muse-faces-folds", "haxby-fmri-folds"]
    run = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "failed: muse-faces-folds" in run.stdout
    assert "haxby-fmri-folds       skipped: haxby2001_pymvpa_slice is not in" in run.stdout
    assert not list((tmp_path / "out").glob("*.json"))


COMMITTED_ANSWERS = tables.read_answers(COMMITTED)


@pytest.mark.skipif(not COMMITTED_ANSWERS, reason="no results are committed yet: `make results`")
def test_the_committed_pages_are_what_the_committed_figures_generate() -> None:
    """The README's table and the pages of docs/results are generated, not typed, and small enough to keep."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert tables.with_part(readme, tables.readme_part(COMMITTED_ANSWERS)) == readme
    assert (COMMITTED / "README.md").read_text("utf-8") == tables.index(COMMITTED_ANSWERS, COMMITTED)
    for name, one in COMMITTED_ANSWERS.items():
        if "figures" in one:
            page = (COMMITTED / f"{name}.html").read_text("utf-8")
            assert report_of(one, page) == page, name
    if any("rows" in one for one in COMMITTED_ANSWERS.values()):
        assert (COMMITTED / "ablations.md").read_text("utf-8") == tables.ablation_page(COMMITTED_ANSWERS)
    assert sum(file.stat().st_size for file in COMMITTED.iterdir()) < 4e6
