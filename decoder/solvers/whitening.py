"""Whitening of what is decoded: components that vary little among pictures count for more.

Ridge is right on average about the whole of a picture's features, and so mostly about the few components that vary
most among pictures. Two pictures are told apart by each component's deviation held against its variance, as in linear
discriminant analysis: small components that are decoded well say as much as large ones. Decoded components are divided
by their variance to some power, and multiplied by the slope with which held-out truth follows them, 0 at least.
"""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decoder.errors import TrainingError
from decoder.solvers.principal import principal_axes

Array = NDArray[np.float32]

AXES_FROM = 2000
"""Of so many rows at most, spread over all, axes are found."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """A linear map of decoded deviations from the mean.

    Attributes
    ----------
    axes : ndarray, shape (n_units, n_components), float32
        Principal axes of the true features, of unit length.
    gains : ndarray, shape (n_components,), float32
    """

    axes: Array
    gains: Array

    def __call__(self, deviations: Array) -> Array:
        """Map deviations (n, n_units)."""
        return np.asarray((deviations @ self.axes * self.gains) @ self.axes.T, np.float32)


def fit_whitening(true: Array, predictions: Array, power: float) -> Whitening:
    """Find the whitening of a feature's decoded deviations.

    Parameters
    ----------
    true, predictions : ndarray, shape (n, n_units), float32
        Of the same windows; predictions of held-out ones.
    power : float
        Of the variance that is divided out: 0.5 makes components equally large, 1 weighs them as linear discriminants.

    Returns
    -------
    Whitening
        Its gains keep the spread of all predictions together; all are 0 where held-out truth follows none.

    Raises
    ------
    TrainingError
        If a number is not finite.
    """
    mean = true.mean(axis=0)
    deviations, decoded = true - mean, predictions - mean
    before = np.einsum("ij,ij->", decoded, decoded, dtype=np.float64)
    if not (np.isfinite(before) and np.isfinite(mean).all()):
        raise TrainingError("structure cannot be whitened: features of pictures, or what is decoded, are not finite")
    _, axes = principal_axes(true[:: -(-len(true) // AXES_FROM)])
    wanted, found = (np.asarray(each @ axes, np.float64) for each in (deviations, decoded))
    energy = np.square(found).sum(axis=0)
    slope = np.divide((wanted * found).sum(axis=0), energy, out=np.zeros_like(energy), where=energy > 0)
    gains = slope.clip(0) / wanted.var(axis=0) ** power
    after = (np.square(gains) * energy).sum()
    if not after > 0:
        logger.warning("held-out windows confirm nothing of a block of structure: it is decoded as its mean")
    scale = np.sqrt(before / after) if after > 0 else 0.0
    return Whitening(axes, np.asarray(gains * scale, np.float32))
