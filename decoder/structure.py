"""The heads onto structure: each CLIP block's best-decoded units."""

import numpy as np
from numpy.typing import NDArray

from decoder.errors import TrainingError
from decoder.linear import Head
from decoder.nested import best_units
from decoder.regression import Regression
from decoder.ridge import undo_shrinkage
from decoder.spec import DecoderSpec

Array = NDArray[np.float32]

CHUNK = 4096
"""Targets regressed at a time: bounds memory whatever the size of the CLIP model."""


def structure_head(
    block: int, units: NDArray[np.float16], regression: Regression, spec: DecoderSpec
) -> tuple[Head, Array | None]:
    """Find a block's best-decoded units and fit those.

    Returns
    -------
    head : Head
    held_out : ndarray, shape (n_samples, n_kept), float32, or None
        Its units, decoded from folds that did not see the picture; None where no prior of structure asks for them.

    Raises
    ------
    TrainingError
        If the pictures shown do not differ in the block.
    """
    n_units = units.shape[1]
    if (units == units[0]).all():
        raise TrainingError(
            f"structure of block {block} is the same for all pictures shown; there is nothing to decode"
        )
    choices, r, gain = [], np.empty(n_units, np.float32), np.empty(n_units, np.float32)
    for start in range(0, n_units, CHUNK):
        part = slice(start, min(n_units, start + CHUNK))
        Y = units[:, part].astype(np.float32)
        found = regression.choose(Y)
        choices.append(found.choice)
        r[part] = found.r
        gain[part] = undo_shrinkage(Y, found.predictions, spec.s_gain)
    kept = best_units(r, spec.unit_fraction)
    weights, intercept = regression.fit(units[:, kept].astype(np.float32), np.concatenate(choices)[kept])
    constant = np.zeros(n_units, np.float32)
    head = Head(f"s{block}", (n_units,), kept.astype(np.int32), weights * gain[kept], intercept, constant)
    if spec.s_prior is None:
        return head, None
    held_out = regression.choose(units[:, kept].astype(np.float32)).predictions
    return head, np.asarray(intercept + gain[kept] * (held_out - intercept), np.float32)
