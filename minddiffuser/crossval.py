"""`minddiffuser evaluate CONFIG`: a decoder on all recordings of its data set, cross-validated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minddiffuser.cache import cache_dir
from minddiffuser.config import Config, load_config
from minddiffuser.console import Report, progress
from minddiffuser.errors import AppError
from minddiffuser.training import bank_targets, by_recording, origin_of

if TYPE_CHECKING:
    from decoder.crossval import Candidate, HeldOut
    from decoder.datasets import Dataset
    from decoder.samples import Origin
    from engine.models import Models
    from stream.windows import Window

SEED = 20261125
"""Of permutations: the same decoding gets the same intervals every time."""
DRAWN_AT_A_TIME = 32


def evaluate_config(config_file: Path, data_dir: Path | None, *, choose: bool = True) -> dict[str, Any]:
    """Train and test the decoder of a config on all recordings of its data set, each window held out once.

    Parameters
    ----------
    config_file : Path
    data_dir : Path or None
        Folder of recorded data sets.
    choose : bool
        Whether to choose among the config's candidates; otherwise it is taken as it stands.

    Raises
    ------
    AppError, decoder.errors.DecoderError
        The data are not there, or cannot be split as the config asks.
    """
    from engine.models import load_models
    from minddiffuser.data import load_dataset

    config = load_config(config_file)
    if not choose:
        config = config.model_copy(update={"candidates": ()})
    models = load_models(config.engine.models, config.engine.device)
    with progress() as report:
        dataset = load_dataset(config, data_dir, models, report)
    return {"config": config.name, "data": dataset.description, **crossval(config, dataset, models)}


def crossval(config: Config, dataset: Dataset, models: Models) -> dict[str, Any]:
    """Cross-validate the decoder of a config, chosen inside each training part where the config names candidates.

    Returns
    -------
    dict
        `held_out` (what, and in how many folds), `scores` beside chance and baseline, `chosen` where there was a
        choice, `reported` with the data, and `overlap` of training and test pictures.
    """
    from decoder.crossval import category_crossval, decode_nested, feature_scores, fold_overlap
    from decoder.datasets.captions import describe
    from decoder.metrics import pixcorr
    from decoder.targets import compute_targets

    spec = config.decoder
    with progress() as report:
        candidates, origins, left_out = _candidates(config, dataset, report)
        about: dict[str, Any] = {"left_out": left_out, "reported": dict(dataset.reported)}
        if spec.category is not None:
            scores, chosen = category_crossval(candidates, dataset.stimuli, origins)
            about |= _choices(config, chosen)
            n_runs = len({origin.run for origin in origins})
            return {"held_out": {"split": "run", "folds": n_runs}, "scores": scores, **about}
        labels = {window.event.label for window in candidates[0].windows if window.event is not None}
        shown = dataset.stimuli.select(sorted(labels))
        if "c" in spec.features:
            shown = describe(shown, models, dataset.vocabulary)
        targets = compute_targets(
            *(shown, models),
            features=spec.features,
            blocks=spec.blocks,
            cache=cache_dir() / "targets",
            progress=report,
        )

        def score(held_out: HeldOut) -> float:
            if targets.z is not None:
                drawn = _drawn(held_out, models.decode_latents)
                return float(pixcorr(shown.images[held_out.samples.rows], drawn).mean())
            found = feature_scores(held_out, targets, np.random.default_rng(SEED))
            return float(np.mean([each["two_way"] for each in found.values()]))

        bank = bank_targets(config, models, report)
        held_out = decode_nested(candidates, shown, targets, score, report, origins=origins, bank=bank)
        scores = feature_scores(held_out, targets, np.random.default_rng(SEED))
        if targets.z is not None:
            scores["picture"] = picture_scores(held_out, shown.images, models.decode_latents)
        return {
            "held_out": {"split": spec.split, "folds": len(held_out.folds)},
            "scores": scores,
            "overlap": fold_overlap(held_out, shown),
            **about,
            **_choices(config, held_out.chosen),
        }


def _candidates(
    config: Config, dataset: Dataset, report: Report
) -> tuple[list[Candidate], list[Origin], dict[str, int]]:
    """Cut all recordings as each candidate has it, into the windows that all can use; say where each is from."""
    from decoder.badchannels import without_bad_channels
    from decoder.crossval import Candidate
    from decoder.usable import usable

    tables: list[list[tuple[tuple[str, float], Window]]] = []
    reasons: list[dict[str, int]] = []
    n_used = 0
    for variant in config.variants():
        by_run = by_recording([*dataset.train, dataset.live], variant, report)
        windows, _ = without_bad_channels([window for _, cut_from in by_run for window in cut_from])
        names = [run for run, cut_from in by_run for _ in cut_from]
        run_of = {id(window): run for run, window in zip(names, windows, strict=True)}
        used, left_out = usable(windows, dataset.stimuli.ids)
        n_used = n_used or len(used)
        tables.append([((run_of[id(window)], window.onset), window) for window, _ in used])
        reasons.append(left_out)
    shared = set.intersection(*({place for place, _ in table} for table in tables))
    tables = [[(place, window) for place, window in table if place in shared] for table in tables]
    places = [place for place, _ in tables[0]]
    if any([place for place, _ in table] != places for table in tables):
        raise AppError(f"{config.name}: events that coincide are cut in another order by another candidate")
    if len(tables) > 1:
        reasons[0]["of no use to another candidate"] = n_used - len(places)
    candidates = [
        Candidate([window for _, window in table], variant.decoder)
        for table, variant in zip(tables, config.variants(), strict=True)
    ]
    return candidates, [origin_of(run, dataset) for run, _ in places], reasons[0]


def _choices(config: Config, chosen: NDArray[np.intp]) -> dict[str, Any]:
    """Say how often each candidate was chosen; nothing where there was no choice."""
    if not config.candidates:
        return {}
    settings = [{}, *(each.model_dump(mode="json", exclude_unset=True) for each in config.candidates)]
    times = np.bincount(chosen, minlength=len(settings)).tolist()
    return {"chosen": [{"changes": one, "folds": n} for one, n in zip(settings, times, strict=True)]}


def picture_scores(
    held_out: HeldOut, images: NDArray[np.uint8], draw: Callable[[NDArray[np.float32]], NDArray[np.uint8]]
) -> dict[str, Any]:
    """Score pictures drawn from the decoded latents by the VAE alone, beside the mean of the pictures trained on."""
    from decoder.crossval import identification
    from decoder.metrics import bootstrap_interval, pixcorr, pixel_similarity

    rows = held_out.samples.rows
    drawn = _drawn(held_out, draw)
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


def _drawn(held_out: HeldOut, draw: Callable[[NDArray[np.float32]], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    latents = np.stack([np.asarray(one.z) for one in held_out.features])
    parts = range(0, len(latents), DRAWN_AT_A_TIME)
    return np.concatenate([draw(latents[start : start + DRAWN_AT_A_TIME]) for start in parts])
