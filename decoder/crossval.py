"""How good a decoder is on recordings of which every window is decoded by what never saw its picture, run or session.

All that is fitted - preprocessing, penalties, gains, the choice of units - is fitted anew inside each training part.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.category import category_scores, nested_logits
from decoder.classifiers import Trials
from decoder.features import Features
from decoder.metrics import bootstrap_interval, chance_range, correlation_matrix
from decoder.reference import can_align, fit_reference
from decoder.samples import Origin, Samples, gather, held_out_folds
from decoder.spec import DecoderSpec
from decoder.splits import Split, overlap
from decoder.stimuli import StimulusTable
from decoder.subjects import in_common, in_line
from decoder.targets import Progress, Targets, no_progress
from decoder.train import CONSTANT, fit_model
from stream.windows import Window

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

FOLDS = 10
"""Outer folds, where the spec does not say how many are held out."""
INNER_FOLDS = 5
"""Folds of a training part by which one of several candidates is chosen for it."""
PERMUTATIONS = 200


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Windows, decoded by models that never saw their pictures.

    Attributes
    ----------
    samples : Samples
    folds : list of (train, test)
    features : list of Features, one a window
    chosen : ndarray of int, shape (n_folds,)
        Place among the candidates of what each fold was decoded by.
    """

    samples: Samples
    folds: list[Split]
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
) -> HeldOut:
    """Fit one model a fold and decode the fold by it; as `decode_nested` with one candidate."""
    only = (Candidate(windows, spec),)
    return decode_nested(only, stimuli, targets, lambda _: 0.0, progress, origins=origins)


def decode_nested(
    candidates: Sequence[Candidate],
    stimuli: StimulusTable,
    targets: Targets,
    score: Callable[[HeldOut], float],
    progress: Progress = no_progress,
    *,
    origins: Sequence[Origin] | None = None,
    bank: Targets | None = None,
) -> HeldOut:
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
    origins, bank
        As in `decoder.train.fit`.

    Raises
    ------
    TrainingError
        If the split would leak, or cannot be made.
    """
    parts = [gather(each.windows, stimuli, each.spec, origins=origins) for each in candidates]
    spec = candidates[0].spec
    folds = held_out_folds(parts[0], spec) or parts[0].folds(FOLDS, np.random.default_rng(spec.seed))
    found: dict[int, Features] = {}
    chosen = []
    for number, (train, test) in enumerate(folds):
        progress("held-out folds", number, len(folds))
        best = 0
        if len(candidates) > 1:
            inner = [_inner(each, part, train, targets, bank) for each, part in zip(candidates, parts, strict=True)]
            best = int(np.argmax([score(each) for each in inner]))
        found |= _decoded(candidates[best], parts[best], (train, test), targets, bank)
        chosen.append(best)
    progress("held-out folds", len(folds), len(folds))
    return HeldOut(parts[0], folds, [found[row] for row in range(len(found))], np.asarray(chosen, np.intp))


def _inner(
    candidate: Candidate, samples: Samples, train: NDArray[np.intp], targets: Targets, bank: Targets | None
) -> HeldOut:
    """Decode a training part fold by fold."""
    own = samples.take(train)
    folds = own.folds(INNER_FOLDS, np.random.default_rng(candidate.spec.seed))
    found: dict[int, Features] = {}
    for rest, aside in folds:
        decoded = _decoded(candidate, samples, (train[rest], train[aside]), targets, bank)
        found |= dict(zip(aside.tolist(), decoded.values(), strict=True))
    return HeldOut(own, folds, [found[row] for row in range(len(train))], np.zeros(len(folds), np.intp))


def _decoded(
    candidate: Candidate, samples: Samples, split: Split, targets: Targets, bank: Targets | None
) -> dict[int, Features]:
    train, test = split
    known, asked = in_common(samples.take(train)), samples.take(test)
    if samples.persons().any() and can_align(samples.data):
        asked = in_line(asked, fit_reference(known.data))
    model, _ = fit_model(known, targets, candidate.spec, bank=bank)
    decoded = model.predict([candidate.windows[row] for row in test], asked.data)
    return dict(zip(test.tolist(), decoded, strict=True))


def feature_scores(held_out: HeldOut, targets: Targets, rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Identify each window's picture among all pictures, by each decoded feature.

    Returns
    -------
    scores : dict of str to dict
        By feature, as `identification`.
    """
    return {
        name: identification(_similarity(held_out, truth, name), held_out.samples.rows, rng)
        for name, truth in _truths(targets)
    }


