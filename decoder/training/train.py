"""From windows and the pictures they answer to, to a bundle."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decoder.alignment.subjects import in_common
from decoder.data.feature_registry import FEATURES, Encoders
from decoder.data.splits import TrainTest
from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets, compute_targets
from decoder.data.training_set import Origin, TrainingSet, gather, held_out_folds
from decoder.data.usable import usable
from decoder.errors import TrainingError
from decoder.estimators.classifiers import Trials
from decoder.models.bundle import WHOLE, Bundle
from decoder.models.category import fit_category
from decoder.models.family import Model, fit_of
from decoder.parallel import apply_each
from decoder.preprocessing.badchannels import without_bad_channels
from decoder.preprocessing.session_moments import can_align, fit_session_moments
from decoder.preprocessing.units import one_unit
from decoder.spec import DecoderSpec
from decoder.training.train_embedding import fit_embedding
from decoder.training.train_family import family_scores
from decoder.training.train_linear import fit_linear
from decoder.versions import versions
from stream.types.progress import Progress, no_progress
from stream.types.windows import Window

if TYPE_CHECKING:
    from decoder.models.structure_prior import StructurePrior

Array = NDArray[np.float32]


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledWindows:
    """Windows that can be learned from, and what is to be decoded of them.

    Attributes
    ----------
    windows : list of Window
        Each answers to a stimulus.
    stimuli : StimulusTable
        Those that the windows answer to.
    targets : Targets
        One row a stimulus.
    origins : list of Origin, or None
        Where each window is from.
    meta : dict
        How many windows and channels were left out, and the feature space.
    """

    windows: list[Window]
    stimuli: StimulusTable
    targets: Targets
    origins: list[Origin] | None
    meta: dict[str, Any]

    def samples(self, spec: DecoderSpec) -> TrainingSet:
        """Return the windows side by side, each participant's channels mapped to the mean statistics of all."""
        return in_common(gather(self.windows, self.stimuli, spec, origins=self.origins))


def prepare(
    windows: Sequence[Window],
    stimuli: StimulusTable,
    encoders: Encoders,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    origins: Sequence[Origin] | None = None,
    cache: Path | None = None,
) -> LabelledWindows:
    """Leave out what cannot be learned from, and compute what is to be decoded.

    Parameters
    ----------
    windows : sequence of Window
        Each answers to the stimulus that its event's label names. Rejected windows and those whose label is no
        stimulus are left out and counted.
    stimuli : StimulusTable
    encoders : Encoders
    spec : DecoderSpec
    progress : callable
        Called with (what, done, total).
    origins : sequence of Origin, optional
        Where each window is from; left out, all are from one recording of one person.
    cache : Path or None
        Folder that keeps targets between runs.

    Raises
    ------
    TrainingError
        If too few windows are left.
    """
    windows, bad = without_bad_channels(windows)
    used, left_out = usable(windows, stimuli.ids)
    shown = stimuli.select(sorted({label for _, label in used}))
    targets = compute_targets(
        shown, encoders, features=spec.features, blocks=spec.blocks, seen=spec.seen, cache=cache, progress=progress
    )
    kept = {id(window) for window, _ in used}
    if origins is not None:
        origins = [origin for origin, window in zip(origins, windows, strict=True) if id(window) in kept]
    meta = {"feature_space": encoders.feature_space, "left_out": left_out, "channels_left_out": bad}
    return LabelledWindows([window for window, _ in used], shown, targets, origins, meta)


def fit(
    windows: Sequence[Window],
    stimuli: StimulusTable,
    encoders: Encoders,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    origins: Sequence[Origin] | None = None,
    cache: Path | None = None,
    meta: Mapping[str, Any] | None = None,
    image_bank: Targets | None = None,
) -> Bundle:
    """Train a decoder: `prepare`, then `fit_targets`.

    Parameters
    ----------
    windows, stimuli, encoders, spec, progress, origins, cache
        As `prepare` has them.
    meta : mapping or None
        JSON-able facts that the bundle carries along: data, window, filters.
    image_bank : Targets or None
        `c` and `e` of captioned pictures that nobody was shown, from which a prior of `c` learns, and their `s`, from
        which one of structure does.

    Raises
    ------
    TrainingError
        If too few windows are left, or the spec does not fit them.
    """
    ready = prepare(windows, stimuli, encoders, spec, progress, origins=origins, cache=cache)
    return fit_prepared(ready, spec, progress, meta=meta, image_bank=image_bank)


