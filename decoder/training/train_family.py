"""How good a decoder is that brings a `fit` of its own."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from decoder.data.splits import TrainTest
from decoder.data.targets import Targets
from decoder.data.training_set import TrainingSet
from decoder.features import Features
from decoder.models.family import Fit
from decoder.parallel import apply_each
from decoder.spec import DecoderSpec
from decoder.training.train_embedding import held_out_scores
from stream.types.progress import Progress, no_progress
from stream.types.windows import Window

logger = logging.getLogger(__name__)


def family_scores(
    fit: Fit,
    windows: Sequence[Window],
    samples: TrainingSet,
    targets: Targets,
    spec: DecoderSpec,
    progress: Progress = no_progress,
) -> dict[str, dict[str, Any]]:
    """Decode each fold's windows by a model that was fitted without their pictures, and score what it decodes.

    Returns
    -------
    scores : dict of str to dict
        By decoded feature, as `decoder.training.train_embedding.held_out_scores`.
    """
    folds = samples.folds(spec.cv_folds, np.random.default_rng(spec.seed))
    decode = partial(_decode_fold, fit, windows, samples, targets, spec)
    decoded: dict[int, Features] = {}
    for fold in apply_each(decode, folds, about="scores", progress=progress):
        decoded |= fold
    scores = {}
    for name, truth in targets.arrays().items():
        values = [decoded[row].values(name) for row in range(len(samples.rows))]
        kept = [value for value in values if value is not None]
        if len(kept) == len(values):
            scores[name] = held_out_scores(truth, np.stack(kept), samples.rows, folds)
        else:
            logger.warning(
                "family %r does not decode %s, which decoder.features asks for: it has no score, and pictures go "
                "without it; leave it out of decoder.features",
                spec.family,
                name,
            )
    return scores


def _decode_fold(
    fit: Fit, windows: Sequence[Window], samples: TrainingSet, targets: Targets, spec: DecoderSpec, fold: TrainTest
) -> dict[int, Features]:
    """Fit on a fold's training part and decode its held-out windows, by row."""
    train, test = fold
    model = fit(samples.take(train), targets, spec)
    return dict(zip(test.tolist(), model.predict([windows[row] for row in test], samples.data[test]), strict=True))
