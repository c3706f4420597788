"""How a decoder answers to a picture that is known: what its held-out predictions of `s` say of the truth.

A ridge prediction is shrunk toward its mean, by as much as its input is noise, and its errors go together from unit to
unit. So a picture whose true features equal the decoded ones is not the likeliest: that is the picture of which the
decoder would have said what it said. Held-out windows, whose pictures are known, tell what the decoder says of a
picture: linear in the picture's features, with Gaussian noise. This is an encoding model seen through the decoder, and
its use for reconstruction is that of Naselaris et al. 2009 (doi:10.1016/j.neuron.2009.09.006).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from decoder.features import StructureModel
from decoder.ridge import cross_validate, decompose, fit_ridge, make_fold
from decoder.splits import Split

Array = NDArray[np.float32]

ANSWERS = 100
"""Principal directions of what the decoder says that are kept, at most."""
ASPECTS = 200
"""Principal directions of the pictures' features that it is explained by, at most."""
PENALTIES = np.array([0.01, 0.1, 1.0, 10.0, 100.0])
"""Candidates, in units of the features' mean eigenvalue."""


def fit_structure_model(
    decoded: Array,
    truth: Array,
    folds: Sequence[Split],
    units: Mapping[int, NDArray[np.int32]],
    *,
    answers: int = ANSWERS,
    aspects: int = ASPECTS,
    seed: int = 0,
) -> StructureModel:
    """Learn how a decoder's structure answers to pictures.

    Parameters
    ----------
    decoded : ndarray, shape (n, n_units), float32
        Predictions of windows that the decoder was not fitted on, its kept units of all blocks side by side.
    truth : ndarray, shape (n, n_units), float32
        The same units of the pictures shown.
    folds : sequence of (train, test)
        No picture is on both sides of one, and each row is held out once: penalties and noise are taken from what is
        held out, so that the noise is not thought smaller than it is.
    units : mapping of int to ndarray of int32
        By CLIP block, in the order of the columns: which of the block's units they are.
    answers, aspects : int
        Directions kept of `decoded` and of `truth`.
    seed : int
        Of the randomised decompositions.

    Returns
    -------
    StructureModel
    """
    from sklearn.covariance import ledoit_wolf

    said_mean, said_axes = _principal(decoded, answers, seed)
    seen_mean, seen_axes = _principal(truth, aspects, seed + 1)
    y = np.asarray((decoded - said_mean) @ said_axes, np.float32)
    x = np.asarray((truth - seen_mean) @ seen_axes, np.float32)
    spectrum = decompose(x)
    penalties = PENALTIES * spectrum.eigenvalues.mean()
    apart = [make_fold(x[train], x[test], train, test) for train, test in folds]
    found = cross_validate(apart, y, penalties)
    weights, intercept = fit_ridge(spectrum, y, found.choice)
    residual = (y - found.predictions).astype(np.float64)
    spread = residual.std(axis=0)
    # Correlations are shrunk, not covariances: directions in which the decoder hardly errs say most.
    values, vectors = np.linalg.eigh(ledoit_wolf(residual / spread)[0])
    whiten = (vectors / np.sqrt(values) / spread[:, None]).astype(np.float32)
    seen = seen_axes @ weights @ whiten
    said = said_axes @ whiten
    offset = intercept @ whiten + said_mean @ said - seen_mean @ seen
    said, seen = (np.ascontiguousarray(part.T, np.float32) for part in (said, seen))
    return StructureModel(dict(units), said, seen, offset.astype(np.float32))


def _principal(data: Array, count: int, seed: int) -> tuple[Array, Array]:
    """Give the mean, and the principal axes (n_columns, count) of most variance."""
    from sklearn.utils.extmath import randomized_svd

    mean = data.mean(axis=0, dtype=np.float64).astype(np.float32)
    count = min(count, len(data) - 1, data.shape[1])
    _, _, axes = randomized_svd(data - mean, count, random_state=seed)
    return mean, np.ascontiguousarray(axes.T, np.float32)
