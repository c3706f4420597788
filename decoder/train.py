"""From windows and the pictures they answer to, to a bundle."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.bundle import WHOLE, Bundle, Model
from decoder.category import fit_category
from decoder.classifiers import Trials
from decoder.confidence import Calibration, fit_calibration, fit_typicality, window_statistics
from decoder.errors import TrainingError
from decoder.linear import Head, LinearModel
from decoder.metrics import correlation_matrix, two_way
from decoder.preprocess import fit_preprocessor
from decoder.ridge import (
    Fold,
    Spectrum,
    cross_validate,
    decompose,
    fit_ridge,
    make_fold,
)
from decoder.spec import DecoderSpec
from decoder.splits import group_folds
from decoder.stimuli import StimulusTable
from decoder.targets import Encoders, Progress, Targets, compute_targets, no_progress
from decoder.units import alike
from stream.windows import Window

Array = NDArray[np.float32]

LEAST_WINDOWS = 20
CONSTANT = 1e-5
"""A target that ranges less than this over the training pictures is carried along, not decoded."""
CHUNK = 4096
"""Targets regressed at a time: bounds memory whatever the size of the CLIP model."""
SHIFT_RANGE = (0.25, 0.75)
"""How far, in windows, a surrogate is turned round in time: its noise stays as it was, its response is lost."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Training windows, and the picture of each.

    Attributes
    ----------
    data : ndarray, shape (n, n_channels, n_times), float32
    times : ndarray, shape (n_times,)
        Seconds from the event.
    rows : ndarray of int, shape (n,)
        Of the targets.
    groups : ndarray of str, shape (n,)
        Never on both sides of a split.
    runs : ndarray of str, shape (n,)
        The recording that each window is from.
    """

    data: Array
    times: NDArray[np.float64]
    rows: NDArray[np.intp]
    groups: NDArray[np.str_]
    runs: NDArray[np.str_]

    def take(self, chosen: NDArray[np.intp]) -> "Samples":
        """Give the samples of some rows."""
        return Samples(self.data[chosen], self.times, self.rows[chosen], self.groups[chosen], self.runs[chosen])


def fit(
    windows: Sequence[Window],
    stimuli: StimulusTable,
    encoders: Encoders,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    runs: Sequence[str] | None = None,
    cache: Path | None = None,
    meta: Mapping[str, Any] | None = None,
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
    runs : sequence of str, optional
        The recording that each window is from; left out, all are from one.
    cache : Path or None
        Folder that keeps targets between runs.
    meta : mapping or None
        JSON-able facts that the bundle carries along: data, window, filters.

    Raises
    ------
    TrainingError
        If too few windows are left, or the spec does not fit them.
    """
    used, left_out = usable(windows, stimuli.ids)
    shown = stimuli.select(sorted({label for _, label in used}))
    targets = compute_targets(
        shown, encoders, features=spec.features, blocks=spec.blocks, cache=cache, progress=progress
    )
    facts = {"feature_space": encoders.feature_space, "left_out": left_out, **(meta or {})}
    kept = {id(window) for window, _ in used}
    if runs is not None:
        runs = [run for run, window in zip(runs, windows, strict=True) if id(window) in kept]
    return fit_targets([window for window, _ in used], shown, targets, spec, progress, runs=runs, meta=facts)


