"""The verdict on a decoder, in one word: the one rule that tables, report and page go by.

The rule (docs/reference/glossary.md): A measure is above chance if its whole 95 % interval lies above what chance
reaches (the upper end, where that is a range) and above the mean image, and permutations, where there are any, make it
no more probable than 5 %. Of the measures that count (`decoder.evaluation.metric_registry.Metric.counts`), more than
half above chance: it works. At least one: weak. None: it does not work. Figures of windows that the decoder was trained
on are no test, however high.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from minddiffuser.evaluation.measures import Measure, of_evaluation, of_features

Word = Literal["Works", "Weak", "Does not work", "Measured on training data: not a test"]
After = Literal["train", "evaluate", "folds", "session"]
"""What gave the measures: training, a test recording, folds of all recordings, or an archived session."""

LEAST_PICTURES = 6
"""Of fewer no verdict is given: they can be permuted in so few ways that even a perfect decoder might be chance."""
TRAINING: Word = "Measured on training data: not a test"
NEXT: dict[tuple[After, Word], str] = {
    ("train", "Works"): "test it on another recording: minddiffuser evaluate {bundle} --report report.html",
    ("train", "Weak"): "see where the signal tells anything, then record more: minddiffuser maps {bundle}",
    (
        "train",
        "Does not work",
    ): "see what is understood of it: minddiffuser inspect RECORDING --config {config}",
    ("evaluate", "Works"): "minddiffuser live {config}",
    ("evaluate", "Weak"): "see where the signal tells anything, then record more: minddiffuser maps {bundle}",
    ("evaluate", "Does not work"): "see where the signal tells anything: minddiffuser maps {bundle}",
    ("folds", "Works"): "minddiffuser train {config}",
    ("folds", "Weak"): "record more pictures, then again: minddiffuser evaluate {config}",
    (
        "folds",
        "Does not work",
    ): "see what is understood of it: minddiffuser inspect RECORDING --config {config}",
    ("session", "Works"): "look at the pictures: minddiffuser evaluate {bundle} --report report.html",
    ("session", "Weak"): "look at the pictures: minddiffuser evaluate {bundle} --report report.html",
    ("session", "Does not work"): "test the decoder on a recording: minddiffuser evaluate BUNDLE --report report.html",
}
ANOTHER = "record other pictures, then: minddiffuser evaluate {bundle} --recording FILE"
UNTESTED = "record other pictures, then test it: minddiffuser evaluate {bundle} --recording FILE --report report.html"
"""What comes next after training that works, where the config names no test recording."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word, why it is this one, and what to do next.

    Attributes
    ----------
    word : str
    reason : str
        Such as '3 of 3 measures above chance'.
    next_step : str
        What to do next, the command to type at its end.
    """

    word: Word
    reason: str
    next_step: str

    def __str__(self) -> str:
        """Return word and reason in one line."""
        return f"{self.word}{'; ' if ':' in self.word else ': '}{self.reason}"

    def to_dict(self) -> dict[str, str]:
        """Return all of it as plain JSON-able values."""
        return asdict(self)


def verdict(
    measures: Sequence[Measure],
    *,
    on_training_data: bool = False,
    after: After = "evaluate",
    bundle: str = "BUNDLE",
    config: str = "CONFIG",
) -> Verdict | None:
    """Judge a decoder by its measures.

    Parameters
    ----------
    measures : sequence of Measure
    on_training_data : bool
        Whether windows were measured that the decoder was trained on.
    after : str
        What gave the measures, by which the next step goes.
    bundle, config : str
        As they are typed in a command.

    Returns
    -------
    Verdict or None
        None where no measure counts: too few windows, or none of a known picture.
    """
    counted = [one for one in measures if one.counts and one.above_chance is not None]
    if not counted:
        return None
    above = [one for one in counted if one.above_chance]
    reason = f"{len(above)} of {len(counted)} measures above chance"
    if above and len(above) < len(counted):
        reason += f"; not {' and '.join(_beside_chance(one) for one in counted if not one.above_chance)}"
    if on_training_data:
        return Verdict(TRAINING, reason, ANOTHER.format(bundle=bundle))
    word: Word = "Works" if 2 * len(above) > len(counted) else "Weak" if above else "Does not work"
    return Verdict(word, reason, NEXT[after, word].format(bundle=bundle, config=config))


def _beside_chance(measure: Measure) -> str:
    """Return a measure that is not above chance, with what it stands beside."""
    assert measure.interval is not None
    assert measure.chance is not None
    low, high = measure.interval
    chance = "-".join(f"{end:.2f}" for end in dict.fromkeys(measure.chance))
    return f"{measure.label} ({measure.value:.2f} [{low:.2f}, {high:.2f}], chance {chance})"


def verdict_of_training(answer: Mapping[str, Any], config: str = "CONFIG") -> Verdict | None:
    """Judge what `train --json` answers: held-out windows of the calibration."""
    bundle = str(answer["bundle"])
    taught = bool(answer.get("on_training_data"))
    judged = verdict(
        of_features(answer["scores"]), on_training_data=taught, after="train", bundle=bundle, config=config
    )
    if judged is not None and judged.word == "Works" and not answer.get("tested_by", True):
        return replace(judged, next_step=UNTESTED.format(bundle=bundle))
    return judged


def verdict_of_evaluation(answer: Mapping[str, Any], path: str, config: str = "CONFIG") -> Verdict | None:
    """Judge what `evaluate --json` answers of a bundle, of a config ('scores') or of an archived session.

    Parameters
    ----------
    answer : mapping
        `on_training_data` in it says whether it is a test.
    path : str
        What was evaluated.
    config : str
        As it is typed in a command.

    Returns
    -------
    Verdict or None
        None of fewer than `LEAST_PICTURES` pictures, too.
    """
    shown = [half for name in ("live", "offline") if isinstance(half := answer.get(name), Mapping)] or [answer]
    if any(isinstance(count := half.get("pictures"), int) and count < LEAST_PICTURES for half in shown):
        return None
    after: After = "folds" if "scores" in answer else "evaluate" if "bundle" in answer else "session"
    return verdict(
        of_evaluation(answer),
        on_training_data=bool(answer.get("on_training_data")),
        after=after,
        bundle=path,
        config=path if after == "folds" else config,
    )
