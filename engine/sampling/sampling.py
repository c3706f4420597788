"""Samplers as pure functions on precomputed coefficients; all randomness comes in as noise.

At timestep t a latent is x_t = a x_0 + b e, with a = sqrt(alpha_bar_t), b = sqrt(1 - alpha_bar_t).
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import ModelError

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""UNet: x (n, ch, h, w), timesteps (n,), c (n, tokens, dims) -> prediction (n, ch, h, w)."""

Kind = Literal["lcm", "ddim", "dpm"]
_LEAST_ALPHA = 2.0**-24  # where the schedule ends in pure noise, the solver's logarithm needs a little signal left
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
    keep, take, change : float
        dpm: the next latent is keep * x + take * x_0 + change * (x_0 - x_0 of the step before).
    """

    timestep: int
    a: float
    b: float
    a_next: float
    b_next: float
    c_skip: float = 0.0
    c_out: float = 1.0
    keep: float = 0.0
    take: float = 0.0
    change: float = 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of a sampler.

    Attributes
    ----------
    kind : {'lcm', 'ddim', 'dpm'}
        lcm re-noises with fresh noise, ddim with the noise that was predicted; dpm is DPM-Solver++(2M).
    prediction : {'epsilon', 'v_prediction', 'sample'}
        What the UNet says.
    steps : tuple of Step
    start : tuple of float
        Signal and noise that z is mixed with to begin.
    """

    kind: Kind
    prediction: str
    steps: tuple[Step, ...]
    start: tuple[float, float]


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


def make_schedule(config: dict[str, Any], *, kind: Literal["auto"] | Kind, steps: int, strength: float) -> Schedule:
    """Lay out `steps` UNet calls, beginning `strength` of the way to pure noise.

    The timesteps are those of diffusers' LCMScheduler, DDIMScheduler and DPMSolverMultistepScheduler; with
    strength < 1, ddim and dpm take the given number of steps from a proportionally finer schedule, so that the number
    of UNet calls does not depend on the strength.

    Parameters
    ----------
    config : dict
        Of a diffusers scheduler.
    kind : {'auto', 'lcm', 'ddim', 'dpm'}
        auto: lcm for an LCMScheduler, ddim for any other.
    steps : int
    strength : float
        In (0, 1].

    Raises
    ------
    ModelError
        If the configuration is not understood, or cannot be cut into so many steps.
    """
    chosen: Kind = ("lcm" if config.get("_class_name") == "LCMScheduler" else "ddim") if kind == "auto" else kind
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in {"epsilon", "v_prediction", "sample"}:
        msg = f"scheduler configuration: prediction_type {prediction!r} is not epsilon, v_prediction or sample"
        raise ModelError(msg)
    bars = alphas_cumprod(config)
    every = {"lcm": _lcm_times, "ddim": _ddim_times, "dpm": _dpm_times}[chosen](config, steps, strength)
    times = every[-steps:]
    following = [float(bars[t]) for t in times[1:]] + [1.0]
    if chosen == "ddim" and not config.get("set_alpha_to_one", True):
        following[-1] = float(bars[0])
    scaling = float(config.get("timestep_scaling", 10.0))
    made = [_step(t, float(bars[t]), after) for t, after in zip(times, following, strict=True)]
    if chosen == "lcm":
        made = [_as_consistency(step, scaling) for step in made]
    if chosen == "dpm":
        made = _as_multistep([max(float(bars[t]), _LEAST_ALPHA) for t in times], made)
    begun = float(bars[times[0]])
    return Schedule(chosen, prediction, tuple(made), (begun**0.5, (1 - begun) ** 0.5))


def _step(timestep: int, bar: float, after: float) -> Step:
    return Step(timestep, bar**0.5, (1 - bar) ** 0.5, after**0.5, (1 - after) ** 0.5)


def _as_consistency(step: Step, scaling: float) -> Step:
    scaled = step.timestep * scaling
    whole = scaled**2 + _SIGMA_DATA**2
    return replace(step, c_skip=_SIGMA_DATA**2 / whole, c_out=scaled / whole**0.5)


