"""Retrieval: of pictures that nobody was shown, those that a window makes likeliest.

Identification by an encoding model among pictures of which the brain has seen none, as from the bank of natural images
of Naselaris et al. (2009, Neuron 63). What comes out is a picture that exists, and no reconstruction.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from decoder.data.feature_registry import Encoders
from decoder.features import Evidence
from stream.types.progress import Progress, no_progress

Array = NDArray[np.float32]
Maps = Mapping[int, Array]
"""By CLIP block, from features to answers, as in `decoder.features.Evidence`."""

BATCH = 32
"""Pictures encoded at a time: a block has many units."""


def predict_answers(
    images: NDArray[np.uint8], models: Sequence[Maps], encoders: Encoders, progress: Progress = no_progress
) -> list[Array]:
    """Predict what windows of some pictures would answer.

    Parameters
    ----------
    images : ndarray, shape (n, height, width, 3), uint8
    models : sequence of mapping of int to ndarray, shape (n_units, k)
        Maps of encoding models, of the same blocks.
    encoders : Encoders
    progress : callable, optional

    Returns
    -------
    answers : list of ndarray, shape (n, k), float32
        By model.
    """
    blocks = tuple(sorted({block for maps in models for block in maps}))
    parts: list[list[Array]] = [[] for _ in models]
    for start in range(0, len(images), BATCH):
        found = encoders.structure(images[start : start + BATCH], blocks)
        for part, maps in zip(parts, models, strict=True):
            part.append(np.sum([found[block].reshape(len(found[block]), -1) @ maps[block] for block in maps], axis=0))
        progress("pictures to retrieve", min(start + BATCH, len(images)), len(images))
    return [np.asarray(np.concatenate(part), np.float32) for part in parts]


def probabilities(answers: Array, evidence: Evidence) -> NDArray[np.float64]:
    """Compute the probability of each picture, shape (n,), given that the window is of one of them.

    Parameters
    ----------
    answers : ndarray, shape (n, k)
        Predicted by the model that the evidence is of.
    evidence : Evidence
    """
    misfit = np.square(answers - evidence.answer, dtype=np.float64).sum(axis=1)
    likelihood = np.exp(-0.5 * (misfit - misfit.min()))
    return np.asarray(likelihood / likelihood.sum())
