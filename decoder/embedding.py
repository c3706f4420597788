"""The decoder that goes by way of the pooled embedding: from a convolutional encoder, or to tokens by a prior."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from decoder.confidence import Calibration, FoldStatistics, calibrate, window_statistics
from decoder.conv import ConvEncoder
from decoder.features import Features
from decoder.identify import choose_space
from decoder.judging import identified, turned
from decoder.linear import LinearModel
from decoder.metrics import rounded_mean
from decoder.nested import fold_correlations
from decoder.prior import Prior, fit_prior
from decoder.ridge import undo_shrinkage
from decoder.samples import Samples
from decoder.spec import DecoderSpec
from decoder.splits import Split, group_folds
from decoder.targets import Progress, Targets, no_progress
from decoder.train import CONSTANT, fit_linear
from decoder.train_conv import LEAST_PICTURES, Lesson, fit_encoder
from stream.windows import Window

Array = NDArray[np.float32]
Rows = NDArray[np.intp]

MOST_CHANNELS = 1024
"""An encoder mixes all channels with all others: more of them than this are voxels, for ridge."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A trained encoder, the mean embedding about which it decodes, and how far to believe it."""

    encoder: ConvEncoder
    mean: Array
    calibration: Calibration


class EmbeddingModel:
    """A linear decoder whose `e` comes from a convolutional encoder, or whose `c` comes from `e`, or both.

    Parameters
    ----------
    base : LinearModel
        Decodes all else.
    convolution : Convolution or None
        Where given, `e` and the confidence are its own.
    prior : Prior or None
        Where given, `c` is its answer to `e`.
    """

    family: ClassVar[str] = "embedding"

    def __init__(self, base: LinearModel, convolution: Convolution | None, prior: Prior | None) -> None:
        self.base, self.convolution, self.prior = base, convolution, prior

    def predict(self, windows: Sequence[Window], data: Array) -> list[Features]:
        """Decode windows (n, n_channels, n_times), as `LinearModel.predict` does."""
        found = self.base.predict(windows, data)
        if self.convolution is not None:
            found = self._convolved(found, windows, data)
        if self.prior is None:
            return found
        tokens = self.prior(np.stack([np.asarray(one.e) for one in found]))
        return [replace(one, c=c) for one, c in zip(found, tokens, strict=True)]

    def _convolved(self, found: list[Features], windows: Sequence[Window], data: Array) -> list[Features]:
        assert self.convolution is not None
        encoder, mean = self.convolution.encoder, self.convolution.mean
        data, finite = self.base.silenced(data)
        deviations = encoder(data)
        sure = self.convolution.calibration(conv_statistics(encoder, data, deviations))
        sure = sure * self.base.typicality(data) * finite
        return [
            replace(one, e=mean + deviation, confidence=0.0 if window.quality.rejected else float(each))
            for one, window, deviation, each in zip(found, windows, deviations, sure, strict=True)
        ]

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Give everything that was fitted, by name."""
        out = {f"base.{name}": array for name, array in self.base.tensors().items()}
        if self.convolution is not None:
            conv = self.convolution
            out |= {f"encoder.{name}": array for name, array in conv.encoder.tensors().items()}
            out |= {f"calibration.{name}": getattr(conv.calibration, name) for name in Calibration.__slots__}
            out["mean"] = conv.mean
        if self.prior is not None:
            out |= {f"prior.{name}": array for name, array in self.prior.tensors().items()}
        return out

    def settings(self) -> dict[str, Any]:
        """Give what `from_tensors` needs besides the tensors; JSON-able."""
        return {
            "base": self.base.settings(),
            "encoder": None if self.convolution is None else self.convolution.encoder.settings(),
            "prior": self.prior is not None,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> "EmbeddingModel":
        """Rebuild a model from `tensors()` and `settings()`."""

        def part(start: str) -> dict[str, NDArray[Any]]:
            return {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}

        convolution = None
        if settings["encoder"] is not None:
            calibration = Calibration(*(tensors[f"calibration.{name}"] for name in Calibration.__slots__))
            encoder = ConvEncoder.from_tensors(part("encoder."), settings["encoder"])
            convolution = Convolution(encoder, tensors["mean"], calibration)
        prior = Prior.from_tensors(part("prior.")) if settings["prior"] else None
        return cls(LinearModel.from_tensors(part("base."), settings["base"]), convolution, prior)


def conv_statistics(encoder: ConvEncoder, data: Array, deviations: Array) -> Array:
    """Summarise encoded windows, for the calibration: log size of what went in and of what came out."""
    prepared = encoder.preparation(data)
    return window_statistics(prepared.reshape(len(data), encoder.preparation.mean.size), [deviations])


def fit_embedding(
    samples: Samples,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    bank: Targets | None = None,
) -> tuple[EmbeddingModel, dict[str, Any]]:
    """Fit a linear model, and beside it what the spec asks for: an encoder of `e`, a prior from `e` to `c`.

    Where the spec leaves the choice open, the one that better tells held-out training pictures apart is kept. All that
    is compared was held out by the same folds.

    Parameters
    ----------
    samples : Samples
    targets : Targets
    spec : DecoderSpec
    progress : callable
    bank : Targets or None
        `c` and `e` of captioned pictures that nobody was shown: the prior learns from these. None: it learns from the
        pictures that were shown.

    Returns
    -------
    model : EmbeddingModel
    scores : dict
        As of the linear model; 'e' and 'c' also name what was compared, each by windows that chose nothing of it, and
        which is 'used': the better of two by these very windows, so that its own figures flatter a little. 'selection'
        holds the rank by which 'e' was chosen.
    """
    base = fit_linear(samples, targets, spec, progress, bank=bank)
    scores, held_out = base.scores, base.held_out
    assert targets.e is not None
    convolution, prior = None, None
    folds = encoder_folds(samples, spec) if spec.may_encode else base.folds
    if spec.family == "auto" and (why := no_encoder(samples, folds)):
        folds = base.folds
        logger.warning("e is decoded by ridge, without a comparison: %s", why)
        scores["e"] = {"ridge": scores["e"], "used": "ridge", "not_compared": why}
    elif spec.may_encode:
        held_out = held_out_linear(samples, targets, spec, folds)
        convolution, conv_held_out, conv_score = fit_convolution(samples, targets.e, spec, folds, progress)
        confidence = conv_score.pop("confidence")
        ridge_score = scored(targets.e, held_out["e"], samples.rows, folds)
        shown = targets.e[samples.rows]
        mean = shown.mean(axis=0)
        for score, found in ((ridge_score, held_out["e"]), (conv_score, conv_held_out)):
            rng = np.random.default_rng([spec.seed, 4])
            space = choose_space(shown - mean, found - mean, samples.rows, samples.groups, rng)
            score["selection"] = {"identified_by": space.name, "rank": space.rank}
        scores["e"] = {"ridge": ridge_score, "conv": conv_score, "used": "conv"}
        if spec.family == "auto" and conv_score["selection"]["rank"] >= ridge_score["selection"]["rank"]:
            convolution, scores["e"]["used"] = None, "ridge"
        else:
            held_out["e"], scores["confidence"] = conv_held_out, confidence
    if spec.may_use_prior and targets.c is not None:
        prior, prior_score = _fit_prior(samples, targets, held_out["e"], folds, spec, bank)
        token_score = scored(targets.c, held_out["c"], samples.rows, folds)
        scores["c"] = {"tokens": token_score, "embedding": prior_score, "used": "embedding"}
        if spec.c_from == "auto" and prior_score["two_way"] <= token_score["two_way"]:
            prior, scores["c"]["used"] = None, "tokens"
    return EmbeddingModel(base.model, convolution, prior), scores


def encoder_folds(samples: Samples, spec: DecoderSpec) -> list[Split]:
    """Give the folds by which an encoder and ridge are compared: as the spec's split has them, but fewer."""
    return samples.folds(spec.conv.cv_folds, np.random.default_rng([spec.seed, 1]))


