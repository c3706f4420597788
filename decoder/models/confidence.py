"""How far a decoded window is to be believed, learned from windows that were held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import TrainTest
from decoder.preprocessing.preprocess import noise_whitener
from decoder.preprocessing.session_moments import can_align

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

FLOOR = 1e-3
"""Energy, in training variances, that counts as silence: keeps the logarithm of a dead channel finite."""
SEGMENTS = 4
"""Parts of a window in which its change from sample to sample is looked at: a held value shows as silence in one."""
REACH = 3.0
"""Robust standard deviations about the training windows' median distance that count as usual."""
ROBUST = 1.4826
"""Standard deviations of a normal variable in its median absolute deviation."""
FAR = 2.5
"""Standard deviations from the mean beyond which a statistic counts as no larger: nothing was learned out there."""

SURE = 2.0
"""Standard errors by which held-out windows must be told better than by chance; otherwise nothing is claimed."""
LEAST_CONFIDENCE = 0.01
"""0 is chance: what is not above it is never shown by default."""
ABSENT_SHOWN = 0.05
"""Share of windows without a response that are shown where windows come at a fixed pace."""
ABSENT = 0.2
"""Share of windows taken to hold no response, when confidence is learned."""


@dataclass(frozen=True, slots=True, eq=False)
class Typicality:
    """What the energy of training windows looks like: in all, by channel, whitened, and in parts of the window.

    An artefact, a dead or swapped channel or another state of the brain changes some of these energies, each judged by
    how much it varies in training. Limits are robust: artefacts that training windows hold, too, stay outside them.

    Attributes
    ----------
    mean, spread : ndarray, shape (n_channels,), float32
        Of the samples.
    whitener : ndarray, shape (n_channels, n_channels), float32
        Of scaled channels; shape (0, 0) where windows are single samples or have too many channels.
    level, width : ndarray, shape (n_energies,), float32
        Median log energy of a window, and its robust spread.
    limit : ndarray, shape (n_distances,), float32
        Usual mean and largest distance, in widths, of each kind of energy.
    """

    mean: Array
    spread: Array
    whitener: Array
    level: Array
    width: Array
    limit: Array

    def __call__(self, data: Array) -> Floats:
        """Compute how much windows look like the training windows.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels, n_times), float32

        Returns
        -------
        typicality : ndarray, shape (n,)
            1 within what is usual; falls to 0 with more noise, artefacts or silence than that.
        """
        return np.asarray(np.exp(-np.maximum(0, (self.distances(data) / self.limit).max(axis=1) - 1)), np.float64)

    def distances(self, data: Array) -> Array:
        """Return the distances of windows from the usual, in widths, shape (n, n_distances)."""
        energies = _log_energies(data, self.mean, self.spread, self.whitener)
        return _distances((energies - self.level) / self.width, len(self.mean))


def fit_typicality(data: Array, folds: Sequence[TrainTest] = ()) -> Typicality:
    """Learn the usual energies from training windows.

    Parameters
    ----------
    data : ndarray, shape (n, n_channels, n_times)
    folds : sequence of (train, test)
        The usual distances are of windows held out by these; none: of those that all else was learned from, which is
        as good where there are many.
    """
    whole = _fit_energies(data)
    apart = [(_fit_energies(data[train]), data[test]) for train, test in folds] or [(whole, data)]
    middle, reach = _robust(np.concatenate([usual.distances(windows) for usual, windows in apart]))
    return replace(whole, limit=np.maximum(middle + REACH * reach, FLOOR))


def _fit_energies(data: Array) -> Typicality:
    """Learn energies; the limit is still to be learned."""
    mean = data.mean(axis=(0, 2), dtype=np.float64).astype(np.float32)
    spread = data.std(axis=(0, 2), dtype=np.float64).astype(np.float32)
    spread[spread == 0] = 1
    scaled = (data - mean[:, None]) / spread[:, None]
    whitener = noise_whitener(scaled) if can_align(data) else np.zeros((0, 0), np.float32)
    level, width = _robust(_log_energies(data, mean, spread, whitener))
    return Typicality(mean, spread, whitener, level, np.maximum(width, FLOOR), np.zeros(0, np.float32))


def _robust(values: Array) -> tuple[Array, Array]:
    """Compute the median of each column, and its robust standard deviation."""
    middle = np.median(values, axis=0)
    return middle.astype(np.float32), (ROBUST * np.median(np.abs(values - middle), axis=0)).astype(np.float32)


def _log_energies(data: Array, mean: Array, spread: Array, whitener: Array) -> Array:
    """Compute log energies of all, of channels, then of whitened channels and of changes where there is a whitener."""
    scaled = (data - mean[:, None]) / spread[:, None]
    channels = np.einsum("nct,nct->nc", scaled, scaled) / data.shape[2]
    energies = [channels.mean(axis=1, keepdims=True), channels]
    if whitener.size:
        white = whitener @ scaled
        energies.append(np.einsum("nct,nct->nc", white, white) / data.shape[2])
        change = np.diff(white, axis=2) ** 2
        parts = np.array_split(change.mean(axis=1), min(SEGMENTS, change.shape[2]), axis=1)
        energies.append(np.stack([part.mean(axis=1) for part in parts], axis=1))
    return np.asarray(np.log(np.concatenate(energies, axis=1) + FLOOR), np.float32)


