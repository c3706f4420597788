"""The nearest of many captions in place of a decoded mean of captions.

What ridge decodes of `c` is a mean over what a window may mean, and no caption has such hidden states; a UNet draws it
vaguely. Where the decoded mean is near the truth, the nearest caption of pictures that nobody was shown says the same
in words that the UNet knows. Of a picture with several captions it is their mean, as in training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.evaluation.metrics import standardise
from decoder.features import Features, with_numbers

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NearestCaption:
    """Captions to choose from, as the UNet is conditioned on them.

    Attributes
    ----------
    states : ndarray, shape (n_captions, n_active), float16
        The decoded numbers of each caption's hidden states; no two are the same.
    centre : ndarray, shape (n_active,), float32
        What is decoded of a window that says nothing.
    """

    states: NDArray[np.float16]
    centre: Array

    @cached_property
    def _directions(self) -> Array:
        return standardise(self.states - self.states.mean(axis=0, dtype=np.float32))

    def __call__(self, found: list[Features], active: NDArray[np.bool_]) -> list[Features]:
        """Return features with `c` of the caption that goes most in the direction of the decoded `c`.

        Directions are from the mean of all captions, and from what is decoded of no window; by correlation. Where
        nothing at all is believed, or decoded, `c` stays.

        Parameters
        ----------
        found : list of Features
        active : ndarray of bool, shape (n_numbers,)
            Which numbers of `c` are decoded; the others stay.
        """
        decoded = standardise(np.stack([one.c.reshape(-1)[active] for one in found]) - self.centre)
        nearest = (decoded @ self._directions.T).argmax(axis=1)
        return [
            replace(one, c=with_numbers(one.c, active, self.states[row]))
            if one.confidence > 0 and direction.any()
            else one
            for one, direction, row in zip(found, decoded, nearest, strict=True)
        ]

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that was fitted, by name."""
        return {"states": self.states, "centre": self.centre}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "NearestCaption":
        """Rebuild from `tensors()`."""
        return cls(tensors["states"].astype(np.float16), tensors["centre"])

    @classmethod
    def of(cls, c: Array, active: NDArray[np.int32], centre: Array) -> "NearestCaption":
        """Choose among captions by hidden states (n, tokens, dims), of which `active` flat numbers are decoded."""
        return cls(np.unique(c.reshape(len(c), -1)[:, active].astype(np.float16), axis=0), centre)
