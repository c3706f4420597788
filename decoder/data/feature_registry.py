"""The features that are decoded, each in one entry: what it is, how it is computed, weighted and believed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from decoder.data.stimuli import StimulusTable
from decoder.errors import TrainingError
from decoder.features import block_name, block_of
from decoder.parallel import OnCpu, in_batches, iterate_each
from stream.types.progress import Progress

if TYPE_CHECKING:
    from decoder.spec import DecoderSpec

Array = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")


class Encoders(OnCpu, Protocol):
    """Models that turn pictures and captions into features (`engine.models.loading.Models` is one)."""

    @property
    def feature_space(self) -> str:
        """Identify the weights: features of two spaces are never mixed."""

    @property
    def patch_grid(self) -> int:
        """Return the patches along a side of what CLIP sees; units are the class token's, then the patches' by row."""

    def encode_text(self, captions: Sequence[str], /) -> Array:
        """Compute the hidden states that the UNet is conditioned on, (n, tokens, dims)."""

    def encode_latents(self, images: NDArray[np.uint8], /) -> Array:
        """Compute VAE latents, scaled to unit variance, (n, channels, height, width)."""

    def structure(self, images: NDArray[np.uint8], blocks: Sequence[int], /) -> dict[int, Array]:
        """Compute CLIP's MLP outputs before the residual add by block, counted from 1: {block: (n, units)}."""

    def embed_images(self, images: NDArray[np.uint8], /) -> Array:
        """Compute pooled CLIP embeddings, of unit length, (n, d)."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures of which features are computed, some at a time.

    Attributes
    ----------
    stimuli : StimulusTable
    encoders : Encoders
    blocks : sequence of int
        CLIP blocks of `s`.
    batch : int
        Pictures encoded at a time.
    progress : callable
    """

    stimuli: StimulusTable
    encoders: Encoders
    blocks: Sequence[int]
    batch: int
    progress: Progress

    def encoded(self, what: str, encode: Callable[[NDArray[np.uint8]], T]) -> Iterator[T]:
        """Yield what a function, which other processes can import, makes of the pictures, a batch at a time."""
        return self.shared_out(what, encode, self.stimuli.images)

    def shared_out(self, what: str, encode: Callable[[Any], T], items: Any) -> Iterator[T]:
        """Yield what a function makes of items, a batch at a time; by the `workers` there are, where that helps."""
        parts = [items[start : start + self.batch] for start in range(0, len(items), self.batch)]
        progress = in_batches(self.progress, self.batch, len(items))
        return iterate_each(encode, parts, about=what, progress=progress, models=self.encoders)


@dataclass(frozen=True, slots=True)
class Feature:
    """A decoded feature.

    Attributes
    ----------
    key : str
        Its name in `decoder.features`, and the field of `Targets` and `Features` that holds it.
    label : str
        What tables and charts call it.
    title : str
        What headings call it.
    compute : callable
        From `Pictures` to arrays by name, one row a picture.
    gain : str or None
        Setting of `DecoderSpec` that says how far shrinkage is undone; None: it is left.
    believed : bool
        The size of what is decoded tells how far a window is to be believed.
    mixed : bool
        A decoder of categories mixes it from templates.
    mapped : bool
        `minddiffuser maps` shows it.
    by_block : bool
        One array a CLIP block, 's1', 's2', ...; of each only the best-decoded units are kept.
    needs_captions : bool
    """

    key: str
    label: str
    title: str
    compute: Callable[[Pictures], Arrays]
    gain: str | None = None
    believed: bool = False
    mixed: bool = False
    mapped: bool = False
    by_block: bool = False
    needs_captions: bool = False

    def gain_in(self, spec: "DecoderSpec") -> float:
        """Return the power to which shrinkage is undone, by a spec's setting."""
        return float(getattr(spec, self.gain)) if self.gain is not None else 0.0

    def names(self, blocks: Sequence[int]) -> tuple[str, ...]:
        """Return the names of its arrays."""
        return tuple(block_name(block) for block in blocks) if self.by_block else (self.key,)


def _text(pictures: Pictures) -> Arrays:
    """Average the hidden states of each picture's captions."""
    captions, encoders = pictures.stimuli.captions, pictures.encoders
    assert captions is not None
    unique = sorted({caption for each in captions for caption in each})
    parts = pictures.shared_out("captions", encoders.encode_text, unique)
    states = dict(zip(unique, np.concatenate(list(parts)), strict=True))
    return {"c": np.stack([np.mean([states[caption] for caption in each], axis=0) for each in captions]).astype("f4")}


def _latents(pictures: Pictures) -> Arrays:
    return {"z": np.concatenate(list(pictures.encoded("latents", pictures.encoders.encode_latents)))}


def _embeddings(pictures: Pictures) -> Arrays:
    return {"e": np.concatenate(list(pictures.encoded("embeddings", pictures.encoders.embed_images)))}


def _structure(pictures: Pictures) -> Arrays:
    out: Arrays = {}
    start, n = 0, len(pictures.stimuli.images)
    for units in pictures.encoded("structure", partial(_units, pictures.encoders, pictures.blocks)):
        for name, values in units.items():
            whole = out.setdefault(name, np.empty((n, values.shape[1]), np.float16))
            whole[start : start + len(values)] = values
        start += len(values)
    return out


def _units(encoders: Encoders, blocks: Sequence[int], images: NDArray[np.uint8]) -> dict[str, NDArray[np.float16]]:
    """Compute the structure of some pictures by block's name."""
    values = encoders.structure(images, blocks)
    absent = [block for block in blocks if block not in values]
    if absent:
        raise TrainingError(f"the CLIP model gives no structure of block {absent[0]}; choose from {list(values)}")
    return {block_name(block): values[block].astype(np.float16) for block in blocks}


FEATURES: Mapping[str, Feature] = {
    feature.key: feature
    for feature in (
        Feature(
            "c",
            "c (text)",
            "c, text embedding",
            _text,
            "c_gain",
            believed=True,
            mixed=True,
            mapped=True,
            needs_captions=True,
        ),
        Feature("z", "z (latent)", "z, image latent", _latents, "z_gain", believed=True, mixed=True, mapped=True),
        Feature("e", "e (picture embedding)", "e, picture embedding", _embeddings, believed=True),
        Feature("s", "s (structure)", "s, structure", _structure, "s_gain", mapped=True, by_block=True),
    )
}
"""By key, in the order in which they are decoded and scored. A new feature is an entry here, a field of `Targets` and
`Features`, and its letter in `DecoderSpec.features`."""


def feature_of(name: str) -> Feature | None:
    """Return the feature of a decoded name, such as 'z', or 's3' of block 3; None of what is no feature."""
    return FEATURES["s"] if block_of(name) is not None else FEATURES.get(name)


def label_of(name: str) -> str:
    """Return what tables call a decoded name: 'z (latent)', 's (structure), block 3'."""
    feature, block = feature_of(name), block_of(name)
    if feature is None:
        return name
    return feature.label if block is None else f"{feature.label}, block {block}"
