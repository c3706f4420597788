"""`minddiffuser evaluate CONFIG`: a decoder on all recordings of its data set, cross-validated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minddiffuser.cache import cache_dir
from minddiffuser.config.spec import Config, load_config
from minddiffuser.console import progress
from minddiffuser.errors import AppError
from minddiffuser.training.profile import learn_profile, rejection
from minddiffuser.training.training import by_recording, image_bank_targets, origin_of
from stream.types.progress import Progress, no_progress

if TYPE_CHECKING:
    from decoder.data.stimuli import StimulusTable
    from decoder.data.targets import Targets
    from decoder.data.training_set import Origin
    from decoder.datasets import Dataset
    from decoder.spec import DecoderSpec
    from decoder.training.crossval import Candidate, HeldOutPredictions
    from engine.models.loading import Models
    from stream.quality.rejection import Rejection
    from stream.types.recording import Recording
    from stream.types.windows import Window

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
    from engine.models.loading import load_models
    from minddiffuser.training.data import check_image_bank, load_dataset

    config = load_config(config_file).of_events()
    check_image_bank(config)
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
        choice, `reported` with the data, and `overlap` of training and test pictures; of categories in EEG and MEG
        `riemann`, the same scores of the field's plain Riemannian decoder.
    """
    from decoder.data.targets import compute_targets
    from decoder.datasets.captions import describe
    from decoder.evaluation.metric_registry import pixcorr
    from decoder.training.crossval import category_crossval, decode_nested, feature_scores, fold_overlap

    spec = config.decoder
    with progress() as report:
        plain = _plain(config, dataset.live) if config.decoder.category is not None else None
        variants = (*config.variants(), plain) if plain else config.variants()
        candidates, origins, left_out, account = _candidates(config, dataset, report, variants)
        baseline = candidates.pop() if plain else None
        about: dict[str, Any] = {"left_out": left_out, "rejection": asdict(account), "reported": dict(dataset.reported)}
        if spec.category is not None:
            scores, chosen = category_crossval(candidates, dataset.stimuli, origins)
            about |= _choices(config, chosen)
            if baseline is not None:
                about["riemann"] = _riemann(baseline, dataset, origins)
            n_runs = len({origin.run for origin in origins})
            return {"held_out": {"split": "run", "folds": n_runs}, "scores": scores, **about}
        labels = {window.event.label for window in candidates[0].windows if window.event is not None}
        shown = dataset.stimuli.select(sorted(labels))
        if "c" in spec.features:
            shown = describe(shown, models, dataset.vocabulary)
        targets = compute_targets(
            shown,
            models,
            features=spec.features,
            blocks=spec.blocks,
            seen=spec.seen,
            cache=cache_dir() / "targets",
            progress=report,
        )

        draw = partial(_draw, models, report)

        def score(held_out: HeldOutPredictions) -> float:
            if targets.z is not None:
                drawn = draw(_latents(held_out))
                return float(pixcorr(shown.images[held_out.samples.rows], drawn).mean())
            found = feature_scores(held_out, targets, np.random.default_rng(SEED))
            return float(np.mean([each["two_way"] for each in found.values()]))

        image_bank = image_bank_targets(config, dataset.stimuli, models, report)
        held_out = decode_nested(candidates, shown, targets, score, report, origins=origins, image_bank=image_bank)
        scores = feature_scores(held_out, targets, np.random.default_rng(SEED))
        if by_likelihood := _by_likelihood(held_out, shown, targets, models, spec, report):
            scores["likelihood"] = by_likelihood
        if targets.z is not None:
            scores["picture"] = picture_scores(held_out, shown.images, draw, report)
        return {
            "held_out": {"split": spec.split, "folds": len(held_out.folds)},
            "scores": scores,
            "overlap": fold_overlap(held_out, shown),
            **about,
            **_choices(config, held_out.chosen),
        }


def _by_likelihood(
    held_out: HeldOutPredictions,
    shown: StimulusTable,
    targets: Targets,
    models: Models,
    spec: DecoderSpec,
    report: Progress,
) -> dict[str, Any]:
    """Score an encoding model on the same folds; nothing where windows are not of one participant, or pictures few."""
    from decoder.data.picture_features import PICTURE_FEATURES, compute_picture_features
    from decoder.evaluation.likelihood import likelihood_scores
    from decoder.features import block_name

    kinds = tuple(PICTURE_FEATURES) if "clip" in models.parts else ("thumbnail", "early")
    known = {block_name(block): units for block, units in targets.s.items()} | targets.seen
    rest = [kind for kind in kinds if not any(PICTURE_FEATURES[kind].gives(name) for name in known)]
    computed = compute_picture_features(shown.images, models, kinds=rest, blocks=spec.blocks, progress=report)
    return likelihood_scores(held_out.samples, held_out.folds, known | computed, spec.preprocess, SEED, report)


def _plain(config: Config, recording: Recording) -> Config | None:
    """Return the config as the Riemannian baseline has it: its own filters, and no window rejected by it alone.

    None where its filters do not fit what is recorded, as a scanner's volumes.
    """
    from decoder.models.riemann_baseline import HIGHPASS, LOWPASS, ORDER
    from stream.types.recording import choose_streams

    stream, *_ = choose_streams(recording, config.source, config.extra)
    rate = config.filters.resample or stream.sfreq / config.filters.decimate
    if config.window.mode not in {"event", "sliding"} or rate <= 2 * LOWPASS:
        return None
    changes = {"highpass": HIGHPASS, "lowpass": LOWPASS, "order": ORDER, "levels": "warn"}
    filters = config.filters.model_copy(update=changes | {"reject_peak_to_peak": {}, "flat": {}})
    return config.model_copy(update={"filters": filters, "candidates": ()})


