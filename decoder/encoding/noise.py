"""The noise of responses: covariance of what a model did not predict, and the Gaussian likelihood that it gives."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

LARGEST = 1000
"""Responses of whose errors a whole covariance is estimated; of more, one of channels and one of times."""
STEPS = 10
"""Of the alternation between channels and times; a handful suffices."""


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """A Gaussian of errors, as the map that whitens them.

    Attributes
    ----------
    scale : ndarray, shape (n_responses,), float64
        Standard deviation of each response's errors; 0 of what does not vary, which counts for nothing.
    channels : ndarray, shape (a, a), float64
        Whitens scaled errors over channels: errors (n, a, b) are multiplied from the left, and by `times` from the
        right. Of a whole covariance a is the number of responses, and b is 1.
    times : ndarray, shape (b, b), float64
        Whitens them over times.
    """

    scale: Floats
    channels: Floats
    times: Floats

    @property
    def log_determinant(self) -> float:
        """Return the logarithm of the covariance's determinant, over the responses that vary."""
        a, b = len(self.channels), len(self.times)
        n_alive = np.count_nonzero(self.scale.reshape(a, b).any(axis=1))
        of_correlation = -2 * (b * _log_det(self.channels) + n_alive * _log_det(self.times))
        return float(2 * np.log(self.scale[self.scale > 0]).sum() + of_correlation)

    def whiten(self, responses: NDArray[np.floating]) -> Floats:
        """Map responses (n, n_responses), or differences of them, to where errors are of unit covariance."""
        scaled = np.divide(responses, self.scale, out=np.zeros(responses.shape), where=self.scale > 0)
        n, (a, b) = len(responses), (len(self.channels), len(self.times))
        return np.asarray((self.channels @ (scaled.reshape(n, a, b) @ self.times)).reshape(n, -1))

    def log_likelihood(self, predicted: NDArray[np.floating], responses: NDArray[np.floating]) -> Floats:
        """Compute how likely each response is under each prediction.

        Parameters
        ----------
        predicted : ndarray, shape (k, n_responses)
        responses : ndarray, shape (n, n_responses)

        Returns
        -------
        log_likelihood : ndarray, shape (k, n)
            Natural logarithm of the density. Of repeats of a picture it may be added.
        """
        centre = predicted.mean(axis=0, dtype=np.float64)
        x, y = self.whiten(predicted - centre), self.whiten(responses - centre)
        squared = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2 * (x @ y.T)
        n_used = np.count_nonzero(self.scale)
        return np.asarray(-0.5 * (squared + self.log_determinant + n_used * np.log(2 * np.pi)))


def fit_noise(errors: NDArray[np.floating], n_channels: int, pictures: NDArray[np.intp] | None = None) -> Noise:
    """Estimate the covariance of errors: whole where it is small, else a product of channels and times.

    Each response is scaled to unit variance; what remains is shrunk toward the identity as far as so many errors ask
    for (Ledoit & Wolf 2004, J. Multivar. Anal. 88). Of channels and times it is the Kronecker product that is most
    likely (Dutilleul 1999, J. Stat. Comput. Simul. 64), each of the two shrunk.

    Parameters
    ----------
    errors : ndarray, shape (n, n_channels * n_times)
        Held-out: those of training windows are too small.
    n_channels : int
    pictures : ndarray of int, shape (n,), or None
        That each error is of, from 0 without gaps: errors of one picture share what the model does not know of it, so
        how far covariances are shrunk is told by the means of pictures. None: errors are independent.
    """
    scale = np.sqrt(np.square(errors, dtype=np.float64).mean(axis=0))
    scale[scale <= 1e-6 * scale.max(initial=0)] = 0
    scaled = np.divide(errors, scale, out=np.zeros(errors.shape), where=scale > 0)
    n, n_responses = scaled.shape
    whole = n_responses <= LARGEST
    maps = scaled.reshape(n, n_responses if whole else n_channels, -1)
    # What does not vary is left as it is, and tells nothing about the rest.
    alive = maps.any(axis=(0, 2))
    channels, times = np.eye(maps.shape[1]), np.eye(maps.shape[2])
    maps = maps[:, alive]
    independent = (
        maps if pictures is None else np.stack([maps[pictures == one].mean(axis=0) for one in np.unique(pictures)])
    )
    inner = channels[np.ix_(alive, alive)]
    for _ in range(STEPS if maps.shape[2] > 1 and maps.size else 1):
        inner = _shrunk_whitener(
            *(np.swapaxes(each @ times, 1, 2).reshape(-1, len(inner)) for each in (maps, independent))
        )
        if maps.shape[2] > 1:
            times = _shrunk_whitener(*((inner @ each).reshape(-1, maps.shape[2]) for each in (maps, independent)))
    channels[np.ix_(alive, alive)] = inner
    return Noise(scale, channels, times)


def _shrunk_whitener(samples: Floats, independent: Floats) -> Floats:
    """Return the symmetric inverse square root of the shrunk covariance of samples (n, m) about 0."""
    from sklearn.covariance import ledoit_wolf_shrinkage, shrunk_covariance

    if not samples.any():
        return np.eye(samples.shape[1])
    shrinkage = ledoit_wolf_shrinkage(independent, assume_centered=True)
    values, vectors = np.linalg.eigh(shrunk_covariance(samples.T @ samples / len(samples), shrinkage))
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)


def _log_det(matrix: Floats) -> float:
    return float(np.linalg.slogdet(matrix)[1])
