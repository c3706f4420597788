"""From a window to the few numbers a decoder reads, with everything fitted on training windows only."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from decoder.errors import TrainingError
from decoder.solvers.kernel import Kernel, fit_kernel
from decoder.solvers.rank import TOLERANCE, rank
from decoder.solvers.ridge import decompose

Array = NDArray[np.float32]

BIN_S = 0.016
"""Seconds of samples that `decimate: auto` averages into one: half a period of what a low-pass of 30 Hz leaves."""


class PreprocessSpec(BaseModel):
    """What is done to windows before regression."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    compress: Literal["none", "sqrt"] = "none"
    """sqrt: sign-keeping square root first; evens out the variance of spike counts."""
    tmin: float | None = None
    """First time used, in seconds from the event; None: the window's own."""
    tmax: float | None = None
    """Last time used, in seconds from the event; None: the window's own."""
    decimate: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    """So many samples in a row are averaged into one; auto: as many as last about 16 ms."""
    whiten: bool = False
    """Multivariate noise normalisation: channels are whitened by their shrunk covariance."""
    whiten_time: bool = False
    """Whiten over time, too: what is slow is mostly noise, and counts as much as it is told from noise."""
    components: Annotated[int, Field(ge=1)] | None = 300
    """Principal components kept of the z-scored inputs; None: all inputs as they are."""
    kernel: Literal["linear", "rbf"] = "linear"
    """rbf: ridge in the space of a Gaussian kernel, which can follow what features do not tell in proportion, such as
    contrast that has no polarity. Wants little noise: single EEG trials are no better for it."""
    kernel_width: Annotated[float, Field(gt=0)] = 1.0
    """rbf: its standard deviation, in units of the inputs' root mean square distance from their mean."""
    landmarks: Annotated[int, Field(ge=2)] = 2000
    """rbf: at most so many training windows span the kernel's space; where all do, it is kernel ridge."""


@dataclass(frozen=True, slots=True, eq=False)
class Preprocessor:
    """A fitted map from windows to inputs: affine, and after it a kernel's where one is wanted.

    Whitening, z-scoring and projection are all linear, so they are carried, and applied, as one matrix: after
    averaging in time, one window costs one product.

    Attributes
    ----------
    binning : ndarray, shape (n_times, n_bins), float32
        Picks times and averages them; whitens over time.
    matrix : ndarray, shape (n_channels * n_bins, n_inputs), float32
    offset : ndarray, shape (n_inputs,), float32
        The training mean, already projected: inputs have mean 0 over the training windows.
    compress : str
        What is done before, as in `PreprocessSpec`.
    kernel : Kernel or None
        What is done after.
    """

    binning: Array
    matrix: Array
    offset: Array
    compress: str = "none"
    kernel: Kernel | None = None

    def __call__(self, data: Array) -> Array:
        """Prepare windows.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels, n_times), float32

        Returns
        -------
        inputs : ndarray, shape (n, n_inputs), float32
        """
        flat = (compressed(data, self.compress) @ self.binning).reshape(len(data), -1)
        inputs = np.asarray(flat @ self.matrix - self.offset, np.float32)
        return inputs if self.kernel is None else self.kernel(inputs)


def without_kernel(preprocessor: Preprocessor) -> Preprocessor:
    """Return the affine part of a preprocessor alone."""
    return replace(preprocessor, kernel=None)


def fit_preprocessor(data: Array, times: NDArray[np.float64], spec: PreprocessSpec) -> Preprocessor:
    """Fit the map on training windows.

    Parameters
    ----------
    data : ndarray, shape (n, n_channels, n_times), float32
    times : ndarray, shape (n_times,)
        Seconds from the event.
    spec : PreprocessSpec

    Raises
    ------
    TrainingError
        If no sample lies within the chosen times.
    """
    data = compressed(data, spec.compress)
    n, n_channels, _ = data.shape
    binning = time_bins(times, spec)
    binned = data @ binning
    whitening = noise_whitener(binned) if spec.whiten else np.eye(n_channels, dtype=np.float32)
    if spec.whiten_time:
        over = time_whitener(binned, whitening)
        binning, binned = binning @ over, binned @ over
    inputs = np.einsum("kc,nct->nkt", whitening, binned, optimize=True).reshape(n, -1)
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    # A dead channel has nothing to say; dividing by its zero spread would make it shout.
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-6 * spread.max(initial=0))
    axes = np.eye(len(scale), dtype=np.float32)
    if spec.components is not None and spec.components < len(scale):
        axes = decompose((inputs - mean) * scale).axes[:, : spec.components]
    scaled = (axes * scale[:, None]).reshape(n_channels, binning.shape[1], -1)
    matrix = np.einsum("kc,kbp->cbp", whitening, scaled, optimize=True).reshape(binned[0].size, -1)
    matrix = np.ascontiguousarray(matrix, dtype=np.float32)
    flat = binned.reshape(n, -1)
    mean = flat.mean(axis=0, dtype=np.float64).astype(np.float32)
    affine = Preprocessor(binning, matrix, mean @ matrix, spec.compress)
    if spec.kernel == "linear":
        return affine
    return replace(affine, kernel=fit_kernel(flat @ matrix - affine.offset, spec.kernel_width, spec.landmarks))


