"""What decoders are trained to predict: the features of the pictures that were shown."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from decoder.errors import TrainingError
from decoder.stimuli import StimulusTable

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def no_progress(what: str, done: int, total: int) -> None:
    """Report to nobody."""


class Encoders(Protocol):
    """What turns pictures and captions into the engine's features (`engine.models.Models` is one)."""

    @property
    def feature_space(self) -> str:
        """Identify the weights: features of two spaces are never mixed."""

    @property
    def patch_grid(self) -> int:
        """Patches along a side of what CLIP sees; a block's units are the class token's, then the patches' by row."""

    def encode_text(self, captions: Sequence[str], /) -> NDArray[np.float32]:
        """Give (n, tokens, dims): the hidden states that the UNet is conditioned on."""

    def encode_latents(self, images: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Give (n, channels, height, width): VAE latents, scaled to unit variance."""

    def structure(self, images: NDArray[np.uint8], /) -> dict[int, NDArray[np.float32]]:
        """Give {block: (n, units)}: CLIP's MLP outputs before the residual add, blocks counted from 1."""

    def embed_images(self, images: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Give (n, d): pooled CLIP embeddings, of unit length."""


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Features of n pictures, in the order of their stimulus table.

    Attributes
    ----------
    c : ndarray, shape (n, tokens, dims), float32, or None
        Mean of the embeddings of a picture's captions.
    z : ndarray, shape (n, channels, height, width), float32, or None
    s : dict of int to ndarray, shape (n, units), float16
        By CLIP block, counted from 1. Half precision: 75,000 units a picture add up.
    e : ndarray, shape (n, d), float32, or None
        Pooled CLIP embeddings of the pictures.
    grid : int or None
        Of `s`: patches along a side. A block's units are those of the class token, then those of the patches by row.
    """

    c: NDArray[np.float32] | None = None
    z: NDArray[np.float32] | None = None
    s: dict[int, NDArray[np.float16]] = field(default_factory=dict)
    e: NDArray[np.float32] | None = None
    grid: int | None = None


def compute_targets(
    stimuli: StimulusTable,
    encoders: Encoders,
    *,
    features: Sequence[str] = ("c", "z", "s"),
    blocks: Sequence[int] = (1, 2, 3, 4, 5, 6),
    cache: Path | None = None,
    batch: int = 32,
    progress: Progress = no_progress,
) -> Targets:
    """Compute the features of pictures, or take them from the cache.

    Parameters
    ----------
    stimuli : StimulusTable
    encoders : Encoders
    features : sequence of {'c', 'z', 's', 'e'}
    blocks : sequence of int
        CLIP blocks of `s`.
    cache : Path or None
        Folder of earlier results, found by the content of pictures and captions and by the feature space.
    batch : int
        Pictures encoded at a time.
    progress : callable

    Raises
    ------
    TrainingError
        If `c` is wanted of pictures without captions, or the encoders lack a block.
    """
    if "c" in features and stimuli.captions is None:
        raise TrainingError("feature 'c' needs captions, and these stimuli have none; caption them or leave 'c' out")
    keys = {f: f for f in features if f != "s"} | ({f"s{b}": "s" for b in blocks} if "s" in features else {})
    path = None if cache is None else cache / f"targets-{_key(stimuli, encoders, sorted(keys))}.safetensors"
    arrays = _read(path)
    if arrays is None:
        arrays = {}
        if "c" in features and stimuli.captions is not None:
            arrays["c"] = _mean_captions(stimuli.captions, encoders, batch, progress)
        if "z" in features:
            arrays["z"] = _in_batches("latents", encoders.encode_latents, stimuli.images, batch, progress)
        if "e" in features:
            arrays["e"] = _in_batches("embeddings", encoders.embed_images, stimuli.images, batch, progress)
        if "s" in features:
            arrays |= _structure(encoders, stimuli.images, blocks, batch, progress)
        _write(arrays, path)
    s = {b: arrays[f"s{b}"] for b in blocks if f"s{b}" in arrays}
    return Targets(arrays.get("c"), arrays.get("z"), s, arrays.get("e"), encoders.patch_grid if s else None)


def _key(stimuli: StimulusTable, encoders: Encoders, names: Sequence[str]) -> str:
    text = "\n".join([stimuli.content_hash(), encoders.feature_space, *names])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read(path: Path | None) -> dict[str, NDArray[Any]] | None:
    if path is None or not path.exists():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError):  # a broken cache costs its time, and nothing else
        return None


def _write(arrays: dict[str, NDArray[Any]], path: Path | None) -> None:
    """Write through a temporary name, so that a killed run leaves no half file to be believed later.

    What was computed is worth more than its cache: where that cannot be written, a warning says so.
    """
    if path is None:
        return
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        logger.warning("targets are not kept for the next run: cannot write %s (%s)", path, error)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _slices(n: int, batch: int, what: str, progress: Progress) -> Iterator[slice]:
    for start in range(0, n, batch):
        yield slice(start, min(n, start + batch))
        progress(what, min(n, start + batch), n)


def _in_batches(
    what: str,
    encode: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    images: NDArray[np.uint8],
    batch: int,
    progress: Progress,
) -> NDArray[np.float32]:
    return np.concatenate([encode(images[part]) for part in _slices(len(images), batch, what, progress)])


def _mean_captions(
    captions: Sequence[Sequence[str]], encoders: Encoders, batch: int, progress: Progress
) -> NDArray[np.float32]:
    unique = sorted({caption for each in captions for caption in each})
    parts = [encoders.encode_text(unique[part]) for part in _slices(len(unique), batch, "captions", progress)]
    embedded = dict(zip(unique, np.concatenate(parts), strict=True))
    return np.stack([np.mean([embedded[caption] for caption in each], axis=0) for each in captions]).astype(np.float32)


def _structure(
    encoders: Encoders, images: NDArray[np.uint8], blocks: Sequence[int], batch: int, progress: Progress
) -> dict[str, NDArray[Any]]:
    out: dict[str, NDArray[Any]] = {}
    for part in _slices(len(images), batch, "structure", progress):
        values = encoders.structure(images[part])
        missing = [block for block in blocks if block not in values]
        if missing:
            raise TrainingError(f"the CLIP model gives no structure of block {missing[0]}; choose from {list(values)}")
        for block in blocks:
            whole = out.setdefault(f"s{block}", np.empty((len(images), values[block].shape[1]), np.float16))
            whole[part] = values[block]
    return out
