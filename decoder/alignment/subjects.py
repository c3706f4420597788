"""Several participants side by side: the channels of each brought in line with those of all, without labels.

What differs between two heads is more than gains: folding turns sources, and skulls blur them. The map that gives a
participant's channels the covariance, and as far as it can the mean response, of all participants takes out what one
matrix can (`decoder.alignment.realign.alignment`; Euclidean alignment, He & Wu 2020, IEEE TBME 67, has the unit matrix
in place of the mean). What is left is for a layer of the participant's own.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from decoder.alignment.realign import alignment
from decoder.data.training_set import TrainingSet
from decoder.preprocessing.session_moments import SessionMoments, can_align, fit_session_moments


def in_common(samples: TrainingSet) -> TrainingSet:
    """Map each participant's channels to the mean statistics of all; those of one participant stay as they are."""
    if not samples.persons().any() or not can_align(samples.data):
        return samples
    return in_line(
        samples, mean_session_moments([fit_session_moments(samples.data[rows]) for rows in _by_person(samples)])
    )


def in_line(samples: TrainingSet, shared: SessionMoments) -> TrainingSet:
    """Map each participant's channels to given statistics, by all of that participant's samples."""
    data = np.empty_like(samples.data)
    for rows in _by_person(samples):
        own = samples.data[rows]
        data[rows] = alignment(shared, fit_session_moments(own), len(rows)) @ own
    return replace(samples, data=data)


def _by_person(samples: TrainingSet) -> list[NDArray[np.intp]]:
    persons = samples.persons()
    return [np.flatnonzero(persons == person) for person in range(persons.max() + 1)]


def mean_session_moments(moments: Sequence[SessionMoments]) -> SessionMoments:
    """Average statistics, each in its own unit: a participant with large signals counts as much as the others."""
    unit = np.exp(np.mean([np.log(one.unit) for one in moments], axis=0)).astype(np.float32)
    response = unit * np.mean([one.response / one.unit for one in moments], axis=0)
    covariance = np.mean([one.covariance for one in moments], axis=0)
    return SessionMoments(response.astype(np.float32), covariance.astype(np.float32), unit)
