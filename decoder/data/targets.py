"""What decoders are trained to predict: the features of the pictures that were shown."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.feature_registry import FEATURES, Arrays, Encoders, Feature, Pictures, feature_of
from decoder.data.stimuli import StimulusTable
from decoder.errors import TrainingError
from decoder.features import block_name, block_of
from stream.atomic import reason_of, whole_file
from stream.types.progress import Progress, no_progress

logger = logging.getLogger(__name__)


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
    seen : dict of str to ndarray, shape (n, d), float16
        What an encoding model goes by beside `s`, by group (`decoder.data.picture_features`); nothing decodes it.
    """

    c: NDArray[np.float32] | None = None
    z: NDArray[np.float32] | None = None
    s: dict[int, NDArray[np.float16]] = field(default_factory=dict)
    e: NDArray[np.float32] | None = None
    grid: int | None = None
    seen: dict[str, NDArray[np.float16]] = field(default_factory=dict)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], grid: int | None = None) -> "Targets":
        """Build targets from arrays by name: 'c', 'z', 'e', 's1', 's2', ... by CLIP block, and others' groups."""
        s = {block: value for name, value in arrays.items() if (block := block_of(name)) is not None}
        seen = {name: value for name, value in arrays.items() if feature_of(name) is None}
        return cls(arrays.get("c"), arrays.get("z"), s, arrays.get("e"), grid if s else None, seen)

    def numbers(self) -> dict[str, NDArray[np.float32]]:
        """Return by name what is decoded as a whole: c, z and e, those that there are."""
        named = {key: getattr(self, key) for key, feature in FEATURES.items() if not feature.by_block}
        return {name: value for name, value in named.items() if value is not None}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that is decoded by name: `numbers`, and the units of each block."""
        return {**self.numbers(), **{block_name(block): units for block, units in self.s.items()}}


def compute_targets(
    stimuli: StimulusTable,
    encoders: Encoders,
    *,
    features: Sequence[str] = ("c", "z", "s"),
    blocks: Sequence[int] = (1, 2, 3, 4, 5, 6),
    seen: Sequence[str] = (),
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
    seen : sequence of str
        Kinds of `decoder.data.picture_features`, computed beside them.
    cache : Path or None
        Folder of earlier results, a file a feature and block, found by the content of pictures and captions and by the
        feature space.
    batch : int
        Pictures encoded at a time.
    progress : callable

    Raises
    ------
    TrainingError
        If `c` is wanted of pictures without captions, or the encoders lack a block.
    """
    chosen = [feature for feature in FEATURES.values() if feature.key in features]
    for feature in chosen:
        if feature.needs_captions and stimuli.captions is None:
            raise TrainingError(
                f"feature {feature.key!r} needs captions, and these stimuli have none; caption them or leave "
                f"{feature.key!r} out"
            )
    arrays: dict[str, NDArray[Any]] = {}
    pictures = Pictures(stimuli, encoders, blocks, batch, progress)
    files = _Files(cache, f"{stimuli.content_hash()}\n{encoders.feature_space}" if cache is not None else "")
    for feature in chosen:
        arrays |= (
            _blocks(feature, pictures, files) if feature.by_block else files.get(feature.key, feature.compute, pictures)
        )
    for kind in seen:
        arrays |= files.get(f"seen {kind}", partial(_seen, kind), pictures)
    grid = encoders.patch_grid if "s" in features else None
    return Targets.from_arrays(arrays, grid)


@dataclass(frozen=True, slots=True)
class _Files:
    """Where features of pictures are kept: `content` says of which pictures, and by which models."""

    folder: Path | None
    content: str

    def named(self, name: str) -> Path | None:
        if self.folder is None:
            return None
        key = hashlib.sha256("\n".join([self.content, name]).encode()).hexdigest()[:24]
        return self.folder / f"targets-{key}.safetensors"

    def get(self, name: str, compute: Callable[[Pictures], Arrays], pictures: Pictures) -> Arrays:
        """Read what is kept under a name, or compute and keep it."""
        file = self.named(name)
        if (arrays := _read(file)) is None:
            arrays = compute(pictures)
            _write(arrays, file)
        return arrays


def _blocks(feature: Feature, pictures: Pictures, files: _Files) -> Arrays:
    """Compute the arrays of a feature that has one a block; those that are kept are not computed again."""
    blocks = {block_name(block): block for block in pictures.blocks}
    found = {name: _read(files.named(name)) or {} for name in blocks}
    absent = [name for name, arrays in found.items() if name not in arrays]
    made = feature.compute(replace(pictures, blocks=[blocks[name] for name in absent])) if absent else {}
    for name in absent:
        found[name] = {name: made[name]}
        _write(found[name], files.named(name))
    return {name: arrays[name] for name, arrays in found.items()}


def _seen(kind: str, pictures: Pictures) -> Arrays:
    from decoder.data.picture_features import compute_picture_features

    images, encoders = pictures.stimuli.images, pictures.encoders
    found = compute_picture_features(images, encoders, kinds=(kind,), batch=pictures.batch, progress=pictures.progress)
    return dict(found)


def _read(path: Path | None) -> Arrays | None:
    if path is None or not path.exists():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError):  # a broken cache costs its time, and nothing else
        return None


def _write(arrays: Arrays, path: Path | None) -> None:
    """Write to the cache; one that is full or read-only costs the time to compute them anew, and nothing else."""
    if path is None:
        return
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        with whole_file(path) as file:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file.name)
    except (OSError, SafetensorError) as error:
        logger.warning("targets are not kept in %s: %s", path, reason_of(error))
