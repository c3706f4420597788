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

from decoder.data.splits import TrainTest, group_folds
from decoder.encoding.axes import N_AXES, Features, PrincipalAxes, fit_axes
from decoder.encoding.directions import find_directions, fit_basis
from decoder.encoding.noise import LARGEST, Noise, fit_noise, shrunk_covariance, symmetric_power
from decoder.encoding.weighing import PENALTIES, fit_spread
from decoder.solvers.ridge import Spectrum, decompose, fit_ridge, leverages, log_evidence

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
    mean : ndarray, shape (n_responses,), float32
        Response to the training pictures, on average.
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
    mean: Array
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

    def predict_responses(self, features: Features) -> Array:
        """Predict responses, shape (n, n_responses), of pictures of which the features are given by group."""
        return np.asarray(self.mean + (self.predict(features) - self.read(self.mean)) @ self.patterns, np.float32)

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
    n_white = presentations.channels.shape[1]
    spectrum = decompose(inputs)
    directions, choice, weights = _fit(spectrum, inputs, whitened - mean, n_white)
    answers = (whitened - mean) @ directions
    held_out = (_held_out(inputs, whitened, splits, n_white) - mean) @ directions
    # What is found where there is nothing but noise does not hold for other pictures: it is shrunk to what does.
    slopes = _slopes(held_out, answers)
    counts = np.bincount(of_window)
    errors = np.asarray(answers - held_out * slopes, np.float32)
    noise, model_error = _split_errors(errors, float((1 / counts).mean()) if repeated else 0.0)
    reader, patterns = np.zeros((2, flat.shape[1], directions.shape[1]), np.float32)
    reader[used] = presentations.whiten(np.eye(len(used), dtype=np.float32)) @ directions
    patterns[used] = presentations.colour(directions.T).T
    whole = np.asarray(weights * slopes * spread[:, None], np.float32)
    model = EncodingModel(
        axes,
        picture_means(flat, of_window).mean(axis=0),
        whole,
        np.asarray(mean @ directions - middle @ whole, np.float32),
        reader,
        np.ascontiguousarray(patterns.T),
        noise,
        model_error,
        _explained(flat, np.asarray(held_out * slopes @ patterns.T, np.float32), of_window),
    )
    unseen = answers - (answers - inputs @ weights) / (1 - leverages(spectrum, choice))
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


def _fit(spectrum: Spectrum, inputs: Array, whitened: Array, n_channels: int) -> tuple[Array, Floats, Array]:
    """Find directions of responses of mean 0, and fit ridge onto them: directions, penalties, weights."""
    basis = None
    if whitened.shape[1] > LARGEST:
        basis = np.kron(*fit_basis(whitened, inputs, n_channels))
        whitened = whitened @ basis
    directions = find_directions(whitened, inputs)
    answers = np.asarray(whitened @ directions, np.float32)
    penalties = PENALTIES * (spectrum.level or 1.0)
    choice = penalties[log_evidence(spectrum, answers, penalties).argmax(axis=0)]
    weights = fit_ridge(spectrum, answers, choice)[0]
    return directions if basis is None else np.asarray(basis @ directions, np.float32), choice, weights


def _held_out(inputs: Array, whitened: Array, splits: Sequence[TrainTest], n_channels: int) -> Array:
    """Predict each picture's whitened mean response by directions and weights fitted on the other folds."""
    out = np.empty_like(whitened)
    for train, test in splits:
        middle, mean = inputs[train].mean(axis=0), whitened[train].mean(axis=0)
        known = inputs[train] - middle
        directions, _, weights = _fit(decompose(known), known, whitened[train] - mean, n_channels)
        out[test] = mean + (inputs[test] - middle) @ weights @ directions.T
    return out


def _slopes(predictions: Floats, answers: Floats) -> Array:
    """Compute by how much held-out predictions (n, m) of mean about 0 are to be shrunk to answers: of 0 to 1."""
    power = np.square(predictions).sum(axis=0)
    both = (predictions * answers).sum(axis=0)
    return np.asarray(np.clip(np.divide(both, power, out=np.zeros_like(both), where=power > 0), 0, 1), np.float32)


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
