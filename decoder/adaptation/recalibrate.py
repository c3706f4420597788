"""A trained decoder moved to a new session, day or person by a few minutes of labelled windows.

The channels are realigned (`decoder.alignment.realign`), and what is left is learned by ridge regression whose penalty
draws the weights to those that the bundle has, not to zero: with few windows the old decoder stays, with many it gives
way. Both are kept only as far as they predict held-out windows of the new session better than the old decoder does.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.adaptation.adapt import move_encoder
from decoder.adaptation.moving import (
    AS_THEY_ARE,
    REALIGNED,
    Choice,
    Inputs,
    Session,
    add_weights,
    choose,
    error_of,
    held_out,
    inner_folds,
)
from decoder.alignment.realign import alignment
from decoder.data.feature_registry import Encoders
from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets, compute_targets
from decoder.data.training_set import gather
from decoder.data.usable import usable
from decoder.errors import TrainingError
from decoder.evaluation.identify import training_identification
from decoder.evaluation.metrics import correlation_matrix, rounded_mean, two_way
from decoder.features import block_of
from decoder.models.bundle import WHOLE, Bundle
from decoder.models.confidence import Calibration, FoldStatistics, calibrate, fit_typicality, window_statistics
from decoder.models.embedding import EmbeddingModel
from decoder.models.linear import Head, LinearModel
from decoder.preprocessing.badchannels import find_bad_channels
from decoder.preprocessing.preprocess import Preprocessor
from decoder.preprocessing.session_moments import SessionMoments, fit_session_moments
from decoder.spec import DecoderSpec
from decoder.training.judging import circular_shift
from stream.types.progress import Progress, no_progress
from stream.types.windows import Window

Array = NDArray[np.float32]

FOLDS = 5

logger = logging.getLogger(__name__)


def recalibrate(
    bundle: Bundle,
    windows: Sequence[Window],
    stimuli: StimulusTable,
    encoders: Encoders,
    progress: Progress = no_progress,
    *,
    cache: Path | None = None,
    seed: int = 0,
) -> Bundle:
    """Move a bundle to a new session.

    Parameters
    ----------
    bundle : Bundle
        Of linear decoders.
    windows : sequence of Window
        Each answers to the stimulus that its event's label names.
    stimuli : StimulusTable
    encoders : Encoders
        With the bundle's feature space.
    progress : callable
    cache : Path or None
        Folder that keeps targets between runs.
    seed : int
        Of the folds.

    Returns
    -------
    moved : Bundle
        Its meta tells under 'recalibrated' whether channels were realigned, and by head the penalty chosen and the
        held-out squared error, before and after, in units of the targets' variance: after, with channels and penalties
        that the other folds chose. 'scores' are of the session, those of the bundle are 'scores_before_moving'.
        Typicality is that of the session, and confidence learned from its held-out windows.

    Raises
    ------
    TrainingError
        If too few windows are left, or the decoder is not linear.
    BundleError
        If windows or encoders do not fit the bundle.
    """
    bundle.check_feature_space(encoders.feature_space)
    model = bundle.models[WHOLE]
    base = model.base if isinstance(model, EmbeddingModel) else model
    if not isinstance(base, LinearModel):
        raise TrainingError(f"a decoder of family {model.family!r} is not recalibrated; train it on the new session")
    arranged = [bundle.in_bundle_order(window) for window in windows]
    _check_channels(arranged)
    used, left_out = usable(arranged, stimuli.ids)
    shown = stimuli.select(sorted({label for _, label in used}))
    features = sorted({head.feature.key for head in base.heads})
    blocks = [block for head in base.heads if (block := block_of(head.name)) is not None]
    targets = compute_targets(shown, encoders, features=features, blocks=blocks, cache=cache, progress=progress)
    samples = gather([window for window, _ in used], shown, DecoderSpec(seed=seed))
    session = Session(
        samples,
        {head.name: _wanted(targets, head, samples.rows) for head in base.heads},
        samples.folds(FOLDS, np.random.default_rng(seed)),
        _whitened(bundle, base),
    )
    moved, facts, scores = _moved(base, bundle.moments, session)
    facts = {"windows": len(used), "pictures": len(shown), "left_out": left_out, **facts}
    whole: EmbeddingModel | LinearModel = moved
    if isinstance(model, EmbeddingModel):
        encoder = model.calibrated_encoder
        if encoder is not None and targets.e is not None:
            map_ = session_map(bundle.moments, samples.data)
            rng = np.random.default_rng([seed, 1])
            encoder, about = move_encoder(encoder, samples, targets.e, session.folds, map_, rng)
            scores["e"] = {"two_way": about["two_way_after"], **about.pop("identification")}
            scores["confidence"] = about.pop("confidence")
            facts["encoder"] = about
        whole = EmbeddingModel(moved, encoder, model.prior)
    meta = {
        **bundle.meta,
        "scores": scores,
        "scores_before_moving": bundle.meta.get("scores", {}),
        "recalibrated": facts,
    }
    return Bundle(
        {WHOLE: whole},
        bundle.channels,
        sfreq=bundle.sfreq,
        n_times=bundle.n_times,
        tmin=bundle.tmin,
        meta=meta,
        moments=fit_session_moments(session.samples.data) if bundle.moments is not None else None,
    )


def _whitened(bundle: Bundle, base: LinearModel) -> frozenset[str]:
    """Name the heads of whitened structure: they are not to be nearest to the truth, by which weights are moved."""
    if not bundle.meta.get("decoder", {}).get("s_whitening"):
        return frozenset()
    logger.warning("whitened structure is decoded by the weights of the training: train anew to have others")
    return frozenset(head.name for head in base.heads if block_of(head.name) is not None)


def _check_channels(windows: Sequence[Window]) -> None:
    """Name the bundle's channels that the session has spoilt: a bundle cannot leave out what it reads."""
    bad = find_bad_channels(windows)
    broken = {name: reason for name, reason in bad.items() if reason.startswith("not finite")}
    if broken:
        named = ", ".join(f"{name} ({reason})" for name, reason in broken.items())
        raise TrainingError(f"the bundle reads channels that this session lacks: {named}; train anew without them")
    if bad:
        named = ", ".join(f"{name} ({reason})" for name, reason in bad.items())
        logger.warning("channels that the bundle reads carry nothing in this session: %s", named)


