"""How good a decoder is on recordings of which every window is decoded by what never saw its picture, run or session.

All that is fitted - preprocessing, penalties, gains, the choice of units - is fitted anew inside each training part.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.alignment.subjects import in_common, in_line
from decoder.data.splits import TrainTest, shared_pictures
from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets
from decoder.data.training_set import Origin, TrainingSet, gather, held_out_folds
from decoder.estimators.classifiers import Trials
from decoder.evaluation.identify import identification
from decoder.evaluation.metrics import correlation_matrix
from decoder.features import Features, block_of
from decoder.models.category import category_scores, nested_logits
from decoder.parallel import apply_each
from decoder.preprocessing.session_moments import can_align, fit_session_moments
from decoder.spec import DecoderSpec
from decoder.training.train import fit_model
from decoder.training.train_linear import CONSTANT
from stream.types.progress import Progress, no_progress
from stream.types.windows import Window

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

FOLDS = 10
"""Outer folds, where the spec does not say how many are held out."""
INNER_FOLDS = 5
"""Folds of a training part by which one of several candidates is chosen for it."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutPredictions:
    """Windows, decoded by models that never saw their pictures.

    Attributes
    ----------
    samples : TrainingSet
    folds : list of (train, test)
    features : list of Features, one a window
    chosen : ndarray of int, shape (n_folds,)
        Place among the candidates of what each fold was decoded by.
    """

    samples: TrainingSet
    folds: list[TrainTest]
    features: list[Features]
    chosen: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """Settings that may be chosen, and the windows that they cut: those of all candidates answer to one another."""

    windows: Sequence[Window]
    spec: DecoderSpec


def decode_held_out(
    windows: Sequence[Window],
    stimuli: StimulusTable,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    origins: Sequence[Origin] | None = None,
) -> HeldOutPredictions:
    """Fit one model a fold and decode the fold by it; as `decode_nested` with one candidate."""
    only = (Candidate(windows, spec),)
    return decode_nested(only, stimuli, targets, lambda _: 0.0, progress, origins=origins)


def decode_nested(
    candidates: Sequence[Candidate],
    stimuli: StimulusTable,
    targets: Targets,
    score: Callable[[HeldOutPredictions], float],
    progress: Progress = no_progress,
    *,
    origins: Sequence[Origin] | None = None,
    image_bank: Targets | None = None,
) -> HeldOutPredictions:
    """Fit one model a fold and decode the fold by it, by the best of several settings, chosen in its training part.

    Of several participants, each one's channels are brought in line without labels: in the training part with those of
    all who are in it, held out with these, by the held-out windows' own covariance and mean.

    Parameters
    ----------
    candidates : sequence of Candidate
        Each window answers to the stimulus that its event's label names. How the first is split holds for all.
    stimuli : StimulusTable
    targets : Targets
        One row a stimulus.
    score : callable
        How good a training part was decoded while it was held out, in five folds; more is better.
    progress : callable
    origins, image_bank
        As in `decoder.training.train.fit`.

    Raises
    ------
    TrainingError
        If the split would leak, or cannot be made.
    """
    parts = [gather(each.windows, stimuli, each.spec, origins=origins) for each in candidates]
    spec = candidates[0].spec
    folds = held_out_folds(parts[0], spec) or parts[0].folds(FOLDS, np.random.default_rng(spec.seed))
    chosen = np.zeros(len(folds), np.intp)
    if len(candidates) > 1:
        tasks = [(each, part, fold) for fold in folds for each, part in zip(candidates, parts, strict=True)]
        inner = apply_each(
            partial(_inner, targets, image_bank),
            tasks,
            about="candidates",
            progress=progress,
            name=lambda task: f"candidate {task % len(candidates) + 1} of fold {task // len(candidates) + 1}",
        )
        told = np.reshape([score(each) for each in inner], (len(folds), len(candidates)))
        chosen = told.argmax(axis=1)
    found: dict[int, Features] = {}
    tasks = [(candidates[place], parts[place], fold) for place, fold in zip(chosen.tolist(), folds, strict=True)]
    for decoded in apply_each(partial(_decoded, targets, image_bank), tasks, about="held-out folds", progress=progress):
        found |= decoded
    return HeldOutPredictions(parts[0], folds, [found[row] for row in range(len(found))], chosen)


