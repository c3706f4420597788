"""Whether figures of reconstructions are good for the right reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decoder import metrics, spurious
from decoder.targets import compute_targets

if TYPE_CHECKING:
    from decoder.datasets import Dataset
    from decoder.features import Features
    from decoder.stimuli import StimulusTable
    from engine.models import Models
    from minddiffuser.archive import Received

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
        'overlap': see `decoder.spurious.overlap`, of CLIP embeddings of test and training pictures;
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
        near = spurious.overlap(true, models.embed_images(seen.images))
        answer["overlap"] = {name: _rounded(value) for name, value in near.items()}
        if shown.concepts and seen.concepts:
            answer["concepts_seen"] = _rounded(np.mean([one in set(seen.concepts) for one in shown.concepts]))
    return answer


def _collapses(
    known: Sequence[int], features: Sequence[Features], shown: StimulusTable, own: NDArray[np.intp], models: Models
) -> Iterator[tuple[str, float]]:
    """Give the collapse of each of c and z that was decoded."""
    for name in ("c", "z"):
        if any(getattr(features[row], name) is None for row in known) or (name == "c" and shown.captions is None):
            continue
        targets = compute_targets(shown, models, features=(name,))
        decoded = np.stack([getattr(features[row], name).ravel() for row in known])
        yield name, spurious.collapse(decoded, getattr(targets, name)[own].reshape(len(own), -1))


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)
