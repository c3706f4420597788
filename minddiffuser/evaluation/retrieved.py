"""How near retrieved pictures come to those shown: by the scores of reconstructions, apart from them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.stimuli import StimulusTable
from decoder.features import Features
from minddiffuser.evaluation.perception import Judges
from minddiffuser.evaluation.quality import score
from minddiffuser.live.beside import Retriever
from stream.types.windows import Window


def retrieved_quality(
    windows: Sequence[Window],
    features: Sequence[Features],
    retrieve: Retriever,
    stimuli: StimulusTable,
    mean_image: NDArray[np.uint8],
    judges: Judges,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Score what is retrieved for decoded windows against the pictures shown.

    Parameters
    ----------
    windows : sequence of Window
    features : sequence of Features
        Decoded from them, in their order.
    retrieve : Retriever
    stimuli : StimulusTable
        The pictures shown.
    mean_image : ndarray, shape (height, width, 3), uint8
        Mean of the training pictures.
    judges : Judges
    rng : numpy.random.Generator

    Returns
    -------
    dict
        As `minddiffuser.evaluation.quality.score` of 'stage2', which here is the picture retrieved, and `bank`: how
        many there are; 'figures', a line, where fewer than two windows are of a known picture.
    """
    found = [
        (window.event.label, retrieved[0])
        for window, one in zip(windows, features, strict=True)
        if window.event is not None and window.event.label in stimuli.ids and (retrieved := retrieve(one)) is not None
    ]
    shown = stimuli.select(sorted({label for label, _ in found}))
    if len(shown) < 2:
        return {"figures": f"of {len(windows)} windows fewer than two are of a picture known: nothing to score"}
    own = shown.rows(label for label, _ in found)
    judge = judges.against(shown.images, shown.concepts)
    stages = {"stage2": np.stack([pixels for _, pixels in found])}
    return {"bank": len(retrieve)} | score(shown.images, own, stages, mean_image, rng, judge)