def compressed(data: Array, how: str) -> Array:
    """Apply `PreprocessSpec.compress` to windows of any shape."""
    return np.asarray(np.sign(data) * np.sqrt(np.abs(data))) if how == "sqrt" else data


def time_bins(times: NDArray[np.float64], spec: PreprocessSpec) -> Array:
    """Return the (n_times, n_bins) matrix that picks times and averages them."""
    slack = 1e-6
    low = times[0] if spec.tmin is None else spec.tmin
    high = times[-1] if spec.tmax is None else spec.tmax
    chosen = np.flatnonzero((times >= low - slack) & (times <= high + slack))
    width = bin_width(times, spec)
    n_bins = len(chosen) // width
    if n_bins == 0:
        raise TrainingError(
            f"no {width} samples lie between {low} and {high} s of a window from {times[0]} to {times[-1]} s; "
            "widen tmin and tmax"
        )
    binning = np.zeros((len(times), n_bins), dtype=np.float32)
    for place, sample in enumerate(chosen[: n_bins * width]):
        binning[sample, place // width] = 1 / width
    return binning


def bin_width(times: NDArray[np.float64], spec: PreprocessSpec) -> int:
    """Return how many samples are averaged into one."""
    if spec.decimate != "auto":
        return spec.decimate
    return 1 if len(times) < 2 else max(1, round(BIN_S / float(np.diff(times).mean())))


def noise_whitener(data: Array) -> Array:
    """Inverse square root of the Ledoit-Wolf covariance between channels about the mean response.

    Guggenmos et al. 2018, NeuroImage 173: the estimate is averaged over time points. Directions in which channels do
    not differ by more than rounding errors are left out.
    """
    from sklearn.covariance import ledoit_wolf

    noise = data - data.mean(axis=0)
    # A thousand windows settle a covariance of a few hundred channels.
    step = max(1, len(noise) // 1000)
    samples = noise[::step].transpose(0, 2, 1).reshape(-1, data.shape[1]).astype(np.float64)
    unit = samples.std() or 1.0
    covariance, shrinkage = ledoit_wolf(samples / unit)
    values, vectors = np.linalg.eigh(covariance)
    n_null = _n_null(values, shrinkage, samples / unit)
    if n_null:  # so that where there is nothing to leave out, not a bit changes
        values, vectors = values[n_null:], vectors[:, n_null:]
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T / unit, np.float32)


def _n_null(values: NDArray[np.float64], shrinkage: float, samples: NDArray[np.float64]) -> int:
    """Count directions that hold rounding errors only, as after an average reference: they must not be made large.

    Directions that too few samples leave empty are not among them: what shrinkage makes of those is what it is for.
    """
    n, n_channels = samples.shape
    empty = int((values <= np.finfo(np.float64).eps * n_channels * max(values[-1], 0)).sum())
    if empty:
        return empty
    own = values - shrinkage * values.mean()  # of the samples' covariance, but for a factor
    if n <= n_channels or own[0] > TOLERANCE * own[-1]:
        return 0
    return int(n_channels - rank(np.atleast_2d(np.cov(samples.T, bias=True))))


def time_whitener(data: Array, whitener: Array) -> Array:
    """As `noise_whitener`, between the times of windows (n, n_channels, n_times) that `whitener` whitens by channel."""
    step = max(1, len(data) // 1000)
    return noise_whitener((whitener @ data[::step]).transpose(0, 2, 1))
