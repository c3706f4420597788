"""Identification on `thingslike` by an encoding model's likelihood, by itself and with a decoder's similarity."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from benchmarks.thingslike_data import Trials
from decoder.data.splits import TrainTest
from decoder.encoding.axes import Features
from decoder.encoding.model import EncodingModel, fit_encoding, log_likelihood
from decoder.evaluation.identify import Space
from decoder.evaluation.metrics import correlation_matrix, top_k
from decoder.preprocessing.preprocess import PreprocessSpec, time_bins

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

REPEATS = (1, 4, 20, 80)
AT_ONCE = 1000
"""Windows read together: bounds memory."""
LEAST, MOST = 1e-3, 1e3
"""Weights between which the best are looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Likelihood:
    """A fitted encoding model, and how windows come to it.

    Attributes
    ----------
    model : EncodingModel
    binning : ndarray, shape (n_times, n_bins), float32
    """

    model: EncodingModel
    binning: Array

    def read(self, data: Array) -> Array:
        """Read directions of windows (n, n_channels, n_times)."""
        parts = np.array_split(data, max(1, len(data) // AT_ONCE))
        return np.concatenate([self.model.read((part @ self.binning).reshape(len(part), -1)) for part in parts])

    def __call__(self, features: Features, trials: Trials, k: int) -> tuple[Floats, Rows]:
        """Compute how likely means of k presentations are given each picture, (n_pictures, n); and each one's row."""
        groups, rows = trials.groups(k)
        answers = self.read(trials.data)
        means = np.stack([answers[own].mean(axis=0) for own in groups])
        return log_likelihood(self.model.predict(features), means, self.model.covariance(k)), rows


def fit_likelihood(train: Trials, features: Features, spec: PreprocessSpec) -> Likelihood:
    """Fit the encoding model on single presentations of pictures whose features are given."""
    binning = time_bins(train.times, spec)
    names = np.char.mod("%06d", train.rows)
    model = fit_encoding(features, train.data @ binning, train.rows, names, np.random.default_rng(0))
    return Likelihood(model, binning)


def usable_repeats(test: Trials) -> list[int]:
    """Return those of `REPEATS` that every picture was shown."""
    return [k for k in REPEATS if k <= np.bincount(test.rows).min()]


def hits(similarity: Floats, rows: Rows) -> dict[str, float]:
    """Return top-1 and top-5 in percent, of similarities (n_pictures, n)."""
    return {f"top{n}": round(100 * float(top_k(similarity, n, rows).mean()), 2) for n in (1, 5)}


def by_likelihood(likelihood: Likelihood, shown: Features, test: Trials) -> dict[str, Any]:
    """Identify means of presentations by their likelihood; 'by_repeats' in percent, and 'explained'.

    The latter is the share of the variance of single training windows that is predicted while pictures are held out.
    """
    found = {str(k): hits(*likelihood(shown, test, k)) for k in usable_repeats(test)}
    return {"explained": round(float(likelihood.model.explained.mean()), 4), "by_repeats": found}


def choose_weights(parts: list[tuple[Floats, Floats]]) -> tuple[float, float]:
    """Choose the weights of similarity and log-likelihood by which held-out pictures are told most surely.

    The weighted sum is taken for the logarithm of a probability, but for a constant, that the picture is the one that
    was shown: the mean of the true pictures' log probabilities is largest at the weights that are chosen.

    Parameters
    ----------
    parts : list of (similarity, log_likelihood)
        Each (n, n), of pictures that a fold held out; the true one is on the diagonal.
    """

    def loss(logs: Floats) -> float:
        a, b = np.exp(logs)
        sums = [a * similarity + b * likelihood for similarity, likelihood in parts]
        return float(np.concatenate([logsumexp(each, axis=0) - np.diag(each) for each in sums]).mean())

    bound = (np.log(LEAST), np.log(MOST))
    found = minimize(loss, np.log([10.0, 0.5]), bounds=[bound, bound], method="L-BFGS-B")
    a, b = np.exp(found.x)
    return float(a), float(b)


def with_encoder(
    likelihood: Likelihood,
    train: Trials,
    test: Trials,
    features: tuple[Features, Features],
    spec: PreprocessSpec,
    folds: list[TrainTest],
    held_out: Array,
    space: Space,
    decode: Callable[[Array], Array],
) -> dict[str, Any]:
    """Identify by a decoder's similarity and the likelihood together, weighed by training pictures that were held out.

    Parameters
    ----------
    likelihood : Likelihood
        Fitted on all training pictures.
    train, test : Trials
    features : (known, shown)
        Of training and of test pictures.
    spec : PreprocessSpec
    folds : list of (train, test)
        Of training pictures, in the order of their rows, by which `held_out` was decoded.
    held_out : ndarray, shape (n_pictures, d)
        Embeddings decoded of means of all presentations.
    space : Space
        In which embeddings are correlated.
    decode : callable
        Windows (n, n_channels, n_times) to embeddings (n, d).

    Returns
    -------
    figures : dict
        'weights' of similarity and log-likelihood, and 'by_repeats'.
    """
    known, shown = features
    mean, repeats = train.embeddings.mean(axis=0), int(np.bincount(train.rows).min())

    def similarity(truth: Array, decoded: Array) -> Floats:
        return correlation_matrix((truth - mean) @ space.map, (decoded - mean) @ space.map)

    parts = []
    for inside, outside in folds:
        by_fold = fit_likelihood(chosen(train, inside), known, spec)
        asked = {name: values[outside] for name, values in known.items()}
        likely, _ = by_fold(asked, chosen(train, outside), repeats)
        parts.append((similarity(train.embeddings[outside], held_out[outside]), likely))
    a, b = choose_weights(parts)
    found = {}
    for k in usable_repeats(test):
        data, rows = test.means(k)
        likely, _ = likelihood(shown, test, k)
        found[str(k)] = hits(a * similarity(test.embeddings, decode(data)) + b * likely, rows)
    return {"weights": [round(a, 3), round(b, 3)], "by_repeats": found}


def chosen(trials: Trials, pictures: Rows) -> Trials:
    """Return the presentations of some pictures, whose rows are in order."""
    own = np.isin(trials.rows, pictures)
    return replace(trials, data=trials.data[own], rows=trials.rows[own])
