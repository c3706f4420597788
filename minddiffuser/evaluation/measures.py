"""The figures of an answer as measures: each with its interval, its chance and what is reached without the brain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from decoder.data.feature_registry import label_of
from decoder.evaluation.metric_registry import (
    CATEGORY_METRICS,
    DRAWN_METRICS,
    FEATURE_METRICS,
    PICTURE_METRICS,
    POSE_METRICS,
    Metric,
)

ALPHA = 0.05
"""How probable by chance a figure may be, where its permutations say so, to count as above chance."""


LIKELIHOOD = "likelihood"
"""Key, among scores of features, of what the encoding model tells (`decoder.evaluation.likelihood`)."""
PICTURE = "picture"
"""Key, among scores of features, of the picture that the decoded latent by itself gives."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure and what it stands beside.

    Attributes
    ----------
    key, label : str
    value : float
    interval : (low, high) or None
        95 %; None where none was computed.
    chance : (low, high) or None
        What chance reaches; both ends alike where it is known exactly. None: unknown.
    mean_image, stage1 : float or None
        The same figure of the mean image (or of always naming the most frequent category), and of stage 1.
    gain : (mean, low, high) or None
        From stage 1 to stage 2, paired, with its interval.
    p : float or None
        How probable it is by chance.
    higher_is_better, counts : bool
        As `decoder.evaluation.metric_registry.Metric` has them.
    """

    key: str
    label: str
    value: float
    interval: tuple[float, float] | None = None
    chance: tuple[float, float] | None = None
    mean_image: float | None = None
    stage1: float | None = None
    gain: tuple[float, float, float] | None = None
    p: float | None = None
    higher_is_better: bool = True
    counts: bool = False

    @property
    def above_chance(self) -> bool | None:
        """Return whether the whole interval is better than chance and the mean image; None where that is unknown."""
        if self.interval is None or self.chance is None:
            return None
        sign = 1 if self.higher_is_better else -1
        worst = min(sign * end for end in self.interval)
        rivals = [*self.chance, *([] if self.mean_image is None else [self.mean_image])]
        return worst > max(sign * rival for rival in rivals) and (self.p is None or self.p < ALPHA)


def of_pictures(found: Mapping[str, Any], stage: Literal["stage1", "stage2"] = "stage2") -> list[Measure]:
    """Return the measures of reconstructions.

    Parameters
    ----------
    found : mapping
        From `minddiffuser.evaluation.quality.score`: `offline` and `live` in `evaluate --json`, or all of it for a
        session.
    stage : str
        Whose figures the measures are.
    """
    if stage not in found:
        return []
    out = []
    for key, metric in PICTURE_METRICS.items():
        if key not in found[stage]:
            continue
        gain = found.get("gain", {}).get(key)
        of_stage2 = stage == "stage2"
        out.append(
            Measure(
                key,
                metric.label,
                found[stage][key],
                _pair(found.get(f"{stage}_interval", {}).get(key)),
                _chance(metric, found),
                found.get("mean_image", {}).get(key),
                found["stage1"].get(key) if of_stage2 and "stage1" in found else None,
                (gain["mean"], *gain["interval"]) if gain and of_stage2 else None,
                found.get("p", {}).get(key) if of_stage2 else None,
                metric.higher_is_better,
                metric.counts,
            )
        )
    return out


def of_pose(found: Mapping[str, Any]) -> list[Measure]:
    """Return the measures of where the figure is, from `pose` in `evaluate --json`; empty where that is not known."""
    out = []
    for key, metric in POSE_METRICS.items():
        own = found.get(key, {})
        if "stage2" not in own:
            continue
        gain = own.get("gain")
        out.append(
            Measure(
                key,
                metric.label,
                own["stage2"],
                _pair(own.get("stage2_interval")),
                _pair(own.get("chance")),
                own.get("mean_image"),
                own.get("stage1"),
                (gain["mean"], *gain["interval"]) if gain else None,
                higher_is_better=metric.higher_is_better,
            )
        )
    return out


def _chance(metric: Metric, found: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return chance where it is known exactly, else as it was measured."""
    exact = metric.chance(found.get("pictures")) if metric.chance is not None else None
    return (exact, exact) if exact is not None else _pair(found.get("chance", {}).get(metric.key))


def of_categories(found: Mapping[str, Any]) -> list[Measure]:
    """Return the measures of a decoder of categories, from `evaluate --json` or from training scores."""
    out = []
    for key, metric in CATEGORY_METRICS.items():
        if not isinstance(found.get(key), int | float):
            continue
        exact = found.get("chance") if key == "auc" else found.get("accuracy_chance")
        by_permutation = found.get(f"{key}_chance")
        baseline = found.get("baseline") if key == "accuracy" else None
        out.append(
            Measure(
                key,
                metric.label,
                found[key],
                _pair(found.get(f"{key}_interval")),
                _pair(by_permutation if by_permutation is not None else exact),
                mean_image=baseline,
                p=found.get(f"{key}_p"),
                counts=metric.counts,
            )
        )
    return out


def of_features(scores: Mapping[str, Any]) -> list[Measure]:
    """Return the measures of decoded features on held-out windows.

    Parameters
    ----------
    scores : mapping
        `scores` in `train --json` and `evaluate CONFIG --json`. Where two decoders were compared, those of the one in
        use. What has chosen something ('selection_...') is no measure.
    """
    if "auc" in scores:
        return of_categories(scores)
    out = []
    for feature, own in scores.items():
        if feature == "confidence" or not isinstance(own, Mapping):
            continue
        used = own.get(own["used"], own) if "used" in own else own
        for key, metric in (DRAWN_METRICS if feature == PICTURE else FEATURE_METRICS).items():
            if not isinstance(used.get(key), int | float):
                continue
            out.append(
                Measure(
                    f"{feature}.{key}",
                    f"{name_of(feature)}: {metric.label}",
                    used[key],
                    _pair(used.get(f"{key}_interval")),
                    _chance(metric, {"chance": {key: used.get(f"{key}_chance")}}),
                    mean_image=used.get(metric.without_brain),
                    higher_is_better=metric.higher_is_better,
                    counts=metric.counts,
                )
            )
    return out


def name_of(feature: str) -> str:
    """Return what tables call a decoded feature, or the picture of one."""
    return {PICTURE: "picture of z", LIKELIHOOD: "window's likelihood"}.get(feature) or label_of(feature)


def of_evaluation(answer: Mapping[str, Any]) -> list[Measure]:
    """Return the measures of what `evaluate --json` answers, of whatever kind.

    Of a bundle, those of the live half where there is one: that is what people get to see.
    """
    if isinstance(scores := answer.get("scores"), Mapping):
        return of_features(scores)
    found = answer.get("live") or answer.get("offline") or answer
    if "auc" not in found and "stage2" not in found:
        found = answer.get("offline") or answer
    return of_categories(found) if "auc" in found else of_pictures(found)


def _pair(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    low, high = value if isinstance(value, list | tuple) else (value, value)
    return float(low), float(high)