def no_encoder(samples: Samples, folds: Sequence[Split]) -> str:
    """Say why an encoder cannot be compared with ridge on these samples; empty where it can."""
    n_channels = samples.data.shape[1]
    if n_channels > MOST_CHANNELS:
        return f"{n_channels} channels, of which an encoder takes {MOST_CHANNELS} at most"
    n_pictures = min(len(np.unique(samples.groups[train])) for train, _ in folds)
    if n_pictures < LEAST_PICTURES:
        return f"{n_pictures} pictures in a fold, where an encoder needs {LEAST_PICTURES}"
    return ""


def held_out_linear(samples: Samples, targets: Targets, spec: DecoderSpec, folds: Sequence[Split]) -> dict[str, Array]:
    """Decode each fold by a linear model that was fitted, penalties and all, on the others.

    Returns
    -------
    held_out : dict of str to ndarray, shape (n_samples, n_numbers), float32
        'e', and 'c' where a prior is to be compared with it.
    """
    truth = {"e": targets.e, "c": targets.c if spec.may_use_prior else None}
    shown = {name: value.reshape(len(value), -1)[samples.rows] for name, value in truth.items() if value is not None}
    found = {name: np.empty_like(value) for name, value in shown.items()}
    for train, test in folds:
        model = fit_linear(samples.take(train), Targets(c=truth["c"], e=truth["e"]), spec, nested=False).model
        for name, values in model.values(samples.data[test]).items():
            # About the fold's own mean: it is low where the held-out ones are high, which would count against it.
            own_mean = shown[name][train].mean(axis=0)
            found[name][test] = values.reshape(len(test), -1) - own_mean + shown[name].mean(axis=0)
    return found


