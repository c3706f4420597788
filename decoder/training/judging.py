"""How well a linear decoder does, and how far its windows are to be believed, by windows that chose nothing of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import TrainTest
from decoder.data.targets import Targets
from decoder.data.training_set import TrainingSet
from decoder.evaluation.identify import training_identification
from decoder.evaluation.metrics import correlation_matrix, rounded_mean, two_way
from decoder.features import block_name
from decoder.models.confidence import Calibration, FoldStatistics, calibrate, window_statistics
from decoder.parallel import apply_each
from decoder.solvers.ridge import RidgeRegression, Split
from decoder.spec import DecoderSpec
from decoder.training.nested import (
    PenaltyChoice,
    UnitPredictions,
    choose_nested,
    decode_units,
    fit_rows,
    fold_correlations,
    some_units,
)
from stream.types.progress import Progress

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

SHIFT_RANGE = (0.25, 0.75)
"""How far, in windows, a surrogate is shifted in time: its noise stays as it was, its response is lost."""


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """A split, with the inputs on which confidence is learned: held-out windows, and surrogates without response."""

    split: Split
    inputs: Array

    @property
    def n_held_out(self) -> int:
        """Return how many of the inputs are held-out windows; the others are surrogates."""
        return len(self.split.test)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedHead:
    """A feature that a head decodes, as a judge needs to know it.

    Attributes
    ----------
    features : ndarray, shape (n_pictures, n_active), float32
        Its true numbers.
    chosen : PenaltyChoice
        What all samples chose for it.
    gain : float
        Factor that the head puts on what is decoded.
    """

    features: Array
    chosen: PenaltyChoice
    gain: float


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What windows say of a decoder that chose nothing of it.

    Attributes
    ----------
    scores : dict
        By feature: 'r', mean correlation over its numbers, of `s` over the units that the other windows count among
        the best; and of c, z and e (of the first block of `s`, where there is nothing else) 'two_way' and 'top1' with
        interval and chance, as `decoder.evaluation.identify.identification`. Where a training part is of one picture,
        by which nothing can be chosen, they are of the windows that chose the settings, flatter, and are called
        'selection_...'. 'confidence' as `decoder.models.confidence.calibrate` has it.
    predictions : dict of str to ndarray, shape (n_samples, n_active), float32
        Of c, z and e, about the mean of all samples.
    calibration : Calibration
    """

    scores: dict[str, Any]
    predictions: dict[str, Array]
    calibration: Calibration


def make_designs(samples: TrainingSet, spec: DecoderSpec, progress: Progress) -> list[Design]:
    """Split samples by the spec, and prepare each fold by what was fitted on its training part."""
    rng = np.random.default_rng(spec.seed)
    splits = samples.folds(spec.cv_folds, rng)
    fit_part = partial(fit_rows, samples.data, samples.times, spec.preprocess)
    fitted = apply_each(fit_part, [train for train, _ in splits], about="cross-validation", progress=progress)
    out = []
    for preprocess, (train, test) in zip(fitted, splits, strict=True):
        held_out = preprocess(samples.data[test])
        surrogates = preprocess(circular_shift(samples.data[test], rng)) if len(samples.times) > 1 else held_out[:0]
        split = Split(train, test, preprocess(samples.data[train]), held_out)
        out.append(Design(split, np.concatenate([held_out, surrogates])))
    return out


def circular_shift(data: Array, rng: np.random.Generator) -> Array:
    """Shift each window circularly in time by its own random amount, all channels together.

    Parameters
    ----------
    data : ndarray, shape (n, n_channels, n_times)
    rng : numpy.random.Generator

    Returns
    -------
    surrogates : ndarray, shape of `data`
    """
    n_times = data.shape[2]
    low, high = (round(share * n_times) for share in SHIFT_RANGE)
    shifts = rng.integers(low, max(high, low + 1), size=len(data))
    return np.stack([np.roll(window, shift, axis=1) for window, shift in zip(data, shifts, strict=True)])


