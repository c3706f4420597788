"""Features decoded through an encoding model: fitted on pictures that nobody was shown, judged on held-out windows."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import TrainTest
from decoder.data.targets import Targets
from decoder.data.training_set import TrainingSet
from decoder.encoding.axes import Features
from decoder.encoding.evidence import EvidenceReader, fit_evidence
from decoder.encoding.posterior import Posterior, fit_posterior
from decoder.encoding.retrieval import answers_of
from decoder.errors import NO_IMAGE_BANK, TrainingError
from decoder.evaluation.metrics import rounded_mean
from decoder.features import block_name, block_of
from decoder.models.linear import Head
from decoder.parallel import apply_each
from decoder.spec import DecoderSpec
from decoder.training.judging import fold_scores
from decoder.training.nested import fold_correlations
from stream.types.progress import Progress, no_progress

Array = NDArray[np.float32]
logger = logging.getLogger(__name__)


class EncodingFitter:
    """Fits encoding models of windows, and posteriors of them.

    Parameters
    ----------
    targets : Targets
        Of the pictures shown.
    spec : DecoderSpec
        With `encoding`.
    """

    def __init__(self, targets: Targets, spec: DecoderSpec) -> None:
        self.spec = spec
        self.seen = self._seen(targets)

    def _seen(self, targets: Targets) -> Features:
        assert self.spec.encoding is not None
        blocks = targets.s if "blocks" in self.spec.encoding.features else {}
        return {block_name(block): units for block, units in blocks.items()} | targets.seen

    def evidence(self, samples: TrainingSet) -> EvidenceReader | None:
        """Fit the encoding model of training windows."""
        assert self.spec.encoding is not None
        return fit_evidence(samples, self.seen, self.spec.preprocess, self.spec.encoding.axes, self.spec.seed)

    def posterior(self, evidence: EvidenceReader, heads: Sequence[Head], image_bank: Targets) -> Posterior:
        """Fit the posterior of what heads decode, on a bank of pictures."""
        bank, whole = self._seen(image_bank), image_bank.arrays()
        answers = answers_of(bank, evidence.maps, "pictures of data.image_bank")
        features = {head.name: whole[head.name].reshape(len(answers), -1)[:, head.active] for head in heads}
        return fit_posterior(answers, features, {head.name: head.feature.gain_in(self.spec) for head in heads})


@dataclass(frozen=True, slots=True, eq=False)
class EncodingParts:
    """What a linear decoder keeps of an encoding model.

    Attributes
    ----------
    evidence : EvidenceReader or None
        None of too few pictures, or of several participants.
    posterior : Posterior or None
        None where `decoder.encoding.posterior` names nothing.
    scores : dict
        By feature of the posterior, of windows that neither the encoding model nor the bank has seen: of z as
        `decoder.training.judging.Judgement` has them, of a block of s 'selection_r', as its units are those that all
        samples chose.
    """

    evidence: EvidenceReader | None
    posterior: Posterior | None
    scores: dict[str, Any]

    def beside(self, ridge: Mapping[str, Any]) -> dict[str, Any]:
        """Return the scores beside those of ridge, and say where ridge does better."""
        out: dict[str, Any] = {}
        for name, own in self.scores.items():
            if block_of(name) is not None:
                out[name] = {**ridge[name], "posterior": own}
                continue
            out[name] = {"ridge": ridge[name], "posterior": own, "used": "posterior"}
            if own["r"] < ridge[name]["r"]:
                logger.warning(
                    "%s is decoded better by ridge (r %.3f) than through the encoding model (%.3f): take it out of "
                    "decoder.encoding.posterior",
                    *(name, ridge[name]["r"], own["r"]),
                )
        return out


def fit_encoding_parts(
    samples: TrainingSet,
    pictures: tuple[Targets, Targets | None],
    heads: Sequence[Head],
    spec: DecoderSpec,
    splits: Sequence[TrainTest],
    progress: Progress = no_progress,
) -> EncodingParts:
    """Fit the encoding model, and the posterior of the features that `decoder.encoding.posterior` names.

    Parameters
    ----------
    samples : TrainingSet
    pictures : (Targets, Targets or None)
        Of the pictures shown, and of those that nobody was shown.
    heads : sequence of Head
        What else decodes the features, and which of their numbers.
    spec : DecoderSpec
    splits : sequence of (train, test)
        By which the posterior is judged; none leaves that out.
    progress : callable

    Raises
    ------
    TrainingError
        If there is no bank, or no encoding model, for a posterior.
    """
    assert spec.encoding is not None
    targets, image_bank = pictures
    fit = EncodingFitter(targets, spec)
    progress("encoding model", 0, 1)
    evidence = fit.evidence(samples)
    progress("encoding model", 1, 1)
    through = [head for head in heads if head.feature.key in spec.encoding.posterior]
    if not through:
        return EncodingParts(evidence, None, {})
    if image_bank is None:
        raise TrainingError(NO_IMAGE_BANK.format("encoding.posterior"))
    if evidence is None:
        raise TrainingError("decoder.encoding.posterior needs windows of one participant and at least ten pictures")
    decode = partial(_held_out, fit, samples, through, image_bank)
    judged = apply_each(decode, splits, about="posterior, held-out folds", progress=progress)
    scores = _scores(targets, samples, through, judged, splits) if judged and all(judged) else {}
    return EncodingParts(evidence, fit.posterior(evidence, through, image_bank), scores)


def _scores(
    targets: Targets,
    samples: TrainingSet,
    heads: Sequence[Head],
    judged: Sequence[Mapping[str, Array]],
    splits: Sequence[TrainTest],
) -> dict[str, Any]:
    """Score what was decoded of held-out windows, fold by fold."""
    scores: dict[str, Any] = {}
    whole = targets.arrays()
    for head in heads:
        truth = whole[head.name].reshape(len(whole[head.name]), -1)[:, head.active].astype(np.float32)
        Y = truth[samples.rows]
        found = [own[head.name] - Y[train].mean(axis=0) for own, (train, _) in zip(judged, splits, strict=True)]
        if block_of(head.name) is None:
            scores[head.name], *_ = fold_scores(truth, samples.rows, splits, found, "")
            continue
        deviations, known = np.empty_like(Y), np.empty_like(Y)
        for own, (train, test) in zip(found, splits, strict=True):
            deviations[test], known[test] = own, Y[test] - Y[train].mean(axis=0)
        r = fold_correlations(deviations, known, [test for _, test in splits])
        scores[head.name] = {"selection_r": rounded_mean(r)}
    return scores


def _held_out(
    fit: EncodingFitter, samples: TrainingSet, heads: Sequence[Head], image_bank: Targets, split: TrainTest
) -> dict[str, Array]:
    """Decode a split's held-out windows by what was fitted on the others; nothing where they are too few."""
    train, test = split
    evidence = fit.evidence(samples.take(train))
    if evidence is None:
        return {}
    posterior = fit.posterior(evidence, heads, image_bank)
    answers = np.stack([each.answer for each in evidence(samples.data[test])])
    return {name: map_(answers - posterior.centre) for name, map_ in posterior.maps.items()}
