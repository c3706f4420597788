"""From windows and the pictures they answer to, to a bundle."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.bundle import WHOLE, Bundle, Model
from decoder.category import fit_category
from decoder.classifiers import Trials
from decoder.confidence import Calibration, FoldStatistics, calibrate, fit_typicality, window_statistics
from decoder.errors import TrainingError
from decoder.linear import Head, LinearModel
from decoder.metrics import correlation_matrix, rounded_mean, two_way
from decoder.preprocess import fit_preprocessor, input_bands
from decoder.reference import can_align, fit_reference
from decoder.regression import make_regression
from decoder.ridge import Part, undo_shrinkage
from decoder.spec import DecoderSpec
from decoder.splits import Split, folds_apart, refuse_random_folds
from decoder.stimuli import StimulusTable
from decoder.structure import Known, structure_head
from decoder.targets import Encoders, Progress, Targets, compute_targets, no_progress
from decoder.units import alike, one_unit
from decoder.usable import usable
from decoder.versions import versions
from stream.windows import Window

Array = NDArray[np.float32]

CONSTANT = 1e-5
"""A target that ranges less than this over the training pictures is carried along, not decoded."""
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
    units : ndarray of str, shape (n,)
        Run, session or subject, where a split is by that; never on both sides of it. Otherwise as `groups`.
    channels : tuple of str
        Their names.
    """

    data: Array
    times: NDArray[np.float64]
    rows: NDArray[np.intp]
    groups: NDArray[np.str_]
    runs: NDArray[np.str_]
    units: NDArray[np.str_]
    channels: tuple[str, ...]

    def take(self, chosen: NDArray[np.intp]) -> "Samples":
        """Give the samples of some rows."""
        return Samples(
            self.data[chosen],
            self.times,
            self.rows[chosen],
            self.groups[chosen],
            self.runs[chosen],
            self.units[chosen],
            self.channels,
        )

    def folds(self, n_folds: int, rng: np.random.Generator) -> list[Split]:
        """Split by what is never to be on both sides; every row is held out once."""
        return folds_apart(self.groups, self.units, min(n_folds, len(np.unique(self.units))), rng)


def fit(
    windows: Sequence[Window],
    stimuli: StimulusTable,
    encoders: Encoders,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    runs: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
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
    runs : sequence of str, optional
        The recording that each window is from; left out, all are from one.
    units : sequence of str, optional
        The run, session or subject that each window is from, where `spec.split` is by one of these.
    cache : Path or None
        Folder that keeps targets between runs.
    meta : mapping or None
        JSON-able facts that the bundle carries along: data, window, filters.
    bank : Targets or None
        `c` and `e` of captioned pictures that nobody was shown, from which a prior of `c` learns.

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
    runs, units = (
        None if names is None else [name for name, window in zip(names, windows, strict=True) if id(window) in kept]
        for names in (runs, units)
    )
    chosen = [window for window, _ in used]
    return fit_targets(chosen, shown, targets, spec, progress, runs=runs, units=units, meta=facts, bank=bank)


def fit_targets(
    windows: Sequence[Window],
    stimuli: StimulusTable,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    runs: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    meta: Mapping[str, Any] | None = None,
    bank: Targets | None = None,
) -> Bundle:
    """Train on targets computed already, one row a stimulus; as `fit` otherwise.

    Every window's label must be a stimulus.
    """
    samples = gather(windows, stimuli, spec, runs=runs, units=units)
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
        models[name], _ = fit_model(samples.take(train), targets, spec, bank=bank)
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
        # A map between covariances means nothing across units, nor across streams with clocks of their own.
        reference=fit_reference(samples.data) if one_unit(first.channels) and can_align(samples.data) else None,
    )


def gather(
    windows: Sequence[Window],
    stimuli: StimulusTable,
    spec: DecoderSpec,
    *,
    runs: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
) -> Samples:
    """Put windows, each of which answers to a stimulus, side by side.

    Raises
    ------
    TrainingError
        If they differ in shape, channels or rate, or the split that the spec asks for would leak.
    """
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
    groups = np.asarray(stimuli.groups)[rows]
    if spec.split == "window":
        refuse_random_folds(groups)
    apart = groups if spec.split in {"picture", "window"} else names if spec.split == "run" else units
    if apart is None:
        raise TrainingError(f"split by {spec.split}, but nobody said which window is of which; split by run or picture")
    data = alike(first.channels, np.stack([w.data for w in windows]))
    return Samples(data, times, rows, groups, names, np.asarray(apart), first.channels.names)


def held_out_folds(samples: Samples, spec: DecoderSpec) -> list[Split]:
    """Give the folds whose windows are decoded by models that never saw them; none if the spec asks for none."""
    if spec.hold_out == "none":
        return []
    n_folds = len(np.unique(samples.units)) if spec.hold_out == "groups" else int(spec.hold_out)
    return samples.folds(n_folds, np.random.default_rng(spec.seed))


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
    samples: Samples,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    bank: Targets | None = None,
) -> tuple[Model, dict[str, Any]]:
    """Fit one model of the spec's family; gives it, and its scores by feature as `Fitted` has them."""
    if spec.family == "ridge" and spec.c_from == "tokens":
        fitted = fit_linear(samples, targets, spec, progress)
        return fitted.model, fitted.scores
    from decoder.embedding import fit_embedding

    return fit_embedding(samples, targets, spec, progress, bank=bank)


