import json
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, LCMScheduler
from torch import Tensor

from engine.errors import ModelError
from engine.models.loading import Models
from engine.sampling.sampling import (
    alphas_cumprod,
    begin,
    guided,
    make_schedule,
    sample,
    window_noise,
    window_seed,
)

C = torch.zeros(2, 3, 4)


def smooth(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
    """Stand in for a UNet: the output depends on the latent and on the timestep."""
    return torch.tanh(x) * 0.7 + (t.view(-1, 1, 1, 1) / 1000 - 0.3) + c.mean()


@pytest.mark.parametrize("beta", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_noise_schedule_is_the_one_of_diffusers(beta: str, zero_snr: bool) -> None:
    """Every alpha_bar equals diffusers' to 1e-6."""
    config = {"beta_schedule": beta, "beta_start": 0.00085, "beta_end": 0.012, "rescale_betas_zero_snr": zero_snr}
    theirs = DDIMScheduler(**config).alphas_cumprod.double().numpy()
    np.testing.assert_allclose(alphas_cumprod(config), theirs, atol=2e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("strength", [0.5, 0.7, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_lcm_agrees_with_diffusers(prediction: str, strength: float, steps: int) -> None:
    """The few-step sampler goes where diffusers' LCMScheduler goes with the same noise."""
    beta = "scaled_linear" if prediction == "epsilon" else "squaredcos_cap_v2"  # the other all but divides by zero
    config = {"prediction_type": prediction, "beta_schedule": beta, "original_inference_steps": 50}
    theirs = LCMScheduler(**config, clip_sample=False, beta_start=0.0001, beta_end=0.02)
    theirs.set_timesteps(steps, original_inference_steps=50, strength=strength)
    noise = torch.randn(steps, 2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    schedule = make_schedule(config, kind="lcm", steps=steps, strength=strength)
    assert [step.timestep for step in schedule.steps] == theirs.timesteps.tolist()
    x = theirs.add_noise(z, noise[0], theirs.timesteps[:1])
    torch.testing.assert_close(begin(schedule, z, noise[0]), x, atol=1e-5, rtol=0)
    alphas = theirs.alphas_cumprod.sqrt()
    for number, t in enumerate(theirs.timesteps):
        _, denoised = theirs.step(smooth(x, t.expand(2), C), t, x, return_dict=False)
        if number < steps - 1:
            after = theirs.timesteps[number + 1]
            x = alphas[after] * denoised + (1 - alphas[after] ** 2).sqrt() * noise[number + 1]
    ours = sample(smooth, schedule, begin(schedule, z, noise[0]), C, list(noise[1:]))
    torch.testing.assert_close(ours, denoised, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_ddim_agrees_with_diffusers(prediction: str, spacing: str, steps: int) -> None:
    """DDIM from pure noise ends where diffusers' DDIMScheduler ends."""
    config: dict[str, Any] = {"prediction_type": prediction, "beta_schedule": "scaled_linear", "clip_sample": False}
    config |= {"timestep_spacing": spacing, "beta_start": 0.00085, "beta_end": 0.012, "set_alpha_to_one": True}
    theirs = DDIMScheduler(**config)
    theirs.set_timesteps(steps)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    x = noise
    for t in theirs.timesteps:
        x = theirs.step(smooth(x, t.expand(2), C), t, x).prev_sample
    schedule = make_schedule(config, kind="ddim", steps=steps, strength=1.0)
    torch.testing.assert_close(sample(smooth, schedule, noise, C, [noise] * steps), x, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 8, 20])
def test_dpm_agrees_with_diffusers(prediction: str, spacing: str, steps: int) -> None:
    """DPM-Solver++(2M) from pure noise ends where diffusers' DPMSolverMultistepScheduler ends."""
    config: dict[str, Any] = {"prediction_type": prediction, "beta_schedule": "scaled_linear"}
    config |= {"timestep_spacing": spacing, "beta_start": 0.00085, "beta_end": 0.012}
    theirs = DPMSolverMultistepScheduler(**config)
    theirs.set_timesteps(steps)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    x = noise
    for t in theirs.timesteps:
        x = theirs.step(smooth(x, t.expand(2), C), t, x).prev_sample
    schedule = make_schedule(config, kind="dpm", steps=steps, strength=1.0)
    assert [step.timestep for step in schedule.steps] == theirs.timesteps.tolist()
    torch.testing.assert_close(sample(smooth, schedule, noise, C, [noise] * steps), x, atol=1e-4, rtol=1e-4)


def test_strength_keeps_the_number_of_calls() -> None:
    """A weaker start takes the same number of UNet calls from nearer to the end."""
    for kind in ("lcm", "ddim"):
        whole = make_schedule({"timestep_spacing": "trailing"}, kind=kind, steps=4, strength=1.0)
        half = make_schedule({"timestep_spacing": "trailing"}, kind=kind, steps=4, strength=0.5)
        assert len(whole.steps) == len(half.steps) == 4
        assert half.steps[0].timestep < whole.steps[0].timestep * 0.6


@pytest.mark.parametrize(
    ("config", "kind", "steps", "words"),
    [
        ({"beta_schedule": "sigmoid"}, "ddim", 2, "beta_schedule"),
        ({"prediction_type": "flow"}, "ddim", 2, "prediction_type"),
        ({"timestep_spacing": "odd"}, "ddim", 2, "timestep_spacing"),
        ({}, "lcm", 51, "raise the strength"),
        ({}, "ddim", 1001, "1000 timesteps"),
    ],
)
def test_a_schedule_that_cannot_be_made_is_named(config: dict[str, Any], kind: Any, steps: int, words: str) -> None:
    """The error says which setting cannot be followed."""
    with pytest.raises(ModelError, match=words):
        make_schedule(config, kind=kind, steps=steps, strength=1.0)


def test_guidance_moves_away_from_the_empty_caption() -> None:
    """Guidance of w is w times the captioned prediction minus (w - 1) times the empty one."""
    run = guided(smooth, 3.0, torch.ones(1, 3, 4))
    x, t, c = torch.randn(2, 4, 8, 8), torch.tensor([10, 10]), torch.full((2, 3, 4), 2.0)
    expected = 3 * (torch.tanh(x) * 0.7 + 0.01 - 0.3) - 2 * (torch.tanh(x) * 0.7 + 0.01 - 0.3)
    mean = 0.5 * (1 + 2)  # the stand-in sees the mean over both halves of the batch
    torch.testing.assert_close(run(x, t, c), expected + mean, atol=1e-5, rtol=0)


def test_noise_belongs_to_the_window_alone() -> None:
    """A window's noise is the same in any batch, and changes with its id and with the seed."""
    seeds = [window_seed(7, name) for name in ("a", "b", "c")]
    together = window_noise(seeds, 2, (4, 8, 8))
    alone = window_noise(seeds[1:2], 2, (4, 8, 8))
    assert torch.equal(together[:, 1], alone[:, 0])
    assert len({*seeds, window_seed(8, "a")}) == 4


def test_desk_scheduler_is_recognised(desk: Models) -> None:
    """The student's own configuration gives the consistency sampler and v-prediction."""
    assert json.dumps(desk.scheduler)
    schedule = make_schedule(desk.scheduler, kind="auto", steps=2, strength=0.7)
    assert (schedule.kind, schedule.prediction) == ("lcm", "v_prediction")
    assert schedule.steps[0].timestep == 699
