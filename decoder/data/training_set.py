"""Training windows side by side, and what must never be on both sides of a split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import TrainTest, folds_apart, refuse_random_folds
from decoder.data.stimuli import StimulusTable
from decoder.errors import TrainingError
from decoder.preprocessing.badchannels import LARGEST, readable
from decoder.preprocessing.units import alike, one_unit
from decoder.spec import DecoderSpec
from stream.types.windows import Window

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a window is from: the recording, the session it belongs to, and the participant."""

    run: str
    session: str
    subject: str


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """Training windows, and the picture of each.

    Attributes
    ----------
    data : ndarray, shape (n, n_channels, n_times), float32
    times : ndarray, shape (n_times,)
        Seconds from the event.
    rows : ndarray of int, shape (n,)
        Of the targets.
    groups : ndarray of str, shape (n,)
        Never on both sides of a split.
    runs : ndarray of str, shape (n,)
        The recording that each window is from.
    units : ndarray of str, shape (n,)
        Run, session or subject, where a split is by that; never on both sides of it. Otherwise as `groups`.
    channels : tuple of str
        Their names.
    subjects : ndarray of str, shape (n,), or None
        Who saw it; None: all are of one person.
    """

    data: Array
    times: NDArray[np.float64]
    rows: NDArray[np.intp]
    groups: NDArray[np.str_]
    runs: NDArray[np.str_]
    units: NDArray[np.str_]
    channels: tuple[str, ...]
    subjects: NDArray[np.str_] | None = None

    def take(self, chosen: NDArray[np.intp]) -> "TrainingSet":
        """Return the samples of some rows."""
        return TrainingSet(
            self.data[chosen],
            self.times,
            self.rows[chosen],
            self.groups[chosen],
            self.runs[chosen],
            self.units[chosen],
            self.channels,
            None if self.subjects is None else self.subjects[chosen],
        )

    def folds(self, n_folds: int, rng: np.random.Generator) -> list[TrainTest]:
        """Split by what is never to be on both sides; every row is held out once."""
        return folds_apart(self.groups, self.units, min(n_folds, len(np.unique(self.units))), rng)

    def persons(self) -> NDArray[np.intp]:
        """Return the number of each window's participant, from 0."""
        if self.subjects is None:
            return np.zeros(len(self.rows), np.intp)
        return np.unique(self.subjects, return_inverse=True)[1]


def gather(
    windows: Sequence[Window],
    stimuli: StimulusTable,
    spec: DecoderSpec,
    *,
    origins: Sequence[Origin] | None = None,
) -> TrainingSet:
    """Stack windows, each of which answers to a stimulus.

    Parameters
    ----------
    windows : sequence of Window
    stimuli : StimulusTable
    spec : DecoderSpec
        Its split.
    origins : sequence of Origin, optional
        Where each window is from; left out, all are from one recording of one person.

    Raises
    ------
    TrainingError
        If there are none, they differ in shape, channels or rate, hold numbers that are not finite, or the split that
        the spec asks for would leak.
    """
    if not windows:
        raise TrainingError("there are no windows to learn from")
    first = windows[0]
    for window in windows:
        if window.data.shape != first.data.shape or window.channels != first.channels or window.sfreq != first.sfreq:
            raise TrainingError(
                f"window {window.id} ({len(window.channels)} channels, {window.data.shape[1]} samples at "
                f"{window.sfreq:g} Hz) differs from window {first.id}; train on windows of one kind"
            )
        if not readable(window.data[None]).all():
            raise TrainingError(f"window {window.id} holds numbers not finite or beyond {LARGEST:g}; leave it out")
    rows = stimuli.rows(window.event.label if window.event is not None else "" for window in windows)
    times = first.tmin + np.arange(first.data.shape[1]) / (first.sfreq or 1)
    groups = np.asarray(stimuli.groups)[rows]
    if spec.split == "window":
        refuse_random_folds(groups)
    data = alike(first.channels, np.stack([w.data for w in windows]))
    if origins is None:
        if spec.split not in {"picture", "window"}:
            raise TrainingError(f"split by {spec.split}, but nobody said which window is of which; split by picture")
        return TrainingSet(data, times, rows, groups, np.full(len(rows), "only"), groups, first.channels.names)
    runs, subjects = (np.asarray([getattr(origin, name) for origin in origins]) for name in ("run", "subject"))
    if len(np.unique(subjects)) > 1 and not one_unit(first.channels):
        raise TrainingError(
            f"channels in {sorted(set(first.channels.units))} of several participants cannot be brought in line; "
            "choose those of one unit (filters.channels), or train on one participant"
        )
    by_picture = spec.split in {"picture", "window"}
    apart = groups if by_picture else np.asarray([getattr(origin, spec.split) for origin in origins])
    return TrainingSet(data, times, rows, groups, runs, apart, first.channels.names, subjects)


def held_out_folds(samples: TrainingSet, spec: DecoderSpec) -> list[TrainTest]:
    """Return the folds whose windows are decoded by models that never saw them; none if the spec asks for none."""
    if spec.hold_out == "none":
        return []
    n_folds = len(np.unique(samples.units)) if spec.hold_out == "groups" else int(spec.hold_out)
    return samples.folds(n_folds, np.random.default_rng(spec.seed))