def fit_targets(
    windows: Sequence[Window],
    stimuli: StimulusTable,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    runs: Sequence[str] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Bundle:
    """Train on targets computed already, one row a stimulus; as `fit` otherwise.

    Every window's label must be a stimulus.
    """
    samples = _samples(windows, stimuli, runs)
    scaled = replace(samples, data=alike(windows[0].channels, samples.data))
    folds = _held_out_folds(samples, spec) if spec.category is None else []
    models: dict[str, Model] = {}
    if spec.category is not None:
        templates = {name: value for name, value in (("c", targets.c), ("z", targets.z)) if value is not None}
        trials = Trials(scaled.data, samples.times, samples.rows, stimuli.ids, samples.runs)
        models[WHOLE], scores = fit_category(trials, templates, spec.category, spec.preprocess)
    else:
        models[WHOLE], scores = fit_model(scaled, targets, spec, progress)
    held_out: dict[str, str] = {}
    for number, (train, test) in enumerate(folds):
        name = f"fold{number}"
        progress("held-out folds", number, len(folds))
        models[name], _ = fit_model(scaled.take(train), targets, spec)
        held_out |= dict.fromkeys((stimuli.ids[row] for row in samples.rows[test]), name)
    if folds:
        progress("held-out folds", len(folds), len(folds))
    first = windows[0]
    facts = {
        "decoder": spec.model_dump(mode="json"),
        "windows": len(windows),
        "pictures": len(stimuli),
        "scores": scores,
        "versions": _versions(),
        "trained": datetime.now(UTC).isoformat(timespec="seconds"),
        **(meta or {}),
    }
    return Bundle(
        models,
        first.channels,
        sfreq=first.sfreq,
        n_times=first.data.shape[1],
        tmin=first.tmin,
        held_out=held_out,
        meta=facts,
    )


def usable(windows: Sequence[Window], ids: Sequence[str]) -> tuple[list[tuple[Window, str]], dict[str, int]]:
    """Pick the windows that can be learned from.

    Returns
    -------
    used : list of (Window, stimulus id)
    left_out : dict
        How many windows were left out, by reason.

    Raises
    ------
    TrainingError
        If fewer than 20 are left.
    """
    known = set(ids)
    used = []
    left_out = {"rejected": 0, "not a stimulus": 0, "not finite": 0}
    for window in windows:
        label = window.event.label if window.event is not None else ""
        if window.quality.rejected:
            left_out["rejected"] += 1
        elif label not in known:
            left_out["not a stimulus"] += 1
        elif not np.isfinite(window.data).all():
            left_out["not finite"] += 1
        else:
            used.append((window, label))
    if any(left_out.values()):
        logger.info("windows left out of training: %s", left_out)
    if len(used) < LEAST_WINDOWS:
        raise TrainingError(
            f"{len(used)} of {len(windows)} windows can be learned from (left out: {left_out}); "
            f"give at least {LEAST_WINDOWS} whose event labels are stimulus ids such as {list(ids[:2])}"
        )
    return used, left_out


def _samples(windows: Sequence[Window], stimuli: StimulusTable, runs: Sequence[str] | None) -> Samples:
    first = windows[0]
    for window in windows:
        if window.data.shape != first.data.shape or window.channels != first.channels or window.sfreq != first.sfreq:
            raise TrainingError(
                f"window {window.id} ({len(window.channels)} channels, {window.data.shape[1]} samples at "
                f"{window.sfreq:g} Hz) differs from window {first.id}; train on windows of one kind"
            )
    rows = stimuli.rows(window.event.label if window.event is not None else "" for window in windows)
    times = first.tmin + np.arange(first.data.shape[1]) / (first.sfreq or 1)
    names = np.asarray(["only"] * len(windows) if runs is None else runs)
    return Samples(np.stack([w.data for w in windows]), times, rows, np.asarray(stimuli.groups)[rows], names)


def _held_out_folds(samples: Samples, spec: DecoderSpec) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    if spec.hold_out == "none":
        return []
    n_groups = len(np.unique(samples.groups))
    n_folds = n_groups if spec.hold_out == "groups" else int(spec.hold_out)
    return group_folds(samples.groups.tolist(), n_folds, np.random.default_rng(spec.seed))


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A linear model, and what its features look like from folds that did not see the picture.

    Attributes
    ----------
    model : LinearModel
    scores : dict
        By feature, from held-out predictions: mean correlation over its numbers, and two-way identification.
    held_out : dict of str to ndarray, shape (n_samples, n_numbers), float32
        Of c and e, all of their numbers.
    """

    model: LinearModel
    scores: dict[str, Any]
    held_out: dict[str, Array]


def fit_model(
    samples: Samples, targets: Targets, spec: DecoderSpec, progress: Progress = no_progress
) -> tuple[Model, dict[str, Any]]:
    """Fit one model of the spec's family; gives it, and its scores by feature as `Fitted` has them."""
    if spec.family == "ridge" and spec.c_from == "tokens":
        fitted = fit_linear(samples, targets, spec, progress)
        return fitted.model, fitted.scores
    from decoder.embedding import fit_embedding

    return fit_embedding(samples, targets, spec, progress)


def fit_linear(samples: Samples, targets: Targets, spec: DecoderSpec, progress: Progress = no_progress) -> Fitted:
    """Fit one linear model: penalties, units and confidence by cross-validation, weights on all samples.

    Preprocessing is fitted anew inside every fold, so nothing of a held-out picture is known to what predicts it.
    """
    designs = _designs(samples, spec, progress)
    folds = [design.fold for design in designs]
    preprocess = fit_preprocessor(samples.data, samples.times, spec.preprocess)
    spectrum = decompose(preprocess(samples.data))
    grid = np.asarray(spec.alphas) * spectrum.eigenvalues.mean()
    heads: list[Head] = []
    scores: dict[str, Any] = {}
    deviations: list[list[Array]] = [[] for _ in designs]
    correct = []
    held_out: dict[str, Array] = {}
    for name, value in (("c", targets.c), ("z", targets.z), ("e", targets.e)):
        if value is None:
            continue
        flat = value.reshape(len(value), -1)
        active = np.flatnonzero(np.ptp(flat[samples.rows], axis=0) > CONSTANT)
        Y = flat[samples.rows][:, active]
        found = cross_validate(folds, Y, grid)
        weights, intercept = fit_ridge(spectrum, Y, found.alpha)
        gain = undo_shrinkage(Y, found.predictions, {"c": spec.c_gain, "z": spec.z_gain, "e": 0.0}[name])
        constant = flat[samples.rows[0]].reshape(value.shape[1:]).copy()
        if name != "z":
            held_out[name] = np.repeat(constant.reshape(1, -1), len(Y), axis=0)
            held_out[name][:, active] = found.predictions
        heads.append(Head(name, value.shape[1:], active.astype(np.int32), weights * gain, intercept, constant))
        correct.append(identified(flat[:, active], found.predictions, samples.rows, intercept))
        scores[name] = {"r": rounded_mean(found.r), "two_way": rounded_mean(correct[-1])}
        for design, known in zip(designs, deviations, strict=True):
            known.append(gain * _deviations(design, Y, found.alpha))
    for done, (block, units) in enumerate(targets.s.items()):
        progress("structure", done, len(targets.s))
        head, r = _structure_head(block, units[samples.rows], folds, spectrum, grid=grid, spec=spec)
        heads.append(head)
        scores[head.name] = {"r": r}
    progress("structure", len(targets.s), len(targets.s))
    calibration = _calibration(designs, deviations, correct)
    return Fitted(LinearModel(preprocess, heads, fit_typicality(samples.data), calibration), scores, held_out)


@dataclass(frozen=True, slots=True, eq=False)
class _Design:
    """A fold, with the inputs on which confidence is learned: held-out windows, and surrogates without response."""

    fold: Fold
    inputs: Array
    n_surrogates: int


def _designs(samples: Samples, spec: DecoderSpec, progress: Progress) -> list[_Design]:
    rng = np.random.default_rng(spec.seed)
    n_folds = min(spec.cv_folds, len(np.unique(samples.groups)))
    out = []
    for number, (train, test) in enumerate(group_folds(samples.groups.tolist(), n_folds, rng)):
        progress("cross-validation", number, n_folds)
        preprocess = fit_preprocessor(samples.data[train], samples.times, spec.preprocess)
        held_out = preprocess(samples.data[test])
        surrogates = preprocess(turned(samples.data[test], rng)) if len(samples.times) > 1 else held_out[:0]
        fold = make_fold(preprocess(samples.data[train]), held_out, train, test)
        out.append(_Design(fold, np.concatenate([held_out, surrogates]), len(surrogates)))
    progress("cross-validation", n_folds, n_folds)
    return out


def turned(data: Array, rng: np.random.Generator) -> Array:
    """Turn each window round in time by its own random amount, all channels together."""
    n_times = data.shape[2]
    low, high = (round(share * n_times) for share in SHIFT_RANGE)
    shifts = rng.integers(low, max(high, low + 1), size=len(data))
    return np.stack([np.roll(window, shift, axis=1) for window, shift in zip(data, shifts, strict=True)])


def _deviations(design: _Design, Y: Array, alpha: NDArray[np.float64]) -> Array:
    """Decode a fold's held-out windows and surrogates, as deviations from the mean."""
    weights, _ = fit_ridge(design.fold.spectrum, Y[design.fold.train], alpha)
    return design.inputs @ weights


def _calibration(
    designs: Sequence[_Design], deviations: Sequence[Sequence[Array]], correct: Sequence[NDArray[np.float64]]
) -> Calibration:
    """Learn confidence from held-out windows; surrogates are told from other pictures by chance only."""
    statistics, truth = [], []
    told = np.mean(correct, axis=0)
    for design, known in zip(designs, deviations, strict=True):
        statistics.append(window_statistics(design.inputs, list(known)))
        truth.append(np.concatenate([told[design.fold.test], np.full(design.n_surrogates, 0.5)]))
    return fit_calibration(np.concatenate(statistics), np.concatenate(truth))


def identified(features: Array, predictions: Array, rows: NDArray[np.intp], mean: Array) -> NDArray[np.float64]:
    """Two-way identification of each sample's picture among all pictures, by correlation about the mean."""
    return two_way(correlation_matrix(features - mean, predictions - mean), rows)


def undo_shrinkage(Y: Array, predictions: Array, strength: float) -> float:
    """Undo shrinkage in part: the ratio of true to held-out decoded spread, to the power `strength`."""
    spread = float(np.sqrt(predictions.var(axis=0).mean()))
    return float(np.sqrt(Y.var(axis=0).mean()) / spread) ** strength if spread > 0 else 1.0


def _structure_head(
    block: int,
    units: NDArray[np.float16],
    folds: Sequence[Fold],
    spectrum: Spectrum,
    *,
    grid: NDArray[np.float64],
    spec: DecoderSpec,
) -> tuple[Head, float]:
    """Find a block's best-decoded units and fit those; gives the head and their mean held-out correlation."""
    n_units = units.shape[1]
    alpha, r, gain = np.empty(n_units), np.empty(n_units, np.float32), np.empty(n_units, np.float32)
    for start in range(0, n_units, CHUNK):
        part = slice(start, min(n_units, start + CHUNK))
        Y = units[:, part].astype(np.float32)
        found = cross_validate(folds, Y, grid)
        alpha[part], r[part] = found.alpha, found.r
        gain[part] = undo_shrinkage(Y, found.predictions, spec.s_gain)
    n_kept = max(1, round(spec.unit_fraction * n_units))
    kept = np.sort(np.argpartition(-r, n_kept - 1)[:n_kept])
    weights, intercept = fit_ridge(spectrum, units[:, kept].astype(np.float32), alpha[kept])
    constant = np.zeros(n_units, np.float32)
    head = Head(f"s{block}", (n_units,), kept.astype(np.int32), weights * gain[kept], intercept, constant)
    return head, rounded_mean(r[kept])


def rounded_mean(values: NDArray[Any]) -> float:
    """Give a mean to four digits."""
    return round(float(np.mean(values)), 4)


def _versions() -> dict[str, str]:
    out = {}
    for name in ("minddiffuser", "numpy", "scipy", "torch", "open_clip_torch", "diffusers"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out
