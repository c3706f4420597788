"""What eager torch makes of random inputs: what every backend's output must be, whatever else is in its batch.

It is computed once for a set of weights and kept, because every backend is compared with the same.
"""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.backends.base import run_part
from engine.backends.cache import EngineCache, Key
from engine.backends.export import INPUTS, weights_hash
from engine.backends.torch import TorchBackend
from engine.models.batches import LARGEST
from engine.models.loading import Models
from engine.models.parts import Part, parts_of

_FILE = "reference.safetensors"
_ROWS = LARGEST
_ROOM = 1 << 28


@dataclass(frozen=True, slots=True)
class Reference:
    """Inputs and outputs of each network, row by row.

    Attributes
    ----------
    inputs : dict of part to tuple of Tensor
        `LARGEST` rows each, in the order in which a backend's method takes them.
    outputs : dict of part to Tensor
        float32; each row was computed alone.
    """

    inputs: dict[Part, tuple[Tensor, ...]]
    outputs: dict[Part, Tensor]

    def rows(self, part: Part, first: int, count: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return inputs and output of `count` rows from `first` on; after the last comes the first again."""
        chosen = (torch.arange(first, first + count) % _ROWS).to(self.outputs[part].device)
        return tuple(tensor[chosen] for tensor in self.inputs[part]), self.outputs[part][chosen]


def reference_of(models: Models, cache: EngineCache | None, seed: int = 0) -> Reference:
    """Return the reference for some weights: the cache's, or a fresh one that is kept.

    Parameters
    ----------
    models : Models
        Read with their weights where nothing is kept yet.
    cache : EngineCache or None
    seed : int
        Of the inputs.

    Raises
    ------
    CacheError
        If the cache cannot be written.
    """
    if cache is None:
        return _compute(models, seed)
    from safetensors.torch import load_file, save_file

    parts = parts_of(models)

    def build(folder: Path) -> None:
        made = _compute(models, seed)
        tensors = {f"{part}.{place}": tensor for part in parts for place, tensor in enumerate(made.inputs[part])}
        tensors |= {f"{part}.out": made.outputs[part] for part in parts}
        save_file(tensors, folder / _FILE)

    entry = cache.get(reference_key(models, seed), build, room=_ROOM)
    tensors = load_file(entry / _FILE, device=str(models.device))
    inputs = {part: tuple(tensors[f"{part}.{place}"] for place in range(len(INPUTS[part]))) for part in parts}
    return Reference(inputs, {part: tensors[f"{part}.out"] for part in parts})


def reference_key(models: Models, seed: int = 0) -> Key:
    """Return what a reference depends on."""
    return {
        "kind": "reference",
        "rows": _ROWS,
        "seed": seed,
        "dtype": str(models.dtype),
        "device": models.device.type,
        "scaling": f"{models.autoencoder.scaling} {models.autoencoder.shift}",
        **{part: weights_hash(models, part) for part in parts_of(models)},
        **{package: version(package) for package in ("torch", "diffusers")},
    }


def _compute(models: Models, seed: int) -> Reference:
    eager = TorchBackend(models)
    inputs = _inputs(models, np.random.default_rng(seed))
    outputs = {}
    for part in parts_of(models):
        rows = [tuple(tensor[row : row + 1] for tensor in inputs[part]) for row in range(_ROWS)]
        outputs[part] = torch.cat([run_part(eager, part, row) for row in rows]).contiguous()
    return Reference(inputs, outputs)


def _inputs(models: Models, rng: np.random.Generator) -> dict[Part, tuple[Tensor, ...]]:
    """Draw inputs; each row has its own timestep and length of caption, and all of a picture embedding's tokens."""

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal((_ROWS, *shape), np.float32)).to(models.device, models.dtype)

    timesteps = torch.from_numpy(rng.permutation(np.arange(1, 1000))[:_ROWS]).to(models.device)
    lengths = torch.from_numpy(rng.integers(1, models.tokens + 1, (_ROWS, 1)))
    place = torch.arange(models.context_tokens)
    mask = ((place < lengths) | (place >= models.tokens)).to(models.device)
    c = normal(models.context_tokens, models.context_dim)
    unet = (normal(*models.latent_shape), timesteps, c, mask)
    return {part: unet if part == "unet" else (normal(*models.latent_shape),) for part in parts_of(models)}