def _riemann(baseline: Candidate, dataset: Dataset, origins: list[Origin]) -> dict[str, Any]:
    """Score the field's plain Riemannian decoder on the same windows and folds."""
    from decoder.data.training_set import gather
    from decoder.estimators.classifiers import Trials
    from decoder.models.riemann_baseline import riemann_baseline

    part = gather(baseline.windows, dataset.stimuli, baseline.spec, origins=origins)
    trials = Trials(part.data, part.times, part.rows, dataset.stimuli.ids, part.runs)
    assert baseline.spec.category is not None
    return riemann_baseline(trials, baseline.spec.category.cv_folds)


def _candidates(
    config: Config, dataset: Dataset, report: Progress, variants: Sequence[Config]
) -> tuple[list[Candidate], list[Origin], dict[str, int], Rejection]:
    """Cut all recordings as each variant has it, into the windows that all can use; say where each is from.

    Limits are learned from the training recordings, without labels. Windows are counted as the config itself cuts them.
    """
    from decoder.data.usable import usable
    from decoder.preprocessing.badchannels import without_bad_channels
    from decoder.training.crossval import Candidate

    tables: list[list[tuple[tuple[str, float], Window]]] = []
    reasons: list[dict[str, int]] = []
    accounts: list[Rejection] = []
    n_used = 0
    for variant in variants:
        profile = learn_profile(dataset.train, variant, report)
        by_run = by_recording([*dataset.train, dataset.live], variant, report, profile)
        if not accounts:
            every = [window for _, cut_from in by_run for window in cut_from]
            accounts.append(rejection(every, variant, profile, dataset.stimuli.ids))
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
        for table, variant in zip(tables, variants, strict=True)
    ]
    return candidates, [origin_of(run, dataset) for run, _ in places], reasons[0], accounts[0]


def _choices(config: Config, chosen: NDArray[np.intp]) -> dict[str, Any]:
    """Return how often each candidate was chosen; nothing where there was no choice."""
    if not config.candidates:
        return {}
    settings = [{}, *(each.model_dump(mode="json", exclude_unset=True) for each in config.candidates)]
    times = np.bincount(chosen, minlength=len(settings)).tolist()
    return {"chosen": [{"changes": one, "folds": n} for one, n in zip(settings, times, strict=True)]}


def picture_scores(
    held_out: HeldOutPredictions,
    images: NDArray[np.uint8],
    draw: Callable[[NDArray[np.float32]], NDArray[np.uint8]],
    report: Progress = no_progress,
) -> dict[str, Any]:
    """Score pictures drawn from the decoded latents by the VAE alone, beside the mean of the pictures trained on.

    Returns
    -------
    dict
        Of each metric that pixels tell picture by picture (`decoder.evaluation.metric_registry.pixel_scores`) its
        mean, `<key>_interval`, `<key>_mean_image` and `<key>_chance`, each picture held against another one; and what
        `decoder.evaluation.identify.identification` gives.
    """
    from decoder.evaluation.identify import identification
    from decoder.evaluation.metric_registry import pixel_scores, pixel_similarity
    from decoder.evaluation.metrics import bootstrap_interval

    rows = held_out.samples.rows
    drawn = draw(_latents(held_out))
    means = np.empty((len(rows), *images.shape[1:]), np.uint8)
    for train, test in held_out.folds:
        means[test] = np.round(images[np.unique(rows[train])].mean(axis=0, dtype=np.float64)).astype(np.uint8)
    rng = np.random.default_rng(SEED)
    other = (rows + rng.integers(1, len(images), len(rows))) % len(images)
    scored = partial(pixel_scores, progress=report)
    baseline, chance = scored(images[rows], means), scored(images[other], drawn)
    scores: dict[str, Any] = {}
    for key, own in scored(images[rows], drawn).items():
        scores[key] = round(float(own.mean()), 4)
        interval = bootstrap_interval(own, np.random.default_rng(SEED))
        scores[f"{key}_interval"] = [round(bound, 4) for bound in interval]
        scores[f"{key}_mean_image"] = round(float(baseline[key].mean()), 4)
        scores[f"{key}_chance"] = round(float(chance[key].mean()), 4)
    return scores | identification(pixel_similarity(images, drawn), rows, rng)


def _latents(held_out: HeldOutPredictions) -> NDArray[np.float32]:
    return np.stack([np.asarray(one.z) for one in held_out.features])


def _draw(models: Models, report: Progress, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Decode latents by the VAE, some at a time."""
    from decoder.parallel import in_batches, iterate_each

    parts = [latents[start : start + DRAWN_AT_A_TIME] for start in range(0, len(latents), DRAWN_AT_A_TIME)]
    told = in_batches(report, DRAWN_AT_A_TIME, len(latents))
    drawn = iterate_each(models.decode_latents, parts, about="pictures of z", progress=told, models=models)
    return np.concatenate(list(drawn))