Task = tuple[Candidate, TrainingSet, TrainTest]
"""A candidate, what its windows came to, and a split of them."""


def _inner(targets: Targets, image_bank: Targets | None, task: Task) -> HeldOutPredictions:
    """Decode a split's training part by a candidate, fold by fold."""
    candidate, samples, (train, _) = task
    own = samples.take(train)
    inner = own.folds(INNER_FOLDS, np.random.default_rng(candidate.spec.seed))
    found: dict[int, Features] = {}
    for rest, aside in inner:
        decoded = _decoded(targets, image_bank, (candidate, samples, (train[rest], train[aside])))
        found |= dict(zip(aside.tolist(), decoded.values(), strict=True))
    return HeldOutPredictions(own, inner, [found[row] for row in range(len(train))], np.zeros(len(inner), np.intp))


def _decoded(targets: Targets, image_bank: Targets | None, task: Task) -> dict[int, Features]:
    """Decode a split's held-out windows by a candidate that was fitted on the others."""
    candidate, samples, (train, test) = task
    known, asked = in_common(samples.take(train)), samples.take(test)
    if samples.persons().any() and can_align(samples.data):
        asked = in_line(asked, fit_session_moments(known.data))
    # The nested scores of the fit would be thrown away.
    model, _ = fit_model(known, targets, candidate.spec, image_bank=image_bank, nested=False)
    decoded = model.predict([candidate.windows[row] for row in test], asked.data)
    return dict(zip(test.tolist(), decoded, strict=True))


def feature_scores(
    held_out: HeldOutPredictions, targets: Targets, rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """Identify each window's picture among all pictures, by each decoded feature.

    Returns
    -------
    scores : dict of str to dict
        By feature, as `identification`.
    """
    scores = {}
    for name in held_out.features[0].names:
        value = targets.arrays()[name]
        truth = value.reshape(len(value), -1).astype(np.float32, copy=False)
        scores[name] = identification(_similarity(held_out, truth, name), held_out.samples.rows, rng)
    return scores


def category_crossval(
    candidates: Sequence[Candidate], stimuli: StimulusTable, origins: Sequence[Origin]
) -> tuple[dict[str, Any], NDArray[np.intp]]:
    """Classify runs that the classifier never saw, by the best of several settings.

    Returns
    -------
    scores : dict
        As `category_scores`.
    chosen : ndarray of int, shape (n_folds,)
        As `nested_logits`.
    """
    specs = [each.spec.category for each in candidates if each.spec.category is not None]
    parts = [gather(each.windows, stimuli, each.spec, origins=origins) for each in candidates]
    trials = [Trials(part.data, part.times, part.rows, stimuli.ids, part.runs) for part in parts]
    logits, chosen = nested_logits(trials, specs, [each.spec.preprocess for each in candidates])
    return category_scores(logits, trials[0]), chosen


def fold_overlap(held_out: HeldOutPredictions, stimuli: StimulusTable) -> Mapping[str, float]:
    """Mean over folds of what the held-out pictures share with those trained on."""
    ids = np.asarray(stimuli.ids)
    rows = held_out.samples.rows
    shares = [shared_pictures(stimuli, ids[rows[train]], ids[rows[test]]) for train, test in held_out.folds]
    return {name: round(float(np.mean([one[name] for one in shares])), 4) for name in shares[0]}


def _similarity(held_out: HeldOutPredictions, truth: Array, name: str) -> Floats:
    """Correlate pictures with windows over the decoded numbers, both z-scored by the fold's training windows."""
    rows = held_out.samples.rows
    r = np.empty((len(truth), len(rows)))
    for train, test in held_out.folds:
        decoded = np.stack([held_out.features[row].decoded(name) for row in test])
        shown = truth[rows[train]]
        used = np.ptp(shown, axis=0) > CONSTANT
        if (block := block_of(name)) is not None:
            used &= held_out.features[test[0]].s[block].mask
        mean, spread = shown[:, used].mean(axis=0), shown[:, used].std(axis=0)
        r[:, test] = correlation_matrix((truth[:, used] - mean) / spread, (decoded[:, used] - mean) / spread)
    return r
