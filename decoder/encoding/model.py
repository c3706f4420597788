"""The encoding model: responses predicted from picture features, and how likely responses are given a picture.

The other direction than a decoder's: what a window says about a whole picture is kept in its likelihood, and the
strongest identification works so (Kay et al. 2008, Nature 452; Naselaris et al. 2011, NeuroImage 56).

Responses are whitened by the noise of presentations, reduced to the directions in which pictures differ, and there
predicted by ridge. A mean of k presentations is off its prediction by two errors: noise, which falls as 1/k, and what
the model gets wrong of the picture, which does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import group_folds
from decoder.encoding.axes import N_AXES, Features, PrincipalAxes, fit_axes
from decoder.encoding.directions import RANKS, find_directions, fit_basis
from decoder.encoding.noise import LARGEST, Noise, fit_noise, shrunk_covariance, symmetric_power
from decoder.encoding.weighing import PENALTIES, fit_spread
from decoder.solvers.ridge import decompose, fit_ridge, leverages, log_evidence

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

MOST_CHANNELS = 1000
"""Channels or voxels of whose errors a covariance is estimated."""
FOLDS = 5
"""Of training pictures, by which errors are measured."""
LEAST_REPEATS = 0.5
"""Presentations beyond each picture's first, a picture, by which noise is told from what pictures cause."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodingModel:
    """A fitted encoding model.

    Attributes
    ----------
    axes : PrincipalAxes
        From features to scores.
    weights : ndarray, shape (n_scores, n_directions), float32
    intercept : ndarray, shape (n_directions,), float32
    reader : ndarray, shape (n_responses, n_directions), float32
        From responses to directions in which pictures differ; where pictures were shown more than once, the noise of
        one presentation is of unit covariance there.
    patterns : ndarray, shape (n_directions, n_responses), float32
        The other way: what responses a step along each direction is.
    noise, model_error : ndarray, shape (n_directions, n_directions), float64
        Covariances of a presentation's noise, and of held-out pictures' errors without it. Where each picture was shown
        once the two cannot be told apart: all is noise.
    explained : ndarray, shape (n_responses,), float32
        Share of the variance of training windows that predictions explain while their pictures are held out; below 0
        where predicting the mean would be better.
    """

    axes: PrincipalAxes
    weights: Array
    intercept: Array
    reader: Array
    patterns: Array
    noise: Floats
    model_error: Floats
    explained: Array

    def predict(self, features: Features) -> Array:
        """Predict directions, shape (n, n_directions), of pictures of which the features are given by group."""
        return np.asarray(self.axes(features) @ self.weights + self.intercept, np.float32)

    def read(self, responses: Array) -> Array:
        """Read directions, shape (n, n_directions), of responses (n, n_responses)."""
        return np.asarray(responses @ self.reader, np.float32)

    def covariance(self, repeats: int = 1) -> Floats:
        """Return that of what a mean of so many presentations is off its prediction, in the directions."""
        return np.asarray(self.noise / repeats + self.model_error)

    def log_likelihood(self, features: Features, responses: Array, repeats: int = 1) -> Floats:
        """Compute how likely means of presentations (n, n_responses) are, given each of k pictures: shape (k, n)."""
        return log_likelihood(self.predict(features), self.read(responses), self.covariance(repeats))


@dataclass(frozen=True, slots=True, eq=False)
class EncodingFit:
    """A model, and what it would predict of its own training pictures without having seen them.

    Attributes
    ----------
    model : EncodingModel
    pictures : ndarray of int, shape (n_pictures,)
        Rows of the training pictures.
    unseen : ndarray, shape (n_pictures, n_directions), float32
        Prediction for each by weights that were fitted on all others: axes, directions and penalties stay as they are.
    """

    model: EncodingModel
    pictures: Rows
    unseen: Array


def fit_encoding(
    features: Features,
    responses: Array,
    rows: Rows,
    groups: Sequence[str] | NDArray[np.str_],
    rng: np.random.Generator,
    *,
    n_axes: int = N_AXES,
) -> EncodingModel:
    """Fit axes, weights and noise on training windows; as `fit_with_unseen`, whose model it is."""
    axes = fit_axes({name: values[np.unique(rows)] for name, values in features.items()}, n_axes)
    return fit_with_unseen(axes, features, responses, rows, groups, rng).model


