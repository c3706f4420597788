"""A convolutional encoder moved to a new session or person: channels realigned, and a layer of their own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.conv import ConvEncoder, Preparation
from decoder.embedding import Convolution, lesson_of
from decoder.judging import identified
from decoder.metrics import rounded_mean
from decoder.samples import Samples
from decoder.splits import Split
from decoder.train_conv import adapt, centred

Array = NDArray[np.float32]

WORTH = 0.01
"""Share of the held-out error that a change must take away: less is luck."""
LEAST_PICTURES = 20
"""With fewer, no layer is fitted."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What an encoder makes of windows that it was not adapted by, and how far that is from the truth.

    Attributes
    ----------
    found : ndarray, shape (n, d), float32
        Deviations of the embedding.
    gain : float
        Factor on them of least squared error.
    error : float
        Squared error with that gain, in units of the truth's own square: 1 where nothing is decoded.
    """

    found: Array
    gain: float
    error: float


def held(found: Array, truth: Array) -> Held:
    """Compare predictions with the truth, both (n, d)."""
    power = float(np.square(truth).sum())
    gain = max(0.0, float(np.vdot(found, truth)) / (float(np.square(found).sum()) + 1e-12))
    return Held(found, gain, float(np.square(gain * found - truth).sum()) / power)


def move_encoder(
    convolution: Convolution,
    samples: Samples,
    embeddings: Array,
    folds: Sequence[Split],
    map_: Array | None,
    rng: np.random.Generator,
) -> tuple[Convolution, dict[str, Any]]:
    """Move an encoder to a new session, as far as that decodes its held-out windows better.

    Parameters
    ----------
    convolution : Convolution
    samples : Samples
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
    moved : Convolution
    facts : dict
        'channels' (as they are, or realigned), whether a 'layer' of its own was fitted, and two-way identification
        and error of held-out windows before and after.
    """
    deviations = embeddings - convolution.mean
    truth = deviations[samples.rows]
    start = convolution.encoder
    before = held(start(samples.data), truth)
    chosen, encoder, channels = before, start, "as they are"
    if map_ is not None:
        preparation = replace(start.preparation, whitener=start.preparation.whitener @ map_)
        realigned = _with(start, centred(preparation, samples.data))
        if (other := held(realigned(samples.data), truth)).error < (1 - WORTH) * chosen.error:
            chosen, encoder, channels = other, realigned, "realigned"
    layer = False
    if len(np.unique(samples.groups)) >= LEAST_PICTURES:
        found = np.empty_like(truth)
        for train, test in folds:
            found[test] = adapt(encoder, lesson_of(samples.take(train), deviations), rng)(samples.data[test])
        if (other := held(found, truth)).error < (1 - WORTH) * chosen.error:
            chosen, layer = other, True
            encoder = adapt(encoder, lesson_of(samples, deviations), rng)
    if chosen is not before:
        encoder = _with(encoder, encoder.preparation, encoder.gain * chosen.gain)
    nowhere = np.zeros(truth.shape[1], np.float32)
    told = [rounded_mean(identified(deviations, one.found, samples.rows, nowhere)) for one in (before, chosen)]
    facts = {"channels": channels, "layer": layer, "two_way_before": told[0], "two_way_after": told[1]}
    errors = {"error_before": round(before.error, 4), "error_after": round(chosen.error, 4)}
    return replace(convolution, encoder=encoder), {**facts, **errors}


def _with(encoder: ConvEncoder, preparation: Preparation, gain: float | None = None) -> ConvEncoder:
    gain = encoder.gain if gain is None else gain
    return ConvEncoder(preparation, encoder.network, encoder.spec, encoder.sfreq, gain)
