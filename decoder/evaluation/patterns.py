"""Which channels and latencies carry what a decoder reads: patterns, as its weights do not show it.

A weight says how a channel is used, which may be to cancel another channel's noise. The pattern says how the channel
moves with the decoded feature (Haufe et al. 2014, NeuroImage 87, eq. 6: A = cov(X) W cov(S)^-1).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.errors import TrainingError

Floats = NDArray[np.float64]

LEAST_SHARE = 1e-9
"""A component with less than this share of the decoded variance is rounding error."""


@dataclass(frozen=True, slots=True, eq=False)
class Patterns:
    """Patterns of the signal that go with a decoded feature, along the feature's own principal axes.

    Attributes
    ----------
    components : ndarray, shape (n_components, n_channels, n_times)
        In the signal's unit for one standard deviation of the component; the largest deflection is positive.
    shares : ndarray, shape (n_components,)
        Of the decoded variance.
    strength : ndarray, shape (n_channels, n_times)
        Root of the summed squares over components: how much of the signal's standard deviation moves with them.
    """

    components: Floats
    shares: Floats
    strength: Floats

    def peak(self, times: Floats) -> float:
        """Return the time (s) at which the strength, root mean square over channels, is greatest."""
        return float(times[int((self.strength**2).mean(axis=0).argmax())])


def patterns(data: NDArray[np.floating[Any]], decoded: NDArray[np.floating[Any]], *, n_components: int = 5) -> Patterns:
    """Compute the patterns of a feature of many numbers along the principal axes of what was decoded.

    With S = X W, cov(X) W is cov(X, S), so the decoder's output is all that is needed; for a decoder that is not linear
    this is the pattern of the linear one nearest to it. Along the principal axes cov(S) is diagonal, and its inverse
    well conditioned: each pattern is cov(x, s) / var(s), scaled here to one standard deviation of s.

    Parameters
    ----------
    data : ndarray, shape (n, n_channels, n_times)
    decoded : ndarray, shape (n, n_targets)
        What the decoder makes of them.
    n_components : int
        At most so many; fewer where the decoded feature has fewer.

    Raises
    ------
    TrainingError
        If the decoder says the same of every window.
    """
    S = _centred(decoded)
    left, spread, _ = np.linalg.svd(S, full_matrices=False)
    power = spread**2
    if not len(power) or power[0] <= 0:
        raise TrainingError(f"the decoder says the same of all {len(S)} windows; a constant has no pattern")
    n_kept = min(n_components, int((power > LEAST_SHARE * power.sum()).sum()))
    flat = left[:, :n_kept].T @ _centred(data) / np.sqrt(len(S))
    largest = np.abs(flat).argmax(axis=1)
    flat *= np.sign(flat[np.arange(n_kept), largest])[:, None]
    components = flat.reshape(n_kept, *data.shape[1:])
    return Patterns(components, power[:n_kept] / power.sum(), np.sqrt((components**2).sum(axis=0)))


def _centred(rows: NDArray[np.floating[Any]]) -> Floats:
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    return np.asarray(flat - flat.mean(axis=0))
