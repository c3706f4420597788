"""Stage 2: pull a picture's shallow CLIP features toward the decoded ones.

Losses, masks, weights and Adam's state are each sample's own, so a batch equals its members.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decoder.features import Features
from engine.errors import FeatureError, ModelError
from engine.sampling import Predict, Schedule, begin, make_schedule, sample
from engine.spec import EngineSpec, StructureSpec

View = Callable[[Tensor, Sequence[int]], Mapping[int, Tensor]]
"""Latents (n, ch, h, w) and blocks -> shallow CLIP features by block, (n, units); gradients flow."""

_log = logging.getLogger(__name__)

_PUBLISHED_AHEAD = 3  # noised to step 37, decoded from the 35th, which is step 34 counted from 0
_BETAS = (0.9, 0.999)
# The loss is 1 at the start of a pull, so this is far below a gradient that matters and far above rounding errors:
# with torch's 1e-8, Adam would turn rounding errors into whole steps, and a batch would not equal its members.
_EPSILON = 1e-5


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
        By sample: why nothing can be pulled, or None.
    """

    values: dict[int, Tensor]
    masks: dict[int, Tensor]
    weights: dict[int, Tensor]
    problems: tuple[str | None, ...]

    @property
    def blocks(self) -> tuple[int, ...]:
        """CLIP blocks that some sample uses, in order."""
        return tuple(sorted(self.values))


