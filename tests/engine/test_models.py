import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from engine.errors import ModelError
from engine.models.clip import ShallowClip
from engine.models.folders import hash_folders
from engine.models.loading import Models, load_models
from engine.models.weights import count_weights
from engine.sampling.sampling import guided, make_schedule, sample
from engine.spec import ModelSpec
from tests.tinymodels import write_stable_diffusion

Pictures = NDArray[np.uint8]


def plain_mlp_outputs(w: dict[str, Tensor], x: Tensor, heads: int, count: int) -> list[Tensor]:
    """MLP outputs of a ViT's blocks, written out from its weights alone (Dosovitskiy et al. 2020, equations 1 to 3)."""
    width, patch = w["conv1.weight"].shape[0], w["conv1.weight"].shape[-1]
    cells = F.unfold(x, patch, stride=patch).transpose(1, 2) @ w["conv1.weight"].reshape(width, -1).T
    tokens = torch.cat([w["class_embedding"].expand(len(x), 1, -1), cells], 1) + w["positional_embedding"]
    tokens = F.layer_norm(tokens, (width,), w["ln_pre.weight"], w["ln_pre.bias"])
    outputs = []
    for i in range(count):
        b = {k.removeprefix(f"transformer.resblocks.{i}."): v for k, v in w.items() if f"resblocks.{i}." in k}
        h = F.layer_norm(tokens, (width,), b["ln_1.weight"], b["ln_1.bias"])
        q, k, v = (h @ b["attn.in_proj_weight"].T + b["attn.in_proj_bias"]).chunk(3, dim=-1)
        mixed = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            share = (q[..., part] @ k[..., part].transpose(1, 2) / (width // heads) ** 0.5).softmax(-1)
            mixed.append(share @ v[..., part])
        tokens = tokens + torch.cat(mixed, -1) @ b["attn.out_proj.weight"].T + b["attn.out_proj.bias"]
        h = F.layer_norm(tokens, (width,), b["ln_2.weight"], b["ln_2.bias"])
        h = F.gelu(h @ b["mlp.c_fc.weight"].T + b["mlp.c_fc.bias"])
        h = h @ b["mlp.c_proj.weight"].T + b["mlp.c_proj.bias"]
        outputs.append(h.flatten(1))
        tokens = tokens + h
    return outputs


def test_shallow_features_of_the_desk_clip(desk: Models, pictures: Pictures) -> None:
    """Six blocks' MLP outputs equal an independent computation from the weights' file."""
    every = load_file(desk.parts["clip"] / "open_clip_model.safetensors")
    w = {k.removeprefix("visual."): v.float() for k, v in every.items() if k.startswith("visual.")}
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    x = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    expected = plain_mlp_outputs(w, x, heads=6, count=6)
    found = desk.structure(pictures)
    assert list(found) == [1, 2, 3, 4, 5, 6]
    for block, values in found.items():
        assert values.shape == (4, 65 * 192)
        np.testing.assert_allclose(values, expected[block - 1].numpy(), atol=5e-5)


def test_shallow_features_of_a_vit_b_32() -> None:
    """With ViT-B/32's shape each of six blocks has 38,400 numbers, and pictures of other sizes are resized to 224."""
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    visual = VisionTransformer(224, 32, 768, 6, 12, 4.0, output_dim=512).eval().requires_grad_(False)
    shallow = ShallowClip(visual)
    pixels = torch.rand(1, 3, 224, 224)
    found = shallow.features(shallow.patches(pixels), range(1, 7))
    expected = plain_mlp_outputs(dict(visual.state_dict()), shallow.preprocess(pixels), heads=12, count=6)
    for block in range(1, 7):
        assert found[block].shape == (1, 38_400)
        torch.testing.assert_close(found[block], expected[block - 1], atol=1e-4, rtol=1e-4)
    assert shallow.patches(torch.rand(1, 3, 64, 64)).shape == (1, 768, 7, 7)


def test_blocks_that_are_not_used_are_not_run(desk: Models, pictures: Pictures) -> None:
    """Asking for the first two blocks never touches the third."""
    third = desk.clip.visual.transformer.resblocks[2]
    calls: list[int] = []
    handle = third.register_forward_pre_hook(lambda *_: calls.append(1))
    inner = third.ln_1.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        assert list(desk.structure(pictures[:1], (1, 2))) == [1, 2]
    finally:
        handle.remove()
        inner.remove()
    assert calls == []


def test_latents_come_back_as_pictures(desk: Models, pictures: Pictures) -> None:
    """Encoding has about unit variance and decoding returns the picture to over 28 dB."""
    latents = desk.encode_latents(pictures)
    assert latents.shape == (4, 8, 16, 16)
    assert 0.7 < latents.std() < 1.3
    error = ((desk.decode_latents(latents).astype(float) - pictures) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 28


def test_captions_find_their_pictures(desk: Models, pictures: Pictures) -> None:
    """In the joint space each of four pictures is nearest to its own caption, and all have unit norm."""
    captions = ["a goat at the top left", "a small hot dog on the right", "a large glass of milk on the left"]
    captions.append("a large fire extinguisher at the bottom left")
    images, texts = desk.embed_images(pictures), desk.embed_texts(captions)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    assert (images @ texts.T).argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_text_states_are_those_that_the_text_tower_pools(desk: Models) -> None:
    """Hidden states after ln_final are all kept: projecting the end token's gives CLIP's own text embedding."""
    c = torch.from_numpy(desk.encode_text(["a cat", ""]))
    assert c.shape == (2, 16, 128)
    tokens = desk.tokenize(["a cat", ""])
    pooled = c[torch.arange(2), tokens.argmax(dim=1)] @ desk.clip.text_projection
    expected = torch.from_numpy(desk.embed_texts(["a cat", ""]))
    torch.testing.assert_close(F.normalize(pooled, dim=-1), expected, atol=1e-5, rtol=0)


def test_a_stable_diffusion_folder_loads(stable_diffusion: Path) -> None:
    """The layout of Stable Diffusion 1.x is understood: KL latents, transformers' text encoder, scaling."""
    from diffusers import AutoencoderKL

    models = load_models(ModelSpec(folder=str(stable_diffusion)), "cpu")
    assert (models.latent_shape, models.image_size, models.autoencoder.scale) == ((4, 8, 8), 16, 2)
    assert models.encode_text(["ab", "c"]).shape == (2, 12, 32)
    images = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), np.uint8)
    latents = models.encode_latents(images)
    vae = AutoencoderKL.from_pretrained(stable_diffusion / "vae")
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = vae.encode(pixels).latent_dist.mode() * 0.18215
    np.testing.assert_allclose(latents, expected.numpy(), atol=1e-5)
    assert models.decode_latents(latents).shape == (2, 16, 16, 3)
    with pytest.raises(ModelError, match=r"models\.clip"):
        models.structure(images)


@pytest.mark.parametrize("family", ["1.x", "2.x", "turbo"])
def test_every_family_runs_by_its_folder_alone(family: str, tmp_path: Path) -> None:
    """Stable Diffusion's own schedulers and heads are understood, and guided DDIM is diffusers' own."""
    import diffusers

    write_stable_diffusion(tmp_path, family, tokens=77)
    models = load_models(ModelSpec(folder=str(tmp_path)), "cpu")
    assert (models.tokens, models.context_dim) == (77, 32)
    schedule = make_schedule(models.scheduler, kind="auto", steps=4, strength=1.0)
    assert schedule.prediction == ("v_prediction" if family == "2.x" else "epsilon")
    theirs = diffusers.DDIMScheduler.from_pretrained(tmp_path / "scheduler", clip_sample=False)
    theirs.set_timesteps(4)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    c, null = (torch.from_numpy(models.encode_text([caption])) for caption in ("ab", ""))
    plain = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    assert plain.config.attention_head_dim == models.unet.config.attention_head_dim
    x = noise
    with torch.no_grad():
        for t in theirs.timesteps:
            without, with_c = (plain(x, t, embedding).sample for embedding in (null, c))
            stepped = theirs.step(without + 3 * (with_c - without), t, x)
            x = stepped.prev_sample
        ours = sample(guided(lambda x, t, c: models.unet(x, t, c).sample, 3, null), schedule, noise, c, [noise] * 4)
    # diffusers leaves the schedule's last noise in the latent where set_alpha_to_one is false; ours is the clean one
    torch.testing.assert_close(ours, stepped.pred_original_sample, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"addition_embed_type": "text_time"}, "SDXL"),
        ({"class_embed_type": "timestep"}, "a class or a noise level"),
        ({"time_cond_proj_dim": 256}, "strength of guidance"),
        ({"cross_attention_dim": [32, 64]}, "must be one number"),
        ({"cross_attention_dim": 64}, "captions of width 64"),
        ({"in_channels": 9}, "9 latent channels"),
    ],
)
def test_other_families_are_refused_by_name(
    stable_diffusion: Path, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    """A UNet that wants more than latent, timestep and caption is refused before anything is loaded."""
    import json
    import shutil

    folder = tmp_path / "models"
    shutil.copytree(stable_diffusion, folder)
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=words) as caught:
        load_models(ModelSpec(folder=str(folder)), "cpu")
    assert "\n" not in str(caught.value)


