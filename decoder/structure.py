"""The heads onto structure: each CLIP block's best-decoded units, and what is known of how they are decoded."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decoder.features import StructureModel
from decoder.likelihood import fit_structure_model
from decoder.linear import Head
from decoder.metrics import rounded_mean
from decoder.regression import Regression
from decoder.ridge import undo_shrinkage
from decoder.spec import DecoderSpec
from decoder.splits import Split

Array = NDArray[np.float32]

KNOWN_WINDOWS = 4000
"""Held-out windows, at most, from which is learned how structure is decoded."""
CHUNK = 4096
"""Targets regressed at a time: bounds memory whatever the size of the CLIP model."""


class Known:
    """Held-out predictions of structure and the truth, of the units that are kept.

    Of as many windows as it takes to learn from: millions of windows times units would not fit into memory.
    """

    def __init__(self, rows: NDArray[np.intp], folds: list[Split]) -> None:
        self.rows, self.folds = rows, folds
        self._units: dict[int, NDArray[np.int32]] = {}
        self._decoded: list[Array] = []
        self._truth: list[Array] = []

    @classmethod
    def of(cls, folds: Sequence[Split], n_samples: int, seed: int) -> "Known":
        """Choose the windows; the folds are theirs."""
        rows = np.sort(np.random.default_rng([seed, 4]).permutation(n_samples)[:KNOWN_WINDOWS])
        apart = [(np.flatnonzero(np.isin(rows, train)), np.flatnonzero(np.isin(rows, test))) for train, test in folds]
        return cls(rows, [(train, test) for train, test in apart if len(test)])

    def add(self, block: int, kept: NDArray[np.int32], decoded: Array, truth: Array) -> None:
        """Take a block's kept units, (n_windows, n_kept) each."""
        self._units[block] = kept
        self._decoded.append(decoded)
        self._truth.append(truth)

    def structure_model(self, seed: int) -> StructureModel | None:
        """Learn how structure is decoded; None if none is."""
        if not self._units:
            return None
        decoded, truth = (np.concatenate(parts, axis=1) for parts in (self._decoded, self._truth))
        return fit_structure_model(decoded, truth, self.folds, self._units, seed=seed)


def structure_head(
    block: int, units: NDArray[np.float16], regression: Regression, spec: DecoderSpec, known: Known
) -> tuple[Head, float]:
    """Find a block's best-decoded units and fit those; gives the head and their mean held-out correlation."""
    n_units = units.shape[1]
    choices, r, gain = [], np.empty(n_units, np.float32), np.empty(n_units, np.float32)
    predictions = np.empty((len(known.rows), n_units), np.float16)
    for start in range(0, n_units, CHUNK):
        part = slice(start, min(n_units, start + CHUNK))
        Y = units[:, part].astype(np.float32)
        found = regression.choose(Y)
        choices.append(found.choice)
        r[part] = found.r
        gain[part] = undo_shrinkage(Y, found.predictions, spec.s_gain)
        mean = Y.mean(axis=0)
        predictions[:, part] = mean + gain[part] * (found.predictions[known.rows] - mean)
    n_kept = max(1, round(spec.unit_fraction * n_units))
    kept = np.sort(np.argpartition(-r, n_kept - 1)[:n_kept])
    weights, intercept = regression.fit(units[:, kept].astype(np.float32), np.concatenate(choices)[kept])
    constant = np.zeros(n_units, np.float32)
    head = Head(f"s{block}", (n_units,), kept.astype(np.int32), weights * gain[kept], intercept, constant)
    truth = units[known.rows][:, kept]
    known.add(block, head.active, predictions[:, kept].astype(np.float32), truth.astype(np.float32))
    return head, rounded_mean(r[kept])