def make_targets(
    features: Sequence[Features], layer_weights: Sequence[float], units: int, device: torch.device | str = "cpu"
) -> Targets:
    """Targets of a batch; what cannot be used (NaN, empty mask, zero norm) is left out of its own sample only.

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
            kept = np.where(mask, value, np.float32(0))
            norm = float(np.linalg.norm(kept.astype(np.float64)))
            fault = _fault(bool(mask.any()), norm)
            if fault:
                faults.append(f"block {block}: {fault}")
                continue
            values[block][i], masks[block][i], inverse[i, j] = kept, mask, 1 / norm
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
    )


def _weight(layer_weights: Sequence[float], block: int) -> float:
    return layer_weights[block - 1] if 1 <= block <= len(layer_weights) else 0.0


def _fault(any_unit: bool, norm: float) -> str | None:
    if not any_unit:
        return "its mask is empty"
    if not np.isfinite(norm):
        return "its target is not finite"
    return "its target is zero" if norm == 0 else None


def structure_loss(found: Mapping[int, Tensor], targets: Targets) -> Tensor:
    """Sum over blocks of w_i * mean over units of (target_i - mask_i * feature_i)**2, each sample's own.

    Returns
    -------
    Tensor, shape (n,)
    """
    losses = [
        targets.weights[block] * (targets.values[block] - targets.masks[block] * found[block]).square().mean(dim=1)
        for block in targets.blocks
    ]
    return torch.stack(losses).sum(dim=0)


def report_lost_blocks(features: Sequence[Features], targets: Targets) -> None:
    """Log which blocks of s are left out of windows that are otherwise pulled: not finite, zero, or masked whole."""
    for block in targets.blocks:
        weights = targets.weights[block].tolist()
        for f, problem, weight in zip(features, targets.problems, weights, strict=True):
            if problem is None and block in f.s and weight == 0:
                _log.warning("window %s: block %d of s cannot be used; the others are", f.window_id, block)


class _Adam:
    """Adam (Kingma & Ba 2015) on one tensor, with nothing shared between samples."""

    def __init__(self, like: Tensor, learning_rate: float, decay: float) -> None:
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)
        self._rate, self._decay, self._count = learning_rate, decay, 0

    def step(self, value: Tensor, gradient: Tensor) -> Tensor:
        first, second = _BETAS
        self._count += 1
        self._mean = first * self._mean + (1 - first) * gradient
        self._square = second * self._square + (1 - second) * gradient.square()
        mean = self._mean / (1 - first**self._count)
        root = (self._square / (1 - second**self._count)).sqrt()
        rate = self._rate * self._decay ** (self._count - 1)
        return value - rate * mean / (root + _EPSILON)


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1 for _ in like.shape[1:]))


def pull(x0: Tensor, view: View, targets: Targets, spec: StructureSpec, z: Tensor | None = None) -> Tensor:
    """Move clean latents toward the targets by `spec.iterations` Adam steps; nothing here calls the UNet.

    Minimises loss / loss at the start + proximal * mean((x - x0)**2) + anchor * mean((x - z)**2), and keeps each
    sample's best iterate. A sample without targets, or whose gradient is not finite, stays where it is.

    Parameters
    ----------
    x0 : Tensor, shape (n, channels, height, width)
    view : callable
        A cheap way from latents to shallow CLIP features.
    targets : Targets
    spec : StructureSpec
    z : Tensor, shape of x0, optional
        Decoded latents.

    Returns
    -------
    Tensor, shape of x0
    """
    if not targets.blocks or spec.iterations == 0:
        return x0
    start = x0.detach()
    best, x = start, start
    adam = _Adam(start, spec.learning_rate, spec.decay)
    scale = torch.ones(len(start), device=start.device)
    best_loss = torch.full_like(scale, torch.inf)
    usable = torch.tensor([problem is None for problem in targets.problems], device=start.device)
    for number in range(spec.iterations + 1):
        final = number == spec.iterations
        with torch.set_grad_enabled(not final):
            x = x.detach().requires_grad_(not final)
            structure = structure_loss(view(x, targets.blocks), targets)
            if number == 0:
                scale = 1 / structure.detach().clamp_min(1e-12)
            loss = structure * scale + spec.proximal * (x - start).square().mean(dim=(1, 2, 3))
            if z is not None:
                loss = loss + spec.anchor * (x - z).square().mean(dim=(1, 2, 3))
        better = usable & (loss.detach() < best_loss)
        best = torch.where(_per_sample(better, x), x.detach(), best)
        best_loss = torch.where(better, loss.detach(), best_loss)
        if not final:
            (gradient,) = torch.autograd.grad(loss.sum(), x)
            x = adam.step(x.detach(), torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0))
    return best


def pull_through(
    predict: Predict,
    schedule: Schedule,
    start: tuple[Tensor | None, Tensor, Tensor],
    view: View,
    targets: Targets,
    spec: StructureSpec,
) -> Tensor:
    """Run the paper's stage 2: Adam on z and c, with the gradient through the whole sampler (onestep: one step).

    Parameters
    ----------
    predict : callable
        A UNet through which gradients flow.
    schedule : Schedule
    start : tuple
        z (n, channels, height, width) or None, c (n, tokens, dims), noise (steps, n, channels, height, width).
        Without z the noise that sampling begins from is moved in its stead.
    view : callable
        The exact way from latents to shallow CLIP features: through the VAE's decoder.
    targets : Targets
    spec : StructureSpec

    Returns
    -------
    Tensor, shape (n, channels, height, width)
        Each sample's best clean latent.
    """
    z, c, noise = start
    moved = {"z": noise[0] if z is None else z, "c": c}
    names = ("z", "c") if spec.update == "both" else (spec.update,)
    adams = {name: _Adam(moved[name], spec.learning_rate, spec.decay) for name in names}
    best = moved["z"]
    best_loss = torch.full((len(c),), torch.inf, device=c.device)
    for number in range(spec.iterations + 1):
        final = number == spec.iterations
        with torch.set_grad_enabled(not final):
            moved = {name: value.detach().requires_grad_(name in names) for name, value in moved.items()}
            first = moved["z"] if z is None else begin(schedule, moved["z"], noise[0])
            x0 = sample(predict, schedule, first, moved["c"], list(noise[1:]))
            loss = structure_loss(view(x0, targets.blocks), targets)
        better = loss.detach() < best_loss
        best = torch.where(_per_sample(better, x0), x0.detach(), best)
        best_loss = torch.where(better, loss.detach(), best_loss)
        if not final:
            gradients = torch.autograd.grad(loss.sum(), [moved[name] for name in names])
            for name, gradient in zip(names, gradients, strict=True):
                moved[name] = adams[name].step(moved[name].detach(), torch.nan_to_num(gradient, nan=0.0))
    return best


def exact_schedule(spec: EngineSpec, config: dict[str, Any]) -> Schedule | None:
    """Schedule of an exact stage 2 with the published script's noise index; None where stage 1's own is meant."""
    structure = spec.structure
    if structure.noise_index == "consistent":
        return None
    if structure.mode != "exact" or spec.sampler != "ddim":
        msg = "structure.noise_index 'published' goes with structure.mode 'exact' and sampler 'ddim' only"
        raise ModelError(msg)
    return make_schedule(config, kind="ddim", steps=spec.steps, strength=spec.strength, ahead=_PUBLISHED_AHEAD)
