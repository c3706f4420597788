"""How well held-out windows are decoded from fewer calibration pictures, and whether recording more is worth it."""

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import TrainTest
from decoder.data.targets import Targets
from decoder.data.training_set import TrainingSet
from decoder.estimators.regression import make_regression
from decoder.evaluation.metrics import bootstrap_interval
from decoder.parallel import apply_each
from decoder.solvers.ridge import Split
from decoder.spec import DecoderSpec
from decoder.training.judging import two_way_about_mean
from decoder.training.nested import choose_nested, fit_rows
from decoder.training.train_linear import CONSTANT
from stream.types.progress import Progress, no_progress

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the calibration's pictures."""
LEAST_PICTURES = 20
"""A point of the curve is left out where a share has fewer."""
CHANCE = 0.5
WORTH = 0.01
"""Gain in two-way identification by doubling the pictures, below which more of them are not worth recording."""


def learning_curve(
    samples: TrainingSet, targets: Targets, spec: DecoderSpec, progress: Progress = no_progress
) -> dict[str, Any]:
    """Score held-out windows, decoded by ridge from growing shares of the calibration's pictures.

    Folds are those of the decoder's scores, and every point is of the same held-out windows, so that points compare;
    settings are chosen anew by what is left of each training part.

    Parameters
    ----------
    samples : TrainingSet
    targets : Targets
        Of c, z and e; their mean two-way identification is what is stated. `s` is not looked at.
    spec : DecoderSpec
    progress : callable

    Returns
    -------
    dict
        'learning_curve', a list of {'pictures', 'features_two_way', 'interval' (95 %, bootstrap over pictures)} from
        few to many, and 'recording_more' as `recording_more` gives it. Empty where no point can be had.
    """
    heads = {name: varying(value, samples.rows) for name, value in targets.numbers().items()}
    pictures = np.unique(samples.groups)
    order = np.random.default_rng([spec.seed, 8]).permutation(len(pictures))
    sizes = {math.ceil(share * len(pictures)) for share in SHARES}
    sizes = {size for size in sizes if size >= LEAST_PICTURES}
    heads = {name: value for name, value in heads.items() if value.size}
    # The one that takes longest first: the others are done beside it.
    falling = sorted(sizes, reverse=True) if heads else []
    known = [np.isin(samples.groups, pictures[order[:size]]) for size in falling]
    told = apply_each(partial(_told, samples, heads, spec), known, about="learning curve", progress=progress)
    points = [
        (size, _by_picture(one, samples.groups))
        for size, one in sorted(zip(falling, told, strict=True), key=lambda point: point[0])
        if one is not None
    ]
    if not points:
        return {}
    curve = [{"pictures": size, **_stated(told, "features_two_way", spec)} for size, told in points]
    return {"learning_curve": curve, "recording_more": recording_more(points, spec)}


def recording_more(points: list[tuple[int, Floats]], spec: DecoderSpec) -> dict[str, Any]:
    """Decide whether more pictures are worth recording.

    Not above chance (the interval of all pictures reaches 0.5): undecided, as what is wrong may not be how many there
    are. Otherwise the gain from half the pictures to all of them is looked at, picture by picture: worth it, where its
    interval lies above 0 and its mean is 0.01 or more; not worth it, where even the interval's upper end is below 0.02;
    undecided otherwise.

    Parameters
    ----------
    points : list of (int, ndarray of shape (n_pictures,))
        Number of training pictures, and how often each picture was told from another.
    spec : DecoderSpec
        Its seed.

    Returns
    -------
    dict
        'worth' (True, False or None), 'sentence', and where it could be computed 'gain' and 'interval'.
    """
    pictures, told = points[-1]
    low, _ = bootstrap_interval(told, np.random.default_rng(spec.seed))
    if low <= CHANCE:
        return {
            "worth": None,
            "sentence": f"With {pictures} pictures decoding is not above chance: check signal and markers first "
            "(minddiffuser inspect), then record more.",
        }
    halves = [(size, half) for size, half in points if size == math.ceil(pictures / 2)]
    if not halves:
        return {
            "worth": None,
            "sentence": f"{pictures} pictures are too few to tell what more would bring: record more.",
        }
    half, fewer = halves[0]
    gain = _stated(told - fewer, "gain", spec)
    mean, interval = gain["gain"], gain["interval"]
    figures = f"from {half} to {pictures} pictures two-way identification of held-out windows changed by "
    figures += f"{mean:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"
    if mean >= WORTH and interval[0] > 0:
        worth, verdict = True, "Recording more is worth it"
    elif interval[1] < 2 * WORTH:
        worth, verdict = False, "Recording more brings little"
    else:
        worth, verdict = None, "Whether recording more is worth it cannot be told"
    return {"worth": worth, "sentence": f"{verdict}: {figures}.", **gain}


def _told(samples: TrainingSet, heads: dict[str, Array], spec: DecoderSpec, known: NDArray[np.bool_]) -> Floats | None:
    """Identify each held-out window's picture by what was trained on known pictures; None where nothing can be."""
    splits: list[TrainTest] = []
    for train, test in samples.folds(spec.cv_folds, np.random.default_rng(spec.seed)):
        splits.append((train[known[train]], test))
    if any(len(np.unique(samples.groups[train])) < 2 for train, _ in splits):
        return None
    preprocessor = partial(fit_rows, samples.data, samples.times, spec.preprocess)
    parts = []
    for train, test in splits:
        prepare = preprocessor(train)
        parts.append(Split(train, test, prepare(samples.data[train]), prepare(samples.data[test])))
    rows = np.flatnonzero(known)
    regression = make_regression(
        parts,
        preprocessor(rows)(samples.data[rows]),
        spec.regression,
        spec.alphas,
    )
    Y = {name: features[samples.rows] for name, features in heads.items()}
    chosen = choose_nested(samples, splits, regression, Y, spec.preprocess)
    if chosen is None:
        return None
    told = []
    for name, features in heads.items():
        shown = Y[name]
        found = np.empty_like(shown)
        for number, (part, own) in enumerate(zip(parts, chosen, strict=True)):
            found[part.test] = regression.predict_split(number, part.X_test, shown, own[name].choice)
        told.append(two_way_about_mean(features - shown.mean(axis=0), found, samples.rows, np.zeros_like(shown[0])))
    return np.asarray(np.mean(told, axis=0))


def varying(value: Array, rows: Rows) -> Array:
    """Return a feature's numbers that differ between the pictures shown, (n_pictures, n_numbers)."""
    flat = value.reshape(len(value), -1)
    return flat[:, np.ptp(flat[rows], axis=0) > CONSTANT]


def _by_picture(told: Floats, groups: NDArray[np.str_]) -> Floats:
    """Average presentations of one picture, which are not independent."""
    _, place = np.unique(groups, return_inverse=True)
    return np.asarray(np.bincount(place, told) / np.bincount(place))


def _stated(values: Floats, name: str, spec: DecoderSpec) -> dict[str, Any]:
    """Return a mean over pictures with its interval, rounded."""
    interval = bootstrap_interval(values, np.random.default_rng(spec.seed))
    return {name: round(float(values.mean()), 4), "interval": [round(bound, 4) for bound in interval]}
