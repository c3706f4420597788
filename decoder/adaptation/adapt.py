"""A convolutional encoder moved to a new session or person: channels realigned, and a layer of their own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import TrainTest
from decoder.data.training_set import TrainingSet
from decoder.encoders.conv import ConvEncoder, Preparation
from decoder.evaluation.identify import training_identification
from decoder.evaluation.metrics import rounded_mean, two_way
from decoder.models.confidence import FoldStatistics, calibrate
from decoder.models.embedding import CalibratedEncoder, conv_statistics
from decoder.training.judging import circular_shift, similarity_to_shown, two_way_about_mean
from decoder.training.train_conv import adapt, centre_preparation

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

WORTH = 0.01
"""Share of the held-out error that a change must take away: less is luck."""
LEAST_PICTURES = 20
"""With fewer, no layer is fitted."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """An encoder that may be taken, and what it makes of windows that it was not adapted by.

    Attributes
    ----------
    encoder : ConvEncoder
    by_fold : list of ConvEncoder
        What decoded each fold.
    predictions : ndarray, shape (n, d), float32
        Deviations of the embedding.
    """

    encoder: ConvEncoder
    by_fold: list[ConvEncoder]
    predictions: Array


def best_gain(found: Array, truth: Array) -> float:
    """Return the factor of least squared error on predictions, both (n, d); 0 where they point the other way."""
    return max(0.0, float(np.vdot(found, truth)) / (float(np.square(found).sum()) + 1e-12))


def squared_error(found: Array, truth: Array, gain: float) -> float:
    """Return the squared error, in units of the truth's own square: 1 where nothing is decoded."""
    return float(np.square(gain * found - truth).sum()) / float(np.square(truth).sum())


def choose(candidates: Sequence[Array], truth: Array) -> tuple[int, float]:
    """Choose among predictions, each (n, d), and the gain: a later one must be better than those before it.

    Returns
    -------
    place : int
    gain : float
        1 of the first, which is what the bundle holds.
    """
    gains = [best_gain(found, truth) for found in candidates]
    errors = [squared_error(found, truth, gain) for found, gain in zip(candidates, gains, strict=True)]
    place = 0
    for other, error in enumerate(errors):
        if error < (1 - WORTH) * errors[place]:
            place = other
    return place, gains[place] if place else 1.0


def move_encoder(
    calibrated: CalibratedEncoder,
    samples: TrainingSet,
    embeddings: Array,
    folds: Sequence[TrainTest],
    map_: Array | None,
    rng: np.random.Generator,
) -> tuple[CalibratedEncoder, dict[str, Any]]:
    """Move an encoder to a new session, as far as that decodes its held-out windows better.

    Parameters
    ----------
    calibrated : CalibratedEncoder
    samples : TrainingSet
        Of the new session.
    embeddings : ndarray, shape (n_pictures, d), float32
        Of its pictures.
    folds : list of (train, test)
    map_ : ndarray, shape (n_channels, n_channels), or None
        Realigns its channels.
    rng : numpy.random.Generator
        Of the adaptation.

    Returns
    -------
    moved : CalibratedEncoder
        With a confidence learned from the session's held-out windows.
    facts : dict
        'channels' (as they are, or realigned), whether a 'layer' of its own was fitted, two-way identification and
        error of held-out windows before and after, and the 'identification' after with its interval and chance. For
        what is after, what is taken and its gain are chosen by the other folds; the other folds' layers have learned
        from the fold that is scored, which is of no weight in so small a choice.
    """
    deviations = embeddings - calibrated.mean
    truth = deviations[samples.rows]
    start = calibrated.encoder
    candidates = [_as_it_is(start, samples, folds)]
    channels = "as they are"
    if map_ is not None:
        preparation = replace(start.preparation, whitener=start.preparation.whitener @ map_)
        realigned = _with(start, centre_preparation(preparation, samples.data))
        candidates.append(_as_it_is(realigned, samples, folds))
    place, gain = choose([each.predictions for each in candidates], truth)
    if place:
        channels = "realigned"
    layer = False
    if len(np.unique(samples.groups)) >= LEAST_PICTURES:
        candidates.append(_with_layer(candidates[place].encoder, samples, deviations, folds, rng))
        # A third candidate must be better than the best of the others, not than whichever comes before it.
        order = [*range(place + 1), len(candidates) - 1]
        chosen, gain = choose([candidates[each].predictions for each in order], truth)
        layer = chosen == len(order) - 1
        place = order[chosen]
    own = candidates[place]
    encoder = _with(own.encoder, own.encoder.preparation, own.encoder.gain * gain) if place else own.encoder
    before, after = candidates[0].predictions, np.empty_like(truth)
    for train, test in folds:
        other, factor = choose([each.predictions[train] for each in candidates], truth[train])
        after[test] = factor * candidates[other].predictions[test]
    if not place:
        after = before
    nowhere = np.zeros(truth.shape[1], np.float32)
    similarities = [similarity_to_shown(deviations, found, samples.rows) for found in (before, after)]
    told = [two_way(*each) for each in similarities]
    facts: dict[str, Any] = {"channels": channels, "layer": layer}
    facts |= {"two_way_before": rounded_mean(told[0]), "two_way_after": rounded_mean(told[1])}
    facts["identification"] = training_identification(*similarities[1])
    for name, found in (("error_before", before), ("error_after", after)):
        facts[name] = round(squared_error(found, truth, 1.0), 4)
    correct = two_way_about_mean(deviations, own.predictions, samples.rows, nowhere)
    statistics = _statistics(own, gain, samples, folds, (correct, told[1]), rng)
    calibration, facts["confidence"] = calibrate(statistics)
    return replace(calibrated, encoder=encoder, calibration=calibration), facts


def _as_it_is(encoder: ConvEncoder, samples: TrainingSet, folds: Sequence[TrainTest]) -> Candidate:
    return Candidate(encoder, [encoder] * len(folds), encoder(samples.data))


def _with_layer(
    encoder: ConvEncoder, samples: TrainingSet, deviations: Array, folds: Sequence[TrainTest], rng: np.random.Generator
) -> Candidate:
    """Fit a layer of the session's own, for each fold without it, and by all."""
    found = np.empty((len(samples.rows), deviations.shape[1]), np.float32)
    by_fold = []
    for train, test in folds:
        by_fold.append(adapt(encoder, samples.take(train), deviations, rng))
        found[test] = by_fold[-1](samples.data[test])
    return Candidate(adapt(encoder, samples, deviations, rng), by_fold, found)


def _statistics(
    own: Candidate,
    gain: float,
    samples: TrainingSet,
    folds: Sequence[TrainTest],
    told: tuple[Floats, Floats],
    rng: np.random.Generator,
) -> list[FoldStatistics]:
    """Summarise held-out windows, and surrogates without a response, as an encoder's confidence takes them in."""
    out = []
    for (_, test), encoder in zip(folds, own.by_fold, strict=True):
        data = samples.data[test]
        turn = circular_shift(data, rng) if len(samples.times) > 1 else data[:0]
        statistics = [conv_statistics(encoder, each, gain * encoder(each)) for each in (data, turn)]
        out.append(FoldStatistics(statistics[0], told[0][test], statistics[1], told[1][test]))
    return out


def _with(encoder: ConvEncoder, preparation: Preparation, gain: float | None = None) -> ConvEncoder:
    gain = encoder.gain if gain is None else gain
    return ConvEncoder(preparation, encoder.network, encoder.spec, encoder.sfreq, gain)
