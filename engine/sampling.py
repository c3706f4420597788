"""Samplers as pure functions on precomputed coefficients; all randomness comes in as noise.

At timestep t a latent is x_t = a x_0 + b e, with a = sqrt(alpha_bar_t), b = sqrt(1 - alpha_bar_t).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import ModelError

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""UNet: x (n, ch, h, w), timesteps (n,), c (n, tokens, dims) -> prediction (n, ch, h, w)."""

_SIGMA_DATA = 0.5  # of consistency models (Song et al. 2023, appendix C), as diffusers' LCMScheduler has it


@dataclass(frozen=True, slots=True)
class Step:
    """One UNet call: where it stands, and where the sampler goes from there.

    Attributes
    ----------
    timestep : int
    a, b : float
        Signal and noise at `timestep`.
    a_next, b_next : float
        The same after the step; 1 and 0 after the last.
    c_skip, c_out : float
        Boundary scalings of a consistency model; 0 and 1 for others.
    """

    timestep: int
    a: float
    b: float
    a_next: float
    b_next: float
    c_skip: float = 0.0
    c_out: float = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of a sampler.

    Attributes
    ----------
    kind : {'lcm', 'ddim'}
        lcm re-noises with fresh noise, ddim with the noise that was predicted.
    prediction : {'epsilon', 'v_prediction', 'sample'}
        What the UNet says.
    steps : tuple of Step
    """

    kind: Literal["lcm", "ddim"]
    prediction: str
    steps: tuple[Step, ...]


def alphas_cumprod(config: dict[str, Any]) -> NDArray[np.float64]:
    """alpha_bar of every training timestep, from a diffusers scheduler's configuration.

    Raises
    ------
    ModelError
        If its noise schedule is of a kind not known here.
    """
    count = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if config.get("trained_betas") is not None:
        betas: NDArray[np.float64] = np.asarray(config["trained_betas"], np.float64)
    elif kind == "linear":
        betas = np.linspace(start, end, count)
    elif kind == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, count) ** 2
    elif kind == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021, equation 17
        bar = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    else:
        msg = f"scheduler configuration: beta_schedule {kind!r} is not linear, scaled_linear or squaredcos_cap_v2"
        raise ModelError(msg)
    alphas: NDArray[np.float64] = np.cumprod(1 - betas, dtype=np.float64)
    if config.get("rescale_betas_zero_snr"):  # Lin et al. 2023, algorithm 1
        root = np.sqrt(alphas)
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        alphas = root**2
    return alphas


def make_schedule(
    config: dict[str, Any], *, kind: Literal["auto", "lcm", "ddim"], steps: int, strength: float
) -> Schedule:
    """Lay out `steps` UNet calls, beginning `strength` of the way to pure noise.

    The timesteps are those of diffusers' LCMScheduler and DDIMScheduler; with strength < 1, ddim takes the given number
    of steps from a proportionally finer schedule, so that the number of UNet calls does not depend on the strength.

    Raises
    ------
    ModelError
        If the configuration is not understood, or cannot be cut into so many steps.
    """
    chosen: Literal["lcm", "ddim"] = (
        ("lcm" if config.get("_class_name") == "LCMScheduler" else "ddim") if kind == "auto" else kind
    )
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in {"epsilon", "v_prediction", "sample"}:
        msg = f"scheduler configuration: prediction_type {prediction!r} is not epsilon, v_prediction or sample"
        raise ModelError(msg)
    bars = alphas_cumprod(config)
    times = _lcm_times(config, steps, strength) if chosen == "lcm" else _ddim_times(config, steps, strength)
    following = [bars[t] for t in times[1:]] + [1.0]
    if chosen == "ddim" and not config.get("set_alpha_to_one", True):
        following[-1] = bars[0]
    scaling = float(config.get("timestep_scaling", 10.0))
    made = []
    for t, after in zip(times, following, strict=True):
        skip, out = 0.0, 1.0
        if chosen == "lcm":
            scaled = t * scaling
            skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
            out = scaled / (scaled**2 + _SIGMA_DATA**2) ** 0.5
        bar = float(bars[t])
        made.append(Step(t, bar**0.5, (1 - bar) ** 0.5, float(after) ** 0.5, (1 - float(after)) ** 0.5, skip, out))
    return Schedule(chosen, prediction, tuple(made))


def _lcm_times(config: dict[str, Any], steps: int, strength: float) -> list[int]:
    count, original = int(config.get("num_train_timesteps", 1000)), int(config.get("original_inference_steps", 50))
    origin = (np.arange(1, int(original * strength) + 1) * (count // original) - 1)[::-1]
    if len(origin) < steps:
        msg = f"{steps} steps at strength {strength}: this student has only {len(origin)} there; raise the strength"
        raise ModelError(msg)
    return [int(t) for t in origin[np.floor(np.linspace(0, len(origin), steps, endpoint=False)).astype(int)]]


def _ddim_times(config: dict[str, Any], steps: int, strength: float) -> list[int]:
    count, spacing = int(config.get("num_train_timesteps", 1000)), config.get("timestep_spacing", "leading")
    whole = max(steps, round(steps / strength))
    if whole > count:
        msg = f"{steps} steps at strength {strength}: more than the {count} timesteps the model knows"
        raise ModelError(msg)
    if spacing == "trailing":
        times = np.round(np.arange(count, 0, -count / whole)).astype(int) - 1
    elif spacing == "leading":
        times = (np.arange(whole) * (count // whole))[::-1] + int(config.get("steps_offset", 0))
    elif spacing == "linspace":
        times = np.linspace(0, count - 1, whole).round()[::-1].astype(int)
    else:
        msg = f"scheduler configuration: timestep_spacing {spacing!r} is not trailing, leading or linspace"
        raise ModelError(msg)
    return [int(t) for t in times[-steps:]]


def clean(schedule: Schedule, step: Step, x: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted clean latent and predicted noise, from the UNet's output at x.

    Raises
    ------
    ModelError
        Never for a schedule made by `make_schedule`.
    """
    a, b = step.a, step.b
    if schedule.prediction == "epsilon":
        x0, noise = (x - b * output) / a, output
    elif schedule.prediction == "v_prediction":
        x0, noise = a * x - b * output, a * output + b * x
    else:
        x0, noise = output, (x - a * output) / b
    return step.c_out * x0 + step.c_skip * x, noise


