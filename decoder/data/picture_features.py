"""What an encoding model reads of a picture: public features, in groups that are each penalised by themselves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from decoder.data.early_vision import GROUPS, early_vision
from decoder.data.feature_registry import Encoders
from decoder.features import block_name, block_of
from decoder.parallel import in_batches, iterate_each
from decoder.visual_features import cells
from stream.types.progress import Progress, no_progress

Array = NDArray[np.float32]
Images = NDArray[np.uint8]

POOLED, SMALL = "CLIP pooled", "thumbnail"
THUMBNAIL = 16
"""Pixels of a side of the thumbnail, or as many as a smaller picture has."""


@dataclass(frozen=True, slots=True)
class Source:
    """Pictures (n, height, width, 3), the encoders that read them, and the CLIP blocks that are wanted."""

    images: Images
    encoders: Encoders
    blocks: Sequence[int]


@dataclass(frozen=True, slots=True)
class PictureFeature:
    """A kind of picture features.

    Attributes
    ----------
    key : str
    compute : callable
        From a source to groups by name, each (n, ...).
    gives : callable
        Whether a group of a name is of this kind.
    """

    key: str
    compute: Callable[[Source], Mapping[str, Array]]
    gives: Callable[[str], bool]


def _blocks(source: Source) -> Mapping[str, Array]:
    found = source.encoders.structure(source.images, tuple(source.blocks))
    return {block_name(block): units for block, units in found.items()}


def _pooled(source: Source) -> Mapping[str, Array]:
    return {POOLED: source.encoders.embed_images(source.images)}


def _thumbnail(source: Source) -> Mapping[str, Array]:
    colours = np.moveaxis(source.images, 3, 1).astype(np.float32) / np.float32(255)
    return {SMALL: cells(np.asarray(colours, np.float32), min(THUMBNAIL, *source.images.shape[1:3]))}


PICTURE_FEATURES: Mapping[str, PictureFeature] = {
    feature.key: feature
    for feature in (
        PictureFeature("blocks", _blocks, lambda name: block_of(name) is not None),
        PictureFeature("pooled", _pooled, POOLED.__eq__),
        PictureFeature("thumbnail", _thumbnail, SMALL.__eq__),
        PictureFeature("early", lambda source: early_vision(source.images), GROUPS.__contains__),
    )
}
"""By key; a new kind is an entry here. What each group is worth is learned, so one of no use costs little."""


def compute_picture_features(
    images: Images,
    encoders: Encoders,
    *,
    kinds: Sequence[str] = tuple(PICTURE_FEATURES),
    blocks: Sequence[int] = (1, 2, 3),
    batch: int = 32,
    progress: Progress = no_progress,
) -> dict[str, NDArray[np.float16]]:
    """Compute the groups of features of pictures.

    Parameters
    ----------
    images : ndarray, shape (n, height, width, 3), uint8
    encoders : Encoders
    kinds : sequence of str
        Keys of `PICTURE_FEATURES`.
    blocks : sequence of int
        CLIP blocks, counted from 1.
    batch : int
        Pictures at a time.
    progress : callable

    Returns
    -------
    features : dict of str to ndarray, shape (n, d), float16
        By group. Half precision, as of `decoder.data.targets.Targets`: blocks have many units.
    """
    sources = [Source(images[start : start + batch], encoders, blocks) for start in range(0, len(images), batch)]
    compute, report = partial(_compute, kinds), in_batches(progress, batch, len(images))
    parts: dict[str, list[NDArray[np.float16]]] = {}
    for groups in iterate_each(compute, sources, about="picture features", progress=report, models=encoders):
        for name, values in groups.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(each) for name, each in parts.items()}


def _compute(kinds: Sequence[str], source: Source) -> dict[str, NDArray[np.float16]]:
    """Compute the groups of features of some pictures."""
    groups = {name: values for kind in kinds for name, values in PICTURE_FEATURES[kind].compute(source).items()}
    return {name: values.reshape(len(values), -1).astype(np.float16) for name, values in groups.items()}