def fit_linear(samples: Samples, targets: Targets, spec: DecoderSpec, progress: Progress = no_progress) -> Fitted:
    """Fit one linear model: penalties, units and confidence by cross-validation, weights on all samples.

    Preprocessing is fitted anew inside every fold, so nothing of a held-out picture is known to what predicts it.
    """
    designs = _designs(samples, spec, progress)
    preprocess = fit_preprocessor(samples.data, samples.times, spec.preprocess)
    regression = make_regression(
        *([design.fold for design in designs], preprocess(samples.data), spec.regression, spec.alphas),
        bands=input_bands(samples.channels, samples.times, spec.preprocess, spec.regression.bands),
        rng=np.random.default_rng([spec.seed, 3]),
    )
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
        found = regression.choose(Y)
        weights, intercept = regression.fit(Y, found.choice)
        gain = undo_shrinkage(Y, found.predictions, {"c": spec.c_gain, "z": spec.z_gain, "e": 0.0}[name])
        constant = flat[samples.rows[0]].reshape(value.shape[1:]).copy()
        if name != "z":
            held_out[name] = np.repeat(constant.reshape(1, -1), len(Y), axis=0)
            held_out[name][:, active] = found.predictions
        heads.append(Head(name, value.shape[1:], active.astype(np.int32), weights * gain, intercept, constant))
        correct.append(identified(flat[:, active], found.predictions, samples.rows, intercept))
        scores[name] = {"r": rounded_mean(found.r), "two_way": rounded_mean(correct[-1])}
        for number, (design, of_fold) in enumerate(zip(designs, deviations, strict=True)):
            of_fold.append(gain * regression.predict_part(number, design.inputs, Y, found.choice))
    known = Known.of([(design.fold.train, design.fold.test) for design in designs], len(samples.rows), spec.seed)
    for done, (block, units) in enumerate(targets.s.items()):
        progress("structure", done, len(targets.s))
        head, r = structure_head(block, units[samples.rows], regression, spec, known)
        heads.append(head)
        scores[head.name] = {"r": r}
    progress("structure", len(targets.s), len(targets.s))
    if not correct:
        # Of structure alone, its first block says what is told apart.
        kept = next(iter(targets.s.values()))[:, heads[0].active].astype(np.float32)
        found = regression.choose(kept[samples.rows])
        correct.append(identified(kept, found.predictions, samples.rows, heads[0].intercept))
    calibration, scores["confidence"] = _calibration(designs, deviations, correct)
    model = LinearModel(preprocess, heads, fit_typicality(samples.data), calibration, known.structure_model(spec.seed))
    return Fitted(model, scores, held_out)


@dataclass(frozen=True, slots=True, eq=False)
class _Design:
    """A fold, with the inputs on which confidence is learned: held-out windows, and surrogates without response."""

    fold: Part
    inputs: Array
    n_surrogates: int


def _designs(samples: Samples, spec: DecoderSpec, progress: Progress) -> list[_Design]:
    rng = np.random.default_rng(spec.seed)
    splits = samples.folds(spec.cv_folds, rng)
    n_folds = len(splits)
    out = []
    for number, (train, test) in enumerate(splits):
        progress("cross-validation", number, n_folds)
        preprocess = fit_preprocessor(samples.data[train], samples.times, spec.preprocess)
        held_out = preprocess(samples.data[test])
        surrogates = preprocess(turned(samples.data[test], rng)) if len(samples.times) > 1 else held_out[:0]
        fold = Part(train, test, preprocess(samples.data[train]), held_out)
        out.append(_Design(fold, np.concatenate([held_out, surrogates]), len(surrogates)))
    progress("cross-validation", n_folds, n_folds)
    return out


def turned(data: Array, rng: np.random.Generator) -> Array:
    """Turn each window round in time by its own random amount, all channels together."""
    n_times = data.shape[2]
    low, high = (round(share * n_times) for share in SHIFT_RANGE)
    shifts = rng.integers(low, max(high, low + 1), size=len(data))
    return np.stack([np.roll(window, shift, axis=1) for window, shift in zip(data, shifts, strict=True)])


def _calibration(
    designs: Sequence[_Design], deviations: Sequence[Sequence[Array]], correct: Sequence[NDArray[np.float64]]
) -> tuple[Calibration, dict[str, float]]:
    """Learn confidence from held-out windows, and from surrogates without a response."""
    told = np.mean(correct, axis=0)
    folds = []
    for design, known in zip(designs, deviations, strict=True):
        statistics = window_statistics(design.inputs, list(known))
        own, surrogates = np.split(statistics, [len(design.fold.test)])
        folds.append(FoldStatistics(own, told[design.fold.test], surrogates))
    return calibrate(folds)


def identified(features: Array, predictions: Array, rows: NDArray[np.intp], mean: Array) -> NDArray[np.float64]:
    """Two-way identification of each sample's picture among those of the samples, by correlation about the mean."""
    # Not among all that have features: pictures that are held out must not be known to what is fitted here.
    shown, own = np.unique(rows, return_inverse=True)
    return two_way(correlation_matrix(features[shown] - mean, predictions - mean), own)