def renoise(schedule: Schedule, step: Step, x0: Tensor, predicted: Tensor, fresh: Tensor) -> Tensor:
    """Latent at the next step's noise level: with the predicted noise (ddim) or with fresh noise (lcm)."""
    return step.a_next * x0 + step.b_next * (fresh if schedule.kind == "lcm" else predicted)


def begin(schedule: Schedule, z: Tensor | None, noise: Tensor) -> Tensor:
    """Latent that sampling begins from: z noised to the first step, or pure noise."""
    first = schedule.steps[0]
    return noise if z is None else first.a * z + first.b * noise


def sample(
    predict: Predict,
    schedule: Schedule,
    x: Tensor,
    c: Tensor,
    noise: Sequence[Tensor],
    refine: Callable[[int, Tensor], Tensor] | None = None,
) -> Tensor:
    """Run a sampler to its clean latent.

    Parameters
    ----------
    predict : callable
        The UNet (with guidance, where wanted).
    schedule : Schedule
    x : Tensor, shape (n, channels, height, width)
        From `begin`.
    c : Tensor, shape (n, tokens, dims)
    noise : sequence of Tensor
        One a step after the first, of x's shape; used by lcm.
    refine : callable, optional
        (number of the step from 0, clean latent) -> a better clean latent.

    Returns
    -------
    Tensor, shape (n, channels, height, width)
    """
    x0 = x
    last = len(schedule.steps) - 1
    for number, step in enumerate(schedule.steps):
        t = torch.full((x.shape[0],), step.timestep, device=x.device, dtype=torch.long)
        x0, predicted = clean(schedule, step, x, predict(x, t, c))
        if refine is not None:
            x0 = refine(number, x0)
        if number < last:
            x = renoise(schedule, step, x0, predicted, noise[number])
    return x0


def guided(predict: Predict, scale: float, null: Tensor) -> Predict:
    """Classifier-free guidance (Ho & Salimans 2022): one call on twice the batch; `null` is (1, tokens, dims)."""

    def run(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        empty = null.expand(c.shape[0], -1, -1)
        without, with_c = predict(torch.cat([x, x]), torch.cat([t, t]), torch.cat([empty, c])).chunk(2)
        return without + scale * (with_c - without)

    return run


def window_seed(seed: int, window_id: str) -> int:
    """Seed of a window's own noise, in [0, 2**63): a hash, so that it depends on nothing that came before."""
    digest = hashlib.sha256(f"{seed}:{window_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def window_noise(seeds: Sequence[int], count: int, shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal noise (count, n, *shape), float32 on the CPU: each column from its own seed alone."""
    drawn = [torch.randn((count, *shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn, dim=1)
