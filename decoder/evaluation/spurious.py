"""Checks on figures that are good for the wrong reason (Shirakawa et al. 2024, arXiv:2405.10078).

Natural pictures come in clusters. Where the test pictures lie in the clusters of the training pictures, a decoder that
tells clusters apart scores nearly as well as one that sees pictures, and its outputs span few dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.floating]


def effective_dimension(rows: Rows) -> float:
    """Participation ratio of the variances along principal axes: (sum v)^2 / sum v^2.

    Parameters
    ----------
    rows : ndarray, shape (n, d)

    Returns
    -------
    dimension : float
        Between 1 (all rows on a line) and min(n - 1, d) (variance alike in all directions); 0 of rows that are equal.
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    square = float((gram**2).sum())
    return float(np.trace(gram) ** 2 / square) if square > 0 else 0.0


def collapse(decoded: Rows, true: Rows) -> float:
    """Compute the effective dimension of decoded features in shares of the true ones': far below 1 is a collapse.

    Parameters
    ----------
    decoded, true : ndarray, shape (n, d)
        Of the same pictures.
    """
    whole = effective_dimension(true)
    return effective_dimension(decoded) / whole if whole else 0.0


def hard_two_way(r: Floats, likeness: Floats, own: NDArray[np.intp], n_near: int = 5) -> Floats:
    """Two-way identification against the pictures that are most like the true one, instead of against any.

    A decoder that tells clusters of pictures and nothing within them falls to 0.5 here.

    Parameters
    ----------
    r : ndarray, shape (k, n)
        Similarity r[truth, reconstruction].
    likeness : ndarray, shape (k, k)
        Of the true pictures to each other, in a space of their own (CLIP's).
    own : ndarray of int, shape (n,)
        Row of each reconstruction's truth.
    n_near : int
        How many of the nearest others count.

    Returns
    -------
    hits : ndarray, shape (n,)
        Chance is 0.5.
    """
    others = likeness.astype(np.float64, copy=True)
    np.fill_diagonal(others, -np.inf)
    near = np.argsort(-others, axis=1)[:, : min(n_near, len(others) - 1)]
    hers = r[own, np.arange(len(own))]
    rivals = r[near[own].T, np.arange(len(own))]
    return np.asarray(((rivals < hers) + 0.5 * (rivals == hers)).mean(axis=0), dtype=np.float64)


def nearest_similarities(test: Rows, train: Rows) -> dict[str, float]:
    """Compute how near test pictures are to training pictures, and to each other.

    Parameters
    ----------
    test, train : ndarray, shape (k, d) and (m, d)
        Embeddings with unit norm (CLIP's).

    Returns
    -------
    answer : dict
        'nearest_train' and 'nearest_test': median over test pictures of the cosine similarity to the nearest training
        picture and to the nearest other test picture; 'inside': share of test pictures that have a training picture
        nearer than any other test picture.
    """
    among = test.astype(np.float64) @ test.T
    np.fill_diagonal(among, -np.inf)
    to_test = among.max(axis=1)
    to_train = (test.astype(np.float64) @ train.T).max(axis=1)
    return {
        "nearest_train": float(np.median(to_train)),
        "nearest_test": float(np.median(to_test)),
        "inside": float((to_train > to_test).mean()),
    }
