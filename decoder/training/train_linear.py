"""Linear models: penalties and units by cross-validation, weights on all samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.feature_registry import FEATURES
from decoder.data.splits import TrainTest
from decoder.data.targets import Targets
from decoder.data.training_set import TrainingSet
from decoder.errors import NO_IMAGE_BANK, TrainingError
from decoder.estimators.regression import make_regression
from decoder.features import block_name
from decoder.models.confidence import fit_typicality
from decoder.models.linear import Head, LinearModel
from decoder.parallel import apply_each
from decoder.preprocessing.preprocess import fit_preprocessor
from decoder.solvers.ridge import RidgeRegression, undo_shrinkage
from decoder.solvers.whitening import fit_whitening
from decoder.spec import DecoderSpec
from decoder.training.judging import DecodedHead, judge, make_designs
from decoder.training.nested import PenaltyChoice, best_units
from stream.types.progress import Progress, no_progress

if TYPE_CHECKING:
    from decoder.models.nearest_caption import NearestCaption
    from decoder.models.structure_prior import StructurePrior
Array = NDArray[np.float32]


COMPARED = ("c", "e")
"""Features that an encoder, or a prior from one to the other, may decode instead, as the same folds tell."""
CHUNK = 4096
"""Units regressed at a time: bounds memory whatever the size of the CLIP model."""
CONSTANT = 1e-5
"""A target that ranges less than this over the training pictures is carried along, not decoded."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearFit:
    """A linear model, and what its features look like from folds that did not see the picture.

    Attributes
    ----------
    model : LinearModel
    scores : dict
        By feature, as `decoder.training.judging.Judgement` has them. With a prior of structure, its blocks' 'prior'
        holds 'selection_r', the correlation of the units that it tells best of the held-out windows that chose them: a
        figure to compare settings by, too high to say how good they are.
    held_out : dict of str to ndarray, shape (n_samples, n_numbers), float32
        Of c and e, all of their numbers, about the mean of all samples.
    folds : list of (train, test)
        By which they were held out.
    """

    model: LinearModel
    scores: dict[str, Any]
    held_out: dict[str, Array]
    folds: list[TrainTest]


def fit_linear(
    samples: TrainingSet,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    image_bank: Targets | None = None,
    nested: bool = True,
    structure: "StructurePrior | None" = None,
) -> LinearFit:
    """Fit one linear model: penalties and units by cross-validation, weights on all samples.

    Preprocessing is fitted anew inside every fold, so nothing of a held-out picture is known to what predicts it.
    Scores and confidence are of settings that each fold's training part chose by itself (`decoder.training.nested`);
    not `nested`, which takes less than half the time, by those that all samples chose: too good to be reported. Where a
    prior of `structure` is given, its network is taken over, whose training takes longest, and no image bank is needed.
    """
    preprocess = fit_preprocessor(samples.data, samples.times, spec.preprocess)
    designs = make_designs(samples, spec, progress)
    regression = make_regression(
        [design.split for design in designs], preprocess(samples.data), spec.regression, spec.alphas
    )
    heads: list[Head] = []
    decoded: dict[str, DecodedHead] = {}
    for name, value in targets.numbers().items():
        head, decoded[name] = _fit_head(name, value, samples, regression, spec)
        heads.append(head)
    units = {block: values[samples.rows] for block, values in targets.s.items()}
    structure_heads = _fit_structure_heads(units, regression, spec, progress)
    heads += [head for head, _ in structure_heads]
    of_blocks = {block: found for block, (_, found) in zip(units, structure_heads, strict=True) if found is not None}
    progress("scores", 0, 1)
    judgement = judge(samples, designs, regression, decoded, targets, spec, nested=nested)
    progress("scores", 1, 1)
    scores = judgement.scores
    if of_blocks and spec.structure_prior is not None:
        from decoder.training.train_structure import fit_structure_prior, tune_structure_prior

        own = dict(zip(of_blocks, heads[-len(of_blocks) :], strict=True))
        if structure is not None:
            structure, told = tune_structure_prior(structure, samples, targets, own, of_blocks, spec)
        else:
            structure, told = fit_structure_prior(
                samples, targets, (preprocess, own), of_blocks, image_bank, spec, progress
            )
        for name, r in told.items():
            scores[name]["prior"] = {"selection_r": r}
    held_out = {}
    for head in heads:
        if head.name in COMPARED:
            held_out[head.name] = np.repeat(head.constant.reshape(1, -1), len(samples.rows), axis=0)
            held_out[head.name][:, head.active] = judgement.predictions[head.name]
    folds = [(design.split.train, design.split.test) for design in designs]
    evidence, posterior = None, None
    # Where an encoder is compared with ridge, c and e alone are fitted once more.
    if spec.encoding is not None and (targets.s or targets.seen):
        from decoder.training.train_posterior import fit_encoding_parts

        parts = fit_encoding_parts(samples, (targets, image_bank), heads, spec, folds if nested else [], progress)
        evidence, posterior = parts.evidence, parts.posterior
        scores |= parts.beside(scores)
    model = LinearModel(
        preprocess,
        heads,
        fit_typicality(samples.data),
        judgement.calibration,
        structure,
        evidence,
        posterior,
        _captions(heads, image_bank, spec),
    )
    return LinearFit(model, scores, held_out, folds)


