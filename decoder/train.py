"""From windows and the pictures they answer to, to a bundle."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.badchannels import without_bad_channels
from decoder.bundle import WHOLE, Bundle, Model
from decoder.category import fit_category
from decoder.classifiers import Trials
from decoder.confidence import fit_typicality
from decoder.errors import TrainingError
from decoder.judging import Decoded, judge, make_designs
from decoder.linear import Head, LinearModel
from decoder.nested import Chosen
from decoder.preprocess import fit_preprocessor, input_bands
from decoder.reference import can_align, fit_reference
from decoder.regression import Regression, make_regression
from decoder.ridge import undo_shrinkage
from decoder.samples import Origin, Samples, gather, held_out_folds
from decoder.spec import DecoderSpec
from decoder.splits import Split
from decoder.stimuli import StimulusTable
from decoder.structure import structure_head
from decoder.subjects import in_common
from decoder.targets import Encoders, Progress, Targets, compute_targets, no_progress
from decoder.units import one_unit
from decoder.usable import usable
from decoder.versions import versions
from stream.windows import Window

Array = NDArray[np.float32]

CONSTANT = 1e-5
"""A target that ranges less than this over the training pictures is carried along, not decoded."""

logger = logging.getLogger(__name__)


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
    bank: Targets | None = None,
) -> Bundle:
    """Train a decoder.

    Parameters
    ----------
    windows : sequence of Window
        Each answers to the stimulus that its event's label names. Rejected windows and those whose label is no
        stimulus are left out and counted in the bundle's meta.
    stimuli : StimulusTable
    encoders : Encoders
    spec : DecoderSpec
    progress : callable
        Called with (what, done, total).
    origins : sequence of Origin, optional
        Where each window is from; left out, all are from one recording of one person.
    cache : Path or None
        Folder that keeps targets between runs.
    meta : mapping or None
        JSON-able facts that the bundle carries along: data, window, filters.
    bank : Targets or None
        `c` and `e` of captioned pictures that nobody was shown, from which a prior of `c` learns, and their `s`, from
        which one of structure does.

    Raises
    ------
    TrainingError
        If too few windows are left, or the spec does not fit them.
    """
    windows, bad = without_bad_channels(windows)
    used, left_out = usable(windows, stimuli.ids)
    shown = stimuli.select(sorted({label for _, label in used}))
    targets = compute_targets(
        shown, encoders, features=spec.features, blocks=spec.blocks, cache=cache, progress=progress
    )
    facts = {"feature_space": encoders.feature_space, "left_out": left_out, "channels_left_out": bad, **(meta or {})}
    kept = {id(window) for window, _ in used}
    if origins is not None:
        origins = [origin for origin, window in zip(origins, windows, strict=True) if id(window) in kept]
    chosen = [window for window, _ in used]
    return fit_targets(chosen, shown, targets, spec, progress, origins=origins, meta=facts, bank=bank)


def fit_targets(
    windows: Sequence[Window],
    stimuli: StimulusTable,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    origins: Sequence[Origin] | None = None,
    meta: Mapping[str, Any] | None = None,
    bank: Targets | None = None,
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
        templates = {name: value for name, value in (("c", targets.c), ("z", targets.z)) if value is not None}
        trials = Trials(samples.data, samples.times, samples.rows, stimuli.ids, samples.runs)
        models[WHOLE], scores = fit_category(trials, templates, spec.category, spec.preprocess)
    else:
        models[WHOLE], scores = fit_model(samples, targets, spec, progress, bank=bank)
    held_out: dict[str, str] = {}
    for number, (train, test) in enumerate(folds):
        name = f"fold{number}"
        progress("held-out folds", number, len(folds))
        models[name], _ = fit_model(in_common(apart.take(train)), targets, spec, bank=bank)
        held_out |= dict.fromkeys((stimuli.ids[row] for row in samples.rows[test]), name)
    if folds:
        progress("held-out folds", len(folds), len(folds))
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
        reference=fit_reference(samples.data) if one_unit(first.channels) and can_align(samples.data) else None,
    )


def _check_targets(targets: Targets, rows: NDArray[np.intp], stimuli: StimulusTable) -> None:
    """Refuse features that are not finite."""
    given = {
        "c": targets.c,
        "z": targets.z,
        "e": targets.e,
        **{f"s{block}": units for block, units in targets.s.items()},
    }
    for name, value in given.items():
        if value is None:
            continue
        for row in np.unique(rows):
            if not np.isfinite(value[row]).all():
                raise TrainingError(
                    f"feature {name!r} of picture {stimuli.ids[row]!r} is not finite; the model that computes it "
                    "overflows: choose another precision or model (engine.models), or leave the feature out"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A linear model, and what its features look like from folds that did not see the picture.

    Attributes
    ----------
    model : LinearModel
    scores : dict
        By feature, as `decoder.judging.Judgement` has them. With a prior of structure, its blocks' 'prior' holds
        'selection_r', the correlation of the units that it tells best of the held-out windows that chose them: a figure
        to compare settings by, too high to say how good they are.
    held_out : dict of str to ndarray, shape (n_samples, n_numbers), float32
        Of c and e, all of their numbers, about the mean of all samples.
    folds : list of (train, test)
        By which they were held out.
    """

    model: LinearModel
    scores: dict[str, Any]
    held_out: dict[str, Array]
    folds: list[Split]


