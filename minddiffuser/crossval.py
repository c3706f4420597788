"""`minddiffuser evaluate CONFIG`: a decoder on all recordings of its data set, cross-validated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minddiffuser.cache import cache_dir
from minddiffuser.config import Config, load_config
from minddiffuser.console import progress
from minddiffuser.training import by_recording, units_of

if TYPE_CHECKING:
    from decoder.crossval import HeldOut
    from decoder.datasets import Dataset
    from engine.models import Models

SEED = 20261125
"""Of permutations: the same decoding gets the same intervals every time."""
DRAWN_AT_A_TIME = 32


def evaluate_config(config_file: Path, data_dir: Path | None) -> dict[str, Any]:
    """Train and test the decoder of a config on all recordings of its data set, each window held out once.

    Raises
    ------
    AppError, decoder.errors.DecoderError
        The data are not there, or cannot be split as the config asks.
    """
    from engine.models import load_models
    from minddiffuser.data import load_dataset

    config = load_config(config_file)
    models = load_models(config.engine.models, config.engine.device)
    with progress() as report:
        dataset = load_dataset(config, data_dir, models, report)
    return {"config": config.name, "data": dataset.description, **crossval(config, dataset, models)}


def crossval(config: Config, dataset: Dataset, models: Models) -> dict[str, Any]:
    """Cross-validate the decoder of a config.

    Returns
    -------
    dict
        `held_out` (what, and in how many folds), `scores` beside chance and baseline, `reported` with the data, and
        `overlap` of training and test pictures.
    """
    from decoder.crossval import category_crossval, decode_held_out, feature_scores, fold_overlap
    from decoder.datasets.captions import describe
    from decoder.targets import compute_targets
    from decoder.usable import usable

    spec = config.decoder
    with progress() as report:
        by_run = by_recording([*dataset.train, dataset.live], config, report)
        run_of = {id(window): run for run, windows in by_run for window in windows}
        used, left_out = usable([window for _, windows in by_run for window in windows], dataset.stimuli.ids)
        windows = [window for window, _ in used]
        runs = [run_of[id(window)] for window in windows]
        about: dict[str, Any] = {"left_out": left_out, "reported": dict(dataset.reported)}
        if spec.category is not None:
            scores = category_crossval(windows, dataset.stimuli, spec, runs)
            return {"held_out": {"split": "run", "folds": len(set(runs))}, "scores": scores, **about}
        shown = dataset.stimuli.select(sorted({label for _, label in used}))
        if "c" in spec.features:
            shown = describe(shown, models, dataset.vocabulary)
        targets = compute_targets(
            *(shown, models),
            features=spec.features,
            blocks=spec.blocks,
            cache=cache_dir() / "targets",
            progress=report,
        )
        units = units_of(runs, dataset, spec)
        held_out = decode_held_out(windows, shown, targets, spec, report, runs=runs, units=units)
        scores = feature_scores(held_out, targets, np.random.default_rng(SEED))
        if targets.z is not None:
            scores["picture"] = picture_scores(held_out, shown.images, models.decode_latents)
        return {
            "held_out": {"split": spec.split, "folds": len(held_out.folds)},
            "scores": scores,
            "overlap": fold_overlap(held_out, shown),
            **about,
        }


def picture_scores(
    held_out: HeldOut, images: NDArray[np.uint8], draw: Callable[[NDArray[np.float32]], NDArray[np.uint8]]
) -> dict[str, Any]:
    """Score pictures drawn from the decoded latents by the VAE alone, beside the mean of the pictures trained on."""
    from decoder.crossval import identification
    from decoder.metrics import bootstrap_interval, pixcorr, pixel_similarity

    rows = held_out.samples.rows
    latents = np.stack([np.asarray(one.z) for one in held_out.features])
    parts = range(0, len(latents), DRAWN_AT_A_TIME)
    drawn = np.concatenate([draw(latents[start : start + DRAWN_AT_A_TIME]) for start in parts])
    baseline = np.empty(len(rows))
    for train, test in held_out.folds:
        mean = np.round(images[np.unique(rows[train])].mean(axis=0, dtype=np.float64)).astype(np.uint8)
        baseline[test] = pixcorr(images[rows[test]], np.broadcast_to(mean, (len(test), *mean.shape)))
    rng = np.random.default_rng(SEED)
    other = (rows + rng.integers(1, len(images), len(rows))) % len(images)
    own = pixcorr(images[rows], drawn)
    return {
        "pixcorr": round(float(own.mean()), 4),
        "pixcorr_interval": [round(bound, 4) for bound in bootstrap_interval(own, np.random.default_rng(SEED))],
        "pixcorr_mean_image": round(float(baseline.mean()), 4),
        "pixcorr_chance": round(float(pixcorr(images[other], drawn).mean()), 4),
        **identification(pixel_similarity(images, drawn), rows, rng),
    }
