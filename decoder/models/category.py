"""A decoder of categories: which of a few kinds of picture is seen, and how evidence for it adds up."""

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import category_folds
from decoder.errors import TrainingError
from decoder.estimators.classifiers import (
    CategorySpec,
    Trials,
    best_factor,
    softmax,
)
from decoder.evaluation.metrics import category_interval, chance_interval, mean_auc
from decoder.features import Features
from decoder.models.category_settings import AveragedClassifier, fit_chosen
from decoder.models.confidence import Typicality, fit_typicality
from decoder.preprocessing.badchannels import readable
from decoder.preprocessing.preprocess import PreprocessSpec
from stream.types.windows import Window

Floats = NDArray[np.float64]


MOST_LABELS = 1000
"""Labels whose evidence is kept at a time; those longest without a trial go first."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What one window says: its id, its onset in seconds, and its log-odds, shape (k,)."""

    window_id: str
    onset: float
    log_odds: Floats


@dataclass(slots=True)
class Evidence:
    """Log-evidence of single trials, added up over trials of one label.

    A label says only which trials belong together, as a marker does that comes with each picture; not its category.
    Each window counts once, however often it is decoded. What is older than `forget_after` is dropped, whatever its
    label, so that labels without end need no memory without end.
    """

    accumulate: int
    forget_after: float
    _trials: OrderedDict[str, list[Trial]] = field(default_factory=OrderedDict)

    def add(self, label: str, onset: float, log_odds: Floats, window_id: str) -> Floats:
        """Take a trial's log-odds, shape (k,), and return their sum over the label's trials that still count.

        Of a window that was added before, the sum up to it is returned, and what it says now replaces what it said.
        """
        trials = self._trials.get(label, [])
        for place, trial in enumerate(trials):
            if (trial.window_id, trial.onset) == (window_id, onset):
                trials[place] = Trial(window_id, onset, log_odds)
                return self._sum(trials[: place + 1])
        if len(trials) == self.accumulate or (trials and not 0 <= onset - trials[-1].onset <= self.forget_after):
            trials = []
        self._trials[label] = trials = [*trials, Trial(window_id, onset, log_odds)]
        self._trials.move_to_end(label)
        self._drop_old(onset)
        return self._sum(trials)

    def _sum(self, trials: Sequence[Trial]) -> Floats:
        return np.asarray(np.sum([trial.log_odds for trial in trials], axis=0))

    def _drop_old(self, now: float) -> None:
        """Drop labels without a trial within `forget_after` of `now`, and the oldest of too many."""
        old = [label for label, trials in self._trials.items() if abs(now - trials[-1].onset) > self.forget_after]
        for label in old:
            del self._trials[label]
        while len(self._trials) > MOST_LABELS:
            self._trials.popitem(last=False)

    def __len__(self) -> int:
        return len(self._trials)

    def reset(self) -> None:
        """Forget everything."""
        self._trials.clear()


class CategoryModel:
    """A classifier, and the text conditioning and latent of each category, mixed by its probabilities.

    `c` (and `z`) are templates of the categories: a picture made from them shows what kind of thing was seen, and must
    not be scored as if it identified the very picture.

    Parameters
    ----------
    classifier : AveragedClassifier
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
        classifier: AveragedClassifier,
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

    def without_memory(self) -> "CategoryModel":
        """Return this model without the evidence of windows that it has decoded."""
        twin = copy.copy(self)
        twin.evidence = Evidence(self.spec.accumulate, self.spec.forget_after)
        return twin

    def predict(self, windows: Sequence[Window], data: NDArray[np.float32]) -> list[Features]:
        """Decode windows, in the order in which they came; earlier ones of the same label add to the evidence.

        `Features.categories` is of each window alone; `c`, `z` and the confidence are of all that was added up. A
        window that holds a number that is not finite says nothing, and neither it nor a rejected one is added.
        """
        finite = readable(data)
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
            total = self.evidence.add(label, window.onset, own - own.mean(), window.id) + np.log(self.prior)
        posterior = softmax(total)
        mixed = {
            name: np.tensordot(posterior.astype(np.float32), template, axes=1)
            for name, template in self.templates.items()
        }
        k = len(self.names)
        sure = 0.0 if window.quality.rejected else typical * (k * float(posterior.max()) - 1) / (k - 1)
        categories = dict(zip(self.names, softmax(single).tolist(), strict=True))
        return Features.from_values(window.id, mixed, {}, max(0.0, sure), categories)

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that was fitted, by name."""
        out: dict[str, NDArray[np.generic]] = {"prior": self.prior}
        out |= {f"classifier.{name}": value for name, value in self.classifier.tensors().items()}
        out |= {f"typicality.{name}": getattr(self.typicality, name) for name in Typicality.__slots__}
        return out | {f"template.{name}": template for name, template in self.templates.items()}

    def settings(self) -> dict[str, Any]:
        """Return what `from_tensors` needs besides the tensors; JSON-able."""
        return {"names": self.names, "temperature": self.temperature, "spec": self.spec.model_dump(mode="json")}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> "CategoryModel":
        """Rebuild a model from `tensors()` and `settings()`."""
        spec = CategorySpec(**settings["spec"])
        fitted = {n.removeprefix("classifier."): t for n, t in tensors.items() if n.startswith("classifier.")}
        return cls(
            AveragedClassifier.from_tensors(fitted, spec.method),
            settings["names"],
            temperature=settings["temperature"],
            prior=tensors["prior"],
            templates={n.removeprefix("template."): t for n, t in tensors.items() if n.startswith("template.")},
            typicality=Typicality(*(tensors[f"typicality.{name}"] for name in Typicality.__slots__)),
            spec=spec,
        )