def fit_model(
    samples: Samples,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    bank: Targets | None = None,
) -> tuple[Model, dict[str, Any]]:
    """Fit one model of the spec's family; gives it, and its scores by feature as `Fitted` has them."""
    if not (spec.may_encode or spec.may_use_prior):
        fitted = fit_linear(samples, targets, spec, progress, bank=bank)
        return fitted.model, fitted.scores
    from decoder.embedding import fit_embedding

    return fit_embedding(samples, targets, spec, progress, bank=bank)


def fit_linear(
    samples: Samples,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    bank: Targets | None = None,
    nested: bool = True,
) -> Fitted:
    """Fit one linear model: penalties and units by cross-validation, weights on all samples.

    Preprocessing is fitted anew inside every fold, so nothing of a held-out picture is known to what predicts it.
    Scores and confidence are of settings that each fold's training part chose by itself (`decoder.nested`); not
    `nested`, which takes less than half the time, by those that all samples chose: too good to be reported.
    """
    designs = make_designs(samples, spec, progress)
    preprocess = fit_preprocessor(samples.data, samples.times, spec.preprocess)
    regression = make_regression(
        *([design.fold for design in designs], preprocess(samples.data), spec.regression, spec.alphas),
        bands=input_bands(samples.channels, samples.times, spec.preprocess, spec.regression.bands),
        rng=np.random.default_rng([spec.seed, 3]),
    )
    heads: list[Head] = []
    decoded: dict[str, Decoded] = {}
    for name, value in (("c", targets.c), ("z", targets.z), ("e", targets.e)):
        if value is not None:
            head, decoded[name] = _fit_head(name, value, samples, regression, spec)
            heads.append(head)
    of_blocks: dict[int, Array] = {}
    for done, (block, units) in enumerate(targets.s.items()):
        progress("structure", done, len(targets.s))
        head, found_units = structure_head(block, units[samples.rows], regression, spec)
        if found_units is not None:
            of_blocks[block] = found_units
        heads.append(head)
    progress("structure", len(targets.s), len(targets.s))
    progress("scores", 0, 1)
    judgement = judge(samples, designs, regression, decoded, targets, spec, nested=nested)
    progress("scores", 1, 1)
    scores = judgement.scores
    structure = None
    if of_blocks:
        from decoder.train_structure import fit_structure_prior

        own = dict(zip(of_blocks, heads[-len(of_blocks) :], strict=True))
        structure, told = fit_structure_prior(samples, targets, (preprocess, own), of_blocks, bank, spec, progress)
        for name, r in told.items():
            scores[name]["prior"] = {"selection_r": r}
    held_out = {}
    for head in heads:
        if head.name in {"c", "e"}:
            held_out[head.name] = np.repeat(head.constant.reshape(1, -1), len(samples.rows), axis=0)
            held_out[head.name][:, head.active] = judgement.predictions[head.name]
    model = LinearModel(preprocess, heads, fit_typicality(samples.data), judgement.calibration, structure)
    return Fitted(model, scores, held_out, [(design.fold.train, design.fold.test) for design in designs])


def _fit_head(
    name: str, value: Array, samples: Samples, regression: Regression, spec: DecoderSpec
) -> tuple[Head, Decoded]:
    """Fit the weights onto c, z or e."""
    flat = value.reshape(len(value), -1)
    active = np.flatnonzero(np.ptp(flat[samples.rows], axis=0) > CONSTANT)
    Y = flat[samples.rows][:, active]
    if not len(active):
        raise TrainingError(
            f"feature {name!r} is the same for all {len(np.unique(samples.rows))} pictures shown: there is nothing "
            "to decode; leave it out of decoder.features, or show other pictures"
        )
    found = regression.choose(Y)
    weights, intercept = regression.fit(Y, found.choice)
    gain = undo_shrinkage(Y, found.predictions, {"c": spec.c_gain, "z": spec.z_gain, "e": 0.0}[name])
    constant = flat[samples.rows[0]].reshape(value.shape[1:]).copy()
    head = Head(name, value.shape[1:], active.astype(np.int32), weights * gain, intercept, constant)
    return head, Decoded(flat[:, active], Chosen(found.choice, found.r), gain)
