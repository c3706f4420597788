"""Classifiers of single trials: how a few kinds of picture are told apart.

Three ways, for three kinds of answer. `erp`: Xdawn (Rivet et al. 2009) finds, for each category, the spatial filters in
which its mean response stands out; the covariance of a trial, filtered so, with those mean responses carries both the
size and the shape of its response (Barachant & Congedo 2014); covariances are mapped to the tangent space at their
geometric mean (Barachant et al. 2012) and classified by logistic regression. `frequency`: canonical correlation of the
channels with sines and cosines of each category's flicker (Lin et al. 2006, IEEE TBME 53; Bin et al. 2009, J. Neural
Eng. 6). `pattern`: linear discriminants with a shrunk covariance, of what the preprocessing leaves of a window.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from decoder.errors import TrainingError
from decoder.preprocessing.preprocess import PreprocessSpec, fit_preprocessor
from decoder.solvers.rank import whitening_of_range
from decoder.solvers.riemann import Floats, geometric_mean, matrix_function, tangent_space

Data = NDArray[np.floating[Any]]

MEAN_TOLERANCE = 1e-4
"""How near the tangent point is to the geometric mean: nearer changes no probability, and takes twice as long."""
LEAST_SPREAD = 1e-3
"""Share of the largest singular value of a window below which a direction of its channels is rounding errors."""
STEEPEST = 50.0
"""Largest factor on log-odds of canonical correlations."""


Edge = Annotated[float, Field(gt=0)] | None


class ChooseSpec(BaseModel):
    """What a decoder of categories may go by: chosen by held-out runs of its own training part."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    bands: Annotated[tuple[tuple[Edge, Edge], ...], Field(min_length=1)] = (
        (None, 20),
        (None, 30),
        (None, 12),
        (2.5, 20),
        (2.5, 30),
        (2.5, 12),
    )
    """erp: lower and upper edges in Hz, within those of `filters`; null: none. The filters have no delay: they work on
    whole windows."""
    shares: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (1.0, 0.75)
    """erp: how much of the window, from its beginning."""
    components: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (2, 1, 4)
    """erp: spatial filters a category."""
    harmonics: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (2, 1, 3)
    """frequency: multiples of each flicker that are looked for, itself included."""
    average: Annotated[int, Field(ge=1)] = 5
    """So many of the best, at most half of them, each decode, and their log-probabilities are averaged."""


class CategorySpec(BaseModel):
    """Settings of a decoder of categories; every stimulus is a category."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    method: Literal["erp", "frequency", "pattern"] = "erp"
    """erp: responses locked to the picture (EEG, MEG); frequency: flicker (SSVEP); pattern: of channels (fMRI)."""
    choose: ChooseSpec | None = ChooseSpec()
    """erp, frequency: settings among which each training part chooses by itself; null: none, and `components`,
    `harmonics` and the window are taken as they stand."""
    components: Annotated[int, Field(ge=1)] = 2
    """erp: spatial filters a category, where they are not chosen."""
    shrinkage: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """erp: share of the identity in each trial's covariance."""
    penalty: Annotated[float, Field(gt=0)] = 10.0
    """erp: of the squared weights of the logistic regression (scikit-learn's 1 / C)."""
    frequencies: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """frequency: flicker of each category, in Hz."""
    harmonics: Annotated[int, Field(ge=1)] = 2
    """frequency: multiples of each flicker that are looked for, itself included, where they are not chosen."""
    cv_folds: Annotated[int, Field(ge=2)] = 5
    """Of a single run: stretches of time, one after the other, that are held out. Of several, each run is."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Trials of one label whose evidence is added up; then it starts anew. 1: every trial stands alone."""
    forget_after: Annotated[float, Field(gt=0)] = 30.0
    """Seconds after which earlier evidence for a label no longer counts."""

    @model_validator(mode="after")
    def _frequencies_go_with_the_method(self) -> Self:
        if (self.method == "frequency") != bool(self.frequencies):
            raise ValueError("method 'frequency', and it alone, takes frequencies: one a category, in Hz")
        return self


