"""How good reconstructions are: each stage beside the mean image and beside chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder import metrics

Pixels = NDArray[np.uint8]
Scores = dict[str, NDArray[np.float64]]


def score(
    gallery: Pixels,
    own: NDArray[np.intp],
    stages: Mapping[str, Pixels],
    mean_image: Pixels,
    rng: np.random.Generator,
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

    Returns
    -------
    dict
        `<stage>`, `mean_image` and `chance`, each with the scores of `decoder.metrics.picture_scores`;
        `<stage>_interval` with [low, high] (95 %, bootstrap over reconstructions); `gain` of stage 2 over
        stage 1 with its paired interval, where there are both; `n` reconstructions of `pictures` pictures.
    """
    result: dict[str, Any] = {"n": len(own), "pictures": len(gallery)}
    scores = {stage: metrics.picture_scores(gallery, own, pixels) for stage, pixels in stages.items()}
    for stage, values in scores.items():
        result[stage] = _means(values)
        result[f"{stage}_interval"] = {name: _interval(value, rng) for name, value in values.items()}
    constant = np.broadcast_to(mean_image, (len(own), *mean_image.shape))
    result["mean_image"] = _means(metrics.picture_scores(gallery, own, constant))
    # Chance: the same reconstructions, each held against a picture that was not the one shown.
    other = (own + rng.integers(1, len(gallery), len(own))) % len(gallery)
    result["chance"] = _means(metrics.picture_scores(gallery, other, list(stages.values())[-1]))
    if {"stage1", "stage2"} <= set(scores):
        gains = {name: scores["stage2"][name] - scores["stage1"][name] for name in scores["stage2"]}
        result["gain"] = {
            name: {"mean": round(float(gain.mean()), 4), "interval": _interval(gain, rng)}
            for name, gain in gains.items()
        }
    return result


def _means(scores: Scores) -> dict[str, float]:
    return {name: round(float(values.mean()), 4) for name, values in scores.items()}


def _interval(values: NDArray[np.float64], rng: np.random.Generator) -> list[float]:
    return [round(bound, 4) for bound in metrics.bootstrap_interval(values, rng)]
