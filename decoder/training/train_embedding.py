"""The decoder by way of the pooled embedding: which encoder and prior are used, fitted and scored."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import TrainTest, group_folds
from decoder.data.targets import Targets
from decoder.data.training_set import TrainingSet
from decoder.encoders.conv import ConvEncoder
from decoder.encoders.prior import Prior, fit_prior
from decoder.evaluation.identify import choose_space, training_identification
from decoder.evaluation.metrics import rounded_mean, two_way
from decoder.models.confidence import FoldStatistics, calibrate
from decoder.models.embedding import CalibratedEncoder, EmbeddingModel, conv_statistics
from decoder.models.structure_prior import StructurePrior
from decoder.parallel import apply_each
from decoder.solvers.ridge import undo_shrinkage
from decoder.spec import DecoderSpec
from decoder.training.judging import circular_shift, similarity_to_shown
from decoder.training.nested import fold_correlations
from decoder.training.train_conv import LEAST_PICTURES, fit_encoder
from decoder.training.train_linear import CONSTANT, fit_linear
from stream.types.progress import Progress, no_progress

Array = NDArray[np.float32]
Rows = NDArray[np.intp]
logger = logging.getLogger(__name__)

MOST_CHANNELS = 1024
"""An encoder mixes all channels with all others: more of them than this are voxels, for ridge."""


def fit_embedding(
    samples: TrainingSet,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
    *,
    image_bank: Targets | None = None,
    structure: StructurePrior | None = None,
) -> tuple[EmbeddingModel, dict[str, Any]]:
    """Fit a linear model, and beside it what the spec asks for: an encoder of `e`, a prior from `e` to `c`.

    Where the spec leaves the choice open, the one that better tells held-out training pictures apart is kept. All that
    is compared was held out by the same folds.

    Parameters
    ----------
    samples : TrainingSet
    targets : Targets
    spec : DecoderSpec
    progress : callable
    image_bank : Targets or None
        `c` and `e` of captioned pictures that nobody was shown: the prior learns from these. None: it learns from the
        pictures that were shown.
    structure : StructurePrior or None
        As `decoder.training.train_linear.fit_linear` has it.

    Returns
    -------
    model : EmbeddingModel
    scores : dict
        As of the linear model; 'e' and 'c' also name what was compared, each by windows that chose nothing of it, and
        which is 'used': the better of two by these very windows, so that its own figures flatter a little. 'selection'
        holds the rank by which 'e' was chosen.
    """
    base = fit_linear(samples, targets, spec, progress, image_bank=image_bank, structure=structure)
    scores, held_out = base.scores, base.held_out
    assert targets.e is not None
    encoder, prior = None, None
    folds = encoder_folds(samples, spec) if spec.may_encode else base.folds
    if spec.family == "auto" and (why := no_encoder(samples, folds)):
        folds = base.folds
        logger.warning("e is decoded by ridge, without a comparison: %s", why)
        scores["e"] = {"ridge": scores["e"], "used": "ridge", "not_compared": why}
    elif spec.may_encode:
        held_out = held_out_linear(samples, targets, spec, folds)
        encoder, conv_held_out, conv_score = fit_calibrated_encoder(samples, targets.e, spec, folds, progress)
        confidence = conv_score.pop("confidence")
        ridge_score = held_out_scores(targets.e, held_out["e"], samples.rows, folds)
        shown = targets.e[samples.rows]
        mean = shown.mean(axis=0)
        for score, found in ((ridge_score, held_out["e"]), (conv_score, conv_held_out)):
            rng = np.random.default_rng([spec.seed, 4])
            space = choose_space(shown - mean, found - mean, samples.rows, samples.groups, rng)
            score["selection"] = {"identified_by": space.name, "rank": space.rank}
        scores["e"] = {"ridge": ridge_score, "conv": conv_score, "used": "conv"}
        if spec.family == "auto" and conv_score["selection"]["rank"] >= ridge_score["selection"]["rank"]:
            encoder, scores["e"]["used"] = None, "ridge"
        else:
            held_out["e"], scores["confidence"] = conv_held_out, confidence
    if spec.may_use_prior and targets.c is not None:
        prior, prior_score = _fit_prior(samples, targets, held_out["e"], folds, spec, image_bank)
        token_score = held_out_scores(targets.c, held_out["c"], samples.rows, folds)
        scores["c"] = {"tokens": token_score, "embedding": prior_score, "used": "embedding"}
        if spec.text_embedding_from == "auto" and prior_score["two_way"] <= token_score["two_way"]:
            prior, scores["c"]["used"] = None, "tokens"
    return EmbeddingModel(base.model, encoder, prior), scores


def encoder_folds(samples: TrainingSet, spec: DecoderSpec) -> list[TrainTest]:
    """Return the folds by which an encoder and ridge are compared: as the spec's split has them, but fewer."""
    return samples.folds(spec.conv.cv_folds, np.random.default_rng([spec.seed, 1]))


def no_encoder(samples: TrainingSet, folds: Sequence[TrainTest]) -> str:
    """Return why an encoder cannot be compared with ridge on these samples; empty where it can."""
    n_channels = samples.data.shape[1]
    if n_channels > MOST_CHANNELS:
        return f"{n_channels} channels, of which an encoder takes {MOST_CHANNELS} at most"
    n_pictures = min(len(np.unique(samples.groups[train])) for train, _ in folds)
    if n_pictures < LEAST_PICTURES:
        return f"{n_pictures} pictures in a fold, where an encoder needs {LEAST_PICTURES}"
    return ""


