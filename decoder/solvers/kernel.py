"""From inputs to the space of a Gaussian kernel, where ridge can bend: what is linear there is kernel ridge here."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

LEAST_EIGENVALUE = 1e-6
"""Axes of the kernel's space with less than this share of the largest eigenvalue are rounding errors."""


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A fitted map (Nystroem; Williams & Seeger 2001): inner products of what it gives are the kernel's.

    Exactly so between landmarks; where every training window is one, ridge on what it gives is kernel ridge.

    Attributes
    ----------
    landmarks : ndarray, shape (n_landmarks, n_inputs), float32
        Training windows' inputs.
    squares : ndarray, shape (n_landmarks,), float32
        Their squared lengths, which every window needs.
    basis : ndarray, shape (n_landmarks, rank), float32
        Inverse square root of the kernel between landmarks.
    offset : ndarray, shape (rank,), float32
        The training mean: what is given has mean 0 over the training windows.
    scale : ndarray, shape (1,), float32
        1 / (2 width^2), in the inputs' units.
    """

    landmarks: Array
    squares: Array
    basis: Array
    offset: Array
    scale: Array

    def __call__(self, inputs: Array) -> Array:
        """Map inputs (n, n_inputs) to (n, rank)."""
        near = _gaussian(inputs, self.landmarks, self.squares, self.scale)
        return np.asarray(near @ self.basis - self.offset, np.float32)


def fit_kernel(inputs: Array, width: float, n_landmarks: int) -> Kernel:
    """Fit the map on training inputs.

    Parameters
    ----------
    inputs : ndarray, shape (n, n_inputs)
        About their mean.
    width : float
        Standard deviation of the Gaussian, in units of the inputs' root mean square distance from their mean.
    n_landmarks : int
        At most so many training windows, evenly spread, span the space.
    """
    rows = np.unique(np.linspace(0, len(inputs) - 1, min(n_landmarks, len(inputs))).round().astype(np.intp))
    landmarks = np.ascontiguousarray(inputs[rows], np.float32)
    power = float(np.square(inputs, dtype=np.float64).sum(axis=1).mean()) or 1.0
    scale = np.array([1 / (2 * width**2 * power)], np.float32)
    squares = np.square(landmarks).sum(axis=1)
    between = _gaussian(landmarks, landmarks, squares, scale).astype(np.float64)
    values, vectors = np.linalg.eigh((between + between.T) / 2)
    kept = values > LEAST_EIGENVALUE * values[-1]
    basis = np.ascontiguousarray(vectors[:, kept] / np.sqrt(values[kept]), np.float32)
    plain = Kernel(landmarks, squares, basis, np.zeros(basis.shape[1], np.float32), scale)
    return replace(plain, offset=plain(inputs).mean(axis=0, dtype=np.float64).astype(np.float32))


def _gaussian(inputs: Array, landmarks: Array, squares: Array, scale: Array) -> Array:
    apart = np.square(inputs).sum(axis=1)[:, None] + squares - 2 * (inputs @ landmarks.T)
    return np.asarray(np.exp(-scale * np.maximum(apart, 0)), np.float32)
