"""Stage 2's optimisation: a picture's shallow CLIP features are led toward the decoded ones by gradient.

Losses, masks, weights and the optimiser's state are each sample's own, so a batch equals its members.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from engine.sampling.sampling import Predict, Schedule, begin, sample
from engine.setup import View
from engine.spec import StructureSpec
from engine.stage2.losses import structure_loss, total_loss
from engine.stage2.targets import Targets
from engine.stage2.threads import threads_for
from engine.stage2_loss.terms import Iterate

_BETAS = (0.9, 0.999)
# The loss is 1 at the start, so this is far below a gradient that matters and far above rounding errors: with torch's
# 1e-8, Adam would turn rounding errors into whole steps, and a batch would not equal its members.
_EPSILON = 1e-5
_MOMENTUM = 0.5


class _Optimiser(Protocol):
    """What moves one tensor along its gradients."""

    def step(self, value: Tensor, gradient: Tensor) -> Tensor:
        """Return the next value."""
        ...


class _Adam:
    """Adam (Kingma & Ba 2015) on one tensor, with nothing shared between samples.

    torch.optim.Adam agrees within 1e-6, and is not used because it is made for networks that train for hours: five
    steps on a latent of 1 x 8 x 16 x 16, which one window takes, cost it 0.87 ms of processor time and this 0.38.
    """

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


class _GradientDescent:
    """Gradient descent with momentum (Polyak 1964) on gradients that are scaled to a root mean square of 1.

    Adam moves every number by about its learning rate, also those of which the loss hardly says anything. Here these
    stay, and a step of the same length changes the features more and the picture less.
    """

    def __init__(self, like: Tensor, learning_rate: float, decay: float) -> None:
        self._velocity = torch.zeros_like(like)
        self._rate, self._decay = learning_rate, decay

    def step(self, value: Tensor, gradient: Tensor) -> Tensor:
        size = gradient.flatten(1).square().mean(dim=1).sqrt() + _EPSILON
        self._velocity = _MOMENTUM * self._velocity + gradient / per_sample(size, gradient)
        moved = value - self._rate * self._velocity
        self._rate *= self._decay
        return moved


_OPTIMISERS: dict[str, Callable[[Tensor, float, float], _Optimiser]] = {
    "adam": _Adam,
    "gradient": _GradientDescent,
}


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Return one value a sample (n,) in a shape that goes with `like` (n, ...)."""
    return values.view(-1, *(1 for _ in like.shape[1:]))


def optimise_latent(
    start: Tensor, view: View, targets: Targets, spec: StructureSpec, z: Tensor | None = None
) -> Tensor:
    """Move clean latents toward the targets by `spec.iterations` steps of its optimiser; nothing here calls the UNet.

    Minimises `engine.stage2.losses.total_loss` and keeps each sample's best iterate. A sample without targets, or
    whose gradient is not finite, stays where it is.

    Parameters
    ----------
    start : Tensor, shape (n, channels, height, width)
    view : callable
        A cheap way from latents to shallow CLIP features.
    targets : Targets
    spec : StructureSpec
    z : Tensor, shape of start, optional
        Decoded latents.

    Returns
    -------
    Tensor, shape of start
    """
    if not targets.blocks or spec.iterations == 0:
        return start
    start = start.detach()
    x, best = start, start
    optimiser = _OPTIMISERS[spec.optimiser](start, spec.learning_rate, spec.decay)
    scale = torch.ones(len(start), device=start.device)
    best_loss = torch.full_like(scale, torch.inf)
    usable = torch.tensor([problem is None for problem in targets.problems], device=start.device)
    with threads_for(start):
        for number in range(spec.iterations + 1):
            last = number == spec.iterations
            with torch.set_grad_enabled(not last):
                x = x.detach().requires_grad_(not last)
                features = view(x, targets.blocks)
                if number == 0:
                    scale = 1 / structure_loss(features, targets).detach().clamp_min(1e-12)
                loss = total_loss(Iterate(x, features, start, z, targets.evidence), targets, scale, spec.weights)
            better = usable & (loss.detach() < best_loss)
            best = torch.where(per_sample(better, x), x.detach(), best)
            best_loss = torch.where(better, loss.detach(), best_loss)
            if not last:
                (gradient,) = torch.autograd.grad(loss.sum(), x)
                x = optimiser.step(x.detach(), torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0))
    return best


def optimise_through_sampler(
    predict: Predict,
    schedule: Schedule,
    start: tuple[Tensor | None, Tensor, Tensor],
    view: View,
    targets: Targets,
    spec: StructureSpec,
) -> Tensor:
    """Run the paper's stage 2: z and c are optimised, with the gradient through the whole sampler (onestep: one step).

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
    make = _OPTIMISERS[spec.optimiser]
    optimisers = {name: make(value, spec.learning_rate, spec.decay) for name, value in moved.items()}
    best = moved["z"]
    best_loss = torch.full((len(c),), torch.inf, device=c.device)
    for number in range(spec.iterations + 1):
        final = number == spec.iterations
        with torch.set_grad_enabled(not final):
            moved = {name: value.detach().requires_grad_() for name, value in moved.items()}
            first = moved["z"] if z is None else begin(schedule, moved["z"], noise[0])
            x0 = sample(predict, schedule, first, moved["c"], list(noise[1:]))
            loss = structure_loss(view(x0, targets.blocks), targets)
        better = loss.detach() < best_loss
        best = torch.where(per_sample(better, x0), x0.detach(), best)
        best_loss = torch.where(better, loss.detach(), best_loss)
        if not final:
            gradients = torch.autograd.grad(loss.sum(), list(moved.values()))
            for name, gradient in zip(optimisers, gradients, strict=True):
                moved[name] = optimisers[name].step(moved[name].detach(), torch.nan_to_num(gradient, nan=0.0))
    return best
