"""Decoded features of a stream of overlapping windows, smoothed over time."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from decoder.features import Features

Array = NDArray[np.float32]
FORGOTTEN = 5.0
"""Time constants after which what was decoded before has no say: a pause begins anew."""


@dataclass(slots=True)
class FeatureSmoother:
    """An exponential mean of features over time: what is `seconds` old counts for a 1/e of what is new.

    Parameters
    ----------
    seconds : float
        Time constant.
    """

    seconds: float
    _last: Features | None = field(default=None, init=False)
    _onset: float = field(default=0.0, init=False)

    def update(self, features: Features, onset: float) -> Features:
        """Take a window's features in, and return them smoothed; its confidence and evidence stay its own.

        The mean begins anew after a pause, and where time runs back, as at a restart of the source.

        Parameters
        ----------
        features : Features
            Of finite numbers.
        onset : float
            Of the window, in seconds.
        """
        passed = onset - self._onset
        if self._last is not None and 0 < passed < FORGOTTEN * self.seconds:
            features = _mixed(features, self._last, math.exp(-passed / self.seconds))
        self._last, self._onset = features, onset
        return features


def _mixed(new: Features, old: Features, share: float) -> Features:
    """Mix features, of which the old have that share."""

    def mean(one: Array, other: Array | None) -> Array:
        if other is None or one.shape != other.shape:
            return one
        return np.asarray((1 - share) * one + share * other, np.float32)

    def known(one: Array | None, other: Array | None) -> Array | None:
        return None if one is None else mean(one, other)

    blocks = {
        block: replace(target, values=mean(target.values, old.s[block].values)) if block in old.s else target
        for block, target in new.s.items()
    }
    latent = known(new.structure_latent, old.structure_latent)
    return replace(
        new, c=mean(new.c, old.c), z=known(new.z, old.z), e=known(new.e, old.e), s=blocks, structure_latent=latent
    )
