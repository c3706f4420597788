"""The decoder that goes by way of the pooled embedding: from a convolutional encoder, or to tokens by a prior."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from decoder.confidence import Calibration, fit_calibration, window_statistics
from decoder.conv import ConvEncoder
from decoder.features import Features
from decoder.linear import LinearModel
from decoder.prior import Prior, fit_prior
from decoder.ridge import column_correlations
from decoder.spec import DecoderSpec
from decoder.splits import group_folds
from decoder.targets import Progress, Targets, no_progress
from decoder.train import Samples, fit_linear, identified, rounded_mean, turned, undo_shrinkage
from decoder.train_conv import Lesson, fit_encoder
from stream.windows import Window

Array = NDArray[np.float32]
Rows = NDArray[np.intp]


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
    return window_statistics(encoder.preparation(data).reshape(len(data), -1), [deviations])


def fit_embedding(
    samples: Samples,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
) -> tuple[EmbeddingModel, dict[str, Any]]:
    """Fit a linear model, and beside it what the spec asks for: an encoder of `e`, a prior from `e` to `c`.

    Where the spec leaves the choice open, the one that better tells held-out training pictures apart is kept.

    Returns
    -------
    model : EmbeddingModel
    scores : dict
        As of the linear model; 'e' and 'c' also name what was compared, and which is 'used'.
    """
    base = fit_linear(samples, targets, spec, progress)
    scores, e_held_out = base.scores, base.held_out["e"]
    assert targets.e is not None
    convolution, prior = None, None
    if spec.family != "ridge":
        convolution, conv_held_out, score = fit_convolution(samples, targets.e, spec, progress)
        scores["e"] = {"ridge": scores["e"], "conv": score, "used": "conv"}
        if spec.family == "auto" and score["two_way"] <= scores["e"]["ridge"]["two_way"]:
            convolution, scores["e"]["used"] = None, "ridge"
        else:
            e_held_out = conv_held_out
    if spec.c_from != "tokens" and targets.c is not None:
        prior, score = _fit_prior(samples, targets.e, targets.c, e_held_out, spec)
        scores["c"] = {"tokens": scores["c"], "embedding": score, "used": "embedding"}
        if spec.c_from == "auto" and score["two_way"] <= scores["c"]["tokens"]["two_way"]:
            prior, scores["c"]["used"] = None, "tokens"
    return EmbeddingModel(base.model, convolution, prior), scores


def fit_convolution(
    samples: Samples, embeddings: Array, spec: DecoderSpec, progress: Progress = no_progress
) -> tuple[Convolution, Array, dict[str, float]]:
    """Fit an encoder on all samples; its gain and confidence come from folds that did not see the picture.

    Returns
    -------
    convolution : Convolution
    held_out : ndarray, shape (n_samples, d), float32
        Embeddings from the folds.
    score : dict
        Mean correlation over the embedding's numbers, and two-way identification, of `held_out`.
    """
    rng = np.random.default_rng([spec.seed, 1])
    n_folds = min(spec.conv.cv_folds, len(np.unique(samples.groups)))
    mean = embeddings[samples.rows].mean(axis=0)
    found, truth = np.empty((len(samples.rows), len(mean)), np.float32), np.empty((len(samples.rows), len(mean)))
    clean, surrogate = [], []
    for number, (train, test) in enumerate(group_folds(samples.groups.tolist(), n_folds, rng)):
        progress("cross-validation of the encoder", number, n_folds)
        own_mean = embeddings[samples.rows[train]].mean(axis=0)
        encoder = fit_encoder(_lesson(samples.take(train), embeddings - own_mean), spec.preprocess, spec.conv, rng)
        found[test], truth[test] = encoder(samples.data[test]), embeddings[samples.rows[test]] - own_mean
        clean.append((test, encoder, found[test]))
        if len(samples.times) > 1:
            turn = turned(samples.data[test], rng)
            surrogate.append((turn, encoder, encoder(turn)))
    progress("cross-validation of the encoder", n_folds, n_folds)
    # The factor of least squared error on held-out windows: what was learned by heart comes out too large.
    gain = max(0.0, float(np.vdot(found, truth) / (np.vdot(found, found) + 1e-12)))
    told = identified(embeddings - mean, found, samples.rows, np.zeros_like(mean))
    score = {"r": rounded_mean(column_correlations(truth.astype(np.float32), found)), "two_way": rounded_mean(told)}
    statistics = [conv_statistics(e, samples.data[test], gain * out) for test, e, out in clean]
    statistics += [conv_statistics(e, data, gain * out) for data, e, out in surrogate]
    correct = [told[test] for test, _, _ in clean] + [np.full(len(data), 0.5) for data, _, _ in surrogate]
    calibration = fit_calibration(np.concatenate(statistics), np.concatenate(correct))
    encoder = fit_encoder(_lesson(samples, embeddings - mean), spec.preprocess, spec.conv, rng, progress)
    encoder.gain *= gain
    return Convolution(encoder, mean, calibration), mean + np.float32(gain) * found, score


def _lesson(samples: Samples, embeddings: Array) -> Lesson:
    nobody_else = np.zeros(len(samples.rows), np.intp)
    return Lesson(samples.data, samples.times, samples.rows, samples.groups, embeddings, nobody_else)


def _fit_prior(
    samples: Samples, embeddings: Array, tokens: Array, e_held_out: Array, spec: DecoderSpec
) -> tuple[Prior, dict[str, float]]:
    """Fit a prior on all pictures, and score held-out decoding through priors that did not see the picture."""
    rng = np.random.default_rng([spec.seed, 2])
    of_picture = np.empty(len(embeddings), samples.groups.dtype)
    of_picture[samples.rows] = samples.groups
    shown = np.unique(samples.rows)
    found = np.empty((len(samples.rows), *tokens.shape[1:]), np.float32)
    for train, test in group_folds(of_picture[shown].tolist(), min(spec.cv_folds, len(np.unique(of_picture))), rng):
        prior = fit_prior(embeddings[shown[train]], tokens[shown[train]], rng)
        windows = np.isin(samples.rows, shown[test])
        found[windows] = prior(e_held_out[windows])
    flat, true = found.reshape(len(found), -1), tokens.reshape(len(tokens), -1)
    mean = true[samples.rows].mean(axis=0)
    told = identified(true, flat, samples.rows, mean)
    active = np.ptp(true, axis=0) > 0
    r = column_correlations(true[samples.rows][:, active], flat[:, active])
    factor = undo_shrinkage(true[samples.rows], flat, spec.c_gain)
    prior = fit_prior(embeddings[shown], tokens[shown], rng).stretched(factor, mean)
    return prior, {"r": rounded_mean(r), "two_way": rounded_mean(told)}
