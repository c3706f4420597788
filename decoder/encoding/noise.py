"""The noise of responses: their covariance over channels and times, and the maps that whiten it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

LARGEST = 1000
"""Responses of whose errors a whole covariance is estimated; of more, one of times, and one of channels by mode."""
STEPS = 10
"""Of the alternation between channels and times; a handful suffices."""


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """A Gaussian of errors, as the map that whitens them.

    Attributes
    ----------
    scale : ndarray, shape (n_responses,), float64
        Standard deviation of errors, by response or by channel; 0 of what does not vary, which counts for nothing.
    modes : ndarray, shape (b, b), float64
        From times to temporal modes, whose errors are uncorrelated on average over channels: scaled errors (n, a, b)
        are multiplied by it from the right. Of a whole covariance b is 1.
    channels : ndarray, shape (b, a, a), float64
        Whitens each mode over channels: slow and fast noise, and rhythms, come from different places. Symmetric. Of a
        whole covariance a is the number of responses.
    """

    scale: Floats
    modes: Floats
    channels: Floats

    def whiten(self, responses: NDArray[np.floating]) -> Array:
        """Map responses (n, n_responses), or differences of them, to where errors are of unit covariance."""
        b, a = self.channels.shape[:2]
        scaled = np.divide(responses, self.scale, out=np.zeros(responses.shape), where=self.scale > 0)
        by_mode = np.moveaxis(scaled.reshape(-1, a, b) @ self.modes, 2, 0) @ self.channels
        return np.ascontiguousarray(np.moveaxis(by_mode, 0, 2).reshape(len(responses), -1), np.float32)

    def colour(self, whitened: NDArray[np.floating]) -> Array:
        """Map back what `whiten` gives, shape (n, n_responses); what does not vary is 0."""
        b, a = self.channels.shape[:2]
        by_mode = np.moveaxis(whitened.reshape(-1, a, b), 2, 0) @ np.linalg.inv(self.channels)
        scaled = np.moveaxis(by_mode, 0, 2) @ np.linalg.inv(self.modes)
        return np.asarray(scaled.reshape(len(whitened), -1) * self.scale, np.float32)


def fit_noise(errors: NDArray[np.floating], n_channels: int) -> Noise:
    """Estimate the covariance of errors: whole where it is small, else of times, and of channels by temporal mode.

    Each response, or channel, is scaled to unit variance; what remains is shrunk toward the identity as far as so many
    errors ask for (Ledoit & Wolf 2004, J. Multivar. Anal. 88). Of channels and times it begins with the Kronecker
    product that is most likely (Dutilleul 1999, J. Stat. Comput. Simul. 64), each of the two shrunk. The modes are the
    principal axes of its times, and each has a covariance of channels of its own, shrunk toward the product.

    Parameters
    ----------
    errors : ndarray, shape (n, n_channels * n_times)
        Of mean 0.
    n_channels : int
    """
    scale = np.sqrt(np.square(errors, dtype=np.float64).mean(axis=0))
    n, n_responses = errors.shape
    whole = n_responses <= LARGEST
    if not whole:
        by_channel = np.sqrt(np.square(scale).reshape(n_channels, -1).mean(axis=1))
        scale = np.repeat(by_channel, n_responses // n_channels)
    scale[scale <= 1e-6 * scale.max(initial=0)] = 0
    scaled = np.divide(errors, scale, out=np.zeros(errors.shape), where=scale > 0)
    maps = scaled.reshape(n, n_responses if whole else n_channels, -1)
    # What does not vary is left as it is, and tells nothing about the rest.
    alive = maps.any(axis=(0, 2))
    n_times = maps.shape[2]
    modes, channels = np.eye(n_times), np.tile(np.eye(maps.shape[1]), (n_times, 1, 1))
    maps = maps[:, alive]
    inner = np.eye(maps.shape[1])
    for _ in range(STEPS if n_times > 1 and maps.size else 1):
        inner = _shrunk_whitener(np.swapaxes(maps @ modes, 1, 2).reshape(-1, len(inner)))
        if n_times > 1:
            modes = _shrunk_whitener((inner @ maps).reshape(-1, n_times))
    if n_times == 1:
        channels[np.ix_([0], alive, alive)] = inner
        return Noise(scale, modes, channels)
    modes = modes @ np.linalg.eigh(modes)[1]
    for mode, weights in enumerate(modes.T):
        rest = _shrunk_whitener((maps @ weights) @ inner)
        both = inner @ rest
        values, vectors = np.linalg.eigh(both @ both.T)
        channels[np.ix_([mode], alive, alive)] = (vectors * np.sqrt(values)) @ vectors.T
    return Noise(scale, modes, channels)


def shrunk_covariance(errors: NDArray[np.floating]) -> Floats:
    """Estimate the covariance of errors (n, m) about 0, shrunk toward its diagonal (Ledoit & Wolf 2004)."""
    from sklearn.covariance import ledoit_wolf

    scale = np.sqrt(np.square(errors, dtype=np.float64).mean(axis=0))
    scale = np.maximum(scale, 1e-6 * scale.max(initial=0) + np.finfo(np.float64).tiny)
    correlation = ledoit_wolf(errors / scale, assume_centered=True)[0]
    return np.asarray(scale[:, None] * correlation * scale)


def symmetric_power(covariance: Floats, power: float) -> Floats:
    """Raise a symmetric matrix, of no eigenvalue of 0 or less, to a power."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * values**power) @ vectors.T)


def _shrunk_whitener(samples: Floats) -> Floats:
    """Return the symmetric inverse square root of the shrunk covariance of samples (n, m) about 0."""
    from sklearn.covariance import ledoit_wolf

    if not samples.any():
        return np.eye(samples.shape[1])
    return symmetric_power(ledoit_wolf(samples, assume_centered=True)[0], -0.5)
