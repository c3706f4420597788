"""The nearest of many captions in place of a decoded mean of captions.

What ridge decodes of `c` is a mean over what a window may mean, and no caption has such hidden states; a UNet draws it
vaguely. Where the decoded mean is near the truth, the nearest caption of pictures that nobody was shown says the same
in words that the UNet knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.evaluation.metrics import correlation_matrix
from decoder.features import Features

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NearestCaption:
    """Captions to choose from, as the UNet is conditioned on them.

    Attributes
    ----------
    states : ndarray, shape (n_captions, n_active), float16
        The decoded numbers of each caption's hidden states; no two are the same.
    """

    states: NDArray[np.float16]

    @cached_property
    def _mean(self) -> Array:
        return np.asarray(self.states.mean(axis=0, dtype=np.float32))

    def __call__(self, found: list[Features], active: NDArray[np.bool_]) -> list[Features]:
        """Return features with `c` of the caption that correlates most, about the mean of all, with the decoded `c`.

        Parameters
        ----------
        found : list of Features
        active : ndarray of bool, shape (n_numbers,)
            Which numbers of `c` are decoded; the others stay.
        """
        decoded = np.stack([one.c.reshape(-1)[active] for one in found])
        nearest = correlation_matrix(self.states - self._mean, decoded - self._mean).argmax(axis=0)
        out = []
        for one, row in zip(found, nearest, strict=True):
            c = one.c.copy()
            c.reshape(-1)[active] = self.states[row]
            out.append(replace(one, c=c))
        return out

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that was fitted, by name."""
        return {"states": self.states}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "NearestCaption":
        """Rebuild from `tensors()`."""
        return cls(tensors["states"].astype(np.float16))

    @classmethod
    def of(cls, c: Array, active: NDArray[np.int32]) -> "NearestCaption":
        """Choose among captions by hidden states (n, tokens, dims), of which `active` flat numbers are decoded."""
        return cls(np.unique(c.reshape(len(c), -1)[:, active].astype(np.float16), axis=0))
