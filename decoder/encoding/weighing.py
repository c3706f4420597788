"""How much each score of picture features is expected to drive: banded where pictures are many, by group where few."""

import numpy as np
from numpy.typing import NDArray

from decoder.encoding.axes import PrincipalAxes, band_variances
from decoder.solvers.ridge import decompose, log_evidence

Array = NDArray[np.float32]

PENALTIES = (10.0 ** np.arange(-2, 4.1, 0.5)).astype(np.float64)
"""Candidate penalties of ridge, in units of the inputs' mean eigenvalue."""
PICTURES_A_BAND = 20
"""Training pictures by which the variance of a band can be told; of fewer, groups are chosen instead."""


def fit_spread(axes: PrincipalAxes, scores: Array, means: Array) -> Array:
    """Estimate the standard deviation that the weights of each score have, shape (n_scores,).

    Each band has the variance that the method of moments finds (`decoder.encoding.axes.band_variances`). Of pictures
    too few for that, groups of features are added one by one, each the one by which responses become most probable, as
    long as they do; the others get no weight.

    Parameters
    ----------
    axes : PrincipalAxes
    scores : ndarray, shape (n_pictures, n_scores), float32
        Each of mean 0.
    means : ndarray, shape (n_pictures, m), float32
        Responses, each of mean 0.
    """
    bands = axes.bands
    if PICTURES_A_BAND * (int(bands.max(initial=0)) + 1) <= len(scores):
        return np.sqrt(band_variances(scores, bands, means)).astype(np.float32)
    directions = np.linalg.svd(means, full_matrices=False)[2][: len(means) - 1]
    answers = np.asarray(means @ directions.T, np.float32)
    rest, best = list(axes.axes), -np.inf
    spread = np.zeros(len(bands), np.float32)
    while rest:
        chosen = [name for name in axes.axes if name not in rest]
        trials = [_grouped_spread(axes.names, [*chosen, name], scores, means) for name in rest]
        values = [_evidence(scores * trial, answers) for trial in trials]
        place = int(np.argmax(values))
        if values[place] <= best:
            break
        best, spread = values[place], trials[place]
        del rest[place]
    return spread


def _grouped_spread(names: NDArray[np.str_], groups: list[str], scores: Array, means: Array) -> Array:
    own = np.isin(names, groups)
    spread = np.zeros(len(names), np.float32)
    spread[own] = np.sqrt(band_variances(scores[:, own], np.unique(names[own], return_inverse=True)[1], means))
    return spread


def _evidence(inputs: Array, answers: Array) -> float:
    spectrum = decompose(inputs)
    return float(log_evidence(spectrum, answers, PENALTIES * (spectrum.level or 1.0)).max(axis=0).sum())
