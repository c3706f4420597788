"""One step: train and evaluate a setup, and say what came of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.results.setups import ROOT, Figure, Setup, data_folder
from minddiffuser.evaluation.examples import trios_in
from stream.atomic import write_whole

if TYPE_CHECKING:
    from PIL import Image

SHEET_SIDE, A_LINE = 128, 3
"""Pixels of each picture on a sheet, and windows in a line: as wide as a page of documentation shows it."""


def run_step(setup: Setup, out: Path) -> dict[str, Any]:
    """Carry out a setup.

    Parameters
    ----------
    setup : Setup
    out : Path
        Folder that gets the setup's page and sheet of pictures.

    Returns
    -------
    dict
        What goes into its JSON.
    """
    began = time.monotonic()
    protocols = {"test": _test, "folds": _folds, "ablations": _ablations}
    out = out.resolve()
    with tempfile.TemporaryDirectory(prefix="minddiffuser-results-") as scratch, _inside(Path(scratch)):
        found = protocols[setup.protocol](setup, out)
    return {
        "setup": setup.name,
        **{
            name: getattr(setup, name)
            for name in ("config", "protocol", "species", "modality", "data", "split", "note")
        },
        **found,
        "seconds": round(time.monotonic() - began, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("torch", "diffusers", "open_clip_torch", "mne", "numpy", "scikit-learn")
            },
        },
    }


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder: what is written into a page as its command then says nothing of this machine."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _data(setup: Setup) -> Path | None:
    return data_folder() if setup.folder else None


def _test(setup: Setup, out: Path) -> dict[str, Any]:
    from minddiffuser.training.training import train_from_file
    from minddiffuser.workflows.demo import prepare
    from minddiffuser.workflows.evaluate import run_evaluate

    bundle, page = Path("bundles") / setup.config, out / f"{setup.name}.html"
    config = ROOT / "configs" / f"{setup.config}.yaml"
    if setup.species == "simulated":
        prepare(config).bundle.save(bundle)  # what `train` makes; the ablations start from it too
    else:
        train_from_file(config, _data(setup), bundle)
    limit, live_limit = setup.limit, setup.live_limit
    found = asyncio.run(
        run_evaluate(
            bundle, _data(setup), asyncio.Event(), live=setup.live, limit=limit, live_limit=live_limit, page=page
        )
    )
    answer = found.answer
    write_whole(page, found.page or "")
    given = {" --offline": not setup.live, f" --limit {limit}": limit, f" --live-limit {live_limit}": live_limit}
    options = "".join(text for text, said in given.items() if said)
    if "stage2" in answer["offline"]:
        write_sheet(page, page.with_suffix(".webp"))
    return {
        "command": f"minddiffuser train configs/{setup.config}.yaml && minddiffuser evaluate {bundle}{options}",
        "figures": list(figures_of_test(answer["offline"], setup.figures)),
        "answer": answer,
    }


def figures_of_test(found: Mapping[str, Any], wanted: tuple[Figure, ...]) -> Iterator[dict[str, Any]]:
    """Pick figures from what `minddiffuser evaluate` says of a test run (`offline`)."""
    for figure in wanted:
        if "stage2" not in found:
            chance = found.get(f"{figure.key}_chance", found["chance"])
            row = {"value": found[figure.key], "interval": found[f"{figure.key}_interval"], "chance": chance}
            yield {"key": figure.key, "label": figure.label, **row, "p": found[f"{figure.key}_p"]}
            continue
        if pose := found.get("pose", {}).get(figure.key):
            row = {"value": pose["stage2"], "interval": pose["stage2_interval"]}
            baselines = {name: pose.get(name) for name in ("stage1", "mean_image", "chance")}
            yield {"key": figure.key, "label": figure.label, **row, **baselines}
            continue
        if figure.optional and figure.key not in found["stage2"]:
            continue
        yield {
            "key": figure.key,
            "label": figure.label,
            "value": found["stage2"][figure.key],
            "interval": found["stage2_interval"][figure.key],
            **{name: found[name].get(figure.key) for name in ("stage1", "mean_image", "chance", "p")},
        }


def _folds(setup: Setup, _: Path) -> dict[str, Any]:
    from minddiffuser.workflows.crossval import evaluate_config

    answer = evaluate_config(ROOT / "configs" / f"{setup.config}.yaml", _data(setup))
    reported = {**answer["reported"], **dict(setup.reported)}
    return {
        "command": f"minddiffuser evaluate configs/{setup.config}.yaml",
        "figures": list(figures_of_folds(answer["scores"], setup.figures, reported)),
        "answer": answer,
    }


def figures_of_folds(
    scores: Mapping[str, Any], wanted: tuple[Figure, ...], reported: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Pick figures from what cross-validation says; of those reported with the data, a feature's go by name alone."""
    for figure in wanted:
        feature, _, name = figure.key.rpartition(".")
        found = scores[feature] if feature else scores
        plain = name if feature in {"", "picture"} else figure.key
        mean_image = found.get("pixcorr_mean_image") if name == "pixcorr" else None
        yield {
            "key": figure.key,
            "label": figure.label,
            "value": found[name],
            "interval": found[f"{name}_interval"],
            "chance": found[f"{name}_chance"],
            "mean_image": mean_image,
            "reported": reported.get(figure.key, reported.get(plain)),
        }


def _ablations(setup: Setup, _: Path) -> dict[str, Any]:
    from benchmarks.results.ablations import compare
    from benchmarks.results.ceilings import ideal, lost
    from benchmarks.results.lab import Lab

    lab, group = Lab.of(setup), setup.name.partition("-")[2]
    found = {"command": f"python -m benchmarks.results {setup.name}", "group": group, "rows": compare(lab, group)}
    return found | ({"lost": lost(lab), "ideal": ideal(lab)} if group == "ceilings" else {})


def write_sheet(page: Path, file: Path) -> None:
    """Lay the pictures of an evaluation's page out on one sheet: best, median and worst, three windows a line."""
    from PIL import Image

    side, gap = SHEET_SIDE, SHEET_SIDE // 8
    trios = [[_tile(code) for code in trio] for trio in trios_in(page.read_text("utf-8"))]
    per_group = len(trios) // 3
    lines_of_group = -(-per_group // A_LINE)
    width, height = A_LINE * (3 * side + gap) - gap, 3 * (lines_of_group * (side + 2) + gap) - gap
    sheet = Image.new("RGB", (width, height), "white")
    for number, trio in enumerate(trios):
        group, place = divmod(number, per_group)
        line, column = divmod(place, A_LINE)
        top = group * (lines_of_group * (side + 2) + gap) + line * (side + 2)
        for stage, tile in enumerate(trio):
            sheet.paste(tile, (column * (3 * side + gap) + stage * side, top))
    sheet.save(file, "WEBP", quality=80)


def _tile(uri: str) -> Image.Image:
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return image.convert("RGB").resize((SHEET_SIDE, SHEET_SIDE))
