"""A decoder of categories: which of a few kinds of picture is seen, told from covariances.

Xdawn (Rivet et al. 2009) finds, for each category, the spatial filters in which its mean response stands out. The
covariance of a trial, filtered so, with those mean responses carries both the size and the shape of its response
(Barachant & Congedo 2014). Covariances are mapped to the tangent space at their geometric mean (Barachant et al. 2012)
and classified by logistic regression.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from decoder.confidence import Typicality, fit_typicality
from decoder.errors import TrainingError
from decoder.features import Features
from stream.windows import Window

Floats = NDArray[np.float64]

MEAN_STEPS = 30
"""Of the fixed-point iteration of the geometric mean; a handful suffices."""


class CategorySpec(BaseModel):
    """How a decoder of categories is trained; every stimulus is a category."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    components: Annotated[int, Field(ge=1)] = 2
    """Spatial filters a category."""
    shrinkage: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Share of the identity in each trial's covariance."""
    penalty: Annotated[float, Field(gt=0)] = 3.0
    """Of the squared weights of the logistic regression (scikit-learn's 1 / C)."""
    cv_folds: Annotated[int, Field(ge=2)] = 5
    """Stretches of time, one after the other, by which the probabilities are calibrated and scored."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Trials of one label whose evidence is added up; then it starts anew. 1: every trial stands alone."""
    forget_after: Annotated[float, Field(gt=0)] = 30.0
    """Seconds after which earlier evidence for a label no longer counts."""


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

    def __call__(self, data: NDArray[np.floating[Any]]) -> Floats:
        """Give log-probabilities but for a constant, shape (n, k), of windows (n, n_channels, n_times)."""
        tangent = tangent_space(
            augmented_covariances(data, self.filters, self.prototypes, self.shrinkage[0]), self.whitener
        )
        return np.asarray(tangent @ self.weights.T + self.intercept)


def fit_classifier(data: NDArray[np.floating[Any]], rows: NDArray[np.intp], spec: CategorySpec) -> CovarianceClassifier:
    """Train on windows.

    Parameters
    ----------
    data : ndarray, shape (n, n_channels, n_times)
    rows : ndarray of int, shape (n,)
        Category of each window, 0 .. k - 1, every one of them there.
    spec : CategorySpec
    """
    from sklearn.linear_model import LogisticRegression

    filters, prototypes = xdawn(data, rows, spec.components)
    covariances = augmented_covariances(data, filters, prototypes, spec.shrinkage)
    whitener = _matrix_function(geometric_mean(covariances), lambda values: values**-0.5)
    model = LogisticRegression(C=1 / spec.penalty, max_iter=5000).fit(tangent_space(covariances, whitener), rows)
    weights, intercept = model.coef_, model.intercept_
    if len(weights) == 1:  # of two categories scikit-learn keeps the difference
        weights, intercept = np.concatenate([-weights, weights]) / 2, np.concatenate([-intercept, intercept]) / 2
    return CovarianceClassifier(filters, prototypes, whitener, weights, intercept, np.array([spec.shrinkage]))


def xdawn(data: NDArray[np.floating[Any]], rows: NDArray[np.intp], n_components: int) -> tuple[Floats, Floats]:
    """Spatial filters that raise each category's mean response over everything else.

    Maximises w' S_k w / w' S w, with S_k the covariance of category k's mean response and S that of the signal.

    Parameters
    ----------
    data : ndarray, shape (n, n_channels, n_times)
    rows : ndarray of int, shape (n,)
    n_components : int
        At most the number of channels is taken.

    Returns
    -------
    filters : ndarray, shape (n_filters, n_channels)
        Categories one after the other.
    prototypes : ndarray, shape (n_filters, n_times)
    """
    from scipy.linalg import eigh

    data = np.asarray(data, np.float64)
    signal = np.cov(data.transpose(1, 0, 2).reshape(data.shape[1], -1))
    filters, prototypes = [], []
    for category in range(int(rows.max()) + 1):
        response = data[rows == category].mean(axis=0)
        _, vectors = eigh(np.cov(response), signal)
        chosen = vectors[:, ::-1][:, :n_components].T
        filters.append(chosen)
        prototypes.append(chosen @ response)
    return np.concatenate(filters), np.concatenate(prototypes)


def augmented_covariances(
    data: NDArray[np.floating[Any]], filters: Floats, prototypes: Floats, shrinkage: float
) -> Floats:
    """Covariances of [prototypes; filtered trial], shape (n, 2 n_filters, 2 n_filters), shrunk toward the identity."""
    filtered = filters @ np.asarray(data, np.float64)
    stacked = np.concatenate([np.broadcast_to(prototypes, (len(data), *prototypes.shape)), filtered], axis=1)
    stacked = stacked - stacked.mean(axis=2, keepdims=True)
    covariances = stacked @ stacked.transpose(0, 2, 1) / stacked.shape[2]
    size = covariances.shape[1]
    level = np.trace(covariances, axis1=1, axis2=2) / size
    return np.asarray((1 - shrinkage) * covariances + shrinkage * level[:, None, None] * np.eye(size))


