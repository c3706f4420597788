"""How good reconstructions are: each stage beside the mean image and beside chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.evaluation import metrics
from decoder.evaluation.metric_registry import PICTURE_METRICS, identification_scores, picture_scores
from decoder.evaluation.pose import Pose, pose, pose_errors

Pixels = NDArray[np.uint8]
Scores = dict[str, NDArray[np.float64]]
Judge = Callable[[NDArray[np.intp], Pixels], Scores]


def score(
    gallery: Pixels,
    own: NDArray[np.intp],
    stages: Mapping[str, Pixels],
    mean_image: Pixels,
    rng: np.random.Generator,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Score reconstructions against the pictures shown.

    Parameters
    ----------
    gallery : ndarray, shape (k, height, width, 3), uint8
        The pictures shown, each once.
    own : ndarray of int, shape (n,)
        Which of them each reconstruction should show.
    stages : dict of str to ndarray, shape (n, height, width, 3), uint8
        Reconstructions by stage ('stage1', 'stage2').
    mean_image : ndarray, shape (height, width, 3), uint8
        Mean of the training pictures: the best picture that knows nothing of the brain.
    rng : numpy.random.Generator
        For permutations and bootstrap.
    judge : callable, optional
        Gives more scores of reconstructions (`minddiffuser.evaluation.perception.Judges.against`), from the row of each
        one's truth in the gallery and the reconstructions.

    Returns
    -------
    dict
        `<stage>`, `mean_image` and `chance`, each with the scores of
        `decoder.evaluation.metric_registry.picture_scores` and the judge's; `<stage>_interval` with [low, high] (95 %,
        bootstrap over reconstructions); `gain` of stage 2 over stage 1 with its paired interval, where there are both;
        `p` of the final pictures' identification: how probable a score as good is by chance, pictures permuted; `n`
        reconstructions of `pictures` pictures.
    """
    result: dict[str, Any] = {"n": len(own), "pictures": len(gallery)}

    scores = {stage: measure(gallery, own, pixels, judge) for stage, pixels in stages.items()}
    for stage, values in scores.items():
        result[stage] = _means(values)
        result[f"{stage}_interval"] = {name: _interval(value, rng) for name, value in values.items()}
    constant = np.broadcast_to(mean_image, (len(own), *mean_image.shape))
    result["mean_image"] = _means(measure(gallery, own, constant, judge))
    # Chance: the same reconstructions, each held against a picture that was not the one shown.
    other = (own + rng.integers(1, len(gallery), len(own))) % len(gallery)
    result["chance"] = _means(measure(gallery, other, list(stages.values())[-1], judge))
    if {"stage1", "stage2"} <= set(scores):
        gains = {name: scores["stage2"][name] - scores["stage1"][name] for name in scores["stage2"]}
        result["gain"] = {
            name: {"mean": round(float(gain.mean()), 4), "interval": _interval(gain, rng)}
            for name, gain in gains.items()
        }
    last = list(stages)[-1]
    others = metrics.permute_pictures(own, len(gallery), rng)
    null = identification_scores(gallery, others, stages[last])
    if judge is not None:
        null |= judge(others, stages[last])
    result["p"] = {name: _p_value(name, float(scores[last][name].mean()), values) for name, values in null.items()}
    return result


def measure(gallery: Pixels, held_against: NDArray[np.intp], pixels: Pixels, judge: Judge | None) -> Scores:
    """Return every score of reconstructions one by one, held against rows of the gallery; parameters as `score`."""
    found = picture_scores(gallery, held_against, pixels)
    return found if judge is None else found | judge(held_against, pixels)


def _p_value(name: str, observed: float, null: NDArray[np.float64]) -> float:
    metric = PICTURE_METRICS.get(name)
    sign = 1 if metric is None or metric.higher_is_better else -1
    return round(metrics.p_value(sign * observed, sign * null.mean(axis=1)), 4)


def pose_quality(
    true: Sequence[Pose],
    own: NDArray[np.intp],
    stages: Mapping[str, Pixels],
    mean_image: Pixels,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Score where reconstructions have the figure, how large and how turned, where the truth about that is known.

    Parameters
    ----------
    true : sequence of Pose, length k
        Of the pictures shown.
    own, stages, mean_image, rng
        As in `score`.

    Returns
    -------
    dict
        By error, as in `decoder.evaluation.pose.pose_errors` (lower is better): its mean for each stage, with
        `<stage>_interval`, for `mean_image` and for `chance`; `gain`, the change from stage 1 to stage 2 with its
        paired interval. Figures too round to have an orientation are left out of its error.
    """
    found = {stage: [pose(picture) for picture in pixels] for stage, pixels in stages.items()}
    aims = [true[row] for row in own]
    errors = {stage: pose_errors(poses, aims) for stage, poses in found.items()}
    errors["mean_image"] = pose_errors([pose(mean_image)] * len(own), aims)
    other = (own + rng.integers(1, len(true), len(own))) % len(true)
    errors["chance"] = pose_errors(list(found.values())[-1], [true[row] for row in other])
    return {name: _pose_figures({of: each[name] for of, each in errors.items()}, rng) for name in errors["chance"]}


def _pose_figures(errors: Scores, rng: np.random.Generator) -> dict[str, Any]:
    known = {of: values[~np.isnan(values)] for of, values in errors.items()}
    figures: dict[str, Any] = _means({of: values for of, values in known.items() if len(values)})
    for stage in [stage for stage in ("stage1", "stage2") if stage in figures]:
        figures[f"{stage}_interval"] = _interval(known[stage], rng)
    if {"stage1", "stage2"} <= set(figures):
        gain = known["stage2"] - known["stage1"]
        figures["gain"] = {"mean": round(float(gain.mean()), 4), "interval": _interval(gain, rng)}
    return figures


def _means(scores: Scores) -> dict[str, float]:
    return {name: round(float(values.mean()), 4) for name, values in scores.items()}


def _interval(values: NDArray[np.float64], rng: np.random.Generator) -> list[float]:
    return [round(bound, 4) for bound in metrics.bootstrap_interval(values, rng)]
