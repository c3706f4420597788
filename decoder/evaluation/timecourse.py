"""When, and where, each feature can be decoded: cross-validated ridge on parts of the window, beside chance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import TrainTest, category_folds, group_folds, permute_blocks
from decoder.errors import TrainingError
from decoder.parallel import apply_each
from decoder.solvers.ridge import Split, cross_validate

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

ALPHAS = (0.5, 5.0, 50.0)
"""Candidate penalties, in units of the inputs' mean eigenvalue: few, as every permutation chooses among them too."""
COLUMNS = 2000
"""Targets regressed at a time: bounds memory whatever the number of permutations."""
LEVEL = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Decodability:
    """Scores of features decoded from each of several parts of the window.

    Attributes
    ----------
    features : tuple of str
    score : ndarray, shape (n_features, n_parts)
        Held-out correlation, averaged over a feature's principal components by their variance; chance is 0.
    low, high : ndarray, shape (n_features, n_parts)
        Where 95 % of the scores lie when pictures are permuted: each part alone.
    threshold : float
        What the best of all parts and features stays below in 95 % of permutations: family-wise error 5 %.
    n_permutations : int
    """

    features: tuple[str, ...]
    score: Floats
    low: Floats
    high: Floats
    threshold: float
    n_permutations: int

    @property
    def significant(self) -> NDArray[np.bool_]:
        """Where a score passes the family-wise threshold, shape (n_features, n_parts)."""
        return np.asarray(self.score > self.threshold)


@dataclass(frozen=True, slots=True)
class Smear:
    """Shift in time that the filters before the windows give an answer.

    Attributes
    ----------
    before : float
        Seconds by which filtered samples may show what is yet to come: resampling looks both ways, causal filters do
        not.
    after : float
        Seconds that filters take to show an answer in full.
    """

    before: float = 0.0
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Onset:
    """When a feature begins to be told, as far as windows and filters let one know.

    Attributes
    ----------
    told_by : float
        Seconds from the event by which it has begun: the end of the first of two windows in a row that tell. However
        long a window is, and whatever causal filters do, it holds nothing of what comes after its end.
    not_before : float or None
        Seconds from the event before which it has not: had it, the window before that one, which told nothing, would
        have been full of it. None where there is no such window.
    """

    told_by: float
    not_before: float | None


def edges(times: Floats, binning: Array) -> tuple[Floats, Floats]:
    """Return the times of the first and of the last sample of each window that `sliding` lays."""
    within = binning > 0
    return times[within.argmax(axis=0)], times[len(times) - 1 - within[::-1].argmax(axis=0)]


def onset(course: NDArray[np.bool_], starts: Floats, ends: Floats, smear: Smear) -> Onset | None:
    """Bracket when a feature begins to be told.

    Parameters
    ----------
    course : ndarray of bool, shape (n_windows,)
        Which windows tell.
    starts, ends : ndarray, shape (n_windows,)
        See `edges`.
    smear : Smear

    Returns
    -------
    Onset or None
        None where no two windows in a row tell.
    """
    twice = np.flatnonzero(course[:-1] & course[1:])
    if not len(twice):
        return None
    first = int(twice[0])
    not_before = None if first == 0 else float(starts[first - 1] - smear.after)
    return Onset(float(ends[first] + smear.before), not_before)


def sliding(times: Floats, *, width: float = 0.04, step: float = 0.02) -> tuple[Floats, Array]:
    """Lay windows of `width` seconds every `step` seconds.

    Parameters
    ----------
    times : ndarray, shape (n_times,)
        Seconds from the event, evenly spaced.
    width, step : float
        Rounded to whole samples, one at least.

    Returns
    -------
    centres : ndarray, shape (n_windows,)
        Mean time of each.
    binning : ndarray, shape (n_times, n_windows)
        Averages over each.

    Raises
    ------
    TrainingError
        If the times are shorter than one window.
    """
    period = times[1] - times[0] if len(times) > 1 else width
    n_width, n_step = max(1, round(width / period)), max(1, round(step / period))
    starts = np.arange(0, len(times) - n_width + 1, n_step)
    if not len(starts):
        raise TrainingError(f"{len(times)} samples {period:g} s apart hold no window of {width:g} s; give longer ones")
    binning = np.zeros((len(times), len(starts)), np.float32)
    for column, start in enumerate(starts):
        binning[start : start + n_width, column] = 1 / n_width
    return times @ binning, binning


