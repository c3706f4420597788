"""What the desk models learn from: pure functions on tensors."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_SIGMA_DATA = 0.5  # of consistency models (Song et al. 2023, appendix C), as diffusers' LCMScheduler has it
_TIMESTEP_SCALING = 10.0
_HUBER = 1e-3


def contrast(images: Tensor, texts: Tensor, scale: Tensor, positive: Tensor) -> Tensor:
    """InfoNCE with several positives, both ways (Khosla et al. 2020, equation 2, over pictures and captions).

    Parameters
    ----------
    images, texts : Tensor, shape (n, d)
        Unit norm.
    scale : Tensor, shape ()
        Inverse temperature.
    positive : Tensor, shape (n images, n texts), bool
        Which captions are true of which pictures; at least one each way.
    """
    logits = scale * images @ texts.T
    weight = positive.float()

    def one_way(scores: Tensor, share: Tensor) -> Tensor:
        return -(share * scores.log_softmax(1)).sum(1).div(share.sum(1)).mean()

    return (one_way(logits, weight) + one_way(logits.T, weight.T)) / 2


def fidelity(made: Tensor, true: Tensor, latents: Tensor) -> Tensor:
    """L1 + 0.5 MSE + 0.5 gradients at two scales + 0.15 (1 - SSIM) + 0.02 of latents' distance from unit variance.

    Parameters
    ----------
    made, true : Tensor, shape (n, 3, height, width)
        Pictures in [0, 1].
    latents : Tensor, shape (n, channels, h, w)
    """
    halves = (F.avg_pool2d(made, 2), F.avg_pool2d(true, 2))
    edges = _edge_distance(made, true) + _edge_distance(*halves)
    spread = (latents.std((0, 2, 3)) - 1).square().mean() + latents.mean((0, 2, 3)).square().mean()
    pixels = F.l1_loss(made, true) + 0.5 * F.mse_loss(made, true)
    return pixels + 0.5 * edges + 0.15 * (1 - structural_similarity(made, true)) + 0.02 * spread


def _edge_distance(made: Tensor, true: Tensor) -> Tensor:
    difference = made - true
    return difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM (Wang et al. 2004) of pictures in [0, 1], in 7 x 7 windows of equal weight."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 7, stride=1)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


def diffuse(clean: Tensor, noise: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
    """Noise latents to alpha_bar `signal` (n, 1, 1, 1); give x_t and the velocity (Salimans & Ho 2022, appendix D)."""
    a, b = signal.sqrt(), (1 - signal).sqrt()
    return a * clean + b * noise, a * noise - b * clean


def clean_from_velocity(x: Tensor, velocity: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
    """Return the clean latent and the noise that a velocity at alpha_bar `signal` means."""
    a, b = signal.sqrt(), (1 - signal).sqrt()
    return a * x - b * velocity, b * x + a * velocity


def consistency(x: Tensor, velocity: Tensor, signal: Tensor, timesteps: Tensor) -> Tensor:
    """Boundary-scaled clean latent, equal to x at timestep 0 (Luo et al. 2023, LCM, equation 9)."""
    scaled = timesteps.float().view(-1, 1, 1, 1) * _TIMESTEP_SCALING
    spread = scaled.square() + _SIGMA_DATA**2
    return _SIGMA_DATA**2 / spread * x + scaled / spread.sqrt() * clean_from_velocity(x, velocity, signal)[0]


def pseudo_huber(a: Tensor, b: Tensor) -> Tensor:
    """sqrt(d^2 + c^2) - c with c = 0.001, averaged (Song & Dhariwal 2023)."""
    return torch.sqrt((a - b).square() + _HUBER**2).sub(_HUBER).mean()