def _wanted(targets: Targets, head: Head, rows: NDArray[np.intp]) -> Array:
    value = targets.arrays()[head.name]
    return np.asarray(value.reshape(len(value), -1)[rows][:, head.active], np.float32)


def _moved(
    base: LinearModel, training: SessionMoments | None, session: Session
) -> tuple[LinearModel, dict[str, Any], dict[str, Any]]:
    """Choose between the channels as they are and realigned, and a penalty for each head.

    Returns
    -------
    moved : LinearModel
        With a typicality and a confidence learned from the session.
    facts : dict
        As `recalibrate` tells them.
    scores : dict
        Two-way identification of held-out windows by feature, and the confidence's.
    """
    data = session.samples.data
    preparations = {AS_THEY_ARE: base.preprocessor}
    map_ = session_map(training, data)
    if map_ is not None and base.preprocessor.compress == "none":
        preparations[REALIGNED] = _realigned(base.preprocessor, map_)
    candidates = {name: Inputs(prepare, data) for name, prepare in preparations.items()}
    chosen = choose(candidates, base.heads, session, session.folds)
    own = candidates[chosen.channels]
    rows = np.arange(len(data))
    heads = [
        add_weights(own, rows, session.targets[head.name], head, chosen.penalties[head.name]) for head in base.heads
    ]
    unchanged = chosen.channels == AS_THEY_ARE and not np.isfinite(list(chosen.penalties.values())).any()
    if unchanged:
        logger.warning("recalibration rolled back: the bundle as it was decodes held-out windows best")
    nested = [
        chosen if unchanged else choose(candidates, base.heads, session, inner_folds(session.folds, number))
        for number in range(len(session.folds))
    ]
    told: dict[str, Any] = {}
    for head in base.heads:
        before = held_out(head, [(candidates[AS_THEY_ARE], np.inf)] * len(nested), session)
        after = held_out(head, [(candidates[one.channels], one.penalties[head.name]) for one in nested], session)
        penalty = chosen.penalties[head.name]
        told[head.name] = {
            "penalty": penalty if np.isfinite(penalty) else None,
            "error_before": round(error_of(before, session), 4),
            "error_after": round(error_of(after, session), 4),
        }
    calibration, scores = _confidence(base, candidates, session, chosen, nested)
    if unchanged:
        calibration = base.calibration
    through = (base.evidence, base.posterior) if unchanged else (None, None)
    if base.evidence is not None and not unchanged:
        logger.warning("the encoding model is of the session of the training and is left out: train anew to have one")
    parts = (base.structure, *through, base.captions)
    moved = LinearModel(own.prepare, heads, fit_typicality(data, session.folds), calibration, *parts)
    return moved, {"channels": chosen.channels, "heads": told}, scores