def decodability(
    parts: Sequence[Array],
    targets: Mapping[str, NDArray[np.floating[Any]]],
    rows: NDArray[np.intp],
    rng: np.random.Generator,
    *,
    splits: Sequence[TrainTest] | None = None,
    groups: NDArray[np.str_] | None = None,
    runs: NDArray[np.str_] | None = None,
    n_folds: int = 5,
    n_components: int = 8,
    n_permutations: int = 100,
) -> Decodability:
    """Decode every feature from every part, and from as many sets of permuted pictures.

    A permutation gives each picture the features of another, the same in all parts and features, and goes through the
    same folds and the same choice of penalty; repeats of a picture stay together, and so do pictures of a group. Where
    pictures are categories (`runs` is given), blocks are permuted: a stretch of one label is one thing that was done,
    however many trials it has, and each of them is as far off as the drift of that moment.

    Parameters
    ----------
    parts : sequence of ndarray, shape (n_samples, n_inputs)
        Inputs: the channels at one latency, or the voxels of one region.
    targets : mapping of str to ndarray, shape (n_pictures, ...)
        Features. Their leading principal components, over pictures, are decoded.
    rows : ndarray of int, shape (n_samples,)
        Picture of each sample, in the order of time.
    rng : numpy.random.Generator
    splits : sequence of (train, test) or None
        None: `n_folds` folds of groups, or of categories as `decoder.data.splits.category_folds` makes them.
    groups : ndarray of str, shape (n_samples,), or None
        Never on both sides of a split. None: each picture is one.
    runs : ndarray of str, shape (n_samples,), or None
        The recording of each sample, where pictures are categories: they are permuted within it, block by block.
    n_folds, n_components, n_permutations : int

    Raises
    ------
    TrainingError
        If a feature is the same for all pictures, or the samples cannot be split.
    """
    groups = np.asarray([str(row) for row in rows]) if groups is None else groups
    if splits is None:
        splits = group_folds(groups.tolist(), n_folds, rng) if runs is None else category_folds(rows, runs, n_folds)
    permuted = _permuted_pictures(rows, groups, rng) if runs is None else permute_blocks(rows, runs, rng)
    orders = [rows, *islice(permuted, n_permutations)]
    reduced = {name: _components(name, value, rows, n_components) for name, value in targets.items()}
    score = partial(_scores_of_part, splits, list(reduced.values()), orders)
    scores = np.stack(apply_each(score, parts, about="parts"), axis=2)
    null = scores[1:]
    low, high = np.quantile(null, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    threshold = float(np.quantile(null.max(axis=(1, 2)), 1 - LEVEL, method="higher"))
    return Decodability(tuple(reduced), scores[0], low, high, threshold, n_permutations)


def _scores_of_part(
    splits: Sequence[TrainTest],
    reduced: Sequence[tuple[Array, NDArray[np.float64]]],
    orders: Sequence[NDArray[np.intp]],
    part: Array,
) -> NDArray[np.float64]:
    """Score each order of the pictures and each feature from one part: shape (n_orders, n_features)."""
    scores = np.empty((len(orders), len(reduced)))
    folds = [Split(train, test, *_scaled(part[train], part[test])) for train, test in splits]
    eigenvalue = np.mean([fold.spectrum.level for fold in folds])
    for place, (components, weights) in enumerate(reduced):
        per_pass = max(1, COLUMNS // components.shape[1])
        for start in range(0, len(orders), per_pass):
            chunk = orders[start : start + per_pass]
            Y = np.concatenate([components[order] for order in chunk], axis=1)
            found = cross_validate(folds, Y, np.asarray(ALPHAS) * eigenvalue)
            scores[start : start + len(chunk), place] = found.r.reshape(len(chunk), -1) @ weights
    return scores


def _permuted_pictures(
    rows: NDArray[np.intp], groups: NDArray[np.str_], rng: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Exchange pictures without end; those of a group go together, as far as groups are of one size."""
    shown, first, place = np.unique(rows, return_index=True, return_inverse=True)
    of_picture = groups[first]
    members = [np.flatnonzero(of_picture == group) for group in np.unique(of_picture)]
    slots = np.concatenate(members)
    while True:
        other = np.empty_like(shown)
        other[slots] = shown[np.concatenate([members[group] for group in rng.permutation(len(members))])]
        yield other[place]


def _components(
    name: str, values: NDArray[np.floating[Any]], rows: NDArray[np.intp], n_components: int
) -> tuple[Array, Floats]:
    """Project a feature on its principal axes over the pictures shown; return them and their shares of variance."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    flat = flat - flat[np.unique(rows)].mean(axis=0)
    left, spread, _ = np.linalg.svd(flat, full_matrices=False)
    if not spread[0] > 0:
        raise TrainingError(f"feature {name!r} is the same for all {len(flat)} pictures; there is nothing to decode")
    n_kept = min(n_components, int((spread > 1e-6 * spread[0]).sum()))
    weights = spread[:n_kept] ** 2
    return (left[:, :n_kept] * spread[:n_kept]).astype(np.float32), weights / weights.sum()


def _scaled(train: Array, test: Array) -> tuple[Array, Array]:
    """Standardise by the training side."""
    mean, spread = train.mean(axis=0), train.std(axis=0)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-6 * spread.max(initial=0))
    return (train - mean) * scale, (test - mean) * scale