def _matrix_function(matrices: Floats, function: Any) -> Floats:
    """Apply a function to the eigenvalues of symmetric matrices, shape (..., m, m)."""
    values, vectors = np.linalg.eigh(matrices)
    return np.asarray((vectors * function(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2))


def geometric_mean(covariances: Floats) -> Floats:
    """Riemannian mean of positive definite matrices (n, m, m), by fixed-point iteration (Moakher 2005)."""
    mean: Floats = covariances.mean(axis=0)
    for _ in range(MEAN_STEPS):
        root = _matrix_function(mean, np.sqrt)
        whitener = _matrix_function(mean, lambda values: values**-0.5)
        step = _matrix_function(whitener @ covariances @ whitener, np.log).mean(axis=0)
        mean = root @ _matrix_function(step, np.exp) @ root
        if np.linalg.norm(step) < 1e-8:
            break
    return mean


def tangent_space(covariances: Floats, whitener: Floats) -> Floats:
    """Map covariances to vectors (n, m (m + 1) / 2) whose Euclidean norm is the Riemannian distance to the mean."""
    logs = _matrix_function(whitener @ covariances @ whitener, np.log)
    rows, columns = np.triu_indices(logs.shape[1])
    return np.asarray(logs[:, rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0)))


@dataclass(slots=True)
class Evidence:
    """Log-evidence of single trials, added up over trials of one label.

    A label says only which trials belong together, as a marker does that comes with each picture; not its category.
    """

    accumulate: int
    forget_after: float
    _sums: dict[str, tuple[Floats, int, float]] = field(default_factory=dict)

    def add(self, label: str, onset: float, log_odds: Floats) -> Floats:
        """Take a trial's log-odds, shape (k,), and give their sum over the label's trials that still count."""
        total, n, last = self._sums.get(label, (np.zeros_like(log_odds), 0, onset))
        if n == self.accumulate or not 0 <= onset - last <= self.forget_after:
            total, n = np.zeros_like(log_odds), 0
        total = total + log_odds
        self._sums[label] = (total, n + 1, onset)
        return total

    def reset(self) -> None:
        """Forget everything."""
        self._sums.clear()


def softmax(logits: Floats) -> Floats:
    """Probabilities of log-probabilities, along the last axis."""
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