def _confidence(
    base: LinearModel,
    candidates: Mapping[str, Inputs],
    session: Session,
    chosen: Choice,
    nested: Sequence[Choice],
) -> tuple[Calibration, dict[str, Any]]:
    """Learn how far to believe the moved decoder's windows, as training does, from the session's held-out ones."""
    samples, own = session.samples, candidates[chosen.channels]
    rng = np.random.default_rng(0)
    believed = [head for head in base.heads if head.believed]
    scores: dict[str, Any] = {}
    used, honest = [], []
    by_head = {
        head.name: held_out(head, [(own, chosen.penalties[head.name])] * len(nested), session) for head in base.heads
    }
    for head in believed or base.heads[:1]:
        ways = [(candidates[one.channels], one.penalties[head.name]) for one in nested]
        used.append(two_way(*_similarity(by_head[head.name], session)))
        r, own_rows = _similarity(held_out(head, ways, session), session)
        honest.append(two_way(r, own_rows))
        scores[head.name] = {"two_way": rounded_mean(honest[-1]), **training_identification(r, own_rows)}
    correct, without = np.mean(used, axis=0), np.mean(honest, axis=0)
    folds = []
    for number, (_, test) in enumerate(session.folds):
        turn = samples.data[test]
        turn = circular_shift(turn, rng) if len(samples.times) > 1 else turn[:0]
        surrogates = own.prepare(turn)
        moved = [by_head[head.name][number] for head in believed]
        statistics = window_statistics(own.values[test], [deviations for deviations, _ in moved])
        of_surrogates = window_statistics(surrogates, [surrogates @ one.weights for _, one in moved])
        folds.append(FoldStatistics(statistics, correct[test], of_surrogates, without[test]))
    calibration, scores["confidence"] = calibrate(folds)
    return calibration, scores


def _similarity(found: Sequence[tuple[Array, Head]], session: Session) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Correlate each window with the session's pictures, as deviations from what is decoded of no window.

    The row of its own picture, too.
    """
    wanted, rows = session.targets[found[0][1].name], session.samples.rows
    _, first, own = np.unique(rows, return_index=True, return_inverse=True)
    truth = wanted[first] - wanted.mean(axis=0)
    r = np.empty((len(truth), len(rows)))
    for (_, test), (deviations, _) in zip(session.folds, found, strict=True):
        r[:, test] = correlation_matrix(truth, deviations)
    return r, own


def session_map(training: SessionMoments | None, data: Array) -> Array | None:
    """Find the map that realigns a session's channels; None without moments of training."""
    return None if training is None else alignment(training, fit_session_moments(data), len(data))


def _realigned(prepare: Preprocessor, map_: Array) -> Preprocessor:
    """Let a preprocessor take channels that `map_` realigns."""
    cube = prepare.matrix.reshape(len(map_), -1, prepare.matrix.shape[1])
    matrix = np.einsum("kc,kbp->cbp", map_, cube, optimize=True).reshape(prepare.matrix.shape)
    return replace(prepare, matrix=np.ascontiguousarray(matrix, np.float32))