def test_only_the_weights_that_are_loaded_are_counted(stable_diffusion: Path, tmp_path: Path) -> None:
    """Variants that repositories keep beside the weights change neither their number nor their hash."""
    import shutil

    shutil.copytree(stable_diffusion / "unet", tmp_path / "unet")
    before = count_weights(tmp_path / "unet"), hash_folders([tmp_path / "unet"])
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    for variant in ("fp16", "non_ema"):
        shutil.copy(weights, weights.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    assert (count_weights(tmp_path / "unet"), hash_folders([tmp_path / "unet"])) == before


def test_feature_space_names_the_weights(desk: Models, tmp_path: Path) -> None:
    """The hash is the same for the same weights wherever they lie, and another after one byte has changed."""
    import shutil

    for part in ("clip", "autoencoder", "scheduler-lcm", "unet-lcm"):
        shutil.copytree(desk.parts["clip"].parent / part, tmp_path / part)
    copied = load_models(ModelSpec(folder=str(tmp_path)), "cpu")
    assert copied.feature_space == desk.feature_space
    weights = tmp_path / "autoencoder" / "diffusion_pytorch_model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(bytes(raw))
    assert load_models(ModelSpec(folder=str(tmp_path)), "cpu").feature_space != desk.feature_space


def test_pickled_weights_are_refused(desk: Models, tmp_path: Path) -> None:
    """A part without safetensors is refused by name, also where a .bin lies beside."""
    import shutil

    for part in ("clip", "autoencoder", "scheduler-lcm", "unet-lcm"):
        shutil.copytree(desk.parts["clip"].parent / part, tmp_path / part)
    (tmp_path / "clip" / "open_clip_model.safetensors").rename(tmp_path / "clip" / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        load_models(ModelSpec(folder=str(tmp_path)), "cpu")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ModelSpec(folder="./nowhere/at-all/there"), "no model folder"),
        (ModelSpec(folder="models"), "no unet-lcm or unet folder"),
        (ModelSpec(vae="./missing/vae/there"), "no model folder"),
    ],
)
def test_missing_models_are_named(spec: ModelSpec, words: str) -> None:
    """One line says what was looked for."""
    with pytest.raises(ModelError, match=words) as caught:
        load_models(spec, "cpu")
    assert "\n" not in str(caught.value)


def test_a_vae_that_asks_for_upcasting_gets_it(stable_diffusion: Path, tiny: Models) -> None:
    """In half precision a KL VAE with `force_upcast` is float32, and the UNet and other VAEs are half."""
    half = Models(ModelSpec(folder=str(stable_diffusion), dtype="float16"), "cpu")
    assert (half.dtype, half.unet.dtype, half.vae.dtype) == (torch.float16, torch.float16, torch.float32)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = Models(ModelSpec(folder=str(stable_diffusion), dtype="float32"), "cpu")
    assert torch.equal(half.decode_pixels(latents.half()), whole.decode_pixels(latents.half().float()))
    small = Models(tiny.spec.model_copy(update={"dtype": "float16"}), "cpu")
    assert small.vae.dtype == torch.float16


def test_models_are_pickled_as_their_files(tiny: Models) -> None:
    """Another process reads them itself, and once; what they compute is the same."""
    encode, again = (pickle.loads(pickle.dumps(tiny.encode_latents)) for _ in range(2))  # noqa: S301  our own
    assert encode.__self__ is again.__self__ is not tiny
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(encode(images), tiny.encode_latents(images))
