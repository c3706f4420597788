"""Splits that cannot leak: what hangs together is never on both sides."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decoder.errors import TrainingError

Split = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Row numbers: (train, test)."""


def group_folds(groups: Sequence[str], n_folds: int, rng: np.random.Generator) -> list[Split]:
    """Split samples so that no group has samples on both sides.

    Parameters
    ----------
    groups : sequence of str
        One a sample, such as the picture that was shown.
    n_folds : int
    rng : numpy.random.Generator

    Returns
    -------
    folds : list of (train, test)
        Row numbers; every row is held out once.

    Raises
    ------
    TrainingError
        If there are fewer groups than folds.
    """
    names, of_sample = np.unique(np.asarray(groups), return_inverse=True)
    if not 2 <= n_folds <= len(names):
        raise TrainingError(f"{n_folds} folds of {len(names)} groups of pictures; choose 2 to {len(names)} folds")
    fold_of_group = rng.permutation(np.arange(len(names)) % n_folds)
    of_sample = fold_of_group[of_sample]
    return [(np.flatnonzero(of_sample != fold), np.flatnonzero(of_sample == fold)) for fold in range(n_folds)]


def leave_one_out(groups: Sequence[str] | NDArray[np.str_]) -> list[Split]:
    """Hold out one run (or session, or subject) at a time, in the order of their names."""
    of_sample = np.asarray(groups)
    return [
        (np.flatnonzero(of_sample != name), np.flatnonzero(of_sample == name)) for name in np.unique(of_sample).tolist()
    ]


def stretches(n: int, n_folds: int) -> list[Split]:
    """Hold out stretches of one recording, one after the other, so that slow drift cannot tell the category."""
    rows = np.arange(n)
    return [(np.setdiff1d(rows, test), test) for test in np.array_split(rows, n_folds)]
