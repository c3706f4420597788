"""Desk models, held-out pictures and a tiny Stable Diffusion folder for the engine's tests."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.models import Models, load_models
from engine.spec import ModelSpec

DESK = Path(__file__).resolve().parents[2] / "models" / "desk"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two cores shared with other tests: more threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def desk() -> Models:
    """Load the desk models as a default configuration does."""
    return load_models(ModelSpec(folder=str(DESK)), "cpu")


@pytest.fixture(scope="session")
def pictures() -> NDArray[np.uint8]:
    """Four held-out stimuli, (4, 128, 128, 3)."""
    files = sorted((DESK / "stimuli").glob("*.png"))[:4]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder laid out as Stable Diffusion 1.x: tiny models with random weights, and no CLIP vision tower."""
    import json

    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("stable-diffusion")
    UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        latent_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    config = CLIPTextConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=98,
        eos_token_id=99,
        pad_token_id=99,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    words = [*letters, *(f"unused{i}" for i in range(98 - len(letters))), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 12, "pad_token": "<|endoftext|>"})
    )
    return folder
