"""Models of real architectures, random weights and the smallest sizes, written as diffusers and open_clip save them."""

import json
from pathlib import Path
from typing import Any

import torch

SD_UNETS: dict[str, dict[str, Any]] = {
    "1.x": {"attention_head_dim": 2},
    "2.x": {"attention_head_dim": (2, 4), "use_linear_projection": True},
    "turbo": {"attention_head_dim": (2, 4), "use_linear_projection": True},
}
"""What tells the UNets of Stable Diffusion's families apart: 1.x has a number of heads, 2.x one for each level."""
SD_SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "1.x": ("PNDMScheduler", {"set_alpha_to_one": False, "steps_offset": 1}),
    "2.x": ("DDIMScheduler", {"set_alpha_to_one": False, "steps_offset": 1, "prediction_type": "v_prediction"}),
    "turbo": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
}
"""Those that their repositories name."""
_FITTED = 200  # steps


def write_stable_diffusion(folder: Path, family: str = "1.x", *, tokens: int = 12) -> None:
    """Write a folder laid out as Stable Diffusion's: no CLIP vision tower, and captions of letters a to z."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    _unet(channels=4, context=32, **SD_UNETS[family]).save_pretrained(folder / "unet")
    diffusers.AutoencoderKL(
        latent_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")
    name, settings = SD_SCHEDULERS[family]
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"} | settings
    getattr(diffusers, name)(**schedule).save_pretrained(folder / "scheduler")
    text = CLIPTextConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokens,
        bos_token_id=98,
        eos_token_id=99,
        pad_token_id=99,
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    _write_tokenizer(folder / "tokenizer", tokens)


def _write_tokenizer(folder: Path, tokens: int) -> None:
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    words = [*letters, *(f"unused{i}" for i in range(98 - len(letters))), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": tokens, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_tiny(folder: Path) -> None:
    """Write all that both stages take, in the layout of the desk models: 32 x 32 pictures, captions of 8 tokens."""
    import open_clip
    from diffusers import AutoencoderTiny, DDIMScheduler
    from safetensors.torch import save_file

    torch.manual_seed(0)
    _unet(channels=4, context=32, attention_head_dim=2).save_pretrained(folder / "unet")
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ).save_pretrained(folder / "vae")
    DDIMScheduler(prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    clip = folder / "clip"
    clip.mkdir()
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "patch_size": 8, "head_width": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1},
    }
    (clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    model = open_clip.CLIP(**config)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, clip / "open_clip_model.safetensors")


def write_autoencoders(folder: Path) -> None:
    """Write `kl`, a KL autoencoder whose weights are random, and `small`, a tiny one fitted to decode as it does."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    torch.manual_seed(0)
    large = AutoencoderKL(
        latent_channels=4,
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=1,
        mid_block_add_attention=False,
        scaling_factor=0.18215,
    ).eval()
    for name, weight in large.decoder.named_parameters():
        if "conv2" in name:  # so near to a linear map that a small network learns it within a second
            weight.data *= 0.1
    small = AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(16, 16),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    optimizer = torch.optim.Adam(small.decoder.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, total_iters=_FITTED)
    with torch.enable_grad():
        for _ in range(_FITTED):
            latents = torch.nn.functional.interpolate(torch.randn(2, 4, 4, 4), (8, 8), mode="bicubic")
            with torch.no_grad():
                pictures = large.decode(latents / large.config.scaling_factor).sample
            loss = torch.nn.functional.mse_loss(small.decode(latents).sample, pictures)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    large.save_pretrained(folder / "kl")
    small.save_pretrained(folder / "small")


def write_ip_adapter(file: Path, unet: Any, *, embedding: int, tokens: int = 4) -> None:
    """Write a plain IP-Adapter of random weights for a UNet, in the names that diffusers reads."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    width = unet.config.cross_attention_dim
    weights = {
        "image_proj.proj.weight": torch.randn(tokens * width, embedding, generator=generator),
        "image_proj.proj.bias": torch.randn(tokens * width, generator=generator),
        "image_proj.norm.weight": 1 + 0.1 * torch.randn(width, generator=generator),
        "image_proj.norm.bias": 0.1 * torch.randn(width, generator=generator),
    }
    modules = dict(unet.named_modules())
    crossing = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(crossing):
        shape = modules[name].to_k.weight.shape
        for kind in ("to_k_ip", "to_v_ip"):
            weights[f"ip_adapter.{2 * number + 1}.{kind}.weight"] = torch.randn(shape, generator=generator)
    save_file(weights, file)


def _unet(*, channels: int, context: int, **settings: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=context,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **settings,
    )


def write_turbo(folder: Path) -> None:
    """Write SD-Turbo's published shapes with random weights (3.4 GB), TAESD's autoencoder and CLIP ViT-B/32.

    The caption's encoder has one layer of the published width: it runs once, before anything is timed.
    """
    import open_clip
    from diffusers import AutoencoderTiny, EulerDiscreteScheduler, UNet2DConditionModel
    from safetensors.torch import save_file

    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=2,
        cross_attention_dim=1024,
        attention_head_dim=(5, 10, 20, 20),
        use_linear_projection=True,
    ).save_pretrained(folder / "unet")
    AutoencoderTiny().save_pretrained(folder / "vae")
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    EulerDiscreteScheduler(**schedule, timestep_spacing="trailing").save_pretrained(folder / "scheduler")
    clip = folder / "clip"
    clip.mkdir()
    config = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 1},
    }
    (clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    model = open_clip.CLIP(**config)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, clip / "open_clip_model.safetensors")