class Classifier(Protocol):
    """What tells k categories apart; its attributes are plain arrays, so that a bundle can hold them."""

    def __call__(self, data: Data, /) -> Floats:
        """Compute log-probabilities but for a constant, shape (n, k), of windows (n, n_channels, n_times)."""


@dataclass(frozen=True, slots=True, eq=False)
class CovarianceClassifier:
    """Fitted Xdawn filters, mean responses, tangent point and logistic weights of k categories.

    Attributes
    ----------
    filters : ndarray, shape (n_filters, n_channels), float64
    prototypes : ndarray, shape (n_filters, n_times), float64
        Each category's mean response through its own filters.
    whitener : ndarray, shape (2 n_filters, 2 n_filters), float64
        Inverse square root of the geometric mean of the training covariances.
    weights : ndarray, shape (k, n_tangent), float64
    intercept : ndarray, shape (k,), float64
    shrinkage : ndarray, shape (1,), float64
    """

    filters: Floats
    prototypes: Floats
    whitener: Floats
    weights: Floats
    intercept: Floats
    shrinkage: Floats

    def __call__(self, data: Data) -> Floats:
        """Compute log-probabilities but for a constant, shape (n, k), of windows (n, n_channels, n_times)."""
        tangent = tangent_space(
            augmented_covariances(data, self.filters, self.prototypes, self.shrinkage[0]), self.whitener
        )
        return np.asarray(tangent @ self.weights.T + self.intercept)


@dataclass(frozen=True, slots=True, eq=False)
class FrequencyClassifier:
    """Canonical correlation of a window with each category's flicker.

    Attributes
    ----------
    references : ndarray, shape (k, 2 n_harmonics, n_times), float64
        Orthonormal basis of the centred sines and cosines of each category.
    gain : ndarray, shape (1,), float64
        Factor on the log-odds of the squared correlation.
    """

    references: Floats
    gain: Floats

    def __call__(self, data: Data) -> Floats:
        """Compute log-probabilities but for a constant, shape (n, k), of windows (n, n_channels, n_times)."""
        shared = np.clip(canonical_correlations(data, self.references) ** 2, 1e-9, 1 - 1e-9)
        return np.asarray(self.gain[0] * np.log(shared / (1 - shared)))


@dataclass(frozen=True, slots=True, eq=False)
class PatternClassifier:
    """A linear map from windows, averaged in time, to log-probabilities.

    Attributes
    ----------
    binning : ndarray, shape (n_times, n_bins), float32
    weights : ndarray, shape (n_channels * n_bins, k), float64
    intercept : ndarray, shape (k,), float64
    """

    binning: NDArray[np.float32]
    weights: Floats
    intercept: Floats

    def __call__(self, data: Data) -> Floats:
        """Compute log-probabilities but for a constant, shape (n, k), of windows (n, n_channels, n_times)."""
        binned = (np.asarray(data, np.float64) @ self.binning).reshape(len(data), -1)
        return np.asarray(binned @ self.weights + self.intercept)


CLASSIFIERS: dict[str, type[CovarianceClassifier] | type[FrequencyClassifier] | type[PatternClassifier]] = {
    "erp": CovarianceClassifier,
    "frequency": FrequencyClassifier,
    "pattern": PatternClassifier,
}


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """Windows of known category.

    Attributes
    ----------
    data : ndarray, shape (n, n_channels, n_times), float32
        In the order in which they were recorded.
    times : ndarray, shape (n_times,)
        Seconds from the event.
    rows : ndarray of int, shape (n,)
        Category of each window, an index of `names`.
    names : tuple of str, k of them
    runs : ndarray of str, shape (n,)
        The recording that each window is from.
    """

    data: NDArray[np.float32]
    times: Floats
    rows: NDArray[np.intp]
    names: tuple[str, ...]
    runs: NDArray[np.str_]

    def take(self, chosen: NDArray[np.intp]) -> "Trials":
        """Return some of the windows."""
        return Trials(self.data[chosen], self.times, self.rows[chosen], self.names, self.runs[chosen])


