"""From a config to a trained bundle."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minddiffuser.cache import cache_dir
from minddiffuser.config.spec import Config, load_config
from minddiffuser.console import progress
from minddiffuser.training.profile import kept_of, learn_profile, rejection
from stream.atomic import write_with_fallback
from stream.types.progress import Progress

if TYPE_CHECKING:
    from decoder.data.stimuli import StimulusTable
    from decoder.data.targets import Targets
    from decoder.data.training_set import Origin
    from decoder.datasets import Dataset
    from decoder.models.bundle import Bundle
    from engine.models.loading import Models
    from stream.quality.signal_profile import SignalProfile
    from stream.types.recording import Recording
    from stream.types.windows import Window

logger = logging.getLogger(__name__)

KEPT = ("left_out", "channels_left_out", "learning_curve", "recording_more", "stage2", "on_training_data")
"""What a bundle knows of its training that `train` answers, too."""


def cut(
    recordings: Sequence[Recording], config: Config, report: Progress, profile: SignalProfile | None = None
) -> list[Window]:
    """Cut recordings into windows, by the same filters, windows and limits as the live loop."""
    from stream.epochs.ingest import windows_of

    windows: list[Window] = []
    for done, recording in enumerate(recordings):
        report("cutting windows", done, len(recordings))
        windows += windows_of(recording, config.window, config.filters, config.source, config.extra, profile=profile)
    report("cutting windows", len(recordings), len(recordings))
    return windows


def by_recording(
    recordings: Sequence[Recording], config: Config, report: Progress, profile: SignalProfile | None = None
) -> list[tuple[str, list[Window]]]:
    """Cut recordings into windows, by the recording's name; one that comes twice is cut once."""
    once = {id(recording): recording for recording in recordings}
    return [(recording.name, cut([recording], config, report, profile)) for recording in once.values()]


def origin_of(run: str, dataset: Dataset) -> Origin:
    """Return the run, session and subject that the windows of a recording are from.

    A recording of which the data set does not say otherwise is a session of its own, all of one subject.
    """
    from decoder.data.training_set import Origin

    return Origin(run, dataset.sessions.get(run, run), dataset.subjects.get(run, ""))


def train(config: Config, dataset: Dataset, models: Models, *, advise: bool = True) -> Bundle:
    """Fit a decoder to the training recordings of a data set.

    With `advise`, which takes about as long again as the ridge does, the bundle's `meta` also holds 'learning_curve'
    and 'recording_more' (`decoder.training.learning_curve`) and 'stage2' (`minddiffuser.training.stage2`), by which
    stage 2 is left out where it does not help.

    Raises
    ------
    decoder.errors.DecoderError
        Too few windows, or pictures that do not go with them.
    """
    from decoder.data.splits import shared_pictures
    from decoder.datasets.captions import describe
    from decoder.simulation import VERSION
    from decoder.training.learning_curve import learning_curve
    from decoder.training.train import fit_prepared, prepare
    from minddiffuser.training.stage2 import check_stage2

    meta: dict[str, Any] = {
        "data": dataset.description,
        "config": config.own(),
    }
    if config.data.dataset.startswith("simulated-"):
        meta["simulation"] = VERSION
    with progress() as report:
        profile = learn_profile(dataset.train, config, report)
        by_run = by_recording(dataset.train, config, report, profile)
        windows = [window for _, cut_from in by_run for window in cut_from]
        meta["rejection"] = asdict(rejection(windows, config, profile, dataset.stimuli.ids))
        origins = [origin_of(name, dataset) for name, cut_from in by_run for _ in cut_from]
        stimuli = describe(dataset.stimuli, models, dataset.vocabulary)
        if config.decoder.category is None and all(run is not dataset.live for run in dataset.train):
            trained, tested = (
                {event.label for run in side for event in run.events} & set(stimuli.ids)
                for side in (dataset.train, (dataset.live,))
            )
            meta["overlap"] = shared_pictures(stimuli, trained, tested) if tested else {}
        ready = prepare(
            windows, stimuli, models, config.decoder, report, origins=origins, cache=cache_dir() / "targets"
        )
        image_bank = image_bank_targets(config, dataset.stimuli, models, report)
        bundle = fit_prepared(ready, config.decoder, report, meta=meta, image_bank=image_bank)
        if advise and config.decoder.category is None:
            bundle.meta |= learning_curve(ready.samples(config.decoder), ready.targets, config.decoder, report)
            if checked := check_stage2(ready, bundle, config, models, image_bank, report):
                bundle.meta["stage2"] = checked
    bundle.meta["signal"] = kept_of(profile, bundle.channels.names)
    return bundle