def _as_multistep(bars: Sequence[float], steps: Sequence[Step]) -> list[Step]:
    """Coefficients of DPM-Solver++(2M), midpoint form (Lu et al. 2022, algorithm 2); first and last are first order."""
    half_snr = [0.5 * math.log(bar / (1 - bar)) for bar in bars]
    made = []
    for i, step in enumerate(steps):
        if i == len(steps) - 1:
            made.append(replace(step, take=1.0))
            continue
        h = half_snr[i + 1] - half_snr[i]
        noise, noise_next = (1 - bars[i]) ** 0.5, (1 - bars[i + 1]) ** 0.5
        take = -(bars[i + 1] ** 0.5) * math.expm1(-h)
        ratio = (half_snr[i] - half_snr[i - 1]) / h if i else math.inf
        a, b = bars[i] ** 0.5, noise
        made.append(replace(step, a=a, b=b, keep=noise_next / noise, take=take, change=0.5 * take / ratio))
    return made


def _lcm_times(config: dict[str, Any], steps: int, strength: float) -> list[int]:
    count, original = int(config.get("num_train_timesteps", 1000)), int(config.get("original_inference_steps", 50))
    origin = (np.arange(1, int(original * strength) + 1) * (count // original) - 1)[::-1]
    if len(origin) < steps:
        msg = f"{steps} steps at strength {strength}: this student has only {len(origin)} there; raise the strength"
        raise ModelError(msg)
    return [int(t) for t in origin[np.floor(np.linspace(0, len(origin), steps, endpoint=False)).astype(int)]]


def _finer(count: int, steps: int, strength: float) -> int:
    whole = max(steps, round(steps / strength))
    if whole > count:
        msg = f"{steps} steps at strength {strength}: more than the {count} timesteps the model knows"
        raise ModelError(msg)
    return whole


def _unknown_spacing(spacing: object) -> ModelError:
    return ModelError(f"scheduler configuration: timestep_spacing {spacing!r} is not trailing, leading or linspace")


def _ddim_times(config: dict[str, Any], steps: int, strength: float) -> list[int]:
    count, spacing = int(config.get("num_train_timesteps", 1000)), config.get("timestep_spacing", "leading")
    whole = _finer(count, steps, strength)
    if spacing == "trailing":
        times = np.round(np.arange(count, 0, -count / whole)).astype(int) - 1
    elif spacing == "leading":
        times = (np.arange(whole) * (count // whole))[::-1] + int(config.get("steps_offset", 0))
    elif spacing == "linspace":
        times = np.linspace(0, count - 1, whole).round()[::-1].astype(int)
    else:
        raise _unknown_spacing(spacing)
    return [int(t) for t in times]


def _dpm_times(config: dict[str, Any], steps: int, strength: float) -> list[int]:
    count, spacing = int(config.get("num_train_timesteps", 1000)), config.get("timestep_spacing", "linspace")
    whole = _finer(count, steps, strength)
    if spacing == "trailing":
        times = np.arange(count, 0, -count / whole).round().astype(int) - 1
    elif spacing == "leading":
        times = (np.arange(whole + 1) * (count // (whole + 1)))[::-1][:-1] + int(config.get("steps_offset", 0))
    elif spacing == "linspace":
        times = np.linspace(0, count - 1, whole + 1).round()[::-1][:-1].astype(int)
    else:
        raise _unknown_spacing(spacing)
    return [int(t) for t in times]


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


def extrapolate(step: Step, x: Tensor, x0: Tensor, before: Tensor) -> Tensor:
    """Latent at the next step's noise level, from this step's clean latent and the one before (dpm)."""
    return step.keep * x + step.take * x0 + step.change * (x0 - before)


def begin(schedule: Schedule, z: Tensor | None, noise: Tensor) -> Tensor:
    """Latent that sampling begins from: z noised to the first step, or pure noise."""
    signal, level = schedule.start
    return noise if z is None else signal * z + level * noise


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
        before = x0
        t = torch.full((x.shape[0],), step.timestep, device=x.device, dtype=torch.long)
        x0, predicted = clean(schedule, step, x, predict(x, t, c))
        if refine is not None:
            x0 = refine(number, x0)
        if number == last:
            break
        if schedule.kind == "dpm":
            x = extrapolate(step, x, x0, before)
        else:
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
