"""The decoded structure of a batch: targets of stage 2, with masks and weights of each sample's own."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from decoder.features import Features, block_name
from engine.errors import FeatureError
from engine.stage2_loss.terms import Answers

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Targets:
    """Decoded structure of a batch.

    Attributes
    ----------
    values, masks : dict of int to Tensor, shape (n, units)
        By CLIP block; values are 0 outside the mask, masks are 0 or 1.
    weights : dict of int to Tensor, shape (n,)
        Of each block's mean squared error; 0 where a sample lacks the block.
    problems : tuple of (str or None)
        By sample: why nothing can be optimised, or None.
    evidence : Answers or None
        None where the decoder holds no encoding model of these blocks.
    """

    values: dict[int, Tensor]
    masks: dict[int, Tensor]
    weights: dict[int, Tensor]
    problems: tuple[str | None, ...]
    evidence: Answers | None = None

    @property
    def blocks(self) -> tuple[int, ...]:
        """CLIP blocks that some sample uses, in order."""
        return tuple(sorted(self.values))


def make_targets(
    features: Sequence[Features], layer_weights: Sequence[float], units: int, device: torch.device | str = "cpu"
) -> Targets:
    """Return a batch's targets; what cannot be used (NaN, empty mask, zero norm) is left out of its own sample only.

    The weight of block i is layer_weights[i - 1] / ||target_i||, with the 1 / ||target_i|| scaled to sum to 1 over a
    sample's blocks (MindDiffuser, Lu et al. 2023, stage 2).

    Parameters
    ----------
    features : sequence of Features
    layer_weights : sequence of float
        From block 1; blocks beyond its end, or of weight 0, are not used.
    units : int
        Numbers a block has (tokens * width).
    device : torch.device or str

    Raises
    ------
    FeatureError
        If a target has another number of units than the CLIP has.
    """
    used = sorted({block for f in features for block in f.s if _weight(layer_weights, block) > 0})
    n = len(features)
    values = {block: np.zeros((n, units), np.float32) for block in used}
    masks = {block: np.zeros((n, units), np.float32) for block in used}
    inverse = np.zeros((n, len(used)))
    problems: list[str | None] = []
    for i, f in enumerate(features):
        faults = []
        for j, block in enumerate(used):
            if block not in f.s:
                continue
            value, mask = f.s[block].values, f.s[block].mask
            if value.shape != (units,) or mask.shape != (units,):
                msg = (
                    f"window {f.window_id!r}: block {block} of s has shapes {value.shape} and {mask.shape} and this "
                    f"CLIP {units} units: train the bundle with the models that reconstruct"
                )
                raise FeatureError(msg)
            masked = np.where(mask, value, np.float32(0))
            norm = float(np.linalg.norm(masked.astype(np.float64)))
            fault = _fault(bool(mask.any()), norm)
            if fault:
                faults.append(f"block {block}: {fault}")
                continue
            values[block][i], masks[block][i], inverse[i, j] = masked, mask, 1 / norm
        nothing = "; ".join(faults) or "no decoded structure"
        problems.append(None if inverse[i].any() else nothing)
    total = inverse.sum(axis=1, keepdims=True)
    scaled = np.divide(inverse, total, out=np.zeros_like(inverse), where=total > 0)
    return Targets(
        {block: torch.from_numpy(values[block]).to(device) for block in used},
        {block: torch.from_numpy(masks[block]).to(device) for block in used},
        {
            block: torch.from_numpy((scaled[:, j] * _weight(layer_weights, block)).astype(np.float32)).to(device)
            for j, block in enumerate(used)
        },
        tuple(problems),
        _answers(features, used, device),
    )


def _answers(features: Sequence[Features], blocks: Sequence[int], device: torch.device | str) -> Answers | None:
    """Return a batch's evidence, where all its windows have some, of one model, of blocks that are computed anyway.

    A model that goes by more than blocks is left out: gradients reach no more.
    """
    found = [f.evidence for f in features if f.evidence is not None]
    if len(found) < len(features) or not found or any(one.maps is not found[0].maps for one in found):
        return None
    maps = found[0].maps
    by_block = {block: maps[name] for block in blocks if (name := block_name(block)) in maps}
    if len(by_block) < len(maps):
        return None
    answers = torch.from_numpy(np.stack([one.answer for one in found])).to(device)
    return Answers(answers, {block: torch.from_numpy(values).to(device) for block, values in by_block.items()})


def _weight(layer_weights: Sequence[float], block: int) -> float:
    return layer_weights[block - 1] if 1 <= block <= len(layer_weights) else 0.0


def _fault(any_unit: bool, norm: float) -> str | None:
    if not any_unit:
        return "its mask is empty"
    if not np.isfinite(norm):
        return "its target is not finite"
    return "its target is zero" if norm == 0 else None


def report_lost_blocks(features: Sequence[Features], targets: Targets) -> None:
    """Log which blocks of s are left out of windows that are otherwise optimised: not finite, zero, or masked whole."""
    for block in targets.blocks:
        weights = targets.weights[block].tolist()
        for f, problem, weight in zip(features, targets.problems, weights, strict=True):
            if problem is None and block in f.s and weight == 0:
                logger.warning("window %s: block %d of s cannot be used; the others are", f.window_id, block)
