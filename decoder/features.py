"""Decoded features: what the engine takes in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_PREFIX = "s"


def block_name(block: int) -> str:
    """Return the name of a CLIP block's decoded units: 's3' of block 3."""
    return f"{BLOCK_PREFIX}{block}"


def block_of(name: str) -> int | None:
    """Return the CLIP block of a decoded feature's name: 3 of 's3', None of 'z'."""
    digits = name.removeprefix(BLOCK_PREFIX)
    return int(digits) if digits != name and digits.isdecimal() else None


def with_numbers(
    whole: NDArray[np.float32], mask: NDArray[np.bool_], values: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """Return a copy of a feature with some of its flat numbers replaced."""
    out = whole.copy()
    out.reshape(-1)[mask] = values
    return out


@dataclass(frozen=True, slots=True)
class LayerTarget:
    """Decoded shallow CLIP features of one block (the MLP's output before the residual add).

    Attributes
    ----------
    values : ndarray, shape (n_units,), float32
        Flattened (tokens, width); numbers outside the mask are 0 and mean nothing.
    mask : ndarray, shape (n_units,), bool
        The units that were decoded well enough to be used.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a window says of a whole picture, by an encoding model (`decoder.encoding.evidence`).

    Of a picture with features f the window's log-likelihood is, but for a constant, minus half the squared length of
    `answer - sum over groups of f[group] @ maps[group]`.

    Attributes
    ----------
    answer : ndarray, shape (k,), float32
        The window, in directions where noise is of unit covariance.
    maps : dict of str to ndarray, shape (n_features, k), float32
        By group of picture features (`decoder.data.picture_features`), such as 's1'; shared by windows that one
        model decoded.
    """

    answer: NDArray[np.float32]
    maps: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Features:
    """Decoded features of one window.

    Attributes
    ----------
    window_id : str
    c : ndarray, shape (tokens, dims), float32
        Text-conditioning hidden states of the UNet's own text encoder.
    z : ndarray, shape (channels, height, width), float32, or None
        VAE latent, scaled to unit variance as the UNet takes it.
    s : dict of int to LayerTarget
        By CLIP block, counted from 1; may be empty.
    confidence : float
        In [0, 1], calibrated on held-out data: 0 is 'no better than the average picture'.
    categories : dict of str to float
        Category decoders only: posterior probability of each category from this window alone
        (what accumulated over earlier windows is in `c` and `z`).
    e : ndarray, shape (d,), float32, or None
        Pooled CLIP embedding of the picture; not of unit length, as what is decoded shrinks toward the mean picture's.
    structure_latent : ndarray, shape of z, float32, or None
        The latent that goes with `s`, as the prior of structure tells it: where stage 2 begins.
    evidence : Evidence or None
        Where the decoder holds an encoding model.
    """

    window_id: str
    c: NDArray[np.float32]
    z: NDArray[np.float32] | None = None
    s: dict[int, LayerTarget] = field(default_factory=dict)
    confidence: float = 0.0
    categories: dict[str, float] = field(default_factory=dict)
    e: NDArray[np.float32] | None = None
    structure_latent: NDArray[np.float32] | None = None
    evidence: Evidence | None = None

    @classmethod
    def from_values(
        cls,
        window_id: str,
        values: Mapping[str, NDArray[np.float32]],
        masks: Mapping[str, NDArray[np.bool_]],
        confidence: float,
        categories: Mapping[str, float] | None = None,
    ) -> "Features":
        """Build the features of a window from decoded arrays by name.

        Parameters
        ----------
        window_id : str
        values : mapping of str to ndarray
            'c', 'z', 'e', and 's1', 's2', ... by CLIP block; those that are not decoded are left out.
        masks : mapping of str to ndarray of bool
            Of each block: the units that are decoded.
        confidence : float
        categories : mapping of str to float, optional
        """
        blocks = {name: block for name in values if (block := block_of(name)) is not None}
        return cls(
            window_id,
            values.get("c", np.zeros((0, 0), np.float32)),
            values.get("z"),
            {block: LayerTarget(values[name], masks[name]) for name, block in blocks.items()},
            confidence,
            dict(categories or {}),
            values.get("e"),
        )

    def values(self, name: str) -> NDArray[np.float32] | None:
        """Return a feature's flat numbers by its name ('c', 'z', 'e', 's1', ...); None where it is not decoded."""
        block = block_of(name)
        if block is not None:
            return self.s[block].values if block in self.s else None
        array: NDArray[np.float32] | None = getattr(self, name)
        return None if array is None or not array.size else np.asarray(array, np.float32).ravel()

    def decoded(self, name: str) -> NDArray[np.float32]:
        """Return a feature's flat numbers by its name; it must be decoded."""
        values = self.values(name)
        assert values is not None, name
        return values

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of what is decoded, blocks of `s` last and in order."""
        whole = tuple(name for name in ("c", "z", "e") if self.values(name) is not None)
        return (*whole, *(block_name(block) for block in sorted(self.s)))
