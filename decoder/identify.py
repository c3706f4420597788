"""By which correlation decoded embeddings tell pictures apart best: chosen on training pictures that were held out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from decoder.metrics import correlation_matrix, error_whitener
from decoder.splits import group_folds

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """A map of embeddings, true and decoded, before they are correlated.

    Attributes
    ----------
    name : str
        'plain', as they are, or 'whitened' by the errors of decoding.
    map : ndarray, shape (d, d), float32
    ranks : dict of str to float
        By name, the geometric mean of the true picture's rank among held-out training pictures; 1 is the best.
    """

    name: str
    map: Array
    ranks: dict[str, float]

    @property
    def rank(self) -> float:
        """Its own rank."""
        return self.ranks[self.name]


def choose_space(
    truth: Array, found: Array, rows: NDArray[np.intp], groups: NDArray[np.str_], rng: np.random.Generator
) -> Space:
    """Choose by what of training pictures was decoded while they were held out.

    The whitener that is scored is fitted on the errors of one half of the pictures and used on the other.

    Parameters
    ----------
    truth, found : ndarray, shape (n, d)
        Deviations from the training mean, true and decoded, one row a window.
    rows : ndarray of int, shape (n,)
        Picture of each window.
    groups : ndarray of str, shape (n,)
        Never on both sides of the halves.
    rng : numpy.random.Generator
        Of the halves.
    """
    logs: dict[str, list[NDArray[np.float64]]] = {"plain": [], "whitened": []}
    for other, own in group_folds(groups.tolist(), 2, rng):
        maps = {"plain": None, "whitened": error_whitener(truth[other] - found[other])}
        _, first, which = np.unique(rows[own], return_index=True, return_inverse=True)
        for name, one in maps.items():
            true, decoded = (x[own] if one is None else x[own] @ one for x in (truth, found))
            ranks = rankdata(-correlation_matrix(true[first], decoded), axis=0)
            logs[name].append(np.log(ranks[which, np.arange(len(own))]))
    ranks = {name: round(float(np.exp(np.concatenate(each).mean())), 2) for name, each in logs.items()}
    if ranks["whitened"] < ranks["plain"]:
        return Space("whitened", error_whitener(truth - found), ranks)
    return Space("plain", np.eye(truth.shape[1], dtype=np.float32), ranks)
