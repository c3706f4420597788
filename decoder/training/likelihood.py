"""Identification by likelihood: how likely each window is under each picture, of models that never saw the picture.

Responses are what windows hold after compression and averaging in time, which nothing is fitted for: so those that
folds predict can be compared. Whitening, principal components and kernels of `decoder.preprocess` are left out; noise
has a covariance of its own here.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import TrainTest
from decoder.data.training_set import TrainingSet
from decoder.encoding.axes import Features
from decoder.encoding.model import EncodingFit, fit_with_influence
from decoder.evaluation.identify import identification
from decoder.parallel import apply_each
from decoder.preprocessing.preprocess import PreprocessSpec, compressed, time_bins
from stream.types.progress import Progress, no_progress

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

FEWEST = 10
"""Pictures that every training part needs."""
FIRST = (1, 5, 10)
"""Among so many of the likeliest pictures the one that was shown is looked for."""


def likelihood_scores(
    samples: TrainingSet,
    folds: Sequence[TrainTest],
    features: Features,
    spec: PreprocessSpec,
    seed: int,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Identify each window's picture among all pictures by its likelihood.

    Parameters
    ----------
    samples : TrainingSet
    folds : sequence of (train, test)
        As decoders are held out by; every window is held out once.
    features : mapping of str to ndarray, shape (n_pictures, n_features)
        Of all pictures, by group (`decoder.encoding.picture_features`).
    spec : PreprocessSpec
    seed : int
        Of the inner folds, of permutations and of the bootstrap.
    progress : callable

    Returns
    -------
    scores : dict
        As `decoder.evaluation.identify.identification`, with 'top5' and 'top10'; 'explained': share of the variance of
        held-out training windows that is predicted, averaged over responses and folds; and where pictures were shown
        more than once, 'by_repeats': the same scores by how many presentations of a picture are added. Empty where a
        training part has fewer than ten pictures, or windows are of several participants, whose responses are not in
        one space.
    """
    if samples.persons().any() or min(len(np.unique(samples.rows[train])) for train, _ in folds) < FEWEST:
        return {}
    responses = compressed(samples.data, spec.compress) @ time_bins(samples.times, spec)
    fit_fold = partial(_fit_fold, features, responses, samples, seed)
    fits = apply_each(fit_fold, folds, about="encoding models", progress=progress)
    likelihood = window_likelihoods(fits, samples, folds, features, responses.reshape(len(responses), -1))
    rng = np.random.default_rng(seed)
    scores = identification(likelihood, samples.rows, rng, first=FIRST)
    scores["explained"] = round(float(np.mean([fit.model.explained.mean() for fit in fits])), 4)
    if repeats := by_repeats(likelihood, samples.rows, rng):
        scores["by_repeats"] = repeats
    return scores


def _fit_fold(
    features: Features, responses: NDArray[np.float32], samples: TrainingSet, seed: int, split: TrainTest
) -> EncodingFit:
    """Fit the encoding model of a split's training part."""
    train = split[0]
    rng = np.random.default_rng(seed)
    return fit_with_influence(features, responses[train], samples.rows[train], samples.groups[train], rng)


def window_likelihoods(
    fits: Sequence[EncodingFit],
    samples: TrainingSet,
    folds: Sequence[TrainTest],
    features: Features,
    responses: NDArray[np.float32],
) -> Floats:
    """Compute how likely each window is under each picture, shape (n_pictures, n_windows).

    Every picture's response is predicted by a fit that was not trained on it, the true one's as the others': a fit
    predicts pictures it knows with more spread, which would tell which pictures are of the window's fold. From fits
    that know the window's own picture its influence is taken out. The noise is that of the window's own fold.

    Parameters
    ----------
    fits : sequence of EncodingFit
        One a fold.
    samples, folds, features
        As in `likelihood_scores`.
    responses : ndarray, shape (n, n_responses)
    """
    by = _unknown_to(samples, folds, len(next(iter(features.values()))))
    out = np.empty((by.shape[1], len(responses)))
    candidates = [{fold: np.flatnonzero(row == fold) for fold in np.unique(row)} for row in by]
    shares: dict[tuple[int, bytes], Floats] = {}
    for own, (_, test) in enumerate(folds):
        model = fits[own].model
        noise, used = model.noise, model.used
        predicted = np.empty((by.shape[1], len(used)), np.float32)
        for fold, places in candidates[own].items():
            asked = {name: values[places] for name, values in features.items()}
            predicted[places] = fits[fold].model.predict(asked)[:, used]
            if (fold, places.tobytes()) not in shares:
                shares[fold, places.tobytes()] = fits[fold].shares(asked)
        for picture in np.unique(samples.rows[test]):
            without = predicted.copy()
            for fold, places in candidates[own].items():
                influence = fits[fold].influence
                known = np.flatnonzero(influence.pictures == picture)
                if len(known):
                    share = shares[fold, places.tobytes()][known[0]]
                    without[places] -= share.T @ influence.parts(int(known[0]))[:, used]
            shown = test[samples.rows[test] == picture]
            out[:, shown] = noise.log_likelihood(without, responses[shown][:, used])
    return out


def _unknown_to(samples: TrainingSet, folds: Sequence[TrainTest], n_pictures: int) -> Rows:
    """Choose, for each fold's windows and each picture, a fold that was not trained on it: shape (n_folds, n_pictures).

    Where runs or sessions are crossed with pictures, it is one that was not trained on those of the windows either.
    """
    # A picture whose group was not trained on is as unknown as one that was not trained on itself.
    group_of = dict(zip(samples.rows.tolist(), samples.groups.tolist(), strict=True))
    groups = np.array([group_of.get(row, f"not shown {row}") for row in range(n_pictures)])
    unknown = np.stack([~np.isin(groups, samples.groups[train]) for train, _ in folds])
    chosen = []
    for _, test in folds:
        apart = [np.count_nonzero(~np.isin(samples.units[test], samples.units[train])) for train, _ in folds]
        chosen.append(np.where(unknown, np.asarray(apart)[:, None], -1).argmax(axis=0))
    return np.stack(chosen)


def by_repeats(likelihood: Floats, rows: Rows, rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Add the log-likelihoods of presentations of one picture, in the order in which they came, and identify by them.

    Parameters
    ----------
    likelihood : ndarray, shape (n_pictures, n_windows)
    rows : ndarray of int, shape (n_windows,)
    rng : numpy.random.Generator

    Returns
    -------
    scores : dict of str to dict
        By number of presentations, doubled as long as each picture was shown so often; empty where one was shown once.
    """
    shown = np.unique(rows)
    most = min(np.count_nonzero(rows == row) for row in shown)
    out = {}
    k = 2
    while k <= most:
        sums, names = [], []
        for row in shown:
            own = np.flatnonzero(rows == row)
            for start in range(0, len(own) - k + 1, k):
                sums.append(likelihood[:, own[start : start + k]].sum(axis=1))
                names.append(row)
        out[str(k)] = identification(np.stack(sums, axis=1), np.asarray(names, np.intp), rng, first=FIRST)
        k *= 2
    return out
