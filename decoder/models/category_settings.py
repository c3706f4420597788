"""What a decoder of categories goes by - band, window, spatial filters - chosen by held-out runs of its training part.

Several settings are tried on runs (of a single run: stretches) that each did not see, and the log-probabilities of the
best few are averaged, which is better than the best one alone and does not hang on a narrow choice between like ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import TrainTest, category_folds
from decoder.errors import TrainingError
from decoder.estimators.classifiers import (
    CLASSIFIERS,
    CategorySpec,
    Classifier,
    Data,
    Trials,
    fit_classifier,
    softmax,
)
from decoder.evaluation.metrics import mean_auc
from decoder.preprocessing.passband import Band, passband
from decoder.preprocessing.preprocess import PreprocessSpec

Floats = NDArray[np.float64]
FOLDS = 5
"""By which settings are chosen, at most: each holds out runs that no other does."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What one classifier goes by; None: as it comes.

    Attributes
    ----------
    components, harmonics : int
        As `CategorySpec` has them.
    band : (low, high) or None
        In Hz.
    share : float
        Of the window, from its beginning.
    """

    components: int
    harmonics: int
    band: Band | None = None
    share: float = 1.0

    def matrix(self, trials: Trials) -> NDArray[np.float32] | None:
        """Return what is done to the samples of a window, as `passband`; None: nothing."""
        if self.band is None and self.share == 1.0:
            return None
        n_times = len(trials.times)
        sfreq = (n_times - 1) / float(trials.times[-1] - trials.times[0])
        return passband(n_times, sfreq, self.band or (None, None), self.share)

    def fit(self, trials: Trials, spec: CategorySpec, preprocess: PreprocessSpec | None) -> "Member":
        """Fit one classifier by this setting."""
        matrix = self.matrix(trials)
        spec = spec.model_copy(update={"components": self.components, "harmonics": self.harmonics})
        if matrix is None:
            return Member(fit_classifier(trials, spec, preprocess), None)
        places = np.arange(matrix.shape[1], dtype=np.float64)
        own = Trials(trials.data @ matrix, places, trials.rows, trials.names, trials.runs)
        return Member(fit_classifier(own, spec, preprocess), matrix)

    def to_dict(self) -> dict[str, Any]:
        """Return the setting for people and files; JSON-able."""
        return {"components": self.components, "harmonics": self.harmonics, "band": self.band, "share": self.share}


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A classifier, and what is done to samples before it, shape (n_times, m), if anything."""

    classifier: Classifier
    matrix: NDArray[np.float32] | None

    def __call__(self, data: Data) -> Floats:
        """Compute log-probabilities but for a constant, shape (n, k), of windows (n, n_channels, n_times)."""
        return self.classifier(data if self.matrix is None else np.asarray(data, np.float32) @ self.matrix)


@dataclass(frozen=True, slots=True, eq=False)
class AveragedClassifier:
    """Classifiers whose log-probabilities are averaged."""

    members: tuple[Member, ...]

    def __call__(self, data: Data) -> Floats:
        """Compute log-probabilities but for a constant, shape (n, k), of windows (n, n_channels, n_times)."""
        return np.asarray(np.mean([member(data) for member in self.members], axis=0))

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that was fitted, by name; of a single classifier, by its own names."""
        out: dict[str, NDArray[np.generic]] = {}
        for number, member in enumerate(self.members):
            place = f"{number}." if len(self.members) > 1 or member.matrix is not None else ""
            names = type(member.classifier).__slots__  # type: ignore[attr-defined]  # all of them are dataclasses
            out |= {f"{place}{name}": getattr(member.classifier, name) for name in names}
            if member.matrix is not None:
                out[f"{place}matrix"] = member.matrix
        return out

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], method: str) -> "AveragedClassifier":
        """Rebuild it from `tensors()`."""
        kind = CLASSIFIERS[method]
        numbers = sorted({int(name.partition(".")[0]) for name in tensors if name[0].isdigit()})
        members = []
        for place in [f"{number}." for number in numbers] or [""]:
            values = {name: tensors[f"{place}{name}"] for name in kind.__slots__}
            members.append(Member(kind(**values), tensors.get(f"{place}matrix")))
        return cls(tuple(members))


def fit_chosen(
    trials: Trials, spec: CategorySpec, preprocess: PreprocessSpec | None = None
) -> tuple[AveragedClassifier, list[Setting]]:
    """Fit classifiers by the settings that tell held-out runs of these trials best.

    Bands and windows are chosen first, spatial filters then. Where no run can be held out, as a category is shown in
    one only, nothing can be chosen: the first few settings are averaged.

    Parameters
    ----------
    trials : Trials
    spec : CategorySpec
    preprocess : PreprocessSpec, optional
        Of method 'pattern'.

    Returns
    -------
    classifier : AveragedClassifier
    settings : list of Setting
        One a member, the best first.

    Raises
    ------
    TrainingError
        As `fit_classifier`.
    """
    settings = _settings(spec, len(trials.times))
    if len(settings) > 1:
        average = min(spec.choose.average if spec.choose else 1, (len(settings) + 1) // 2)
        folds = _folds(trials, spec)
        settings = _best(settings, trials, spec, folds)[:average]
        if spec.method == "erp" and spec.choose and folds:
            counts = [Setting(n, 1, settings[0].band, settings[0].share) for n in spec.choose.components]
            best = _best(counts, trials, spec, folds)[0].components if len(counts) > 1 else counts[0].components
            settings = [Setting(best, 1, each.band, each.share) for each in settings]
    return AveragedClassifier(tuple(each.fit(trials, spec, preprocess) for each in settings)), settings


def _settings(spec: CategorySpec, n_times: int) -> list[Setting]:
    """List what may be chosen; one setting where nothing is."""
    plain = Setting(spec.components, spec.harmonics)
    choose = spec.choose
    if choose is None or n_times < 2:
        return [plain]
    if spec.method == "frequency":
        return [Setting(spec.components, harmonics) for harmonics in choose.harmonics]
    if spec.method == "erp":
        return [Setting(spec.components, 1, band, share) for share in choose.shares for band in choose.bands]
    return [plain]


def _folds(trials: Trials, spec: CategorySpec) -> list[TrainTest]:
    """Split a training part by which settings are chosen; none where it cannot be split."""
    try:
        folds = category_folds(trials.rows, trials.runs, spec.cv_folds)
    except TrainingError:
        return []
    tests = [np.sort(np.concatenate([test for _, test in folds[start::FOLDS]])) for start in range(FOLDS)[: len(folds)]]
    everything = np.arange(len(trials.rows))
    merged = [(np.setdiff1d(everything, test), test) for test in tests]
    n_categories = len(np.unique(trials.rows))
    whole = all(len(np.unique(trials.rows[train])) == n_categories for train, _ in merged)
    return merged if len(merged) > 1 and whole else []


def _best(settings: list[Setting], trials: Trials, spec: CategorySpec, folds: list[TrainTest]) -> list[Setting]:
    """Sort settings by the AUC of held-out trials, the best first; alike, or without folds, as they come."""
    if not folds:
        return settings
    scores = []
    for setting in settings:
        logits = np.empty((len(trials.rows), len(trials.names)))
        for train, test in folds:
            logits[test] = setting.fit(trials.take(train), spec, None)(trials.data[test])
        scores.append(mean_auc(softmax(logits), trials.rows))
    return [settings[place] for place in np.argsort(-np.asarray(scores), kind="stable")]
