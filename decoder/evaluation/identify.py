"""How well what is decoded tells pictures apart, beside chance; and by which correlation it does so best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from decoder.data.splits import group_folds
from decoder.evaluation.metrics import bootstrap_interval, chance_range, correlation_matrix, error_whitener

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

PERMUTATIONS = 200
SEED = 20261125
"""Of permutations and bootstrap where a decoder is trained: they take nothing from its own random numbers."""


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


def identification(
    r: Floats, rows: NDArray[np.intp], rng: np.random.Generator, *, first: Sequence[int] = (1,)
) -> dict[str, Any]:
    """Score a matrix of similarities r[picture, window].

    Parameters
    ----------
    r : ndarray, shape (n_pictures, n_windows)
    rows : ndarray of int, shape (n_windows,)
        Picture of each window.
    rng : numpy.random.Generator
    first : sequence of int
        Among how many of the most alike a window's picture is looked for: 1 is 'top1', 5 is 'top5'.

    Returns
    -------
    scores : dict
        'two_way' (ties count half) and 'top1': share of windows whose picture is the most alike of all; each with
        '<score>_interval', [low, high] (95 %, bootstrap over windows), and
        '<score>_chance', [low, high], as `chance_range`; 'baseline' of two_way: the same picture
        for all windows, which cannot be told from any other; 'pictures', 'windows'.
    """
    columns = np.arange(r.shape[1])
    wins = (rankdata(r, axis=0) - 1) / (len(r) - 1)
    place = rankdata(-r, axis=0, method="max")
    hits_of = {"two_way": wins, **{f"top{k}": place <= k for k in first}}
    out: dict[str, Any] = {"baseline": 0.5, "pictures": len(r), "windows": len(rows)}
    relabelled = [rng.permutation(len(r))[rows] for _ in range(PERMUTATIONS)]
    for name, hits in hits_of.items():
        null = np.array([hits[other, columns].mean() for other in relabelled])
        out[name] = round(float(hits[rows, columns].mean()), 4)
        out[f"{name}_interval"] = [round(bound, 4) for bound in bootstrap_interval(hits[rows, columns], rng)]
        out[f"{name}_chance"] = chance_range(null)
    return out


def training_identification(r: Floats, rows: NDArray[np.intp]) -> dict[str, Any]:
    """Score the similarities r[picture, window] of a decoder that is being trained, as `identification` does.

    Empty where there is one picture only.
    """
    return identification(r, rows, np.random.default_rng(SEED)) if len(r) > 1 else {}