def scored(
    truth: Array, found: Array, rows: Rows, folds: Sequence[Split], centre: Array | None = None
) -> dict[str, Any]:
    """Score held-out predictions: mean correlation over the numbers that vary, and two-way identification.

    Parameters
    ----------
    truth : ndarray, shape (n_pictures, ...)
    found : ndarray, shape (n_samples, ...)
    rows : ndarray of int, shape (n_samples,)
    folds : sequence of (train, test)
        By which the samples were held out.
    centre : ndarray, shape (n_numbers,), or None
        What is decoded of the mean window. None: the mean truth.
    """
    true, flat = truth.reshape(len(truth), -1), found.reshape(len(found), -1)
    shown = true[rows]
    mean = shown.mean(axis=0)
    active = np.ptp(shown, axis=0) > CONSTANT
    deviations = flat - (mean if centre is None else centre)
    told = identified(true - mean, deviations, rows, np.zeros_like(mean))
    about = np.empty_like(shown)
    for train, test in folds:
        about[test] = shown[test] - shown[train].mean(axis=0)
    r = fold_correlations(deviations[:, active], about[:, active], [test for _, test in folds])
    return {"r": rounded_mean(r), "two_way": rounded_mean(told)}


def fit_convolution(
    samples: Samples,
    embeddings: Array,
    spec: DecoderSpec,
    folds: Sequence[Split],
    progress: Progress = no_progress,
) -> tuple[Convolution, Array, dict[str, Any]]:
    """Fit an encoder on all samples; its gain and confidence come from folds that did not see the picture.

    Returns
    -------
    convolution : Convolution
    held_out : ndarray, shape (n_samples, d), float32
        Embeddings from the folds.
    score : dict
        Mean correlation over the embedding's numbers, and two-way identification, of `held_out`; how far its
        'confidence' is to be believed.
    """
    rng = np.random.default_rng([spec.seed, 1])
    mean = embeddings[samples.rows].mean(axis=0)
    found, truth = np.empty((2, len(samples.rows), len(mean)), np.float32)
    parts: list[tuple[Rows, ConvEncoder, Array, Array]] = []
    for number, (train, test) in enumerate(folds):
        progress("cross-validation of the encoder", number, len(folds))
        own_mean = embeddings[samples.rows[train]].mean(axis=0)
        encoder = fit_encoder(lesson_of(samples.take(train), embeddings - own_mean), spec.preprocess, spec.conv, rng)
        found[test], truth[test] = encoder(samples.data[test]), embeddings[samples.rows[test]] - own_mean
        turn = turned(samples.data[test], rng) if len(samples.times) > 1 else samples.data[:0]
        parts.append((test, encoder, turn, encoder(turn)))
    progress("cross-validation of the encoder", len(folds), len(folds))
    # The factor of least squared error on held-out windows: what was learned by heart comes out too large.
    gain = max(0.0, float(np.vdot(found, truth) / (np.vdot(found, found) + 1e-12)))
    told = identified(embeddings - mean, found, samples.rows, np.zeros_like(mean))
    r = fold_correlations(found, truth, [test for _, test in folds])
    score: dict[str, Any] = {"r": rounded_mean(r), "two_way": rounded_mean(told)}
    believed = [
        FoldStatistics(
            conv_statistics(encoder, samples.data[test], gain * found[test]),
            told[test],
            conv_statistics(encoder, turn, gain * out),
        )
        for test, encoder, turn, out in parts
    ]
    calibration, score["confidence"] = calibrate(believed)
    encoder = fit_encoder(lesson_of(samples, embeddings - mean), spec.preprocess, spec.conv, rng, progress)
    encoder.gain *= gain
    return Convolution(encoder, mean, calibration), mean + np.float32(gain) * found, score


