"""`minddiffuser demo`: the live session with a simulated participant, an embedded broker and the page."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import webbrowser
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decoder.bundle import Bundle
from decoder.stimuli import StimulusTable, read_stimuli, write_stimuli
from minddiffuser.cache import code_hash, made_once
from minddiffuser.config import Config, load_config
from minddiffuser.console import console, progress, show_page
from minddiffuser.data import load_dataset, originals
from minddiffuser.errors import AppError
from minddiffuser.live import ready_engine
from minddiffuser.rehearsal import Outcome, rehearse
from minddiffuser.training import train
from stream.atomic import kept, write_whole
from stream.recordings import write_npz

DEMO_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "demo.yaml"
HEADLESS_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a demo needs, made once.

    Attributes
    ----------
    config : Config
    bundle : Bundle
    recording : Path
        The test run, to be replayed.
    stimuli : StimulusTable
        The pictures of the test run.
    mean_image : ndarray, shape (height, width, 3), uint8
        Mean of the calibration pictures.
    """

    config: Config
    bundle: Bundle
    recording: Path
    stimuli: StimulusTable
    mean_image: NDArray[np.uint8]


def prepare(config_file: Path | None = None, port: int | None = None) -> Prepared:
    """Simulate the participant and train the decoder, or find both where an earlier run left them.

    Raises
    ------
    AppError
        The config is not one of a simulated participant.
    """
    config = load_config(config_file or DEMO_CONFIG)
    if not config.data.dataset.startswith("simulated-"):
        raise AppError(
            f"config {config.name}: the demo needs a simulated participant; for {config.data.dataset!r} "
            "use `minddiffuser train` and `minddiffuser evaluate`"
        )
    if port is not None:
        config = config.model_copy(update={"display": config.display.model_copy(update={"port": port})})
    folder = made_once(config.name, training_key(config), partial(_make, config))
    with Image.open(folder / "mean.png") as mean:
        mean_image = np.asarray(mean.convert("RGB"))
    bundle = Bundle.load(folder / "bundle")
    bundle.meta["config"] = config.own()  # trained, it may be, before the engine's settings became what they are
    return Prepared(config, bundle, folder / "test.npz", read_stimuli(folder / "stimuli"), mean_image)


def training_key(config: Config) -> str:
    """Name what a trained decoder depends on: data, windows, models and the code that makes them."""
    parts = config.model_dump(mode="json", include={"data", "window", "filters", "decoder"})
    parts |= {"models": config.engine.models.model_dump(mode="json"), "code": code_hash()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _make(config: Config, folder: Path) -> None:
    from engine.models import load_models
    from minddiffuser.evaluate import mean_training_image

    console.print("Preparing the demo, once: a simulated participant and a decoder trained on it.")
    models = load_models(config.engine.models, config.engine.device)
    with progress() as report:
        dataset = load_dataset(config, None, models, report)
    kept(folder / "bundle", train(config, dataset, models).save)
    write_npz(dataset.live, folder / "test.npz")
    shown = sorted({event.label for event in dataset.live.events})
    write_stimuli(dataset.stimuli.select(shown), folder / "stimuli")
    Image.fromarray(mean_training_image(dataset)).save(folder / "mean.png")


async def run_demo(
    prepared: Prepared,
    stop: asyncio.Event,
    *,
    started: float,
    headless: bool,
    seconds: float | None,
    report_to: Path | None,
) -> int:
    """Run the demo until it is stopped or its time is up; `started` is the program's start (`time.monotonic()`).

    Returns
    -------
    int
        Pictures that were published and not received.
    """
    config = prepared.config
    with tempfile.TemporaryDirectory(prefix="minddiffuser-demo-") as scratch:
        outcome = await rehearse(
            config,
            prepared.bundle,
            lambda: ready_engine(config.engine, prepared.bundle),
            prepared.recording,
            Path(scratch),
            originals=originals(prepared.stimuli),
            loop=True,
            seconds=seconds or (HEADLESS_SECONDS if headless else None),
            stop=stop,
            started=started,
            on_display=None if headless else _show,
        )
        report = make_report(prepared, outcome)
    _print_summary(report)
    if report_to:
        text = json.dumps(report, indent=1) + "\n"
        kept(report_to, lambda path: write_whole(path, text))
    return outcome.lost


def make_report(prepared: Prepared, outcome: Outcome) -> dict[str, Any]:
    """Put together what a run came to; the keys are fixed, later checks read them."""
    from minddiffuser.evaluate import picture_quality, versions

    return {
        "config": prepared.config.name,
        "data": str(prepared.bundle.meta["data"]),
        "published": outcome.account.published,
        "received": outcome.summary["pictures"],
        "lost": outcome.lost,
        "first_picture_s": outcome.account.seconds_to_first_picture,
        "latency_ms": outcome.account.latency_ms,
        "quality": picture_quality(outcome.received, prepared.stimuli, prepared.mean_image),
        "decoder": prepared.bundle.meta.get("scores", {}),
        "account": asdict(outcome.account),
        "subscriber": outcome.summary,
        "versions": versions(),
    }


def _show(url: str) -> None:
    show_page("\nThe page is at", [url], "; pictures appear as they are decoded. Ctrl-C ends it.\n")
    webbrowser.open(url)


def _print_summary(report: dict[str, Any]) -> None:
    console.print(
        f"{report['data']}: {report['published']} pictures published, {report['received']} received, "
        f"{report['lost']} lost"
    )
    if quality := report["quality"]:
        for name in ("stage2", "stage1", "mean_image", "chance"):
            scores = "  ".join(f"{metric} {value:.3f}" for metric, value in quality[name].items())
            console.print(f"  {name:<11} {scores}")
