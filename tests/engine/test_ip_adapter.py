"""Pictures from a picture embedding: an IP-Adapter does here what it does in diffusers' own pipeline."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decoder.features import Features
from engine.backends.cache import EngineCache
from engine.backends.export import weights_hash
from engine.batching import make_batches
from engine.errors import FeatureError, ModelError
from engine.models.loading import Models, load_models
from engine.reconstructor import Reconstructor
from engine.sampling.sampling import window_seed
from engine.spec import EngineSpec, ModelSpec, StructureSpec
from engine.stage1 import generate
from tests.engine.test_pipelines import pipeline
from tests.tinymodels import write_ip_adapter, write_stable_diffusion

DIM = 24
SCALE = 0.7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a tiny Stable Diffusion folder with an IP-Adapter beside it."""
    from diffusers import UNet2DConditionModel

    folder = tmp_path_factory.mktemp("adapted")
    write_stable_diffusion(folder)
    write_ip_adapter(folder / "ip.safetensors", UNet2DConditionModel.from_pretrained(folder / "unet"), embedding=DIM)
    return folder


@pytest.fixture(scope="module")
def models(folder: Path) -> Models:
    """Load both, on the CPU."""
    spec = ModelSpec(folder=str(folder), ip_adapter=str(folder / "ip.safetensors"), ip_adapter_scale=SCALE)
    return load_models(spec, "cpu")


def engine(
    models: Models, *, backend: str = "torch", cache: EngineCache | None = None, **settings: Any
) -> Reconstructor:
    """Two guided steps from half the noise, stage 1 alone."""
    whole: dict[str, Any] = {"steps": 2, "strength": 0.5, "guidance": 3.0, "structure": StructureSpec(mode="none")}
    spec = EngineSpec(models=models.spec, backend=backend, device="cpu", **whole | settings)
    return Reconstructor(spec, models, cache.folder if cache else None)


def window(models: Models, name: str = "w", caption: str = "ab c") -> Features:
    """Draw a window with all three features."""
    rng = np.random.default_rng(len(name))
    z, e = rng.standard_normal(models.latent_shape), 3 * rng.standard_normal(DIM)
    return Features(name, models.encode_text([caption])[0], z.astype(np.float32), e=e.astype(np.float32))


def pixels(made: Reconstructor, features: Sequence[Features]) -> Tensor:
    """Return stage 1's pixels before they are rounded, clamped as diffusers has them."""
    (batch,) = make_batches(features, made.setup)
    return generate(batch, made.setup).pixels.clamp(0, 1)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("caption", ["beside", "instead"])
def test_it_is_what_diffusers_draws(folder: Path, models: Models, caption: str, guidance: float) -> None:
    """With the same embedding, scale, latent and noise pixels agree to 1e-4, beside a caption and instead of one."""
    f = window(models)
    theirs = pipeline(folder, "1.x")
    theirs.load_ip_adapter(str(folder), subfolder="", weight_name="ip.safetensors", image_encoder_folder=None)
    theirs.set_ip_adapter_scale(SCALE)
    assert f.e is not None
    e = torch.from_numpy(f.e)[None, None]
    expected = theirs(
        "ab c" if caption == "beside" else "",
        torch.from_numpy(f.z)[None],
        strength=0.5,
        num_inference_steps=4,
        guidance_scale=guidance,
        ip_adapter_image_embeds=[torch.cat([torch.zeros_like(e), e]) if guidance > 1 else e],
        generator=torch.Generator().manual_seed(window_seed(0, "w")),
        output_type="pt",
    ).images
    ours = pixels(engine(models, embedding=caption, guidance=guidance), [f])
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    without = pixels(engine(load_models(ModelSpec(folder=str(folder)), "cpu"), guidance=guidance), [f])
    assert float((ours - without).abs().max()) > 0.01


def test_exported_it_is_the_same(models: Models, cache: EngineCache) -> None:
    """ONNX Runtime is proven with the embedding's tokens, and a batch equals its members, with and without `e`."""
    features = [window(models, "a"), replace(window(models, "bb"), e=None)]
    eager, exported = engine(models), engine(models, backend="onnx", cache=cache)
    together = pixels(exported, features)
    torch.testing.assert_close(together, pixels(eager, features), atol=1e-4, rtol=0)
    for row, f in enumerate(features):
        torch.testing.assert_close(together[row : row + 1], pixels(exported, [f]), atol=1e-4, rtol=0)


def test_the_length_of_the_embedding_is_set_by_config(models: Models) -> None:
    """With a norm a shorter embedding of the same direction draws the same picture; without one it does not."""
    f = window(models)
    assert f.e is not None
    shorter = replace(f, e=f.e / 4)
    normed = engine(models, embedding_norm=10.0)
    torch.testing.assert_close(pixels(normed, [f]), pixels(normed, [shorter]), atol=1e-5, rtol=0)
    plain = engine(models)
    assert float((pixels(plain, [f]) - pixels(plain, [shorter])).abs().max()) > 1e-3


def test_an_embedding_that_cannot_be_taken_is_named(models: Models, caplog: pytest.LogCaptureFixture) -> None:
    """Of another CLIP it is refused with both sizes; one that is not finite is left out, and the log says so."""
    made, f = engine(models), window(models)
    with pytest.raises(FeatureError, match=r"window 'w': e has shape \(8,\) and the IP-Adapter takes \(24,\)"):
        made.reconstruct([replace(f, e=np.zeros(8, np.float32))])
    (picture,) = made.reconstruct([replace(f, e=np.full(DIM, np.nan, np.float32))])
    (none,) = made.reconstruct([replace(f, e=None)])
    assert "window w: e is not finite" in caplog.text
    assert np.array_equal(picture.pixels, none.pixels)


def test_exports_are_kept_by_adapter_and_scale(folder: Path, models: Models) -> None:
    """Another scale, and none at all, are other networks."""
    specs = [models.spec.model_copy(update=change) for change in ({}, {"ip_adapter_scale": 0.2}, {"ip_adapter": None})]
    assert len({weights_hash(load_models(spec, "cpu"), "unet") for spec in specs}) == 3
    assert len({weights_hash(load_models(spec, "cpu"), "decoder") for spec in specs}) == 1


def test_what_is_no_adapter_for_this_unet_is_one_line(folder: Path, tmp_path: Path) -> None:
    """A file that is missing, of another kind, of another width or too short is named before a picture is drawn."""
    weights = load_file(folder / "ip.safetensors")
    plus = {"image_proj.latents": torch.zeros(1, 16, 8)}
    wide = {name: torch.cat([tensor] * 2) if "norm" in name else tensor for name, tensor in weights.items()}
    for name, tensors in {"plus": plus, "wide": wide}.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for name, words in {
        "missing": "is not a .safetensors file",
        "plus": "plain IP-Adapters are supported",
        "wide": "captions of width 64, and this one's have 32",
        "broken": "cannot be read as safetensors",
    }.items():
        with pytest.raises(ModelError, match=words) as caught:
            load_models(ModelSpec(folder=str(folder), ip_adapter=str(tmp_path / f"{name}.safetensors")), "cpu")
        assert "\n" not in str(caught.value)
    short = {name: tensor for name, tensor in weights.items() if not name.startswith("ip_adapter.3")}
    save_file(short, tmp_path / "short.safetensors")
    spec = ModelSpec(folder=str(folder), ip_adapter=str(tmp_path / "short.safetensors"))
    with pytest.raises(ModelError, match="not for this UNet"):
        _ = load_models(spec, "cpu").unet