def judge(
    samples: TrainingSet,
    designs: Sequence[Design],
    regression: RidgeRegression,
    heads: Mapping[str, DecodedHead],
    targets: Targets,
    spec: DecoderSpec,
    *,
    nested: bool,
) -> Judgement:
    """Decode each fold with settings that its training part chose, and learn from that how far to believe what.

    Parameters
    ----------
    samples : TrainingSet
    designs : sequence of Design
    regression : RidgeRegression
        Of all samples, by the designs' folds.
    heads : mapping of str to DecodedHead
        Of c, z and e.
    targets : Targets
        Its `s` is scored on some random units of each block.
    spec : DecoderSpec
    nested : bool
        False: by the settings that all samples chose, which is sooner done, and flatters.
    """
    rng = np.random.default_rng([spec.seed, 7])
    splits = [(design.split.train, design.split.test) for design in designs]
    blocks = {block_name(block): units for block, units in targets.s.items()}
    scored = {name: some_units(units.shape[1], rng) for name, units in blocks.items()}
    if not heads:  # the first block says how far a window is to be believed, by all its units
        first = next(iter(blocks))
        scored[first] = np.arange(blocks[first].shape[1])
    Y = {name: head.features[samples.rows] for name, head in heads.items()}
    Y |= {name: units[samples.rows][:, scored[name]].astype(np.float32) for name, units in blocks.items()}
    chosen = choose_nested(samples, splits, regression, Y, spec.preprocess) if nested else None
    prefix = "" if chosen is not None else "selection_"
    if chosen is None:
        every = {name: head.chosen for name, head in heads.items()}
        found = ((name, regression.choose(Y[name])) for name in blocks)
        every |= {name: PenaltyChoice(each.choice, each.r) for name, each in found}
        chosen = [every] * len(splits)
    scores: dict[str, Any] = {}
    predictions: dict[str, Array] = {}
    deviations: list[list[Array]] = [[] for _ in designs]
    correct: list[Floats] = []
    nested_told: list[Floats] = []
    inputs = [design.split.X_test for design in designs]
    for name, head in heads.items():
        own = [each[name] for each in chosen]
        parts, held_out = _decode_folds(Y[name], head, own, designs, regression)
        for of_fold, part in zip(deviations, parts, strict=True):
            of_fold.append(head.gain * part)
        used = [part[: design.n_held_out] for part, design in zip(parts, designs, strict=True)]
        scores[name], predictions[name], told = fold_scores(head.features, samples.rows, splits, held_out, prefix)
        nested_told.append(told)
        correct.append(_told_about_all(head.features, samples.rows, splits, used))
    for name in blocks:
        own_units = [each[name] for each in chosen]
        units = decode_units(Y[name], own_units, splits, inputs, regression, spec.unit_fraction)
        r = fold_correlations(units.deviations, units.truth, [test for _, test in splits])
        scores[name] = {f"{prefix}r": round(float(np.average(r, weights=units.kept.sum(axis=0))), 4)}
        if not correct:
            r_of_pictures, row_of = _similarity_by_units(units, blocks[name][:, scored[name]], samples.rows, splits)
            correct.append(two_way(r_of_pictures, row_of))
            nested_told = correct
            scores[name] |= training_identification(r_of_pictures, row_of) if not prefix else {}
    calibration, scores["confidence"] = _calibration(designs, deviations, correct, nested_told)
    return Judgement(scores, predictions, calibration)


def _decode_folds(
    Y: Array, head: DecodedHead, own: Sequence[PenaltyChoice], designs: Sequence[Design], regression: RidgeRegression
) -> tuple[list[Array], list[Array]]:
    """Decode each fold's inputs by the settings in use, and what it holds out by those that its training part chose."""
    used, held_out = [], []
    for number, (design, chosen) in enumerate(zip(designs, own, strict=True)):
        used.append(regression.predict_split(number, design.inputs, Y, head.chosen.choice))
        if chosen is head.chosen:
            held_out.append(used[-1][: design.n_held_out])
        else:
            held_out.append(regression.predict_split(number, design.split.X_test, Y, chosen.choice))
    return used, held_out


