"""Model folders as people have them: fp16 only, in shards, both; and folders that lack something."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import ModelError
from engine.models.loading import Models, load_models
from engine.models.weights import count_weights, weight_files
from engine.spec import ModelSpec

PARTS = ("unet", "vae", "text_encoder")


def saved_as(plain: Path, folder: Path, variant: str | None, shard: str) -> Path:
    """Save a folder's models again, as a variant or in shards or both, as their libraries do."""
    import diffusers
    from transformers import CLIPTextModel

    shutil.copytree(plain, folder)
    classes: tuple[Any, ...] = (diffusers.UNet2DConditionModel, diffusers.AutoencoderKL, CLIPTextModel)
    for part, cls in zip(PARTS, classes, strict=True):
        model = cls.from_pretrained(plain / part)
        shutil.rmtree(folder / part)
        (model.half() if variant else model).save_pretrained(folder / part, variant=variant, max_shard_size=shard)
    return folder


def outputs(folder: Path) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Run all three networks of a folder on the same numbers."""
    models = load_models(ModelSpec(folder=str(folder), dtype="float32"), "cpu")
    c = models.encode_text(["a cat"])
    latents = np.random.default_rng(0).standard_normal((1, *models.latent_shape)).astype(np.float32)
    with torch.no_grad():
        unet = models.unet(torch.from_numpy(latents), 10, torch.from_numpy(c), return_dict=False)[0]
        return c, models.decode_latents(latents).astype(int), unet


@pytest.mark.parametrize(("variant", "shard"), [("fp16", "1GB"), (None, "20KB"), ("fp16", "20KB"), ("bf16", "1GB")])
def test_variants_and_shards_load_as_what_they_are(
    stable_diffusion: Path, tmp_path: Path, variant: str | None, shard: str
) -> None:
    """A folder that has its weights as fp16 only, in shards, or both, gives what the plain folder gives."""
    folder = saved_as(stable_diffusion, tmp_path / "models", variant, shard)
    assert len(weight_files(folder / "unet")) == 1 if shard == "1GB" else len(weight_files(folder / "unet")) > 5
    assert count_weights(folder / "unet") == count_weights(stable_diffusion / "unet")
    tolerance = 2e-2 if variant else 1e-6
    for plain, other in zip(outputs(stable_diffusion), outputs(folder), strict=True):
        scale = float(np.abs(np.asarray(plain)).max())
        assert np.abs(np.asarray(plain) - np.asarray(other)).max() <= tolerance * scale


def test_plain_weights_come_before_a_variant(stable_diffusion: Path, tmp_path: Path) -> None:
    """Where both lie there, the plain ones are loaded, counted and hashed, whatever the variant holds."""
    folder = tmp_path / "models"
    shutil.copytree(stable_diffusion, folder)
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"broken")
    assert [path.name for path in weight_files(folder / "unet")] == ["diffusion_pytorch_model.safetensors"]
    assert np.array_equal(outputs(folder)[2], outputs(stable_diffusion)[2])


def test_what_would_fail_at_load_is_refused_at_the_check(stable_diffusion: Path, tmp_path: Path) -> None:
    """A missing shard, a missing or broken index and a file of another name are a line each, before anything loads."""
    shards = saved_as(stable_diffusion, tmp_path / "shards", None, "20KB")
    sorted((shards / "vae").glob("*.safetensors"))[2].unlink()
    fp16 = saved_as(stable_diffusion, tmp_path / "fp16", "fp16", "20KB")
    (fp16 / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json").unlink()
    index = saved_as(stable_diffusion, tmp_path / "index", None, "20KB")
    (index / "text_encoder" / "model.safetensors.index.json").write_text(json.dumps([]))
    name = tmp_path / "name"
    shutil.copytree(stable_diffusion, name)
    (name / "unet" / "diffusion_pytorch_model.safetensors").rename(name / "unet" / "model.safetensors")
    for folder, words in (
        (shards, "shard .*of the vae missing"),
        (fp16, r"no diffusion_pytorch_model.safetensors.index.fp16.json for the unet"),
        (index, "no index of shards"),
        (name, "no diffusion_pytorch_model.safetensors for the unet, beside model.safetensors"),
    ):
        with pytest.raises(ModelError, match=words) as caught:
            load_models(ModelSpec(folder=str(folder)), "cpu")
        assert "\n" not in str(caught.value)


def test_a_broken_file_is_one_line(stable_diffusion: Path, tmp_path: Path) -> None:
    """Weights that are no safetensors are an error of ours when they are read, with the folder's name."""
    folder = tmp_path / "models"
    shutil.copytree(stable_diffusion, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not what it says")
    with pytest.raises(ModelError, match=r"unet: cannot be loaded") as caught:
        _ = load_models(ModelSpec(folder=str(folder)), "cpu").unet
    assert "\n" not in str(caught.value)


def test_a_clip_that_open_clip_cannot_read_is_refused(stable_diffusion: Path, tmp_path: Path) -> None:
    """A CLIP in transformers' layout is told what to take instead, in one line, before anything loads."""
    with pytest.raises(ModelError, match=r"no open_clip_config\.json for the clip.*take.*timm/vit_base") as caught:
        load_models(ModelSpec(folder=str(stable_diffusion), clip=str(stable_diffusion / "text_encoder")), "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "config", "quick"),
    [
        ("vit_base_patch32_clip_224.openai", {}, True),
        ("models--timm--vit_base_patch32_clip_224.openai", {}, True),
        ("vit_base_patch32_clip_224.openai", {"quick_gelu": False}, False),
        ("CLIP-ViT-B-32-laion2B-s34B-b79K", {}, False),
    ],
)
def test_weights_whose_config_lost_quick_gelu_are_recognised(
    tiny: Models, tmp_path: Path, name: str, config: dict[str, bool], quick: bool
) -> None:
    """By the name of their repository they get the activation they were trained with; what a config says stands."""
    folder = tmp_path / name / "snapshots" / "0"
    shutil.copytree(tiny.spec.folder, folder)
    file = folder / "clip" / "open_clip_config.json"
    settings = json.loads(file.read_text())
    settings["model_cfg"] |= config
    file.write_text(json.dumps(settings))
    block = load_models(ModelSpec(folder=str(folder)), "cpu").clip.visual.transformer.resblocks[0]
    assert (type(block.mlp.gelu).__name__ == "QuickGELU") is quick


@pytest.mark.parametrize(("variant", "shard"), [(None, "1GB"), ("fp16", "1GB"), (None, "20KB"), ("fp16", "20KB")])
def test_of_a_hub_model_just_the_weights_that_are_loaded_are_fetched(
    stable_diffusion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str | None, shard: str
) -> None:
    """Whole or in shards; fp16 only where there is nothing else; pickles and other files never."""
    hub = saved_as(stable_diffusion, tmp_path / "hub", variant, shard)
    (hub / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    if variant is None:
        (hub / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not wanted")

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool) -> str:
        assert not local_files_only
        for file in hub.rglob("*"):
            inside = file.relative_to(hub)
            if file.is_file() and any(fnmatch(str(inside), pattern) for pattern in allow_patterns):
                (tmp_path / "local" / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, tmp_path / "local" / inside)
        return str(tmp_path / "local")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    models = load_models(ModelSpec(folder="somebody/model"), "cpu")
    assert count_weights(models.parts["unet"]) == count_weights(stable_diffusion / "unet")
    fetched = {file.name for file in models.parts["unet"].iterdir()}
    assert "diffusion_pytorch_model.bin" not in fetched
    assert variant or "diffusion_pytorch_model.fp16.safetensors" not in fetched