def identification(r: Floats, rows: NDArray[np.intp], rng: np.random.Generator) -> dict[str, Any]:
    """Score a matrix of similarities r[picture, window].

    Parameters
    ----------
    r : ndarray, shape (n_pictures, n_windows)
    rows : ndarray of int, shape (n_windows,)
        Picture of each window.
    rng : numpy.random.Generator

    Returns
    -------
    scores : dict
        'two_way' (ties count half) and 'top1': share of windows whose picture is the most alike of all; each with
        '<score>_interval', [low, high] (95 %, bootstrap over windows), and
        '<score>_chance', [low, high], as `chance_range`; 'baseline' of two_way: the same picture
        for all windows, which cannot be told from any other; 'pictures', 'windows'.
    """
    from scipy.stats import rankdata

    columns = np.arange(r.shape[1])
    wins = (rankdata(r, axis=0) - 1) / (len(r) - 1)
    first = rankdata(-r, axis=0, method="max") == 1
    out: dict[str, Any] = {"baseline": 0.5, "pictures": len(r), "windows": len(rows)}
    relabelled = [rng.permutation(len(r))[rows] for _ in range(PERMUTATIONS)]
    for name, hits in (("two_way", wins), ("top1", first)):
        null = np.array([hits[other, columns].mean() for other in relabelled])
        out[name] = round(float(hits[rows, columns].mean()), 4)
        out[f"{name}_interval"] = [round(bound, 4) for bound in bootstrap_interval(hits[rows, columns], rng)]
        out[f"{name}_chance"] = chance_range(null)
    return out


def category_crossval(
    candidates: Sequence[Candidate], stimuli: StimulusTable, origins: Sequence[Origin]
) -> tuple[dict[str, Any], NDArray[np.intp]]:
    """Tell categories apart in runs that the classifier never saw, by the best of several settings.

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


def fold_overlap(held_out: HeldOut, stimuli: StimulusTable) -> Mapping[str, float]:
    """Mean over folds of what the held-out pictures share with those trained on."""
    ids = np.asarray(stimuli.ids)
    rows = held_out.samples.rows
    shares = [overlap(stimuli, ids[rows[train]], ids[rows[test]]) for train, test in held_out.folds]
    return {name: round(float(np.mean([one[name] for one in shares])), 4) for name in shares[0]}


def _truths(targets: Targets) -> Iterator[tuple[str, Array]]:
    for name, value in (("c", targets.c), ("z", targets.z), ("e", targets.e)):
        if value is not None:
            yield name, value.reshape(len(value), -1)
    for block, units in targets.s.items():
        yield f"s{block}", units.astype(np.float32)


def _similarity(held_out: HeldOut, truth: Array, name: str) -> Floats:
    """Correlate pictures with windows over the decoded numbers, both z-scored by the fold's training windows."""
    rows = held_out.samples.rows
    r = np.empty((len(truth), len(rows)))
    for train, test in held_out.folds:
        decoded = np.stack([decoded_values(held_out.features[row], name) for row in test])
        shown = truth[rows[train]]
        used = np.ptp(shown, axis=0) > CONSTANT
        if name.startswith("s"):
            used &= held_out.features[test[0]].s[int(name[1:])].mask
        mean, spread = shown[:, used].mean(axis=0), shown[:, used].std(axis=0)
        r[:, test] = correlation_matrix((truth[:, used] - mean) / spread, (decoded[:, used] - mean) / spread)
    return r


def decoded_values(features: Features, name: str) -> Array:
    """Give a feature's flat numbers by its name: 'c', 'z', 'e', 's1', ..."""
    if name.startswith("s"):
        return features.s[int(name[1:])].values
    return np.asarray({"c": features.c, "z": features.z, "e": features.e}[name], np.float32).ravel()
