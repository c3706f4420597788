"""Scores of held-out windows, decoded with settings that were chosen without them.

Penalties, inputs and units are chosen by held-out windows; scored on the very windows that chose them, the best of many
settings looks good on noise. So for each fold they are chosen anew by what its training part alone says: neighbouring
folds are held out of that in turn, with preprocessing fitted anew. What is decoded by the folds' own fits at those
settings is what is scored, and what confidence is learned from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import TrainTest, group_folds
from decoder.data.training_set import TrainingSet
from decoder.parallel import apply_each
from decoder.preprocessing.preprocess import Preprocessor, PreprocessSpec, fit_preprocessor
from decoder.solvers.ridge import RidgeRegression, Split
from stream.types.progress import Progress, no_progress

Array = NDArray[np.float32]
Rows = NDArray[np.intp]

UNITS_SCORED = 1024
"""So many random units of a block tell how well its best are decoded: a share of them is kept as of all."""
NEIGHBOURS = (1, -1)
"""Which folds, counted from the one that is scored, settings are chosen by."""


@dataclass(frozen=True, slots=True, eq=False)
class PenaltyChoice:
    """What a fold's training part chose for a feature.

    Attributes
    ----------
    choice : ndarray, shape (n_targets,)
        As `decoder.solvers.ridge.CrossValidation` has it.
    r : ndarray, shape (n_targets,)
        Held-out correlation within the training part.
    """

    choice: NDArray[np.float64]
    r: Array


def choose_nested(
    samples: TrainingSet,
    splits: Sequence[TrainTest],
    regression: RidgeRegression,
    targets: Mapping[str, Array],
    spec: PreprocessSpec,
    progress: Progress = no_progress,
) -> list[dict[str, PenaltyChoice]] | None:
    """Choose settings for each fold by its training part alone.

    Parameters
    ----------
    samples : TrainingSet
    splits : sequence of (train, test)
    regression : RidgeRegression
        Of all samples: its candidates are tried.
    targets : mapping of str to ndarray, shape (n_samples, n_targets)
        By feature.
    spec : PreprocessSpec
    progress : callable

    Returns
    -------
    chosen : list of dict of str to PenaltyChoice, or None
        By fold and feature; None where a training part is of one picture, by which nothing can be chosen.
    """
    inner = [inner_splits(samples, splits, number) for number in range(len(splits))]
    if not all(inner):
        return None
    parts = {train.tobytes(): train for fold in inner for train, _ in fold}
    about = "inner cross-validation"
    fitted = apply_each(
        partial(fit_rows, samples.data, samples.times, spec), list(parts.values()), about=about, progress=progress
    )
    by_part = dict(zip(parts, fitted, strict=True))
    tasks = [[(by_part[train.tobytes()], train, test) for train, test in fold] for fold in inner]
    choose = partial(_choose, samples.data, regression.chooser([]), targets)
    return apply_each(choose, tasks, about=about, progress=progress)


def fit_rows(data: Array, times: NDArray[np.float64], spec: PreprocessSpec, rows: Rows) -> Preprocessor:
    """Fit the preprocessing on some windows of all."""
    return fit_preprocessor(data[rows], times, spec)


def _choose(
    data: Array,
    regression: RidgeRegression,
    targets: Mapping[str, Array],
    inner: Sequence[tuple[Preprocessor, Rows, Rows]],
) -> dict[str, PenaltyChoice]:
    """Choose settings by inner splits, each with what prepares it."""
    splits = [Split(train, test, prepare(data[train]), prepare(data[test])) for prepare, train, test in inner]
    chooser = regression.chooser(splits)
    found = ((name, chooser.choose(Y)) for name, Y in targets.items())
    return {name: PenaltyChoice(each.choice, each.r) for name, each in found}


def inner_splits(samples: TrainingSet, splits: Sequence[TrainTest], number: int) -> list[TrainTest]:
    """Split the training part of a fold by its neighbours; where they leave nothing to learn from, by pictures.

    Returns
    -------
    inner : list of (train, test)
        Rows of all samples, none held out twice; none of them where the part is of one picture.
    """
    own = splits[number][0]
    found: dict[int, TrainTest] = {}
    for step in NEIGHBOURS:
        for distance in range(1, len(splits)):
            other = (number + step * distance) % len(splits)
            train, test = np.intersect1d(own, splits[other][0]), np.intersect1d(own, splits[other][1])
            if len(test) and len(np.unique(samples.groups[train])) > 1:
                found[other] = (train, test)
                break
    if found:
        return list(found.values())
    groups = samples.groups[own]
    if len(np.unique(groups)) < 2:
        return []
    halves = group_folds(groups.tolist(), 2, np.random.default_rng(number))
    return [(own[train], own[test]) for train, test in halves]


def best_units(r: Array, fraction: float) -> Rows:
    """Return the places of the best-decoded share of units, one at least, in order."""
    n_kept = max(1, round(fraction * len(r)))
    return np.sort(np.argpartition(-r, n_kept - 1)[:n_kept])


def some_units(n_units: int, rng: np.random.Generator) -> Rows:
    """Return the units of a block that are scored, in order."""
    return np.sort(rng.permutation(n_units)[:UNITS_SCORED])


@dataclass(frozen=True, slots=True, eq=False)
class UnitPredictions:
    """A block's units, decoded where the fold's training part counted them among the best.

    Attributes
    ----------
    deviations, truth : ndarray, shape (n_samples, n_units), float32
        From the mean of the fold's training part; 0 where not kept.
    kept : ndarray of bool, shape (n_samples, n_units)
    """

    deviations: Array
    truth: Array
    kept: NDArray[np.bool_]


def fold_correlations(deviations: Array, truth: Array, folds: Sequence[Rows]) -> Array:
    """Correlate decoded columns with the truth, each fold's decoded ones scaled to one size first; 0 of constant ones.

    Each fold has its own settings. A column that a fold decodes boldly was decoded well, by luck or not, by the other
    folds; pooled as they are, bold folds would count for more, and of noise they are those that do badly.

    Parameters
    ----------
    deviations, truth : ndarray, shape (n, n_targets)
        About the means of the folds' training parts; 0 in rows where a column does not count.
    folds : sequence of ndarray of int
        Rows of each.
    """
    shared = np.zeros(truth.shape[1])
    counted = np.zeros(truth.shape[1])
    for rows in folds:
        own, true = deviations[rows], truth[rows]
        size = np.sqrt(np.einsum("ij,ij->j", own, own, dtype=np.float64))
        n = np.count_nonzero(true, axis=0)
        product = np.sqrt(n) * np.einsum("ij,ij->j", own, true, dtype=np.float64)
        shared += np.divide(product, size, out=np.zeros_like(size), where=size > 0)
        counted += n
    norm = np.sqrt(counted * np.einsum("ij,ij->j", truth, truth, dtype=np.float64))
    return np.asarray(np.divide(shared, norm, out=np.zeros_like(norm), where=norm > 0), np.float32)


def decode_units(
    Y: Array,
    chosen: Sequence[PenaltyChoice],
    splits: Sequence[TrainTest],
    inputs: Sequence[Array],
    fit: RidgeRegression,
    share: float,
) -> UnitPredictions:
    """Decode each fold's units that its training part tells best.

    Parameters
    ----------
    Y : ndarray, shape (n_samples, n_units), float32
    chosen : sequence of PenaltyChoice
        By fold.
    splits : sequence of (train, test)
    inputs : sequence of ndarray
        Of each fold's held-out samples.
    fit : RidgeRegression
    share : float
        Of the units that is kept.
    """
    deviations, truth = np.zeros((2, *Y.shape), np.float32)
    kept = np.zeros(Y.shape, np.bool_)
    for number, ((train, test), own) in enumerate(zip(splits, chosen, strict=True)):
        best = best_units(own.r, share)
        place = np.ix_(test, best)
        deviations[place] = fit.predict_split(number, inputs[number], Y[:, best], own.choice[best])
        truth[place] = Y[place] - Y[train][:, best].mean(axis=0)
        kept[place] = True
    return UnitPredictions(deviations, truth, kept)
