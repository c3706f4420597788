"""Captions for pictures that nobody described, chosen by CLIP from a vocabulary."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from decoder.data.stimuli import StimulusTable


class JointEncoders(Protocol):
    """What embeds pictures and captions in one space (`engine.models.loading.Models` is one)."""

    def embed_images(self, images: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Return (n, dims), unit norm."""

    def embed_texts(self, captions: Sequence[str], /) -> NDArray[np.float32]:
        """Return (n, dims), unit norm."""


def describe(
    stimuli: StimulusTable, encoders: JointEncoders, vocabulary: Sequence[str], *, best: int = 5
) -> StimulusTable:
    """Caption pictures that have no captions with the `best` entries of the vocabulary that CLIP finds most alike.

    The captions are guesses of what a picture resembles, the best one first: good enough to give the text
    conditioning a direction, not to be shown as what a picture is. A table with captions, or an empty vocabulary,
    leaves the table as it is.
    """
    if stimuli.captions is not None or not vocabulary:
        return stimuli
    similarity = encoders.embed_images(stimuli.images) @ encoders.embed_texts(list(vocabulary)).T
    ranked = np.argsort(-similarity, axis=1, kind="stable")[:, :best]
    captions = tuple(tuple(vocabulary[word] for word in row) for row in ranked)
    return replace(stimuli, captions=captions)