def fit_classifier(trials: Trials, spec: CategorySpec, preprocess: PreprocessSpec | None = None) -> Classifier:
    """Train on windows; every category must be there.

    Parameters
    ----------
    trials : Trials
    spec : CategorySpec
    preprocess : PreprocessSpec, optional
        Of `pattern`.

    Raises
    ------
    TrainingError
        If a category has no window or no frequency, no sample lies within the preprocessing's times, or all channels
        are flat.
    """
    counts = np.bincount(trials.rows, minlength=len(trials.names))
    if not counts.all():
        raise TrainingError(f"no window of category {trials.names[int(counts.argmin())]!r} is left to learn from")
    if spec.method == "frequency":
        return _fit_frequency(trials, spec)
    if spec.method == "pattern":
        return _fit_pattern(trials, preprocess or PreprocessSpec())
    return _fit_erp(trials, spec)


def _fit_erp(trials: Trials, spec: CategorySpec) -> CovarianceClassifier:
    from sklearn.linear_model import LogisticRegression

    filters, prototypes = xdawn(trials.data, trials.rows, spec.components)
    covariances = augmented_covariances(trials.data, filters, prototypes, spec.shrinkage)
    whitener = matrix_function(geometric_mean(covariances, MEAN_TOLERANCE), lambda values: values**-0.5)
    model = LogisticRegression(C=1 / spec.penalty, max_iter=5000).fit(tangent_space(covariances, whitener), trials.rows)
    weights, intercept = _every_category(model)
    return CovarianceClassifier(filters, prototypes, whitener, weights, intercept, np.array([spec.shrinkage]))


def _fit_frequency(trials: Trials, spec: CategorySpec) -> FrequencyClassifier:
    missing = [name for name in trials.names if name not in spec.frequencies]
    if missing:
        raise TrainingError(
            f"category {missing[0]!r} has no frequency; name one in decoder.models.category.frequencies"
        )
    references = np.stack([_flicker(spec.frequencies[name], spec.harmonics, trials.times) for name in trials.names])
    plain = FrequencyClassifier(references, np.ones(1))
    gain = best_factor(plain(trials.data), trials.rows, STEEPEST)
    return FrequencyClassifier(references, np.array([gain]))


def _flicker(frequency: float, harmonics: int, times: Floats) -> Floats:
    phase = 2 * np.pi * frequency * np.outer(np.arange(1, harmonics + 1), times)
    waves = np.concatenate([np.sin(phase), np.cos(phase)])
    return np.asarray(np.linalg.qr((waves - waves.mean(axis=1, keepdims=True)).T)[0].T)


def _fit_pattern(trials: Trials, spec: PreprocessSpec) -> PatternClassifier:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    prepare = fit_preprocessor(trials.data, trials.times, spec)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(prepare(trials.data), trials.rows)
    weights, intercept = _every_category(model)
    return PatternClassifier(
        prepare.binning, prepare.matrix @ weights.T, intercept - prepare.offset.astype(np.float64) @ weights.T
    )


def _every_category(model: Any) -> tuple[Floats, Floats]:
    """Return weights and intercept of each category; of two, scikit-learn keeps the difference."""
    weights, intercept = model.coef_, model.intercept_
    if len(weights) == 1:
        weights, intercept = np.concatenate([-weights, weights]) / 2, np.concatenate([-intercept, intercept]) / 2
    return weights, intercept


