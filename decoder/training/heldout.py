"""Calibration windows, decoded by models that saw neither them nor their pictures."""

import numpy as np
from numpy.typing import NDArray

from decoder.data.targets import Targets
from decoder.features import Features
from decoder.models.bundle import WHOLE, Bundle
from decoder.models.embedding import EmbeddingModel, linear_part
from decoder.models.structure_prior import StructurePrior
from decoder.spec import DecoderSpec
from decoder.training.train import LabelledWindows, fit_model
from stream.types.progress import Progress, no_progress


def held_out_features(
    ready: LabelledWindows,
    bundle: Bundle,
    spec: DecoderSpec,
    n: int,
    progress: Progress = no_progress,
    *,
    image_bank: Targets | None = None,
) -> tuple[list[Features], NDArray[np.intp]]:
    """Decode one window of each of some pictures by models that were fitted without the picture.

    The decoder is fitted anew, with all that it chooses, on the training part of as many folds as it takes. What is
    shared with the bundle is the network that puts structure right: it learns from the image bank, whose pictures
    nobody was shown, and of the windows only how large the decoder's errors are.

    Parameters
    ----------
    ready : LabelledWindows
        What the bundle was fitted on.
    bundle : Bundle
    spec : DecoderSpec
    n : int
        Pictures, at most.
    progress : callable
    image_bank : Targets or None
        As `decoder.training.train.fit` has it.

    Returns
    -------
    features : list of Features
    rows : ndarray of int
        Picture of each, of the training set's stimuli.
    """
    samples = ready.samples(spec)
    model = bundle.models[WHOLE]
    spec = as_chosen(spec, model)
    rng = np.random.default_rng([spec.seed, 9])
    features: list[Features] = []
    rows: list[int] = []
    for train, test in samples.folds(spec.cv_folds, np.random.default_rng(spec.seed)):
        if len(rows) >= n:
            break
        progress("decoding held-out windows", len(rows), n)
        drawn = rng.permutation(test)
        _, first = np.unique(samples.groups[drawn], return_index=True)
        chosen = drawn[np.sort(first)][: n - len(rows)]
        own = samples.take(train)
        fold, _ = fit_model(
            own, ready.targets, spec, image_bank=image_bank, structure=structure_of(model), nested=False
        )
        features += fold.predict([ready.windows[row] for row in chosen], samples.data[chosen])
        rows += samples.rows[chosen].tolist()
    progress("decoding held-out windows", 1, 1)
    return features, np.asarray(rows, np.intp)


def structure_of(model: object) -> StructurePrior | None:
    """Return the prior of structure that a model has."""
    base = linear_part(model)
    return None if base is None else base.structure


def as_chosen(spec: DecoderSpec, model: object) -> DecoderSpec:
    """Return the spec with what a model's training chose in the place of 'auto', so that nothing is compared again."""
    if not isinstance(model, EmbeddingModel):
        return spec
    family = spec.family if spec.family != "auto" else "conv" if model.calibrated_encoder is not None else "ridge"
    if family == "conv" and spec.conv.network is not None:
        family = "braindecode"
    conv = spec.conv if family != "ridge" else spec.conv.model_copy(update={"network": None})
    text_embedding_from = "embedding" if model.prior is not None else "tokens"
    return DecoderSpec.model_validate(
        spec.model_dump() | {"family": family, "conv": conv.model_dump(), "text_embedding_from": text_embedding_from}
    )