def fit_prepared(
    ready: LabelledWindows,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    meta: Mapping[str, Any] | None = None,
    image_bank: Targets | None = None,
) -> Bundle:
    """Train on what `prepare` gave; as `fit` otherwise."""
    facts = {**ready.meta, **(meta or {})}
    return fit_targets(
        ready.windows,
        ready.stimuli,
        ready.targets,
        spec,
        progress,
        origins=ready.origins,
        meta=facts,
        image_bank=image_bank,
    )


def fit_targets(
    windows: Sequence[Window],
    stimuli: StimulusTable,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    origins: Sequence[Origin] | None = None,
    meta: Mapping[str, Any] | None = None,
    image_bank: Targets | None = None,
) -> Bundle:
    """Train on targets computed already, one row a stimulus; as `fit` otherwise.

    Every window's label must be a stimulus.
    """
    windows, bad = without_bad_channels(windows)
    meta = {**(meta or {})}
    meta["channels_left_out"] = {**meta.get("channels_left_out", {}), **bad}
    apart = gather(windows, stimuli, spec, origins=origins)
    _check_targets(targets, apart.rows, stimuli)
    samples = in_common(apart)
    folds = held_out_folds(samples, spec) if spec.category is None else []
    models: dict[str, Model] = {}
    if spec.category is not None:
        templates = {name: value for name, value in targets.numbers().items() if FEATURES[name].mixed}
        trials = Trials(samples.data, samples.times, samples.rows, stimuli.ids, samples.runs)
        models[WHOLE], scores = fit_category(trials, templates, spec.category, spec.preprocess)
    else:
        models[WHOLE], scores = fit_model(samples, targets, spec, progress, image_bank=image_bank)
        if (fit_family := fit_of(spec.family)) is not None:
            scores = family_scores(fit_family, windows, samples, targets, spec, progress)
    held_out: dict[str, str] = {}
    fit_fold = partial(_fit_fold, apart, targets, spec, image_bank)
    for number, fold in enumerate(apply_each(fit_fold, folds, about="held-out folds", progress=progress)):
        models[f"fold{number}"] = fold
        held_out |= dict.fromkeys((stimuli.ids[row] for row in samples.rows[folds[number][1]]), f"fold{number}")
    first = windows[0]
    facts = {
        "decoder": spec.model_dump(mode="json"),
        "windows": len(windows),
        "pictures": len(stimuli),
        "scores": scores,
        "versions": versions(),
        "trained": datetime.now(UTC).isoformat(timespec="seconds"),
        **meta,
    }
    return Bundle(
        models,
        first.channels,
        sfreq=first.sfreq,
        n_times=first.data.shape[1],
        tmin=first.tmin,
        held_out=held_out,
        meta=facts,
        # A map between covariances means nothing across units, nor across streams with clocks of their own.
        moments=fit_session_moments(samples.data) if one_unit(first.channels) and can_align(samples.data) else None,
    )


def _fit_fold(
    apart: TrainingSet, targets: Targets, spec: DecoderSpec, image_bank: Targets | None, split: TrainTest
) -> Model:
    """Fit the model of a split's training part."""
    return fit_model(in_common(apart.take(split[0])), targets, spec, image_bank=image_bank)[0]


def _check_targets(targets: Targets, rows: NDArray[np.intp], stimuli: StimulusTable) -> None:
    """Refuse features that are not finite."""
    for name, value in targets.arrays().items():
        for row in np.unique(rows):
            if not np.isfinite(value[row]).all():
                raise TrainingError(
                    f"feature {name!r} of picture {stimuli.ids[row]!r} is not finite; the model that computes it "
                    "overflows: choose another precision or model (engine.models), or leave the feature out"
                )


def fit_model(
    samples: TrainingSet,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    image_bank: Targets | None = None,
    structure: "StructurePrior | None" = None,
    nested: bool = True,
) -> tuple[Model, dict[str, Any]]:
    """Fit one model of the spec's family; return it, and its scores by feature as `LinearFit` has them.

    `structure` and, of a linear model, `nested` are as `fit_linear` has them. A family with a `fit` of its own has no
    scores here: `decoder.training.train_family.family_scores` gives them.
    """
    if (fit_family := fit_of(spec.family)) is not None:
        return fit_family(samples, targets, spec), {}
    if not (spec.may_encode or spec.may_use_prior):
        fitted = fit_linear(samples, targets, spec, progress, image_bank=image_bank, structure=structure, nested=nested)
        return fitted.model, fitted.scores
    return fit_embedding(samples, targets, spec, progress, image_bank=image_bank, structure=structure)
