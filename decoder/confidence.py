"""How far a decoded window is to be believed, learned from windows that were held out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

FLOOR = 1e-3
"""Channel energy, in training variances, that counts as silence: keeps the logarithm of a dead channel finite."""


@dataclass(frozen=True, slots=True, eq=False)
class Typicality:
    """What the energy of training windows looks like, channel by channel.

    Attributes
    ----------
    mean, spread : ndarray, shape (n_channels,), float32
        Of the samples.
    level : ndarray, shape (n_channels,), float32
        Mean log energy of a window, in training variances.
    limit : ndarray, shape (1,), float32
        99th percentile of the training windows' mean distance from `level`.
    """

    mean: Array
    spread: Array
    level: Array
    limit: Array

    def __call__(self, data: Array) -> Floats:
        """Say how much windows look like the training windows.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels, n_times), float32

        Returns
        -------
        typicality : ndarray, shape (n,)
            1 within what training windows did; falls to 0 with more noise, artefacts or silence than that.
        """
        distance = np.abs(_log_energy(data, self.mean, self.spread) - self.level).mean(axis=1)
        return np.asarray(np.exp(-np.maximum(0, distance / self.limit[0] - 1)), np.float64)


def fit_typicality(data: Array) -> Typicality:
    """Learn the channels' usual energy from training windows, shape (n, n_channels, n_times)."""
    mean = data.mean(axis=(0, 2), dtype=np.float64).astype(np.float32)
    spread = data.std(axis=(0, 2), dtype=np.float64).astype(np.float32)
    spread[spread == 0] = 1
    energy = _log_energy(data, mean, spread)
    level = energy.mean(axis=0)
    limit = np.quantile(np.abs(energy - level).mean(axis=1), 0.99)
    return Typicality(mean, spread, level, np.array([max(limit, FLOOR)], np.float32))


def _log_energy(data: Array, mean: Array, spread: Array) -> Array:
    scaled = (data - mean[:, None]) / spread[:, None]
    energy: Array = np.log(np.einsum("nct,nct->nc", scaled, scaled) / data.shape[2] + FLOOR)
    return energy


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Logistic map from statistics of a decoded window to the chance of telling its picture from another.

    Attributes
    ----------
    centre, scale : ndarray, shape (n_statistics,), float32
    coefficients : ndarray, shape (n_statistics + 1,), float32
        The last is the intercept.
    """

    centre: Array
    scale: Array
    coefficients: Array

    def __call__(self, statistics: Array) -> Floats:
        """Give the confidence, 2 P(two-way correct) - 1 clipped to [0, 1]; statistics of shape (n, n_statistics)."""
        scaled = (statistics - self.centre) / self.scale
        logit = (scaled @ self.coefficients[:-1] + self.coefficients[-1]).astype(np.float64)
        return np.asarray(np.clip(2 / (1 + np.exp(-logit)) - 1, 0, 1), np.float64)


def window_statistics(inputs: Array, deviations: list[Array]) -> Array:
    """Summarise decoded windows: log size of the inputs and of each feature's decoded deviation from its mean.

    Parameters
    ----------
    inputs : ndarray, shape (n, n_inputs)
    deviations : list of ndarray, shape (n, n_targets)

    Returns
    -------
    statistics : ndarray, shape (n, 1 + len(deviations)), float32
    """
    norms = [np.linalg.norm(each, axis=1) for each in [inputs, *deviations]]
    return np.log(np.stack(norms, axis=1) + np.finfo(np.float32).tiny).astype(np.float32)


def fit_calibration(statistics: Array, correct: Floats, *, penalty: float = 1.0) -> Calibration:
    """Fit the logistic map by iteratively reweighted least squares.

    Parameters
    ----------
    statistics : ndarray, shape (n, n_statistics)
        Of held-out windows.
    correct : ndarray, shape (n,), in [0, 1]
        Share of other pictures from which the window's own was told.
    penalty : float
        Ridge penalty on standardised coefficients (not on the intercept).
    """
    centre, scale = statistics.mean(axis=0), statistics.std(axis=0) + np.float32(1e-6)
    design = np.column_stack([(statistics - centre) / scale, np.ones(len(statistics))]).astype(np.float64)
    ridge = np.diag([penalty] * (design.shape[1] - 1) + [1e-6])
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (correct - p) - ridge @ weights
        hessian = (design * (p * (1 - p))[:, None]).T @ design + ridge
        step = np.linalg.solve(hessian, gradient)
        weights += step
        if np.abs(step).max() < 1e-8:
            break
    return Calibration(centre, scale, weights.astype(np.float32))
