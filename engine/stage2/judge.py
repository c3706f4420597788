"""Stage 2 is judged on the pictures, by CLIP's own features, whatever its gradients went by."""

import torch
from torch import Tensor

from engine.models.clip import ShallowClip
from engine.stage2.losses import structure_loss
from engine.stage2.targets import Targets


def judge(before: Tensor, after: Tensor, shallow: ShallowClip, targets: Targets) -> list[str]:
    """Return, for each sample, why its stage-1 picture stands, or '' where stage 2 came closer to the targets.

    Parameters
    ----------
    before, after : Tensor, shape (n, 3, height, width)
        Pictures of stage 1 and of stage 2, about [0, 1].
    shallow : ShallowClip
    targets : Targets
    """
    n = len(after)
    with torch.no_grad():
        features = shallow.features(shallow.patches(torch.cat([before, after])), targets.blocks)
        loss_before = structure_loss({block: values[:n] for block, values in features.items()}, targets)
        loss_after = structure_loss({block: values[n:] for block, values in features.items()}, targets)
    closer = (loss_after < loss_before).tolist()
    return [
        problem or ("" if better else "stage 2 came no closer to the decoded structure")
        for problem, better in zip(targets.problems, closer, strict=True)
    ]
