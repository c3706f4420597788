"""Decoded features: what the engine takes in."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


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


@dataclass(frozen=True, slots=True)
class Features:
    """What a decoder says of one window.

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
    layout : ndarray, shape of z, float32, or None
        The latent that goes with `s`, as the prior of structure tells it: where stage 2 begins.
    """

    window_id: str
    c: NDArray[np.float32]
    z: NDArray[np.float32] | None = None
    s: dict[int, LayerTarget] = field(default_factory=dict)
    confidence: float = 0.0
    categories: dict[str, float] = field(default_factory=dict)
    e: NDArray[np.float32] | None = None
    layout: NDArray[np.float32] | None = None
