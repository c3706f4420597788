"""Of several candidates, the latent whose structure is nearest to the decoded one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.setup import View
from engine.stage2.losses import structure_loss
from engine.stage2.targets import Targets
from engine.stage2.threads import threads_for


def nearest(candidates: Sequence[Tensor], view: View, targets: Targets) -> Tensor:
    """Return each sample's candidate of least structure loss; one that is not finite loses to any other.

    Parameters
    ----------
    candidates : sequence of Tensor, shape (n, channels, height, width)
    view : callable
    targets : Targets

    Returns
    -------
    Tensor, shape (n, channels, height, width)
    """
    if len(candidates) == 1:
        return candidates[0]
    with torch.no_grad(), threads_for(candidates[0]):
        losses = torch.stack([structure_loss(view(x, targets.blocks), targets) for x in candidates])
    chosen = torch.nan_to_num(losses, nan=torch.inf).argmin(dim=0)
    return torch.stack(list(candidates))[chosen, torch.arange(len(chosen), device=chosen.device)]
