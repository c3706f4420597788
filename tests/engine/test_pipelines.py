"""Stage 1 is what diffusers' own image-to-image pipeline makes of the same folder, caption, latent and noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decoder.features import Features
from engine.batching import make_batches
from engine.models.loading import load_models
from engine.reconstructor import Reconstructor
from engine.sampling.sampling import window_seed
from engine.spec import EngineSpec, ModelSpec, StructureSpec
from engine.stage1 import generate
from tests.tinymodels import SD_SCHEDULERS, write_stable_diffusion

FAMILIES = ("1.x", "2.x", "turbo", "lcm")
SAMPLERS = {"1.x": "DDIMScheduler", "2.x": "DDIMScheduler", "turbo": "EulerDiscreteScheduler", "lcm": "LCMScheduler"}
"""What runs each in diffusers: 1.x names PNDM, whose settings DDIM takes over."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a tiny folder of each family; of `lcm` as users save a student's LoRA merged into Stable Diffusion 1.x."""
    import diffusers

    written = {}
    for family in FAMILIES:
        folder = written[family] = tmp_path_factory.mktemp("family")
        write_stable_diffusion(folder, family if family in SD_SCHEDULERS else "1.x")
        if family == "lcm":
            schedule = diffusers.PNDMScheduler.from_pretrained(folder / "scheduler").config
            diffusers.LCMScheduler.from_config(schedule).save_pretrained(folder / "scheduler")
    return written


def pipeline(folder: Path, family: str) -> Any:
    """Assemble diffusers' pipeline from a folder, silent and without a safety checker."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizer

    # what is left in the latent after the last step is noise: there, as here, the last step goes to the clean latent
    changes = {"set_alpha_to_one": True, "clip_sample": False} if "DDIM" in SAMPLERS[family] else {}
    schedulers: Any = getattr(diffusers, SAMPLERS[family])
    theirs = diffusers.StableDiffusionImg2ImgPipeline(
        vae=diffusers.AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=diffusers.UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=schedulers.from_pretrained(folder / "scheduler", **changes),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    theirs.set_progress_bar_config(disable=True)
    return theirs


@pytest.mark.parametrize(
    ("steps", "strength", "guidance"), [(1, 0.5, 1.0), (2, 0.5, 3.0), (3, 0.75, 1.0), (4, 1.0, 2.0)]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_stage_1_is_diffusers_image_to_image(
    folders: dict[str, Path], family: str, steps: int, strength: float, guidance: float
) -> None:
    """Timesteps are equal, and pixels to 1e-4, for every family that is supported."""
    spec = EngineSpec(
        models=ModelSpec(folder=str(folders[family])),
        backend="torch",
        device="cpu",
        steps=steps,
        strength=strength,
        guidance=guidance,
        structure=StructureSpec(mode="none"),
    )
    engine = Reconstructor(spec, load_models(spec.models, "cpu"))
    z = np.random.default_rng(0).standard_normal(engine.models.latent_shape).astype(np.float32)
    (batch,) = make_batches([Features("w", engine.models.encode_text(["ab c"])[0], z)], engine.setup)
    theirs = pipeline(folders[family], family)
    timesteps: list[int] = []

    def note(_: Any, __: int, t: torch.Tensor, latents: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        timesteps.append(int(t))
        return latents

    asked: dict[str, Any] = {"strength": strength, "num_inference_steps": round(steps / strength)}
    if family == "lcm":  # its scheduler knows strengths itself, finer than the pipeline's share of whole steps
        theirs.scheduler.set_timesteps(steps, strength=strength)
        asked = {"strength": 1.0, "timesteps": theirs.scheduler.timesteps.tolist()}
    expected = theirs(
        "ab c",
        torch.from_numpy(z)[None],
        **asked,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(window_seed(0, "w")),
        output_type="pt",
        callback_on_step_end=note,
    ).images
    assert [step.timestep for step in batch.schedule.steps] == timesteps
    pixels = generate(batch, engine.setup).pixels.clamp(0, 1)
    torch.testing.assert_close(pixels, expected, atol=1e-4, rtol=0)
    assert float(pixels.std()) > 0.01
