"""A trained decoder moved to a new session, day or person by a few minutes of labelled windows.

The channels are realigned (`decoder.realign`), and what is left is learned by ridge regression whose penalty draws the
weights to those that the bundle has, not to zero: with few windows the old decoder stays, with many it gives way. Both
are kept only as far as they predict held-out windows of the new session better than the old decoder does.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.adapt import move_encoder
from decoder.badchannels import find_bad_channels
from decoder.bundle import WHOLE, Bundle
from decoder.embedding import EmbeddingModel
from decoder.errors import TrainingError
from decoder.linear import Head, LinearModel
from decoder.preprocess import Preprocessor
from decoder.realign import alignment
from decoder.reference import Reference, fit_reference
from decoder.ridge import decompose, fit_ridge
from decoder.samples import Samples, gather
from decoder.spec import DecoderSpec
from decoder.splits import Split
from decoder.stimuli import StimulusTable
from decoder.targets import Encoders, Progress, Targets, compute_targets, no_progress
from decoder.usable import usable
from stream.windows import Window

Array = NDArray[np.float32]

PENALTIES = (1.0, 10.0, 100.0, 1000.0, np.inf)
"""Of what is added to the weights, in units of the inputs' mean eigenvalue; infinite: nothing is."""
WORTH = 0.01
"""Share of the held-out squared error that a change must take away: less is luck."""
FOLDS = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """Windows of the new session, and what should be decoded from them.

    Attributes
    ----------
    samples : Samples
    wanted : dict of str to ndarray, shape (n, n_active), float32
        By head.
    folds : list of (train, test)
        No picture is on both sides.
    """

    samples: Samples
    wanted: dict[str, Array]
    folds: list[Split]


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
        held-out squared error, before and after, in units of the targets' variance.

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
    arranged = [bundle.arranged(window) for window in windows]
    _check_channels(arranged)
    used, left_out = usable(arranged, stimuli.ids)
    shown = stimuli.select(sorted({label for _, label in used}))
    features = sorted({head.name[0] for head in base.heads})
    blocks = [int(head.name[1:]) for head in base.heads if head.name[0] == "s"]
    targets = compute_targets(shown, encoders, features=features, blocks=blocks, cache=cache, progress=progress)
    samples = gather([window for window, _ in used], shown, DecoderSpec(seed=seed))
    session = Session(
        samples,
        {head.name: _wanted(targets, head, samples.rows) for head in base.heads},
        samples.folds(FOLDS, np.random.default_rng(seed)),
    )
    moved, facts = _moved(base, bundle.reference, session)
    facts = {"windows": len(used), "pictures": len(shown), "left_out": left_out, **facts}
    whole: EmbeddingModel | LinearModel = moved
    if isinstance(model, EmbeddingModel):
        convolution = model.convolution
        if convolution is not None and targets.e is not None:
            map_ = session_map(bundle.reference, samples.data)
            rng = np.random.default_rng([seed, 1])
            convolution, facts["encoder"] = move_encoder(convolution, samples, targets.e, session.folds, map_, rng)
        whole = EmbeddingModel(moved, convolution, model.prior)
    return Bundle(
        {WHOLE: whole},
        bundle.channels,
        sfreq=bundle.sfreq,
        n_times=bundle.n_times,
        tmin=bundle.tmin,
        meta={**bundle.meta, "recalibrated": facts},
        reference=fit_reference(session.samples.data) if bundle.reference is not None else None,
    )


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
    value = targets.s[int(head.name[1:])] if head.name[0] == "s" else getattr(targets, head.name)
    return np.asarray(value.reshape(len(value), -1)[rows][:, head.active], np.float32)


def _moved(base: LinearModel, reference: Reference | None, session: Session) -> tuple[LinearModel, dict[str, Any]]:
    """Choose between the channels as they are and realigned, and a penalty for each head."""
    candidates = {"as they are": base.preprocessor}
    map_ = session_map(reference, session.samples.data)
    if map_ is not None and base.preprocessor.compress == "none":
        candidates["realigned"] = _realigned(base.preprocessor, map_)
    errors = {
        name: {head.name: _held_out(prepare(session.samples.data), head, session) for head in base.heads}
        for name, prepare in candidates.items()
    }
    best = {name: float(np.mean([each.min() for each in by_head.values()])) for name, by_head in errors.items()}
    chosen = "realigned" if best.get("realigned", np.inf) < (1 - WORTH) * best["as they are"] else "as they are"
    prepare = candidates[chosen]
    inputs = prepare(session.samples.data)
    heads, told = [], {}
    for head in base.heads:
        penalty = float(PENALTIES[int(errors[chosen][head.name].argmin())])
        heads.append(_added(inputs, session.wanted[head.name], head, penalty))
        told[head.name] = {
            "penalty": penalty if np.isfinite(penalty) else None,
            "error_before": round(float(errors["as they are"][head.name][-1]), 4),
            "error_after": round(float(errors[chosen][head.name].min()), 4),
        }
    if chosen == "as they are" and all(entry["penalty"] is None for entry in told.values()):
        logger.warning("recalibration rolled back: the bundle as it was decodes held-out windows best")
    moved = LinearModel(prepare, heads, base.typicality, base.calibration, base.structure)
    return moved, {"channels": chosen, "heads": told}


def session_map(reference: Reference | None, data: Array) -> Array | None:
    """Find the map that realigns a session's channels; None without a reference."""
    return None if reference is None else alignment(reference, fit_reference(data), len(data))


def _realigned(prepare: Preprocessor, map_: Array) -> Preprocessor:
    """Let a preprocessor take channels that `map_` realigns."""
    cube = prepare.matrix.reshape(len(map_), -1, prepare.matrix.shape[1])
    matrix = np.einsum("kc,kbp->cbp", map_, cube, optimize=True).reshape(prepare.matrix.shape)
    return replace(prepare, matrix=np.ascontiguousarray(matrix, np.float32))


def _held_out(inputs: Array, head: Head, session: Session) -> NDArray[np.float64]:
    """Give the squared error of held-out windows at each penalty, in units of the targets' variance.

    What adds to the weights counts as `WORTH` worse than it is.
    """
    wanted = session.wanted[head.name]
    errors = np.zeros(len(PENALTIES))
    for train, test in session.folds:
        for row, penalty in enumerate(PENALTIES):
            moved = _added(inputs[train], wanted[train], head, penalty)
            errors[row] += float(np.square(inputs[test] @ moved.weights + moved.intercept - wanted[test]).sum())
    errors[:-1] /= 1 - WORTH
    return errors / float(np.square(wanted - wanted.mean(axis=0)).sum())


def _added(inputs: Array, wanted: Array, head: Head, penalty: float) -> Head:
    """Add to a head's weights what the windows say, drawn to nothing by the penalty."""
    if not np.isfinite(penalty):
        return head
    spectrum = decompose(inputs)
    residual = wanted - inputs @ head.weights - head.intercept
    alpha = np.full(wanted.shape[1], penalty * spectrum.level)
    weights, intercept = fit_ridge(spectrum, residual, alpha)
    return replace(head, weights=head.weights + weights, intercept=head.intercept + intercept)