def canonical_correlations(data: Data, references: Floats) -> Floats:
    """Largest canonical correlation of the channels with each set of references.

    Parameters
    ----------
    data : ndarray, shape (n, n_channels, n_times)
    references : ndarray, shape (k, m, n_times)
        Each with orthonormal rows of mean 0.

    Returns
    -------
    correlation : ndarray, shape (n, k), float64
    """
    centred = np.asarray(data, np.float64)
    centred = centred - centred.mean(axis=2, keepdims=True)
    # Singular vectors, not QR: channels may be linearly dependent, as after an average reference.
    _, sizes, basis = np.linalg.svd(centred, full_matrices=False)
    basis = basis * (sizes > LEAST_SPREAD * sizes.max(axis=1, keepdims=True))[..., None]
    overlap = np.einsum("nct,kmt->nkcm", basis, references, optimize=True)
    return np.asarray(np.linalg.svd(overlap, compute_uv=False)[..., 0])


def softmax(logits: Floats) -> Floats:
    """Probabilities of log-probabilities, along the last axis."""
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


def best_factor(logits: Floats, rows: NDArray[np.intp], largest: float) -> float:
    """Factor in [0, `largest`] on log-probabilities under which the truth is most likely (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    def surprise(factor: float) -> float:
        return float(-np.log(softmax(factor * logits)[np.arange(len(rows)), rows] + 1e-300).mean())

    return float(minimize_scalar(surprise, bounds=(0.0, largest), method="bounded").x)


def xdawn(data: Data, rows: NDArray[np.intp], n_components: int) -> tuple[Floats, Floats]:
    """Fit spatial filters that raise each category's mean response over everything else.

    Maximises w' S_k w / w' S w, with S_k the covariance of category k's mean response and S that of the signal, in the
    range of S. On channels of full rank these are pyriemann's filters; own code, because pyriemann 0.12 refuses most
    recordings with an average reference, whose S has no full rank (6 of 8 simulated ones).

    Parameters
    ----------
    data : ndarray, shape (n, n_channels, n_times)
    rows : ndarray of int, shape (n,)
    n_components : int
        At most the rank of the signal is taken.

    Returns
    -------
    filters : ndarray, shape (n_filters, n_channels)
        Categories one after the other.
    prototypes : ndarray, shape (n_filters, n_times)
    """
    from scipy.linalg import eigh

    if data.shape[2] < 2:
        raise TrainingError("method 'erp' goes by responses over time, and a window is one sample; take 'pattern'")
    data = np.asarray(data, np.float64)
    signal: Floats = np.atleast_2d(np.cov(data.transpose(1, 0, 2).reshape(data.shape[1], -1))).astype(np.float64)
    whitening = whitening_of_range(signal)
    if not whitening.size:
        raise TrainingError(f"all {len(signal)} channels are flat; there is nothing to tell categories apart by")
    filters, prototypes = [], []
    for category in range(int(rows.max()) + 1):
        response = data[rows == category].mean(axis=0)
        stands_out = np.atleast_2d(np.cov(response))
        if whitening.shape[1] == len(signal):
            _, vectors = eigh(stands_out, signal)
        else:
            vectors = whitening @ eigh(whitening.T @ stands_out @ whitening)[1]
        chosen = vectors[:, ::-1][:, :n_components].T
        filters.append(chosen)
        prototypes.append(chosen @ response)
    return np.concatenate(filters), np.concatenate(prototypes)


def augmented_covariances(data: Data, filters: Floats, prototypes: Floats, shrinkage: float) -> Floats:
    """Covariances of [prototypes; filtered trial], shape (n, 2 n_filters, 2 n_filters), shrunk toward the identity."""
    filtered = filters @ np.asarray(data, np.float64)
    stacked = np.concatenate([np.broadcast_to(prototypes, (len(data), *prototypes.shape)), filtered], axis=1)
    stacked = stacked - stacked.mean(axis=2, keepdims=True)
    covariances = stacked @ stacked.transpose(0, 2, 1) / stacked.shape[2]
    size = covariances.shape[1]
    level = np.trace(covariances, axis1=1, axis2=2) / size
    return np.asarray((1 - shrinkage) * covariances + shrinkage * level[:, None, None] * np.eye(size))