def fit_category(
    trials: Trials,
    templates: Mapping[str, NDArray[np.float32]],
    spec: CategorySpec,
    preprocess: PreprocessSpec | None = None,
) -> tuple[CategoryModel, dict[str, Any]]:
    """Train a decoder of categories.

    Parameters
    ----------
    trials : Trials
    templates : mapping of str to ndarray
        'c' and perhaps 'z', one row a category.
    spec : CategorySpec
    preprocess : PreprocessSpec, optional
        Of method 'pattern'.

    Returns
    -------
    model : CategoryModel
    scores : dict
        As `category_scores`, from held-out runs, or of a single run from held-out stretches; and 'settings', what all
        trials chose, the best first.

    Raises
    ------
    TrainingError
        If there are fewer than two categories, one is missing from the training windows of a fold, or `c` is not
        given.
    """
    if len(trials.names) < 2 or "c" not in templates:
        raise TrainingError(f"categories {trials.names} with features {tuple(templates)}: give two or more, with 'c'")
    logits = held_out_logits(trials, spec, preprocess)
    classifier, settings = fit_chosen(trials, spec, preprocess)
    model = CategoryModel(
        classifier,
        trials.names,
        temperature=best_factor(logits, trials.rows, 2.0),
        prior=np.bincount(trials.rows, minlength=len(trials.names)) / len(trials.rows),
        templates=templates,
        typicality=fit_typicality(trials.data),
        spec=spec,
    )
    return model, category_scores(logits, trials) | {"settings": [each.to_dict() for each in settings]}


def held_out_logits(trials: Trials, spec: CategorySpec, preprocess: PreprocessSpec | None = None) -> Floats:
    """Decode every window by a classifier that never saw its run (of a single run: its stretch); shape (n, k)."""
    return nested_logits([trials], [spec], [preprocess])[0]


def nested_logits(
    candidates: Sequence[Trials], specs: Sequence[CategorySpec], preprocess: Sequence[PreprocessSpec | None]
) -> tuple[Floats, NDArray[np.intp]]:
    """As `held_out_logits`, by the best of several settings, chosen anew for each run among the other runs.

    The best is what tells those apart with the largest AUC, one of them held out at a time.

    Parameters
    ----------
    candidates : sequence of Trials
        The same trials in the same order, windowed and filtered as each candidate has it.
    specs : sequence of CategorySpec
    preprocess : sequence of PreprocessSpec or None

    Returns
    -------
    logits : ndarray, shape (n, k)
    chosen : ndarray of int, shape (n_folds,)
        Place of each fold's choice among the candidates.
    """
    trials, spec = candidates[0], specs[0]
    logits, chosen = np.empty((len(trials.rows), len(trials.names))), []
    for train, test in category_folds(trials.rows, trials.runs, spec.cv_folds):
        parts = [each.take(train) for each in candidates]
        best = 0
        if len(parts) > 1:
            inner = [held_out_logits(*each) for each in zip(parts, specs, preprocess, strict=True)]
            best = int(np.argmax([mean_auc(softmax(each), trials.rows[train]) for each in inner]))
        classifier, _ = fit_chosen(parts[best], specs[best], preprocess[best])
        logits[test] = classifier(candidates[best].data[test])
        chosen.append(best)
    return logits, np.asarray(chosen, np.intp)


def category_scores(logits: Floats, trials: Trials) -> dict[str, Any]:
    """Score held-out log-probabilities.

    Returns
    -------
    scores : dict
        'auc' (mean over categories, one against the rest) and 'accuracy', each with '<score>_interval', [low, high]
        (95 %, bootstrap over windows within each category), and '<score>_chance', [low, high]: what 95 % of labels
        permuted within runs, block by block, reach; 'baseline': accuracy of always naming the most frequent category;
        'runs': accuracy by run; 'n'.
    """
    rng, drawn = np.random.default_rng(0), np.random.default_rng(1)
    posterior, rows = softmax(logits), trials.rows
    hits = logits.argmax(axis=1) == rows

    def accuracy(truth: NDArray[np.intp]) -> float:
        return float((logits.argmax(axis=1) == truth).mean())

    def auc(truth: NDArray[np.intp]) -> float:
        return mean_auc(posterior, truth)

    baseline = np.bincount(rows).max() / len(rows)
    by_run = dict(_by_run(logits, trials))
    return {
        "auc": round(auc(rows), 4),
        "auc_interval": category_interval(lambda chosen: mean_auc(posterior[chosen], rows[chosen]), rows, drawn),
        "auc_chance": chance_interval(auc, rows, trials.runs, rng),
        "accuracy": round(accuracy(rows), 4),
        "accuracy_interval": category_interval(lambda chosen: float(hits[chosen].mean()), rows, drawn),
        "accuracy_chance": chance_interval(accuracy, rows, trials.runs, rng),
        "baseline": round(float(baseline), 4),
        "runs": by_run,
        "n": len(rows),
    }


def _by_run(logits: Floats, trials: Trials) -> list[tuple[str, float]]:
    hits = logits.argmax(axis=1) == trials.rows
    return [(name, round(float(hits[trials.runs == name].mean()), 4)) for name in np.unique(trials.runs).tolist()]