def fold_scores(
    features: Array, rows: Rows, splits: Sequence[TrainTest], held_out: Sequence[Array], prefix: str
) -> tuple[dict[str, Any], Array, Floats]:
    """Score deviations from each fold's training mean; return predictions about the mean of all samples, too."""
    Y = features[rows]
    mean = Y.mean(axis=0, dtype=np.float64).astype(np.float32)
    found, truth = np.empty_like(Y), np.empty_like(Y)
    for (train, test), own in zip(splits, held_out, strict=True):
        found[test], truth[test] = own, Y[test] - Y[train].mean(axis=0)
    similarity, row_of = similarity_to_shown(features - mean, found, rows)
    told = two_way(similarity, row_of)
    scores = {
        "r": rounded_mean(fold_correlations(found, truth, [test for _, test in splits])),
        "two_way": rounded_mean(told),
    }
    if prefix:
        return {f"{prefix}{name}": score for name, score in scores.items()}, found + mean, told
    return scores | training_identification(similarity, row_of), found + mean, told


def _told_about_all(features: Array, rows: Rows, splits: Sequence[TrainTest], held_out: Sequence[Array]) -> Floats:
    """Identify each sample's picture by its fold's decoding about the mean of all.

    What is decoded as nearly nothing is told by the distance of the fold's mean from that, which is to say badly: the
    size of what is decoded tells how far to believe it.
    """
    Y = features[rows]
    predictions = np.empty_like(Y)
    for (train, test), own in zip(splits, held_out, strict=True):
        predictions[test] = own + Y[train].mean(axis=0)
    return two_way_about_mean(features, predictions, rows, Y.mean(axis=0, dtype=np.float64).astype(np.float32))


def _similarity_by_units(
    units: UnitPredictions, features: NDArray[np.float16], rows: Rows, splits: Sequence[TrainTest]
) -> tuple[Floats, Rows]:
    """Correlate each sample with all pictures by the units that its fold kept; the row of its own picture, too."""
    shown, own = np.unique(rows, return_inverse=True)
    r = np.empty((len(shown), len(rows)))
    for train, test in splits:
        kept = np.flatnonzero(units.kept[test[0]])
        true = features[:, kept].astype(np.float32)
        deviations = true[shown] - true[rows[train]].mean(axis=0)
        r[:, test] = correlation_matrix(deviations, units.deviations[np.ix_(test, kept)])
    return r, own


def two_way_about_mean(features: Array, predictions: Array, rows: Rows, mean: Array) -> Floats:
    """Two-way identification of each sample's picture among those of the samples, by correlation about the mean."""
    return two_way(*similarity_to_shown(features - mean, predictions - mean, rows))


def similarity_to_shown(features: Array, predictions: Array, rows: Rows) -> tuple[Floats, Rows]:
    """Correlate what was decoded of each sample with the samples' pictures; the row of its own picture, too."""
    # Not with all that have features: pictures that are held out must not be known to what is fitted here.
    shown, own = np.unique(rows, return_inverse=True)
    return correlation_matrix(features[shown], predictions), own


def _calibration(
    designs: Sequence[Design],
    deviations: Sequence[Sequence[Array]],
    correct: Sequence[Floats],
    nested: Sequence[Floats],
) -> tuple[Calibration, dict[str, float]]:
    """Learn confidence from held-out windows, and from surrogates without a response."""
    told, honest = np.mean(correct, axis=0), np.mean(nested, axis=0)
    folds = []
    for design, known in zip(designs, deviations, strict=True):
        statistics = window_statistics(design.inputs, list(known))
        own, surrogates = np.split(statistics, [design.n_held_out])
        rows = design.split.test
        folds.append(FoldStatistics(own, told[rows], surrogates, honest[rows]))
    return calibrate(folds)
