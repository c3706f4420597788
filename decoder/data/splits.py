"""Splits that cannot leak: what hangs together is never on both sides."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from decoder.data.stimuli import StimulusTable
from decoder.errors import TrainingError

TrainTest = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Row numbers: (train, test)."""


def group_folds(groups: Sequence[str], n_folds: int, rng: np.random.Generator) -> list[TrainTest]:
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


def leave_one_out(groups: Sequence[str] | NDArray[np.str_]) -> list[TrainTest]:
    """Hold out one run (or session, or subject) at a time, in the order of their names."""
    of_sample = np.asarray(groups)
    return [
        (np.flatnonzero(of_sample != name), np.flatnonzero(of_sample == name)) for name in np.unique(of_sample).tolist()
    ]


def contiguous_folds(labels: Sequence[str] | NDArray[np.generic], n_folds: int) -> list[TrainTest]:
    """Hold out stretches of one recording, one after the other, so that slow drift cannot tell the category.

    A stretch ends where the label changes: trials of one block are alike, and never on both sides.

    Parameters
    ----------
    labels : sequence, one a trial, in the order of time
    n_folds : int
        At most; fewer where there are fewer blocks.
    """
    labels = np.asarray(labels)
    rows = np.arange(len(labels))
    changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    if not len(changes):
        return []
    wanted = np.arange(1, n_folds) * len(labels) / n_folds
    edges = np.unique(changes[np.abs(changes[:, None] - wanted).argmin(axis=0)])
    return [(np.setdiff1d(rows, test), test) for test in np.split(rows, edges)]


def category_folds(rows: NDArray[np.intp], runs: NDArray[np.str_], n_folds: int) -> list[TrainTest]:
    """Hold out one run at a time, or of a single run one stretch of blocks: what is decoded of categories is held out.

    Parameters
    ----------
    rows : ndarray of int, shape (n,)
        Category of each trial, in the order of time.
    runs : ndarray of str, shape (n,)
    n_folds : int
        Stretches of a single run.

    Raises
    ------
    TrainingError
        If there are fewer than two categories, or one is shown in a single run or stretch only: slow drift would tell
        it.
    """
    n_categories = len(np.unique(rows))
    if n_categories < 2:
        raise TrainingError(f"all {len(rows)} trials are of one category; give trials of two or more")
    several = len(np.unique(runs)) > 1
    folds = leave_one_out(runs) if several else contiguous_folds(rows, n_folds)
    for train, test in folds:
        if len(np.unique(rows[train])) < n_categories:
            where = f"run {str(runs[test[0]])!r}" if several else "one stretch of the recording"
            raise TrainingError(f"a category is shown in {where} only, whose drift would tell it; mix them in time")
    return folds


def permute_blocks(
    rows: NDArray[np.intp], runs: NDArray[np.str_], rng: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Permute labels within runs without end, block by block: a stretch of one label is never torn apart.

    What drifts stays with its run, and is alike all through a block, however many trials that has.

    Parameters
    ----------
    rows : ndarray of int, shape (n,)
        Label of each trial, in the order of time.
    runs : ndarray of str, shape (n,)
    rng : numpy.random.Generator
    """
    blocks = []
    for name in np.unique(runs):
        own = np.flatnonzero(runs == name)
        starts = np.flatnonzero(np.diff(rows[own], prepend=-1))
        blocks.append((own, rows[own][starts], np.diff(starts, append=len(own))))
    while True:
        permuted = rows.copy()
        for own, labels, lengths in blocks:
            permuted[own] = np.repeat(rng.permutation(labels), lengths)
        yield permuted


def folds_apart(
    groups: Sequence[str] | NDArray[np.str_],
    units: Sequence[str] | NDArray[np.str_],
    n_folds: int,
    rng: np.random.Generator,
) -> list[TrainTest]:
    """Split samples so that neither a picture nor a unit (run, session, subject) has samples on both sides.

    Where pictures recur in several units, as when every subject sees them all, units and pictures are crossed: a fold
    holds out some pictures of some units, and is decoded by what was trained on other pictures of other units.

    Parameters
    ----------
    groups, units : sequence of str, one a sample
        The same for both splits by picture alone.
    n_folds : int
        Of units; where they are crossed with pictures, of those as well.
    rng : numpy.random.Generator

    Returns
    -------
    folds : list of (train, test)
        Row numbers; every row is held out once.

    Raises
    ------
    TrainingError
        If there are fewer than two units, or of pictures to cross them with.
    """
    groups, units = np.asarray(groups), np.asarray(units)
    n_units = len(np.unique(units))
    if n_units < 2:
        way_out = "show more pictures" if np.array_equal(units, groups) else "split by picture"
        raise TrainingError(f"all windows are of {str(units[0])!r}; a split needs two or more: {way_out}")
    by_unit = group_folds(units.tolist(), min(n_folds, n_units), rng)
    if all(not np.isin(groups[test], groups[train]).any() for train, test in by_unit):
        return by_unit
    n_pictures = min(n_folds, len(np.unique(groups)))
    by_picture = group_folds(groups.tolist(), n_pictures, rng)
    crossed = [
        (np.intersect1d(train, other_train), np.intersect1d(test, other_test))
        for train, test in by_unit
        for other_train, other_test in by_picture
    ]
    if any(not len(train) for train, test in crossed if len(test)):
        raise TrainingError("no window is of another unit and another picture than those held out; split by picture")
    return [(train, test) for train, test in crossed if len(test)]


def refuse_random_folds(groups: Sequence[str] | NDArray[np.str_]) -> None:
    """Refuse to deal single windows out to folds at random, unless every window is of a picture of its own.

    Raises
    ------
    TrainingError
        If a picture is shown more than once.
    """
    names, counts = np.unique(np.asarray(groups), return_counts=True)
    most = int(counts.argmax())
    if counts[most] > 1:
        raise TrainingError(
            f"split 'window' would put repeats of {str(names[most])!r} ({counts[most]} windows) and neighbours in time "
            "on both sides of a fold, which then tell each other's answer; split by picture, run, session or subject"
        )


def shared_pictures(stimuli: StimulusTable, train: Iterable[str], test: Iterable[str]) -> dict[str, float]:
    """Compute what test pictures share with training pictures.

    Parameters
    ----------
    stimuli : StimulusTable
    train, test : iterable of str
        Stimulus ids.

    Returns
    -------
    shares : dict
        'pictures': share of test pictures that training shows too, by content; 'categories': share of test pictures
        with a caption that a training picture has too (left out where nobody captioned them).
    """
    digests = stimuli.digests()
    places = stimuli.rows(sorted(set(train))), stimuli.rows(sorted(set(test)))
    known, asked = ([digests[row] for row in rows] for rows in places)
    out = {"pictures": _share(asked, set(known))}
    if stimuli.captions is not None:
        captions = stimuli.captions
        said = {caption for row in places[0] for caption in captions[row]}
        out["categories"] = round(float(np.mean([bool(said & set(captions[row])) for row in places[1]])), 4)
    return out


def _share(asked: Sequence[str], known: set[str]) -> float:
    return round(float(np.mean([one in known for one in asked])), 4)
