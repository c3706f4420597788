"""What metrics are made of: likeness, identification, intervals, permutations.

The metrics themselves, each a function and an entry, are in `decoder.evaluation.metric_registry`.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import permute_blocks

Floats = NDArray[np.float64]
Images = NDArray[np.uint8]


def resize(images: Images, side: int) -> Images:
    """Resize pictures bilinearly (antialiased where they shrink) to `side` x `side`."""
    from PIL import Image

    if images.shape[1:3] == (side, side):
        return images
    fit = [np.asarray(Image.fromarray(i).resize((side, side), Image.Resampling.BILINEAR)) for i in images]
    return np.stack(fit)


def standardise(rows: NDArray[np.generic]) -> NDArray[np.float32]:
    """Flatten each row, take out its mean and scale it to length 1; a constant one is 0."""
    flat = rows.reshape(len(rows), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(np.divide(flat, norm, out=np.zeros_like(flat), where=norm > 0))


def correlation_matrix(truth: NDArray[np.generic], reconstruction: NDArray[np.generic]) -> Floats:
    """Correlate every truth with every reconstruction.

    Parameters
    ----------
    truth : ndarray, shape (n, ...)
    reconstruction : ndarray, shape (m, ...)

    Returns
    -------
    r : ndarray, shape (n, m)
        Pearson correlation r[truth, reconstruction]; 0 where either is constant.
    """
    return (standardise(truth) @ standardise(reconstruction).T).astype(np.float64)


def two_way(r: Floats, own: NDArray[np.intp] | None = None) -> Floats:
    """Two-way identification: how often a reconstruction is more like its own truth than like another.

    Parameters
    ----------
    r : ndarray, shape (n, m)
        Similarity r[truth, reconstruction].
    own : ndarray of int, shape (m,) or (permutations, m), or None
        Row of each reconstruction's truth; None: the diagonal.

    Returns
    -------
    hits : ndarray, shape of own
        For each reconstruction j: #(r[i, j] < r[own_j, j]) / (n - 1), a tie counting half; chance is 0.5.
    """
    if own is not None and own.ndim > 1:
        return np.stack([two_way(r, one) for one in own])
    similarity = _own(r, own)
    wins = (r < similarity).sum(axis=0) + 0.5 * ((r == similarity).sum(axis=0) - 1)
    return np.asarray(wins / (len(r) - 1))


def top_k(r: Floats, k: int, own: NDArray[np.intp] | None = None) -> Floats:
    """Check whether each reconstruction's own truth is among the k most similar of n; shape as `two_way`."""
    if own is not None and own.ndim > 1:
        return np.stack([top_k(r, k, one) for one in own])
    return np.asarray((r > _own(r, own)).sum(axis=0) < k, dtype=np.float64)


def error_whitener(errors: NDArray[np.floating[Any]], *, shrinkage: float = 0.3) -> NDArray[np.float32]:
    """Find the map after which the errors of decoding are alike in all directions.

    Where errors are Gaussian, what was seen is best told by distance (or correlation) after this map, as in linear
    discriminant analysis: directions that are decoded badly, and those that say the same twice, count for less.

    Parameters
    ----------
    errors : ndarray, shape (n, d)
        Truth less held-out predictions, of training pictures: never of those to be told apart.
    shrinkage : float
        Of the errors' covariance toward a multiple of the identity, in (0, 1].

    Returns
    -------
    whitener : ndarray, shape (d, d), float32
    """
    covariance = np.atleast_2d(np.cov(errors.T.astype(np.float64)))
    d = len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / d * np.eye(d)
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T, np.float32)


def _own(r: Floats, own: NDArray[np.intp] | None) -> Floats:
    return np.diag(r) if own is None else r[own, np.arange(r.shape[1])]