def held_out_linear(
    samples: TrainingSet, targets: Targets, spec: DecoderSpec, folds: Sequence[TrainTest]
) -> dict[str, Array]:
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


def held_out_scores(
    truth: Array, found: Array, rows: Rows, folds: Sequence[TrainTest], centre: Array | None = None
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
    similarity, own = similarity_to_shown(true - mean, deviations, rows)
    about = np.empty_like(shown)
    for train, test in folds:
        about[test] = shown[test] - shown[train].mean(axis=0)
    r = fold_correlations(deviations[:, active], about[:, active], [test for _, test in folds])
    return {
        "r": rounded_mean(r),
        "two_way": rounded_mean(two_way(similarity, own)),
        **training_identification(similarity, own),
    }


def fit_calibrated_encoder(
    samples: TrainingSet,
    embeddings: Array,
    spec: DecoderSpec,
    folds: Sequence[TrainTest],
    progress: Progress = no_progress,
) -> tuple[CalibratedEncoder, Array, dict[str, Any]]:
    """Fit an encoder on all samples; its gain and confidence come from folds that did not see the picture.

    Returns
    -------
    encoder : CalibratedEncoder
    held_out : ndarray, shape (n_samples, d), float32
        Embeddings from the folds.
    score : dict
        Mean correlation over the embedding's numbers, and two-way identification, of `held_out`; how far its
        'confidence' is to be believed.
    """
    mean = embeddings[samples.rows].mean(axis=0)
    found, truth = np.empty((2, len(samples.rows), len(mean)), np.float32)
    fit_fold = partial(_fit_encoder_fold, samples, embeddings, spec)
    about = "cross-validation of the encoder"
    parts = apply_each(fit_fold, list(enumerate(folds)), about=about, progress=progress)
    for (train, test), (_, decoded, _, _) in zip(folds, parts, strict=True):
        found[test], truth[test] = (
            decoded,
            embeddings[samples.rows[test]] - embeddings[samples.rows[train]].mean(axis=0),
        )
    # The factor of least squared error on held-out windows: what was learned by heart comes out too large.
    gain = max(0.0, float(np.vdot(found, truth) / (np.vdot(found, found) + 1e-12)))
    similarity, own = similarity_to_shown(embeddings - mean, found, samples.rows)
    told = two_way(similarity, own)
    r = fold_correlations(found, truth, [test for _, test in folds])
    score: dict[str, Any] = {
        "r": rounded_mean(r),
        "two_way": rounded_mean(told),
        **training_identification(similarity, own),
    }
    believed = [
        FoldStatistics(
            conv_statistics(encoder, samples.data[test], gain * found[test]),
            told[test],
            conv_statistics(encoder, turn, gain * out),
        )
        for (_, test), (encoder, _, turn, out) in zip(folds, parts, strict=True)
    ]
    calibration, score["confidence"] = calibrate(believed)
    rng = np.random.default_rng([spec.seed, 1])
    encoder = fit_encoder(samples, embeddings - mean, spec.preprocess, spec.conv, rng, progress)
    encoder.gain *= gain
    return CalibratedEncoder(encoder, mean, calibration), mean + np.float32(gain) * found, score


def _fit_encoder_fold(
    samples: TrainingSet, embeddings: Array, spec: DecoderSpec, fold: tuple[int, TrainTest]
) -> tuple[ConvEncoder, Array, Array, Array]:
    """Fit the encoder of a fold; return it, its held-out windows' embeddings, and shifted windows and theirs."""
    number, (train, test) = fold
    rng = np.random.default_rng([spec.seed, 1, number])  # each fold has its own, whatever is fitted before it
    mean = embeddings[samples.rows[train]].mean(axis=0)
    encoder = fit_encoder(samples.take(train), embeddings - mean, spec.preprocess, spec.conv, rng)
    turn = circular_shift(samples.data[test], rng) if len(samples.times) > 1 else samples.data[:0]
    return encoder, encoder(samples.data[test]), turn, encoder(turn)


def _fit_prior(
    samples: TrainingSet,
    targets: Targets,
    e_held_out: Array,
    folds: Sequence[TrainTest],
    spec: DecoderSpec,
    image_bank: Targets | None,
) -> tuple[Prior, dict[str, Any]]:
    """Fit a prior, and score held-out decoding through priors that did not see the picture."""
    assert targets.c is not None
    assert targets.e is not None
    rng = np.random.default_rng([spec.seed, 2])
    shown = np.unique(samples.rows)
    if image_bank is not None and image_bank.c is not None and image_bank.e is not None:
        prior = fit_prior(image_bank.e, image_bank.c, rng)
        found, centre = prior(e_held_out), prior(targets.e[samples.rows].mean(axis=0, keepdims=True)).ravel()
    else:
        prior = fit_prior(targets.e[shown], targets.c[shown], rng)
        found, folds = _through_priors(samples, targets.e, targets.c, e_held_out, spec, rng)
        centre = None
    true = targets.c.reshape(len(targets.c), -1)[samples.rows]
    factor = undo_shrinkage(true, found.reshape(len(found), -1), spec.c_gain)
    score = held_out_scores(targets.c, found, samples.rows, folds, centre)
    learned = len(image_bank.c) if image_bank is not None and image_bank.c is not None else len(shown)
    return prior.scale_about(factor, true.mean(axis=0)), {**score, "pictures": learned}


def _through_priors(
    samples: TrainingSet,
    embeddings: Array,
    tokens: Array,
    e_held_out: Array,
    spec: DecoderSpec,
    rng: np.random.Generator,
) -> tuple[Array, list[TrainTest]]:
    """Predict tokens of held-out embeddings by priors learned from other pictures, and the folds of samples.

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