def _captions(heads: Sequence[Head], image_bank: Targets | None, spec: DecoderSpec) -> "NearestCaption | None":
    """Take the captions of the bank where c is to be that of the nearest."""
    head = next((head for head in heads if head.name == "c"), None)
    if not spec.nearest_caption or head is None:
        return None
    if image_bank is None or image_bank.c is None:
        raise TrainingError(NO_IMAGE_BANK.format("nearest_caption"))
    from decoder.models.nearest_caption import NearestCaption

    return NearestCaption.of(image_bank.c, head.active, head.intercept)


def _fit_head(
    name: str, value: Array, samples: TrainingSet, regression: RidgeRegression, spec: DecoderSpec
) -> tuple[Head, DecodedHead]:
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
    gain = undo_shrinkage(Y, found.predictions, FEATURES[name].gain_in(spec))
    constant = flat[samples.rows[0]].reshape(value.shape[1:]).copy()
    head = Head(name, value.shape[1:], active.astype(np.int32), weights * gain, intercept, constant)
    return head, DecodedHead(flat[:, active], PenaltyChoice(found.choice, found.r), gain)


def _fit_structure_heads(
    units: Mapping[int, NDArray[np.float16]], regression: RidgeRegression, spec: DecoderSpec, progress: Progress
) -> list[tuple[Head, Array | None]]:
    """Find each block's best-decoded units and fit those.

    Parameters
    ----------
    units : mapping of int to ndarray, shape (n_samples, n_units)
        By block.
    regression : RidgeRegression
    spec : DecoderSpec
    progress : callable

    Returns
    -------
    heads : list of (Head, ndarray of shape (n_samples, n_kept), float32, or None)
        By block its head, and its units decoded from folds that did not see the picture; None where no prior of
        structure asks for them.

    Raises
    ------
    TrainingError
        If the pictures shown do not differ in a block.
    """
    for block, values in units.items():
        if (values == values[0]).all():
            raise TrainingError(
                f"structure of block {block} is the same for all pictures shown; there is nothing to decode"
            )
    parts = [(block, start) for block, values in units.items() for start in range(0, values.shape[1], CHUNK)]
    some = [units[block][:, start : start + CHUNK] for block, start in parts]
    choose = partial(_choose_units, regression, FEATURES["s"].gain_in(spec))
    chosen = apply_each(choose, some, about="structure", progress=progress)
    tasks = []
    for block, values in units.items():
        own = [each for (of, _), each in zip(parts, chosen, strict=True) if of == block]
        choice, r, gain = (np.concatenate(each) for each in zip(*own, strict=True))
        kept = best_units(r, spec.unit_fraction)
        tasks.append((block, values.shape[1], kept, values[:, kept], choice[kept], gain[kept]))
    fit = partial(_fit_structure_head, regression, spec)
    return apply_each(fit, tasks, about="structure", progress=progress)


def _choose_units(
    regression: RidgeRegression, strength: float, units: NDArray[np.float16]
) -> tuple[NDArray[np.float64], Array, Array]:
    """Choose the penalty of each of some units; return it, their held-out correlation, and the gain of all."""
    Y = units.astype(np.float32)
    found = regression.choose(Y)
    return found.choice, found.r, np.full(Y.shape[1], undo_shrinkage(Y, found.predictions, strength), np.float32)


def _fit_structure_head(
    regression: RidgeRegression,
    spec: DecoderSpec,
    task: tuple[int, int, NDArray[np.intp], NDArray[np.float16], NDArray[np.float64], Array],
) -> tuple[Head, Array | None]:
    """Fit a block's units that are kept, of so many, by their penalties and gains."""
    block, n_units, kept, units, choice, gain = task
    Y = units.astype(np.float32)
    weights, intercept = regression.fit(Y, choice)
    constant = np.zeros(n_units, np.float32)
    head = Head(block_name(block), (n_units,), kept.astype(np.int32), weights * gain, intercept, constant)
    if spec.structure_prior is None and not spec.s_whitening:
        return head, None
    held_out = gain * (regression.choose(Y).predictions - intercept)
    if spec.s_whitening:
        whiten = fit_whitening(Y, held_out + intercept, spec.s_whitening)
        head, held_out = replace(head, weights=whiten(head.weights)), whiten(held_out)
    return head, np.asarray(intercept + held_out, np.float32)