def bootstrap_interval(
    values: Floats, rng: np.random.Generator, *, n_samples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over pictures.

    Of a paired difference, give the differences.

    Parameters
    ----------
    values : ndarray, shape (n,)
    rng : numpy.random.Generator
    n_samples : int
    level : float
        Coverage, in (0, 1).
    """
    draws = rng.integers(len(values), size=(n_samples, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permute_pictures(
    own: NDArray[np.intp], n_pictures: int, rng: np.random.Generator, *, n_permutations: int = 1000
) -> NDArray[np.intp]:
    """Exchange the pictures that reconstructions are held against.

    Pictures are permuted, not pairs: the n (n - 1) comparisons of two-way identification are not independent, nor are
    reconstructions of one picture.

    Parameters
    ----------
    own : ndarray of int, shape (n,)
        Picture of each reconstruction.
    n_pictures : int
    rng : numpy.random.Generator
    n_permutations : int

    Returns
    -------
    others : ndarray of int, shape (n_permutations, n)
    """
    return np.stack([rng.permutation(n_pictures)[own] for _ in range(n_permutations)])


def p_value(observed: float, null: Floats) -> float:
    """Probability of a score as high by chance, the observed one counted among the permutations (Phipson & Smyth 2010).

    Parameters
    ----------
    observed : float
    null : ndarray, shape (n_permutations,)
        The same score with pictures (or labels) permuted.
    """
    # Sums of the same numbers in another order differ by rounding: that is no lower score.
    return float((1 + np.sum(null >= observed - 1e-9)) / (1 + len(null)))


def mean_auc(scores: Floats, rows: NDArray[np.intp]) -> float:
    """Area under the ROC curve of each category against the rest, averaged over categories.

    Parameters
    ----------
    scores : ndarray, shape (n, k)
        Higher is more like the category.
    rows : ndarray of int, shape (n,)
        True category.
    """
    from scipy.stats import rankdata

    areas = []
    for k in np.unique(rows):
        own = rows == k
        n_own, n_rest = own.sum(), (~own).sum()
        areas.append((rankdata(scores[:, k])[own].sum() - n_own * (n_own + 1) / 2) / (n_own * n_rest))
    return float(np.mean(areas))


def category_interval(
    score: Callable[[NDArray[np.intp]], float],
    rows: NDArray[np.intp],
    rng: np.random.Generator,
    *,
    n_samples: int = 1000,
    level: float = 0.95,
) -> list[float]:
    """Percentile bootstrap interval of a score over windows, drawn anew within each category.

    Parameters
    ----------
    score : callable
        Of the chosen windows, shape (n,).
    rows : ndarray of int, shape (n,)
        True category of each window.
    rng : numpy.random.Generator
    n_samples : int
    level : float
        Coverage, in (0, 1).
    """
    members = [np.flatnonzero(rows == k) for k in np.unique(rows)]
    drawn = [score(np.concatenate([rng.choice(own, len(own)) for own in members])) for _ in range(n_samples)]
    return [round(float(bound), 4) for bound in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])]


def chance_interval(
    score: Callable[[NDArray[np.intp]], float],
    rows: NDArray[np.intp],
    runs: NDArray[np.str_],
    rng: np.random.Generator,
    *,
    n_permutations: int = 200,
) -> list[float]:
    """Range in which a cross-validated score of labels lies by chance, 95 %.

    Labels are permuted within runs, block by block (`decoder.data.splits.permute_blocks`).

    Parameters
    ----------
    score : callable
        Of labels, shape (n,).
    rows : ndarray of int, shape (n,)
    runs : ndarray of str, shape (n,)
    rng : numpy.random.Generator
    n_permutations : int

    Returns
    -------
    interval : [low, high], as `chance_range`
    """
    null = [score(permuted) for permuted in islice(permute_blocks(rows, runs, rng), n_permutations)]
    return chance_range(np.asarray(null))


def chance_range(null: Floats) -> list[float]:
    """Range in which a mean of cross-validated hits lies by chance, 95 %, from means with labels permuted.

    Parameters
    ----------
    null : ndarray, shape (n_permutations,)

    Notes
    -----
    Permuting what was decoded once is too narrow: of two windows in different folds each helps to decode the other, by
    the same product of their inputs, so that chance counts every pair twice and has up to twice the variance.
    """
    low, high = null.mean() + np.sqrt(2) * (np.quantile(null, [0.025, 0.975]) - null.mean())
    return [round(max(0.0, float(low)), 4), round(float(high), 4)]


def rounded_mean(values: NDArray[Any]) -> float:
    """Return a mean to four digits."""
    return round(float(np.mean(values)), 4)