def _distances(deviations: Array, n_channels: int) -> Array:
    """Compute the mean and the largest distance of each kind of energy, (n, 2 * kinds)."""
    size = np.abs(deviations)
    kinds = [part for part in np.split(size, [1, 1 + n_channels, 1 + 2 * n_channels], axis=1) if part.shape[1]]
    return np.stack([value for part in kinds for value in (part.mean(axis=1), part.max(axis=1))], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Logistic map from statistics of a decoded window to the chance of telling its picture from another.

    Attributes
    ----------
    centre, scale : ndarray, shape (n_statistics,), float32
    coefficients : ndarray, shape (n_statistics + 1,), float32
        The last is the intercept.
    """

    centre: Array
    scale: Array
    coefficients: Array

    def __call__(self, statistics: Array) -> Floats:
        """Compute the confidence, 2 P(two-way correct) - 1 clipped to [0, 1]; statistics of shape (n, n_statistics)."""
        scaled = np.clip((statistics - self.centre) / self.scale, -FAR, FAR)
        logit = (scaled @ self.coefficients[:-1] + self.coefficients[-1]).astype(np.float64)
        return np.asarray(np.clip(2 / (1 + np.exp(-logit)) - 1, 0, 1), np.float64)


def window_statistics(inputs: Array, deviations: list[Array]) -> Array:
    """Summarise decoded windows: log size of the inputs and of each feature's decoded deviation from its mean.

    Parameters
    ----------
    inputs : ndarray, shape (n, n_inputs)
    deviations : list of ndarray, shape (n, n_targets)

    Returns
    -------
    statistics : ndarray, shape (n, 1 + len(deviations)), float32
    """
    norms = [np.linalg.norm(each, axis=1) for each in [inputs, *deviations]]
    return np.log(np.stack(norms, axis=1) + np.finfo(np.float32).tiny).astype(np.float32)


def fit_calibration(
    statistics: Array, correct: Floats, weights: Floats | None = None, *, penalty: float = 1.0
) -> Calibration:
    """Fit the logistic map by iteratively reweighted least squares.

    Parameters
    ----------
    statistics : ndarray, shape (n, n_statistics)
        Of held-out windows.
    correct : ndarray, shape (n,), in [0, 1]
        Share of other pictures from which the window's own was told.
    weights : ndarray, shape (n,), or None
        Of the windows; None: all the same.
    penalty : float
        Ridge penalty on standardised coefficients (not on the intercept).
    """
    counts = np.ones(len(correct)) if weights is None else weights
    centre, scale = statistics.mean(axis=0), statistics.std(axis=0) + np.float32(1e-6)
    near = np.clip((statistics - centre) / scale, -FAR, FAR)
    design = np.column_stack([near, np.ones(len(near))]).astype(np.float64)
    ridge = np.diag([penalty] * (design.shape[1] - 1) + [1e-6])
    coefficients = np.zeros(design.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ coefficients, -30, 30)))
        gradient = design.T @ (counts * (correct - p)) - ridge @ coefficients
        hessian = (design * (counts * p * (1 - p))[:, None]).T @ design + ridge
        step = np.linalg.solve(hessian, gradient)
        coefficients += step
        if np.abs(step).max() < 1e-8:
            break
    return Calibration(centre, scale, coefficients.astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class FoldStatistics:
    """What one fold's held-out windows say of how far they are to be believed.

    Attributes
    ----------
    statistics : ndarray, shape (n, n_statistics)
    correct : ndarray, shape (n,), in [0, 1]
        Share of other pictures from which each window's own was told.
    surrogates : ndarray, shape (m, n_statistics)
        Of the same windows without their response, whose picture is told by chance only.
    nested : ndarray, shape (n,), in [0, 1], or None
        As `correct`, with settings that were chosen without these windows; None: nothing was chosen by them.
    """

    statistics: Array
    correct: Floats
    surrogates: Array
    nested: Floats | None = None


def _levelled(folds: Sequence[FoldStatistics]) -> list[FoldStatistics]:
    """Bring what was told to the level that it has with settings chosen without the windows.

    How much more is told of some windows than of others shows best with the settings in use; how much is told in all
    shows only without those that these very windows chose.
    """
    honest = np.concatenate([fold.correct if fold.nested is None else fold.nested for fold in folds])
    shift = honest.mean() - np.concatenate([fold.correct for fold in folds]).mean()
    return [replace(fold, correct=np.clip(fold.correct + shift, 0, 1), nested=None) for fold in folds]


def calibrate(folds: Sequence[FoldStatistics]) -> tuple[Calibration, dict[str, float]]:
    """Fit the map on all held-out windows, and score it on each fold as fitted on the others.

    Windows without a response are taken to be `ABSENT` of all that will come. Of windows that are told by luck only,
    as of noise, the map claims nothing.

    Returns
    -------
    calibration : Calibration
    score : dict
        'ece', the expected calibration error of the chance of telling a held-out window's picture from another (Naeini
        et al. 2015, in bins of equal counts); that chance as claimed ('claimed') and as found ('told') on average; and
        'told_by_half', the latter for the half of the windows that is believed more. 'threshold' is the confidence
        below which nothing is to be shown, see `least_confidence`; 'above' the share of held-out windows that reach it;
        'absent_below' the confidence below which nineteen of twenty windows without a response lie, where there are
        such: of windows at a fixed pace, most are.
    """
    folds = _levelled(folds)
    fits = [_fit([*folds[:number], *folds[number + 1 :]]) for number in range(len(folds))]
    claimed = [0.5 + 0.5 * fitted(fold.statistics) for fitted, fold in zip(fits, folds, strict=True)]
    absent = np.concatenate([fitted(fold.surrogates) for fitted, fold in zip(fits, folds, strict=True)])
    p, correct = np.concatenate(claimed), np.concatenate([fold.correct for fold in folds])
    order = np.argsort(p, kind="stable")
    confidence = np.clip(2 * p - 1, 0, 1)
    threshold = least_confidence(confidence, correct)
    score = {
        "threshold": threshold,
        "above": float((confidence >= threshold).mean()),
        "ece": calibration_error(p, correct),
        "claimed": float(p.mean()),
        "told": float(correct.mean()),
        "told_by_half": float(correct[order[len(order) // 2 :]].mean()),
    }
    if len(absent):
        score["absent_below"] = float(np.quantile(absent, 1 - ABSENT_SHOWN, method="higher"))
    return _fit(folds), {name: round(value, 4) for name, value in score.items()}


def _fit(folds: Sequence[FoldStatistics]) -> Calibration:
    correct = np.concatenate([fold.correct for fold in folds])
    surrogates = np.concatenate([fold.surrogates for fold in folds])
    statistics = np.concatenate([*(fold.statistics for fold in folds), surrogates])
    truth = np.concatenate([correct, np.full(len(surrogates), 0.5)])
    each = ABSENT / (1 - ABSENT) * len(correct) / max(1, len(surrogates))
    weights = np.concatenate([np.ones(len(correct)), np.full(len(surrogates), each)])
    fitted = fit_calibration(statistics, truth, weights)
    if tells(correct):
        return fitted
    return replace(fitted, coefficients=np.zeros_like(fitted.coefficients))


def least_confidence(confidence: Floats, correct: Floats) -> float:
    """Return the confidence below which windows are told no better than by chance, or may be, as far as is known.

    That is the larger of two: below it, held-out windows were told right half of the time or less; and a smaller
    confidence is no more than the error that confidence itself has been found to have (twice the expected calibration
    error, as confidence is twice the probability, less one). `LEAST_CONFIDENCE` at least, as 0 is chance.

    Parameters
    ----------
    confidence, correct : ndarray, shape (n,), in [0, 1]
        Of held-out windows: as claimed, and the share of other pictures from which each window's own was told.
    """
    order = np.argsort(confidence, kind="stable")
    by_chance = np.flatnonzero(np.cumsum(correct[order]) <= 0.5 * np.arange(1, len(order) + 1))
    below = by_chance[-1] + 1 if len(by_chance) else 0
    edge = float(confidence[order[min(below, len(order) - 1)]]) if below else 0.0
    error = 2 * calibration_error(0.5 + 0.5 * confidence, correct)
    return round(min(1.0, max(edge, error, LEAST_CONFIDENCE)), 4)


def threshold_of(meta: Mapping[str, Any], *, sliding: bool = False) -> float:
    """Return the confidence below which a bundle publishes nothing by default; 0 where its meta does not say.

    Of `sliding` windows most hold no response, or not where calibration windows have it: what such windows reach, too,
    is not shown.
    """
    scores = meta.get("scores")
    confidence = scores.get("confidence") if isinstance(scores, Mapping) else None
    if not isinstance(confidence, Mapping):
        return 0.0
    limits = [confidence.get(name, 0.0) for name in ("threshold", *(["absent_below"] if sliding else []))]
    return max(float(limit) if isinstance(limit, int | float) else 0.0 for limit in limits)


def tells(correct: Floats) -> bool:
    """Check that held-out windows are told better than by luck: by `SURE` standard errors of chance.

    Of two windows in different folds each helps to decode the other, so that chance counts every pair twice (as in
    `decoder.evaluation.metrics.chance_range`).
    """
    error = np.sqrt(2 * correct.var() / max(1, len(correct)))
    return bool(correct.mean() - 0.5 > SURE * error)


def calibration_error(claimed: Floats, correct: Floats, *, bins: int = 10) -> float:
    """Compute the expected calibration error: mean distance of claimed and true chance over bins of equal counts.

    Parameters
    ----------
    claimed, correct : ndarray, shape (n,), in [0, 1]
    bins : int
    """
    parts = np.array_split(np.argsort(claimed, kind="stable"), min(bins, len(claimed)))
    return float(sum(len(part) * abs(claimed[part].mean() - correct[part].mean()) for part in parts) / len(claimed))
