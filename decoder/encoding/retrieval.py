"""Retrieval: of pictures that nobody was shown, those that a window makes likeliest.

Identification by an encoding model among pictures of which the brain has seen none, as from the bank of natural images
of Naselaris et al. (2009, Neuron 63). What comes out is a picture that exists, and no reconstruction.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from decoder.data.feature_registry import Encoders
from decoder.errors import TrainingError
from decoder.features import Evidence, block_of
from stream.types.progress import Progress, no_progress

Array = NDArray[np.float32]
Maps = Mapping[str, Array]
"""By group of picture features, from features to answers, as in `decoder.features.Evidence`."""

BATCH = 32
"""Pictures encoded at a time: a block has many units."""


def predict_answers(
    images: NDArray[np.uint8], models: Sequence[Maps], encoders: Encoders, progress: Progress = no_progress
) -> list[Array]:
    """Predict what windows of some pictures would answer.

    Parameters
    ----------
    images : ndarray, shape (n, height, width, 3), uint8
    models : sequence of mapping of str to ndarray, shape (n_features, k)
        Maps of encoding models.
    encoders : Encoders
    progress : callable, optional

    Returns
    -------
    answers : list of ndarray, shape (n, k), float32
        By model.

    Raises
    ------
    TrainingError
        If the pictures are too small to give what a model goes by.
    """
    # Where nothing is retrieved, as in a room of a pool, torch is not loaded.
    from decoder.data.picture_features import PICTURE_FEATURES, compute_picture_features

    wanted = sorted({name for maps in models for name in maps})
    kinds = [kind.key for kind in PICTURE_FEATURES.values() if any(kind.gives(name) for name in wanted)]
    blocks = [block for name in wanted if (block := block_of(name)) is not None]
    parts: list[list[Array]] = [[] for _ in models]
    for start in range(0, len(images), BATCH):
        found = compute_picture_features(images[start : start + BATCH], encoders, kinds=kinds, blocks=blocks)
        for part, maps in zip(parts, models, strict=True):
            part.append(answers_of(found, maps, f"pictures of {images.shape[1]} x {images.shape[2]} pixels"))
        progress("pictures to retrieve", min(start + BATCH, len(images)), len(images))
    return [np.asarray(np.concatenate(part), np.float32) for part in parts]


def answers_of(features: Mapping[str, NDArray[np.floating]], maps: Maps, pictures: str) -> Array:
    """Predict answers, shape (n, k), from groups of features, each (n, n_features); `pictures` names them in errors.

    Raises
    ------
    TrainingError
        If a group has another number of features than the model takes.
    """
    for name, map_ in maps.items():
        n = features[name].shape[1] if name in features else 0
        if n != len(map_):
            raise TrainingError(
                f"{pictures} give {n} numbers of {name!r}, and the encoding model takes "
                f"{len(map_)}: name pictures at least as large as those that were shown in training"
            )
    return np.asarray(np.sum([features[name].astype(np.float32) @ map_ for name, map_ in maps.items()], axis=0), "f4")


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
