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
from decoder.encoding.axes import Features, PrincipalAxes, fit_axes
from decoder.encoding.model import EncodingFit, fit_with_unseen, log_likelihood, picture_means
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
        Of all pictures, by group (`decoder.data.picture_features`).
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
    # Of all pictures, as which of them a fold was trained on must not show in their scores; no window is read here.
    axes = fit_axes(features)
    most = int(np.unique(samples.rows, return_counts=True)[1].min())
    repeats = [2**power for power in range(most.bit_length())]
    judge_fold = partial(_judge_fold, axes, features, responses, samples, seed, repeats)
    folds_found = apply_each(judge_fold, folds, about="encoding models", progress=progress)
    likelihoods = _together([one for one, _ in folds_found], samples.rows, repeats)
    rng = np.random.default_rng(seed)
    by_repeats = {str(k): identification(*likelihoods[k], rng, first=FIRST) for k in repeats}
    scores = by_repeats.pop("1")
    scores["explained"] = round(float(np.mean([explained for _, explained in folds_found])), 4)
    return scores | ({"by_repeats": by_repeats} if by_repeats else {})


def _judge_fold(
    axes: PrincipalAxes,
    features: Features,
    responses: NDArray[np.float32],
    samples: TrainingSet,
    seed: int,
    repeats: Sequence[int],
    split: TrainTest,
) -> tuple["FoldLikelihoods", float]:
    """Fit the encoding model of a split's training part; return what it says of the held-out windows.

    Returns
    -------
    likelihoods : FoldLikelihoods
    explained : float
        Share of the variance of held-out training windows that is predicted.
    """
    train, test = split
    rng = np.random.default_rng(seed)
    fit = fit_with_unseen(axes, features, responses[train], samples.rows[train], samples.groups[train], rng)
    flat = responses.reshape(len(responses), -1)
    return _fold_likelihoods(fit, test, samples.rows, features, flat, repeats), float(fit.model.explained.mean())


FoldLikelihoods = dict[int, tuple[Rows, Floats]]
"""By repeats: the groups of presentations that a fold holds out, and their likelihoods, (n_pictures, n_groups)."""


def window_likelihoods(
    fits: Sequence[EncodingFit],
    samples: TrainingSet,
    folds: Sequence[TrainTest],
    features: Features,
    responses: NDArray[np.float32],
    repeats: Sequence[int] = (1,),
) -> dict[int, tuple[Floats, Rows]]:
    """Compute how likely presentations are under each picture, so many of a picture together.

    All is by the fold that did not see the window. It predicts every picture by weights that were not fitted on that
    picture: known ones by those of all others, as it predicts pictures it knows with more spread, which would tell
    which pictures are of the window's fold.

    Parameters
    ----------
    fits : sequence of EncodingFit
        One a fold.
    samples, folds, features
        As in `likelihood_scores`.
    responses : ndarray, shape (n, n_responses)
    repeats : sequence of int
        So many presentations of a picture are put together, in the order in which they came; none is used twice.

    Returns
    -------
    likelihoods : dict of int to (likelihood, rows)
        By repeats, shape (n_pictures, n_groups), and the picture of each group. Presentations of one fold are averaged;
        of several, their models' log-likelihoods are added.
    """
    of_folds = [
        _fold_likelihoods(fit, test, samples.rows, features, responses, repeats)
        for fit, (_, test) in zip(fits, folds, strict=True)
    ]
    return _together(of_folds, samples.rows, repeats)


def _fold_likelihoods(
    fit: EncodingFit,
    test: Rows,
    rows: Rows,
    features: Features,
    responses: NDArray[np.float32],
    repeats: Sequence[int],
) -> FoldLikelihoods:
    model = fit.model
    predicted, answers = model.predict(features), model.read(responses[test])
    predicted[fit.pictures] = fit.unseen
    out: FoldLikelihoods = {}
    for k in repeats:
        groups, which, counts = np.unique(_grouped(rows, k)[0][test], return_inverse=True, return_counts=True)
        means = picture_means(answers, which)
        likelihood = np.zeros((len(predicted), len(groups)))
        for count in np.unique(counts[groups >= 0]):
            own = (counts == count) & (groups >= 0)
            likelihood[:, own] = log_likelihood(predicted, means[own], model.covariance(int(count)))
        out[k] = groups[groups >= 0], likelihood[:, groups >= 0]
    return out


def _together(
    of_folds: Sequence[FoldLikelihoods], rows: Rows, repeats: Sequence[int]
) -> dict[int, tuple[Floats, Rows]]:
    """Add up what folds say of each group of presentations."""
    out = {}
    for k in repeats:
        pictures = _grouped(rows, k)[1]
        total = np.zeros((len(of_folds[0][k][1]), len(pictures)))
        for groups, likelihood in (fold[k] for fold in of_folds):
            total[:, groups] += likelihood
        out[k] = total, pictures
    return out


def _grouped(rows: Rows, k: int) -> tuple[Rows, Rows]:
    """Group k windows of a picture at a time: the group of each window, -1 of those left over, and each one's row."""
    group_of = np.full(len(rows), -1)
    pictures: list[int] = []
    for row in np.unique(rows):
        own = np.flatnonzero(rows == row)
        n_groups = len(own) // k
        group_of[own[: n_groups * k]] = len(pictures) + np.repeat(np.arange(n_groups), k)
        pictures += [int(row)] * n_groups
    return group_of, np.asarray(pictures, np.intp)