def image_bank_targets(config: Config, shown: StimulusTable, models: Models, report: Progress) -> Targets | None:
    """Compute the targets of the picture bank; None where the config has no bank or learns nothing from it."""
    from decoder.data.targets import compute_targets
    from minddiffuser.training.data import load_unseen_bank

    wanted = config.decoder.image_bank_features
    if not wanted or (pictures := load_unseen_bank(config.data, shown, captions="c" in wanted)) is None:
        return None
    blocks, cache = config.decoder.blocks, cache_dir() / "targets"
    encoding = config.decoder.encoding
    seen = config.decoder.seen if encoding is not None and encoding.posterior else ()
    return compute_targets(pictures, models, features=wanted, blocks=blocks, seen=seen, cache=cache, progress=report)


def move(bundle: Bundle, config: Config, dataset: Dataset, models: Models) -> Bundle:
    """Move a trained decoder to the training recordings of a data set, such as a few minutes of a new session.

    Beside it a decoder is trained on these recordings alone; where that tells their held-out windows apart better,
    what others taught is left out, and `meta` says so under 'recalibrated' ('worth').

    Raises
    ------
    decoder.errors.DecoderError
        Too few windows, or a bundle that they do not fit.
    """
    from decoder.adaptation.recalibrate import recalibrate
    from decoder.adaptation.worth import worth_of_others
    from decoder.datasets.captions import describe
    from decoder.errors import TrainingError

    with progress() as report:
        profile = learn_profile(dataset.train, config, report)
        windows = cut(dataset.train, config, report, profile)
        account = rejection(windows, config, profile, dataset.stimuli.ids)
        stimuli = describe(dataset.stimuli, models, dataset.vocabulary)
        moved = recalibrate(bundle, windows, stimuli, models, report, cache=cache_dir() / "targets")
    signal = kept_of(profile, moved.channels.names)
    if signal is not None and signal == bundle.meta.get("signal"):
        logger.warning("the bundle was trained on this very recording: figures of it are no test; name another one")
        moved.meta["on_training_data"] = True
    moved.meta |= {"rejection": asdict(account), "signal": signal}
    facts = moved.meta["recalibrated"]
    try:
        alone = train(config, dataset, models, advise=False)
    except TrainingError as error:
        facts["not_compared"] = f"too little to train on alone: {error}"
        return moved
    worth = worth_of_others(moved.meta["scores"], alone.meta["scores"])
    if worth is None:
        return moved
    facts["worth"] = worth.to_dict()
    if worth.helps:
        return moved
    alone.meta |= {"recalibrated": facts, "scores_before_moving": moved.meta["scores_before_moving"]}
    return alone


def train_from_file(
    config_file: Path, data_dir: Path | None, out: Path | None, start: Path | None = None
) -> dict[str, Any]:
    """Carry out `minddiffuser train`; return where the bundle is and how well it does on held-out windows."""
    from decoder.models.bundle import Bundle
    from engine.models.loading import load_models
    from minddiffuser.training.data import check_image_bank, load_dataset
    from minddiffuser.training.preprocessing import check_preprocessing
    from minddiffuser.training.stage2 import mention_likelihood

    config = load_config(config_file).of_events()
    check_image_bank(config)
    trained = Bundle.load(start) if start is not None else None
    if trained is not None:
        check_preprocessing(config, trained)
    models = load_models(config.engine.models, config.engine.device)
    with progress() as report:
        dataset = load_dataset(config, data_dir, models, report)
    bundle = train(config, dataset, models) if trained is None else move(trained, config, dataset, models)
    mention_likelihood(config.engine, bundle)
    folder = out or bundle_path(config)
    write_with_fallback(folder, bundle.save)
    answer = {
        "bundle": str(folder),
        "data": dataset.description,
        "delay": config.window.delay,
        "rejection": bundle.meta["rejection"],
        "scores": bundle.meta.get("scores", {}),
        "tested_by": None if any(run is dataset.live for run in dataset.train) else dataset.live.name,
    }
    answer |= {key: bundle.meta[key] for key in KEPT if key in bundle.meta}
    return answer if trained is None else {**answer, "recalibrated": bundle.meta["recalibrated"]}


def bundle_path(config: Config) -> Path:
    """Where a bundle goes that was not told where to go."""
    return Path("bundles") / config.name
