"""Full-size networks: gigabytes of memory and minutes of work, so only with `pytest -m big` (one test at a time)."""

import gc
import logging
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.backends.cache import EngineCache
from engine.backends.export import FILE, OPSETS, example, exported
from engine.backends.onnx import OnnxRunner
from engine.backends.torch import TorchBackend
from engine.models.loading import Models, load_models
from engine.spec import ModelSpec

logger = logging.getLogger(__name__)

SHAPES: dict[str, dict[str, Any]] = {
    "sd-1.5": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sd-turbo": {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
}
"""What tells the published UNets of Stable Diffusion 1.5 and of Turbo (2.1) apart; the rest they share."""
PARAMETERS = {"sd-1.5": 859_520_964, "sd-turbo": 865_910_724}


def write_models(folder: Path, shape: str) -> None:
    """Write a UNet of a published shape with random weights, and the smallest VAE and text encoder that fit it."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=2,
        **SHAPES[shape],
    )
    assert sum(p.numel() for p in unet.parameters()) == PARAMETERS[shape]
    unet.half().save_pretrained(folder / "unet")
    AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
    ).save_pretrained(folder / "vae")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    width = SHAPES[shape]["cross_attention_dim"]
    text = CLIPTextConfig(
        vocab_size=100, hidden_size=width, intermediate_size=64, num_hidden_layers=1, num_attention_heads=8
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")


def predict(models: Models) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, float]:
    """Give inputs whose caption is half filled up, eager torch's prediction, and the seconds it took."""
    inputs = example(models, "unet", 1, torch.Generator().manual_seed(0))
    inputs[3][:, 40:] = False
    backend = TorchBackend(models)
    backend.unet(*inputs)
    began = time.perf_counter()
    expected = backend.unet(*inputs)
    return inputs, expected, time.perf_counter() - began


@pytest.mark.big
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_full_size_unet_exports_and_runs(shape: str, tmp_path: Path) -> None:
    """A UNet of over 2 GB is exported with its weights beside it, and ONNX Runtime's prediction is eager torch's."""
    write_models(tmp_path / "models", shape)
    models = load_models(ModelSpec(folder=str(tmp_path / "models"), dtype="float32"), "cpu")
    inputs, expected, eager_s = predict(models)
    cache = EngineCache(tmp_path / "engines")
    began = time.perf_counter()
    file = exported(models, "unet", cache, OPSETS[0])
    export_s = time.perf_counter() - began
    assert sum(part.stat().st_size for part in file.parent.iterdir() if part.name != FILE) > 2 << 30
    del models
    gc.collect()
    runner = OnnxRunner(file, "onnx", torch.device("cpu"))
    runner.run(inputs, tuple(expected.shape))
    began = time.perf_counter()
    found = runner.run(inputs, tuple(expected.shape))
    run_s = time.perf_counter() - began
    difference = float((found - expected).abs().max())
    logger.info(
        "%s: export %.0f s, eager %.2f s, ONNX Runtime %.2f s, largest difference %.1e of outputs up to %.2f, "
        "most memory %.1f GB",
        shape,
        export_s,
        eager_s,
        run_s,
        difference,
        float(expected.abs().max()),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
