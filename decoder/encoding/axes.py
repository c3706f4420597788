"""Groups of picture features on their principal axes, of training pictures alone, in bands of like penalty."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import nnls

Array = NDArray[np.float32]
Features = Mapping[str, NDArray[np.floating[Any]]]

N_AXES = 250
"""Principal axes kept of a group."""
BAND_EDGES = (5, 20, 60, 120)
"""Axes of a group at which another band begins: the first say more, and are penalised less."""
SMALLEST = 1e-6
"""Share of the first axis's variance below which an axis is rounding errors."""


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalAxes:
    """A map from groups of features to scores on principal axes, group after group, each group of total variance 1.

    Attributes
    ----------
    means : dict of str to ndarray, shape (n_features,), float32
        By group, over the training pictures.
    axes : dict of str to ndarray, shape (n_features, n_axes), float32
        Divided by the group's spread, so that early axes keep the larger share of its variance.
    """

    means: dict[str, Array]
    axes: dict[str, Array]

    def __call__(self, features: Features) -> Array:
        """Compute the scores, shape (n, n_scores), of features by group, each (n, n_features)."""
        parts = [(features[name].astype(np.float32) - self.means[name]) @ axes for name, axes in self.axes.items()]
        return np.concatenate(parts, axis=1)

    @property
    def names(self) -> NDArray[np.str_]:
        """Return the group of each score, shape (n_scores,)."""
        return np.repeat(list(self.axes), [axes.shape[1] for axes in self.axes.values()])

    @property
    def bands(self) -> NDArray[np.intp]:
        """Return the band of each score, shape (n_scores,), counted from 0 through all groups."""
        counts = [axes.shape[1] for axes in self.axes.values()]
        steps = len(BAND_EDGES) + 1
        within = [np.searchsorted(BAND_EDGES, np.arange(count), side="right") for count in counts]
        numbers = np.concatenate([place * steps + each for place, each in enumerate(within)])
        return np.unique(numbers, return_inverse=True)[1]


def fit_axes(features: Features, n_axes: int = N_AXES) -> PrincipalAxes:
    """Find the principal axes of each group, through the smaller of its two scatter matrices.

    Parameters
    ----------
    features : mapping of str to ndarray, shape (n, n_features)
        Of training pictures, by group. A group that does not vary is left out.
    n_axes : int
        At most so many of a group.
    """
    means, axes = {}, {}
    for name, values in features.items():
        # Half precision ends at 65,504: sums are taken of single.
        centred = values.astype(np.float32)
        mean = centred.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred -= mean
        n, p = centred.shape
        scatter = (centred.T @ centred if p <= n else centred @ centred.T).astype(np.float64)
        last = len(scatter) - 1
        sizes, vectors = eigh(scatter, subset_by_index=[max(0, last - n_axes + 1), last])
        kept = sizes > SMALLEST * max(sizes[-1], np.finfo(np.float64).tiny)
        sizes, vectors = sizes[kept][::-1], vectors[:, kept][:, ::-1]
        if not len(sizes):
            continue
        directions = vectors if p <= n else centred.T @ (vectors / np.sqrt(sizes)).astype(np.float32)
        means[name] = mean
        axes[name] = np.asarray(directions / np.sqrt(sizes.sum() / n), np.float32)
    return PrincipalAxes(means, axes)


def band_variances(scores: Array, bands: NDArray[np.intp], responses: Array) -> NDArray[np.float64]:
    """Estimate the variance that responses owe to each band of scores, by the method of moments.

    Responses to two pictures covary as far as the pictures are alike in what drives them: of all pairs, the products of
    responses are regressed on the products of each band's scores, without negative shares (Haseman & Elston 1972; Yang
    et al. 2010 for many variables at once). Noise of single pictures is in no pair. What comes out is the prior
    variance of banded ridge (Nunez-Elizalde et al. 2019), without a search over penalties.

    Parameters
    ----------
    scores : ndarray, shape (n, n_scores)
        One row a picture, each column of mean 0.
    bands : ndarray of int, shape (n_scores,)
    responses : ndarray, shape (n, m)
        Each column of mean 0.

    Returns
    -------
    variances : ndarray, shape (n_scores,)
        Of a score's weights, averaged over the m responses; at least a thousandth of the mean over the bands. All 1
        where nothing is found.
    """
    n_bands = int(bands.max()) + 1
    parts = [scores[:, bands == band] for band in range(n_bands)]
    own = np.stack([np.square(part, dtype=np.float64).sum(axis=1) for part in parts])
    power = np.square(responses, dtype=np.float64).mean(axis=1)
    moments = np.array([np.square(part.T @ responses, dtype=np.float64).sum() for part in parts]) / responses.shape[1]
    moments -= own @ power
    cross = np.square(scores.T @ scores, dtype=np.float64)
    starts = np.eye(n_bands)[bands]
    products = starts.T @ cross @ starts - own @ own.T
    unit = np.sqrt(np.maximum(np.diag(products), np.finfo(np.float64).tiny))
    found = nnls(products / np.outer(unit, unit), moments / unit)[0] / unit
    if not found.any():
        return np.ones(len(bands))
    return np.asarray(np.maximum(found, 1e-3 * found.mean())[bands])