class CategoryModel:
    """A classifier, and the text conditioning and latent of each category, mixed by its probabilities.

    `c` (and `z`) are templates of the categories: a picture made from them shows what kind of thing was seen, and must
    not be scored as if it identified the very picture.

    Parameters
    ----------
    classifier : CovarianceClassifier
    names : sequence of str
        The categories.
    temperature : float
        Factor on the classifier's log-probabilities, from held-out trials.
    prior : ndarray, shape (k,)
        Shares of the categories in training; taken out of evidence that is added up.
    templates : mapping of str to ndarray
        'c', shape (k, tokens, dims), and perhaps 'z', shape (k, channels, height, width), float32.
    typicality : Typicality
    spec : CategorySpec
    """

    family: ClassVar[str] = "category"

    def __init__(
        self,
        classifier: CovarianceClassifier,
        names: Sequence[str],
        *,
        temperature: float,
        prior: Floats,
        templates: Mapping[str, NDArray[np.float32]],
        typicality: Typicality,
        spec: CategorySpec,
    ) -> None:
        self.classifier = classifier
        self.names = tuple(names)
        self.temperature = temperature
        self.prior = prior
        self.templates = dict(templates)
        self.typicality = typicality
        self.spec = spec
        self.evidence = Evidence(spec.accumulate, spec.forget_after)

    def predict(self, windows: Sequence[Window], data: NDArray[np.float32]) -> list[Features]:
        """Decode windows, in the order in which they came; earlier ones of the same label add to the evidence.

        `Features.categories` is of each window alone; `c`, `z` and the confidence are of all that was added up. A
        window that holds a number that is not finite says nothing, and neither it nor a rejected one is added.
        """
        finite = np.asarray(np.isfinite(data).all(axis=(1, 2)))
        data = np.where(finite[:, None, None], data, self.typicality.mean[:, None])
        single = np.where(finite[:, None], self.classifier(data) * self.temperature, np.log(self.prior))
        typical = self.typicality(data) * finite
        return [
            self._features(window, log_odds, float(sure))
            for window, log_odds, sure in zip(windows, single, typical, strict=True)
        ]

    def _features(self, window: Window, single: Floats, typical: float) -> Features:
        total = single
        if self.spec.accumulate > 1 and typical > 0 and not window.quality.rejected:
            label = window.event.label if window.event is not None else ""
            own = single - np.log(self.prior)
            total = self.evidence.add(label, window.onset, own - own.mean()) + np.log(self.prior)
        posterior = softmax(total)
        mixed = {
            name: np.tensordot(posterior.astype(np.float32), template, axes=1)
            for name, template in self.templates.items()
        }
        k = len(self.names)
        sure = 0.0 if window.quality.rejected else typical * (k * float(posterior.max()) - 1) / (k - 1)
        categories = dict(zip(self.names, softmax(single).tolist(), strict=True))
        return Features(window.id, mixed["c"], mixed.get("z"), {}, max(0.0, sure), categories)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Give everything that was fitted, by name."""
        out: dict[str, NDArray[np.generic]] = {"prior": self.prior}
        out |= {f"classifier.{name}": getattr(self.classifier, name) for name in CovarianceClassifier.__slots__}
        out |= {f"typicality.{name}": getattr(self.typicality, name) for name in Typicality.__slots__}
        return out | {f"template.{name}": template for name, template in self.templates.items()}

    def settings(self) -> dict[str, Any]:
        """Give what `from_tensors` needs besides the tensors; JSON-able."""
        return {"names": self.names, "temperature": self.temperature, "spec": self.spec.model_dump(mode="json")}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> "CategoryModel":
        """Rebuild a model from `tensors()` and `settings()`."""
        return cls(
            CovarianceClassifier(**{name: tensors[f"classifier.{name}"] for name in CovarianceClassifier.__slots__}),
            settings["names"],
            temperature=settings["temperature"],
            prior=tensors["prior"],
            templates={n.removeprefix("template."): t for n, t in tensors.items() if n.startswith("template.")},
            typicality=Typicality(*(tensors[f"typicality.{name}"] for name in Typicality.__slots__)),
            spec=CategorySpec(**settings["spec"]),
        )


def fit_category(
    data: NDArray[np.float32],
    rows: NDArray[np.intp],
    names: Sequence[str],
    templates: Mapping[str, NDArray[np.float32]],
    spec: CategorySpec,
) -> tuple[CategoryModel, dict[str, Any]]:
    """Train a decoder of categories.

    Parameters
    ----------
    data : ndarray, shape (n, n_channels, n_times), float32
        In the order in which they were recorded: they are held out in stretches of time, so that slow drift cannot
        tell the category.
    rows : ndarray of int, shape (n,)
        Category of each window.
    names : sequence of str, k of them
    templates : mapping of str to ndarray
        'c' and perhaps 'z', one row a category.
    spec : CategorySpec

    Returns
    -------
    model : CategoryModel
    scores : dict
        From held-out stretches: 'auc' (mean over categories, one against the rest) and 'accuracy', beside 'chance'.

    Raises
    ------
    TrainingError
        If there are fewer than two categories, one is missing from a stretch's training windows, or `c` is not given.
    """
    if len(names) < 2 or "c" not in templates:
        raise TrainingError(f"categories {tuple(names)} with features {tuple(templates)}: give two or more, with 'c'")
    held_out = np.empty((len(rows), len(names)))
    for test in np.array_split(np.arange(len(rows)), spec.cv_folds):
        train = np.setdiff1d(np.arange(len(rows)), test)
        if len(np.unique(rows[train])) < len(names):
            raise TrainingError(f"a category is shown in one stretch of the recording only; mix {tuple(names)} in time")
        held_out[test] = fit_classifier(data[train], rows[train], spec)(data[test])
    model = CategoryModel(
        fit_classifier(data, rows, spec),
        names,
        temperature=_temperature(held_out, rows),
        prior=np.bincount(rows, minlength=len(names)) / len(rows),
        templates=templates,
        typicality=fit_typicality(data),
        spec=spec,
    )
    return model, _scores(held_out, rows)


def _temperature(logits: Floats, rows: NDArray[np.intp]) -> float:
    """Factor in [0, 2] on held-out log-probabilities under which the truth is most likely (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    def surprise(factor: float) -> float:
        return float(-np.log(softmax(factor * logits)[np.arange(len(rows)), rows] + 1e-300).mean())

    return float(minimize_scalar(surprise, bounds=(0.0, 2.0), method="bounded").x)


def _scores(logits: Floats, rows: NDArray[np.intp]) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    posterior = softmax(logits)
    areas = [roc_auc_score(rows == k, posterior[:, k]) for k in np.unique(rows)]
    accuracy = float((posterior.argmax(axis=1) == rows).mean())
    chance = float(np.bincount(rows).max() / len(rows))
    return {"auc": round(float(np.mean(areas)), 4), "accuracy": round(accuracy, 4), "chance": round(chance, 4)}
