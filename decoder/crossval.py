"""How good a decoder is on recordings of which every window is decoded by what never saw its picture, run or session.

All that is fitted - preprocessing, penalties, gains, the choice of units - is fitted anew inside each training part.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.category import category_scores, held_out_logits
from decoder.classifiers import Trials
from decoder.features import Features
from decoder.metrics import bootstrap_interval, chance_range, correlation_matrix
from decoder.spec import DecoderSpec
from decoder.splits import Split, overlap
from decoder.stimuli import StimulusTable
from decoder.targets import Progress, Targets, no_progress
from decoder.train import CONSTANT, Samples, fit_model, gather, held_out_folds
from stream.windows import Window

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

FOLDS = 10
"""Outer folds, where the spec does not say how many are held out."""
PERMUTATIONS = 200


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Windows, decoded by models that never saw their pictures.

    Attributes
    ----------
    samples : Samples
    folds : list of (train, test)
    features : list of Features, one a window
    """

    samples: Samples
    folds: list[Split]
    features: list[Features]


def decode_held_out(
    windows: Sequence[Window],
    stimuli: StimulusTable,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    runs: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
) -> HeldOut:
    """Fit one model a fold and decode the fold by it.

    Parameters
    ----------
    windows : sequence of Window
        Each answers to the stimulus that its event's label names.
    stimuli : StimulusTable
    targets : Targets
        One row a stimulus.
    spec : DecoderSpec
        Its `split` and `hold_out` say what is held out together, and in how many folds; 'none': in 10.
    progress : callable
    runs, units : sequence of str, optional
        As in `decoder.train.fit`.

    Raises
    ------
    TrainingError
        If the split would leak, or cannot be made.
    """
    samples = gather(windows, stimuli, spec, runs=runs, units=units)
    folds = held_out_folds(samples, spec) or samples.folds(FOLDS, np.random.default_rng(spec.seed))
    found: dict[int, Features] = {}
    for number, (train, test) in enumerate(folds):
        progress("held-out folds", number, len(folds))
        model, _ = fit_model(samples.take(train), targets, spec)
        decoded = model.predict([windows[row] for row in test], samples.data[test])
        found |= dict(zip(test.tolist(), decoded, strict=True))
    progress("held-out folds", len(folds), len(folds))
    return HeldOut(samples, folds, [found[row] for row in range(len(windows))])


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
    windows: Sequence[Window], stimuli: StimulusTable, spec: DecoderSpec, runs: Sequence[str]
) -> dict[str, Any]:
    """Tell categories apart in runs that the classifier never saw; scores as `category_scores`."""
    assert spec.category is not None
    samples = gather(windows, stimuli, spec, runs=runs)
    trials = Trials(samples.data, samples.times, samples.rows, stimuli.ids, samples.runs)
    return category_scores(held_out_logits(trials, spec.category, spec.preprocess), trials)


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
