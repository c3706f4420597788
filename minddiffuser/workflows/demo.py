"""`minddiffuser demo`: the live session with a simulated participant, an embedded broker and the page."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
import webbrowser
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decoder.data.stimuli import StimulusTable, read_stimuli, write_stimuli
from decoder.models import bundle as bundles
from decoder.models.bundle import Bundle
from decoder.simulation import VERSION
from decoder.versions import FIGURES, versions
from minddiffuser.cache import cache_dir, key_of, made_once
from minddiffuser.config.spec import Config, config_of, load_config
from minddiffuser.console import console, progress, show_page
from minddiffuser.errors import AppError
from minddiffuser.live.engines import made_here, ready_engine
from minddiffuser.live.loopback import Outcome, run_loopback
from minddiffuser.shipped import CONFIGS, DEMO_DECODER
from minddiffuser.training.data import load_dataset, originals, simulated_test
from minddiffuser.training.training import train
from stream.atomic import write_whole, write_with_fallback
from stream.files.formats.npz import write_npz

if TYPE_CHECKING:
    from engine.models.loading import Models
    from engine.reconstructor import Reconstructor

logger = logging.getLogger(__name__)

DEMO_CONFIG = CONFIGS / "demo.yaml"
HEADLESS_SECONDS = 60.0
FORMAT = 1
"""Of a prepared demo's folder: raise it when what is in there changes."""
PARTS = ("window", "filters", "decoder", "extra")
"""Parts of a config that decide what a decoder learns, apart from its data."""
MEAN = "mean.png"
"""Mean of the calibration pictures."""


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

    A config that trains as the shipped decoder was trained gets that one, and only the test run is simulated.

    Raises
    ------
    AppError
        The config is not one of a simulated participant.
    """
    from engine.models.loading import load_models

    config = load_config(config_file or DEMO_CONFIG)
    if not config.data.dataset.startswith("simulated-"):
        raise AppError(
            f"config {config.name}: the demo needs a simulated participant; for {config.data.dataset!r} "
            "use `minddiffuser train` and `minddiffuser evaluate`"
        )
    if port is not None:
        config = config.model_copy(update={"display": config.display.model_copy(update={"port": port})})
    models = load_models(config.engine.models, config.engine.device)
    bundle = shipped_decoder(config, models.feature_space)
    key = key_of({"format": FORMAT, "shipped": bundle and bundle.digest, "training": training_key(config, models)})
    folder = made_once(config.name, key, partial(_make, config, models, trained=bundle is not None))
    if bundle is None:
        bundle = Bundle.load(folder / "bundle")
    with Image.open(folder / MEAN) as mean:
        mean_image = np.asarray(mean.convert("RGB"))
    bundle.meta["config"] = config.own()  # trained, it may be, before the engine's settings became what they are
    return Prepared(config, bundle, folder / "test.npz", read_stimuli(folder / "stimuli"), mean_image)


def training_key(config: Config, models: Models) -> str:
    """Return the name of what a trained decoder depends on: data, windows, models, versions of what makes them."""
    parts = config.model_dump(mode="json", include={"data", *PARTS})
    return key_of(parts | {"bundle": bundles.FORMAT, "simulation": VERSION, "models": models.feature_space})


def shipped_decoder(config: Config, feature_space: str) -> Bundle | None:
    """Load the decoder that comes with the package, where a config would train the same.

    Parameters
    ----------
    config : Config
    feature_space : str
        Of the models that the config names.

    Returns
    -------
    Bundle or None
        None where the config asks for other data, windows, filters, decoders or models, or the participants of this
        version answer otherwise than those of the decoder's training.

    Raises
    ------
    decoder.errors.BundleError
        The shipped decoder was changed since it was made.
    """
    if not (DEMO_DECODER / "bundle.json").is_file():
        return None
    bundle = Bundle.load(DEMO_DECODER)
    trained = config_of(bundle.meta, DEMO_DECODER)
    same = all(getattr(trained, part) == getattr(config, part) for part in ("data", *PARTS))
    same = same and bundle.meta.get("simulation") == VERSION and bundle.meta["feature_space"] == feature_space
    return bundle if same else None


def _make(config: Config, models: Models, folder: Path, *, trained: bool) -> None:
    from minddiffuser.workflows.evaluate import mean_training_image

    if trained:
        console.print("Preparing the demo, once: a recording of a simulated participant.")
        with progress() as report:
            recording, stimuli = simulated_test(config.data, models, report)
        shutil.copyfile(DEMO_DECODER / MEAN, folder / MEAN)
    else:
        console.print("Preparing the demo, once: a simulated participant and a decoder trained on it.")
        with progress() as report:
            dataset = load_dataset(config, None, models, report)
        write_with_fallback(folder / "bundle", train(config, dataset, models, advise=False).save)
        recording = dataset.live
        stimuli = dataset.stimuli.select(sorted({event.label for event in recording.events}))
        Image.fromarray(mean_training_image(dataset)).save(folder / MEAN)
    write_npz(recording, folder / "test.npz")
    write_stimuli(stimuli, folder / "stimuli")


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
        outcome = await run_loopback(
            config,
            prepared.bundle,
            partial(_engine, prepared),
            prepared.recording,
            Path(scratch),
            originals=originals(prepared.stimuli),
            stimuli=prepared.stimuli,
            total=len(prepared.stimuli),
            loop=True,
            seconds=seconds or (HEADLESS_SECONDS if headless else None),
            stop=stop,
            started=started,
            on_display=None if headless else _show,
            announce=True,
        )
        with console.status("scoring the pictures"):
            report = make_report(prepared, outcome)
    _print_summary(report)
    if report_to:
        text = json.dumps(report, indent=1) + "\n"
        write_with_fallback(report_to, lambda path: write_whole(path, text))
    return outcome.lost


def _engine(prepared: Prepared) -> Reconstructor:
    """Return the engine with a backend that starts at once: an export takes as long as all the rest of a start."""
    from engine.backends.cache import EngineCache
    from engine.backends.choice import exports_first
    from engine.models.loading import load_models

    spec = prepared.config.engine
    models = load_models(spec.models, spec.device)
    if spec.backend == "auto" and exports_first(models, EngineCache(cache_dir() / "engines")):
        logger.info("backend torch; `minddiffuser engine export` prepares a faster one")
        spec = spec.model_copy(update={"backend": "torch"})
    made_here(prepared.config)
    return ready_engine(spec, prepared.bundle, models)


def make_report(prepared: Prepared, outcome: Outcome) -> dict[str, Any]:
    """Return the report of a run; its keys are fixed, later checks read them."""
    from minddiffuser.workflows.evaluate import picture_quality

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
        "versions": versions(FIGURES),
    }


def _show(url: str) -> None:
    show_page("\nThe page is at", [url], " (pictures appear as they are decoded; Ctrl-C ends it)\n")
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
