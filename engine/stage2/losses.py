"""The loss of stage 2: how far shallow features are from the decoded ones, and (fast) the weighted terms beside it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.stage2.targets import Targets
from engine.stage2_loss.terms import TERMS, Iterate, LossWeights


def structure_loss(features: Mapping[int, Tensor], targets: Targets) -> Tensor:
    """Return the sum over blocks of w_i * mean over units of (target_i - mask_i * feature_i)**2, each sample's own.

    Returns
    -------
    Tensor, shape (n,)
    """
    losses = [
        targets.weights[block] * (targets.values[block] - targets.masks[block] * features[block]).square().mean(dim=1)
        for block in targets.blocks
    ]
    return torch.stack(losses).sum(dim=0)


def total_loss(at: Iterate, targets: Targets, scale: Tensor, weights: LossWeights) -> Tensor:
    """Return the structure loss in units of that at the start, and each term of `TERMS` times its weight.

    Parameters
    ----------
    at : Iterate
    targets : Targets
    scale : Tensor, shape (n,)
        1 / structure loss at the start.
    weights : LossWeights
        A term of weight 0 is not computed.

    Returns
    -------
    Tensor, shape (n,)
    """
    total = structure_loss(at.features, targets) * scale
    for name, term in TERMS.items():
        weight = getattr(weights, name)
        if weight and (value := term(at)) is not None:
            total = total + weight * value
    return total
