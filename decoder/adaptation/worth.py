"""Whether what others taught a decoder helps on a new session, by windows of the session that are held out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Worth:
    """Two-way identification of held-out windows of the session, mean over features; both chose nothing by them.

    Attributes
    ----------
    moved, alone : float
        By the bundle that was moved, and by a decoder of the session's own windows.
    features : tuple of str
    """

    moved: float
    alone: float
    features: tuple[str, ...]

    @property
    def helps(self) -> bool:
        """Return whether the moved bundle is the better one."""
        return self.moved >= self.alone

    def to_dict(self) -> dict[str, Any]:
        """Return it for people and files; JSON-able."""
        return asdict(self) | {"others_help": self.helps}


def worth_of_others(moved: Mapping[str, Any], alone: Mapping[str, Any]) -> Worth | None:
    """Compare the scores of a moved bundle with those of a decoder trained on the session alone.

    Parameters
    ----------
    moved, alone : mapping
        Scores by feature, as training and recalibration have them: where two decoders were compared, those of the one
        in use count.

    Returns
    -------
    worth : Worth or None
        None where they have no feature in common whose pictures were told apart.
    """
    ours, theirs = _two_way(moved), _two_way(alone)
    features = tuple(name for name in ours if name in theirs)
    if not features:
        return None
    means = [round(float(np.mean([scores[name] for name in features])), 4) for scores in (ours, theirs)]
    return Worth(means[0], means[1], features)


def _two_way(scores: Mapping[str, Any]) -> dict[str, float]:
    out = {}
    for feature, own in scores.items():
        if isinstance(own, Mapping) and feature != "confidence":
            used = own.get(own["used"], own) if "used" in own else own
            if isinstance(used.get("two_way"), int | float):
                out[feature] = float(used["two_way"])
    return out
