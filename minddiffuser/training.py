"""From a config to a trained bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minddiffuser.cache import cache_dir
from minddiffuser.config import Config, load_config
from minddiffuser.console import Report, progress
from stream.atomic import kept

if TYPE_CHECKING:
    from decoder.bundle import Bundle
    from decoder.datasets import Dataset
    from decoder.samples import Origin
    from decoder.targets import Targets
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


def by_recording(recordings: Sequence[Recording], config: Config, report: Report) -> list[tuple[str, list[Window]]]:
    """Cut recordings into windows, by the recording's name; one that comes twice is cut once."""
    once = {id(recording): recording for recording in recordings}
    return [(recording.name, cut([recording], config, report)) for recording in once.values()]


def origin_of(run: str, dataset: Dataset) -> Origin:
    """Say where the windows of a recording are from.

    A recording of which the data set does not say otherwise is a session of its own, all of one subject.
    """
    from decoder.samples import Origin

    return Origin(run, dataset.sessions.get(run, run), dataset.subjects.get(run, ""))


def train(config: Config, dataset: Dataset, models: Models) -> Bundle:
    """Fit a decoder to the training recordings of a data set.

    Raises
    ------
    decoder.errors.DecoderError
        Too few windows, or pictures that do not go with them.
    """
    from decoder.datasets.captions import describe
    from decoder.splits import overlap
    from decoder.train import fit

    meta: dict[str, Any] = {
        "data": dataset.description,
        "config": config.own(),
    }
    with progress() as report:
        by_run = by_recording(dataset.train, config, report)
        windows = [window for _, cut_from in by_run for window in cut_from]
        origins = [origin_of(name, dataset) for name, cut_from in by_run for _ in cut_from]
        stimuli = describe(dataset.stimuli, models, dataset.vocabulary)
        if config.decoder.category is None and all(run is not dataset.live for run in dataset.train):
            trained, tested = (
                {event.label for run in side for event in run.events} & set(stimuli.ids)
                for side in (dataset.train, (dataset.live,))
            )
            meta["overlap"] = overlap(stimuli, trained, tested) if tested else {}
        return fit(
            *(windows, stimuli, models, config.decoder, report),
            origins=origins,
            cache=cache_dir() / "targets",
            meta=meta,
            bank=bank_targets(config, models, report),
        )


def bank_targets(config: Config, models: Models, report: Report) -> Targets | None:
    """Give what is learned from of pictures that nobody was shown; None where nothing is, or there are none."""
    from decoder.targets import compute_targets
    from minddiffuser.data import picture_bank

    wanted = config.decoder.bank_features
    if not wanted or (pictures := picture_bank(config.data, captions="c" in wanted)) is None:
        return None
    blocks, cache = config.decoder.blocks, cache_dir() / "targets"
    return compute_targets(pictures, models, features=wanted, blocks=blocks, cache=cache, progress=report)


def move(bundle: Bundle, config: Config, dataset: Dataset, models: Models) -> Bundle:
    """Move a trained decoder to the training recordings of a data set, such as a few minutes of a new session.

    Raises
    ------
    decoder.errors.DecoderError
        Too few windows, or a bundle that they do not fit.
    """
    from decoder.datasets.captions import describe
    from decoder.recalibrate import recalibrate

    with progress() as report:
        windows = cut(dataset.train, config, report)
        stimuli = describe(dataset.stimuli, models, dataset.vocabulary)
        return recalibrate(bundle, windows, stimuli, models, report, cache=cache_dir() / "targets")


def train_from_file(
    config_file: Path, data_dir: Path | None, out: Path | None, start: Path | None = None
) -> dict[str, Any]:
    """Carry out `minddiffuser train`; return where the bundle is and how well it does on held-out windows."""
    from decoder.bundle import Bundle
    from engine.models import load_models
    from minddiffuser.data import load_dataset
    from minddiffuser.preprocessing import check_preprocessing

    config = load_config(config_file)
    trained = Bundle.load(start) if start is not None else None
    if trained is not None:
        check_preprocessing(config, trained)
    models = load_models(config.engine.models, config.engine.device)
    with progress() as report:
        dataset = load_dataset(config, data_dir, models, report)
    bundle = train(config, dataset, models) if trained is None else move(trained, config, dataset, models)
    folder = out or bundle_path(config)
    kept(folder, bundle.save)
    answer = {"bundle": str(folder), "data": dataset.description, "scores": bundle.meta.get("scores", {})}
    return answer if trained is None else {**answer, "recalibrated": bundle.meta["recalibrated"]}


def bundle_path(config: Config) -> Path:
    """Where a bundle goes that was not told where to go."""
    return Path("bundles") / config.name
