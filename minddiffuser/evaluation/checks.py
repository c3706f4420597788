"""Checks that figures of reconstructions are good for the right reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.feature_registry import FEATURES
from decoder.data.targets import compute_targets
from decoder.evaluation import metrics, spurious

if TYPE_CHECKING:
    from decoder.data.stimuli import StimulusTable
    from decoder.datasets import Dataset
    from decoder.features import Features
    from engine.models.loading import Models
    from minddiffuser.archive.archive import Received

NEAREST = 5


def spurious_checks(
    received: Sequence[Received], features: Sequence[Features], dataset: Dataset, models: Models
) -> dict[str, Any]:
    """Check reconstructions of known pictures for what makes figures look better than they are.

    Parameters
    ----------
    received : sequence of Received
        With their final pictures.
    features : sequence of Features
        What was decoded for each of them.
    dataset : Dataset
    models : Models

    Returns
    -------
    answer : dict
        'hard_two_way': two-way identification by CLIP against the five pictures most like the true one (chance 0.5);
        'collapse': effective dimension of decoded c and z in shares of the true ones;
        'overlap': see `decoder.evaluation.spurious.nearest_similarities`, of CLIP embeddings of the pictures;
        'concepts_seen': share of test pictures whose concept was shown in training, where concepts are known.
        Empty where fewer than three pictures are known.
    """
    known = [row for row, one in enumerate(received) if one.label in dataset.stimuli.ids and "picture" in one.stages]
    shown = dataset.stimuli.select(sorted({received[row].label for row in known}))
    if len(shown) < 3:
        return {}
    own = shown.rows(received[row].label for row in known)
    true = models.embed_images(shown.images)
    pictures = models.embed_images(np.stack([received[row].stages["picture"] for row in known]))
    r, likeness = (metrics.correlation_matrix(true, other) for other in (pictures, true))
    answer: dict[str, Any] = {
        "hard_two_way": _rounded(spurious.hard_two_way(r, likeness, own, NEAREST).mean()),
        "collapse": {name: _rounded(value) for name, value in _collapses(known, features, shown, own, models)},
    }
    trained = sorted({e.label for run in dataset.train for e in run.events} & set(dataset.stimuli.ids))
    if trained:
        seen = dataset.stimuli.select(trained)
        near = spurious.nearest_similarities(true, models.embed_images(seen.images))
        answer["overlap"] = {name: _rounded(value) for name, value in near.items()}
        if shown.concepts and seen.concepts:
            answer["concepts_seen"] = _rounded(np.mean([one in set(seen.concepts) for one in shown.concepts]))
    return answer


def _collapses(
    known: Sequence[int], features: Sequence[Features], shown: StimulusTable, own: NDArray[np.intp], models: Models
) -> Iterator[tuple[str, float]]:
    """Return the collapse of each feature that reconstruction begins with (c and z) and that was decoded."""
    for name, feature in FEATURES.items():
        if not feature.mixed or (feature.needs_captions and shown.captions is None):
            continue
        rows = [values for row in known if (values := features[row].values(name)) is not None]
        if len(rows) < len(known):
            continue
        target = compute_targets(shown, models, features=(name,)).arrays()[name]
        yield name, spurious.collapse(np.stack(rows), target[own].reshape(len(own), -1))


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)