def lesson_of(samples: Samples, embeddings: Array) -> Lesson:
    """Give what a network learns from samples, and embeddings (n_pictures, d) about their mean."""
    return Lesson(samples.data, samples.times, samples.rows, samples.groups, embeddings, samples.persons())


def _fit_prior(
    samples: Samples,
    targets: Targets,
    e_held_out: Array,
    folds: Sequence[Split],
    spec: DecoderSpec,
    bank: Targets | None,
) -> tuple[Prior, dict[str, Any]]:
    """Fit a prior, and score held-out decoding through priors that did not see the picture."""
    assert targets.c is not None
    assert targets.e is not None
    rng = np.random.default_rng([spec.seed, 2])
    shown = np.unique(samples.rows)
    if bank is not None and bank.c is not None and bank.e is not None:
        prior = fit_prior(bank.e, bank.c, rng)
        found, centre = prior(e_held_out), prior(targets.e[samples.rows].mean(axis=0, keepdims=True)).ravel()
    else:
        prior = fit_prior(targets.e[shown], targets.c[shown], rng)
        found, folds = _through_priors(samples, targets.e, targets.c, e_held_out, spec, rng)
        centre = None
    true = targets.c.reshape(len(targets.c), -1)[samples.rows]
    factor = undo_shrinkage(true, found.reshape(len(found), -1), spec.c_gain)
    score = scored(targets.c, found, samples.rows, folds, centre)
    learned = len(bank.c) if bank is not None and bank.c is not None else len(shown)
    return prior.stretched(factor, true.mean(axis=0)), {**score, "pictures": learned}


def _through_priors(
    samples: Samples, embeddings: Array, tokens: Array, e_held_out: Array, spec: DecoderSpec, rng: np.random.Generator
) -> tuple[Array, list[Split]]:
    """Give tokens of held-out embeddings by priors learned from other pictures, and the folds of samples.

    They are about the mean tokens of all: a fold's own mean is low where the held-out ones are high.
    """
    of_picture = np.empty(len(embeddings), samples.groups.dtype)
    of_picture[samples.rows] = samples.groups
    shown = np.unique(samples.rows)
    mean_of_all = tokens[samples.rows].mean(axis=0)
    mean_embedding = embeddings[samples.rows].mean(axis=0, keepdims=True)
    found = np.empty((len(samples.rows), *tokens.shape[1:]), np.float32)
    folds = []
    for train, test in group_folds(of_picture[shown].tolist(), min(spec.cv_folds, len(np.unique(of_picture))), rng):
        held_out = np.isin(samples.rows, shown[test])
        prior = fit_prior(embeddings[shown[train]], tokens[shown[train]], rng)
        found[held_out] = prior(e_held_out[held_out]) - prior(mean_embedding) + mean_of_all
        folds.append((np.flatnonzero(~held_out), np.flatnonzero(held_out)))
    return found, folds