def fit_with_unseen(
    axes: PrincipalAxes,
    features: Features,
    responses: Array,
    rows: Rows,
    groups: Sequence[str] | NDArray[np.str_],
    rng: np.random.Generator,
) -> EncodingFit:
    """Fit weights and noise on training windows.

    Ridge is banded: scores are scaled by the spread that their weights are expected to have
    (`decoder.encoding.weighing`), after which each direction has the penalty by which its training means are
    most probable. Errors are those of pictures that neither directions nor weights were fitted on.

    Parameters
    ----------
    axes : PrincipalAxes
        Of the features.
    features : mapping of str to ndarray, shape (n_pictures, n_features)
        By group; only those of pictures in `rows` are read.
    responses : ndarray, shape (n, n_channels, n_times) or (n, n_responses)
        Of training windows.
    rows : ndarray of int, shape (n,)
        Picture of each window.
    groups : sequence of str, one a window
        Never on both sides of a fold.
    rng : numpy.random.Generator
        Of the folds.

    Raises
    ------
    TrainingError
        If there are fewer than two groups.
    """
    n_channels = responses.shape[1]
    flat = np.ascontiguousarray(responses.reshape(len(responses), -1), np.float32)
    pictures, first, of_window = np.unique(rows, return_index=True, return_inverse=True)
    scores = axes({name: values[pictures] for name, values in features.items()})
    used = _best_channels(flat, of_window, scores, n_channels)
    presentations, repeated = _fit_presentations(flat[:, used], of_window, len(used) * n_channels // flat.shape[1])
    whitened = picture_means(presentations.whiten(flat[:, used]), of_window)
    mean, middle = whitened.mean(axis=0), scores.mean(axis=0)
    spread = fit_spread(axes, scores - middle, whitened - mean)
    inputs = np.asarray((scores - middle) * spread)
    splits = group_folds(np.asarray(groups)[first].tolist(), min(FOLDS, len(np.unique(groups))), rng)
    folds = [(_Part(inputs[train], whitened[train]), test) for train, test in splits]
    n_white = presentations.channels.shape[1]
    ranks = RANKS if whitened.shape[1] > LARGEST else (None,)
    by_rank = {
        rank: [_held_out(part, inputs[test], whitened[test], n_white, rank) for part, test in folds] for rank in ranks
    }
    rank = max(by_rank, key=lambda each: _gain(by_rank[each]))
    # Of directions looked for among thousands, some are found in noise, and do not hold for other pictures.
    slopes = _slopes(by_rank[rank])
    if rank is None:
        slopes = np.ones_like(slopes)
    whole = _Part(inputs, whitened)
    directions, choice, weights = whole.fit(n_white, rank, len(slopes))
    answers, held_out = (whitened - mean) @ directions, np.empty((len(pictures), len(slopes)))
    for (part, test), fold in zip(folds, by_rank[rank], strict=True):
        found = part.mean - mean + fold.predictions[:, : len(slopes)] * slopes @ fold.directions[:, : len(slopes)].T
        held_out[test] = found @ directions
    counts = np.bincount(of_window)
    noise, model_error = _split_errors(
        np.asarray(answers - held_out, np.float32), float((1 / counts).mean()) if repeated else 0.0
    )
    reader, patterns = np.zeros((2, flat.shape[1], directions.shape[1]), np.float32)
    reader[used] = presentations.whiten(np.eye(len(used), dtype=np.float32)) @ directions
    patterns[used] = presentations.colour(directions.T).T
    onto = np.asarray(weights * slopes * spread[:, None], np.float32)
    model = EncodingModel(
        axes,
        onto,
        np.asarray(mean @ directions - middle @ onto, np.float32),
        reader,
        np.ascontiguousarray(patterns.T),
        noise,
        model_error,
        _explained(flat, np.asarray(held_out @ patterns.T, np.float32), of_window),
    )
    unseen = answers - (answers - inputs @ weights) / (1 - leverages(whole.spectrum, choice))
    return EncodingFit(model, pictures, np.asarray(mean @ directions + unseen * slopes, np.float32))


def log_likelihood(predicted: NDArray[np.floating], observed: NDArray[np.floating], covariance: Floats) -> Floats:
    """Compute the log density of each observation under each prediction.

    Parameters
    ----------
    predicted : ndarray, shape (k, m)
    observed : ndarray, shape (n, m)
    covariance : ndarray, shape (m, m)
        Of errors.

    Returns
    -------
    log_likelihood : ndarray, shape (k, n)
    """
    whitener = symmetric_power(covariance, -0.5)
    centre = predicted.mean(axis=0, dtype=np.float64)
    x, y = (predicted - centre) @ whitener, (observed - centre) @ whitener
    squared = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2 * (x @ y.T)
    return np.asarray(-0.5 * (squared + np.linalg.slogdet(2 * np.pi * covariance)[1]))


def picture_means(responses: Array, of_window: Rows) -> Array:
    """Average windows (n, m) picture by picture, numbered from 0 without gaps."""
    counts = np.bincount(of_window)
    sums = np.zeros((len(counts), responses.shape[1]))
    np.add.at(sums, of_window, responses)
    return np.asarray(sums / counts[:, None], np.float32)


def _best_channels(flat: Array, of_window: Rows, scores: Array, n_channels: int) -> Rows:
    """Choose responses of no more channels than a covariance can be estimated of: those that features drive most."""
    if n_channels <= MOST_CHANNELS:
        return np.arange(flat.shape[1])
    means = standardised(picture_means(flat, of_window))
    own = np.square(scores).sum(axis=1)
    driven = np.square(scores.T @ means).sum(axis=0) - own @ np.square(means)
    channels = np.sort(np.argsort(-driven.reshape(n_channels, -1).max(axis=1), kind="stable")[:MOST_CHANNELS])
    return np.arange(flat.shape[1]).reshape(n_channels, -1)[channels].ravel()


def _fit_presentations(responses: Array, of_window: Rows, n_channels: int) -> tuple[Noise, bool]:
    """Estimate the noise of presentations about each picture's mean; of pictures shown once, all that varies.

    Returns
    -------
    noise : Noise
    repeated : bool
        Whether it is that of presentations alone.
    """
    counts = np.bincount(of_window)
    repeated = len(responses) - len(counts) >= LEAST_REPEATS * len(counts)
    if not repeated:
        return fit_noise(responses - responses.mean(axis=0), n_channels), False
    # About their own mean, n presentations vary by a share of 1 / n too little.
    short = np.sqrt(counts / np.maximum(counts - 1, 1))[of_window, None]
    errors = (responses - picture_means(responses, of_window)[of_window]) * short
    return fit_noise(errors[counts[of_window] > 1], n_channels), True


class _Part:
    """Training pictures, and what fits of any rank to them share; inputs are (n, p), whitened responses (n, m)."""

    def __init__(self, inputs: Array, whitened: Array) -> None:
        self.middle, self.mean = inputs.mean(axis=0), whitened.mean(axis=0)
        self.deviations = whitened - self.mean
        self.spectrum = decompose(inputs)
        self.driven = np.asarray((inputs - self.middle).T @ self.deviations, np.float32)

    def fit(self, n_channels: int, rank: tuple[int, int] | None, most: int) -> tuple[Array, Floats, Array]:
        """Find at most so many directions, and fit ridge onto them: directions, penalties, weights."""
        if rank is None:
            directions = find_directions(self.driven, most)
        else:
            basis = fit_basis(self.driven, n_channels, rank)
            directions = np.asarray(basis @ find_directions(self.driven @ basis, most), np.float32)
        answers = np.asarray(self.deviations @ directions, np.float32)
        penalties = PENALTIES * (self.spectrum.level or 1.0)
        choice = penalties[log_evidence(self.spectrum, answers, penalties).argmax(axis=0)]
        return directions, choice, fit_ridge(self.spectrum, answers, choice)[0]


@dataclass(frozen=True, slots=True, eq=False)
class _HeldOut:
    """Held-out pictures in the directions of their fold, about its mean: predictions and answers (n, n_directions)."""

    directions: Array
    predictions: Array
    answers: Array


def _held_out(part: _Part, inputs: Array, whitened: Array, n_channels: int, rank: tuple[int, int] | None) -> _HeldOut:
    directions, _, weights = part.fit(n_channels, rank, len(part.deviations) - 1)
    return _HeldOut(directions, (inputs - part.middle) @ weights, (whitened - part.mean) @ directions)


def _moments(folds: Sequence[_HeldOut]) -> tuple[Floats, Floats]:
    """Sum products of predictions and answers, and squares of predictions, by direction, the strongest first."""
    n = min(fold.directions.shape[1] for fold in folds)
    both = sum(np.einsum("ij,ij->j", fold.predictions[:, :n], fold.answers[:, :n]) for fold in folds)
    power = sum(np.einsum("ij,ij->j", fold.predictions[:, :n], fold.predictions[:, :n]) for fold in folds)
    return np.maximum(np.asarray(both, np.float64), 0), np.asarray(power, np.float64)


def _slopes(folds: Sequence[_HeldOut]) -> Array:
    """Compute by how much predictions are to be shrunk so that held-out answers follow them: of 0 to 1."""
    both, power = _moments(folds)
    return np.asarray(np.clip(np.divide(both, power, out=np.zeros_like(both), where=power > 0), 0, 1), np.float32)


def _gain(folds: Sequence[_HeldOut]) -> float:
    """Compute how much of the power of held-out answers is predicted, in units of noise."""
    both, power = _moments(folds)
    return float(np.divide(both**2, power, out=np.zeros_like(both), where=power > 0).sum())


def _split_errors(errors: Array, share: float) -> tuple[Floats, Floats]:
    """Separate noise from the model's error, of held-out errors of which a share is the unit noise of presentations.

    Returns
    -------
    noise, model_error : ndarray, shape (m, m)
        A share of 0: noise is not known by itself, and all is noise.
    """
    whole = shrunk_covariance(errors)
    if share == 0:
        return whole, np.zeros_like(whole)
    unit = np.eye(len(whole))
    sizes, vectors = np.linalg.eigh(whole - share * unit)
    return unit, np.asarray((vectors * np.maximum(sizes, 0)) @ vectors.T)


def _explained(flat: Array, predictions: Array, of_window: Rows) -> Array:
    """Compute the share of windows' variance that predictions by picture explain, but for the mean of both."""
    deviations = flat - flat.mean(axis=0)
    errors = deviations - (predictions - predictions[of_window].mean(axis=0))[of_window]
    power, left = (np.square(each, dtype=np.float64).sum(axis=0) for each in (deviations, errors))
    return np.asarray(1 - np.divide(left, power, out=np.ones_like(left), where=power > 0), np.float32)


def standardised(responses: Array) -> Array:
    """Scale columns (n, m) to mean 0 and variance 1; those that do not vary are 0."""
    centred = responses - responses.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0))
