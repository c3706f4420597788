"""From a config to a trained bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minddiffuser.cache import cache_dir
from minddiffuser.config import Config, load_config
from minddiffuser.console import Report, progress

if TYPE_CHECKING:
    from decoder.bundle import Bundle
    from decoder.datasets import Dataset
    from engine.models import Models
    from stream.recordings import Recording
    from stream.windows import Window


def cut(recordings: Sequence[Recording], config: Config, report: Report) -> list[Window]:
    """Cut recordings into windows, by the same filters and windows as the live loop."""
    from stream.ingest import windows_of

    windows: list[Window] = []
    for done, recording in enumerate(recordings):
        report("cutting windows", done, len(recordings))
        windows += windows_of(recording, config.window, config.filters, config.source, config.extra)
    report("cutting windows", len(recordings), len(recordings))
    return windows


def train(config: Config, dataset: Dataset, models: Models) -> Bundle:
    """Fit a decoder to the training recordings of a data set.

    Raises
    ------
    decoder.errors.DecoderError
        Too few windows, or pictures that do not go with them.
    """
    from decoder.datasets.captions import describe
    from decoder.train import fit

    meta = {"data": dataset.description, "config": config.model_dump(mode="json", exclude_defaults=True)}
    with progress() as report:
        by_run = [(run.name, cut([run], config, report)) for run in dataset.train]
        windows = [window for _, cut_from in by_run for window in cut_from]
        runs = [name for name, cut_from in by_run for _ in cut_from]
        stimuli = describe(dataset.stimuli, models, dataset.vocabulary)
        cache = cache_dir() / "targets"
        return fit(windows, stimuli, models, config.decoder, report, runs=runs, cache=cache, meta=meta)


def train_from_file(config_file: Path, data_dir: Path | None, out: Path | None) -> dict[str, Any]:
    """Carry out `minddiffuser train`; return where the bundle is and how well it does on held-out windows."""
    from engine.models import load_models
    from minddiffuser.data import load_dataset

    config = load_config(config_file)
    models = load_models(config.engine.models, config.engine.device)
    with progress() as report:
        dataset = load_dataset(config, data_dir, models, report)
    bundle = train(config, dataset, models)
    folder = out or bundle_path(config)
    bundle.save(folder)
    return {"bundle": str(folder), "data": dataset.description, "scores": bundle.meta.get("scores", {})}


def bundle_path(config: Config) -> Path:
    """Where a bundle goes that was not told where to go."""
    return Path("bundles") / config.name
