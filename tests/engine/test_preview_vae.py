"""A small autoencoder decodes previews: the right one of two decodes what is shown, and one that cannot is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from decoder.features import Features, LayerTarget
from engine.backends.base import NetworkBackend
from engine.backends.cache import EngineCache
from engine.backends.export import OPSETS, exportable, exported, weights_hash
from engine.backends.onnx import OnnxRunner
from engine.backends.proof import prove
from engine.backends.reference import reference_of
from engine.errors import ModelError
from engine.models.loading import Models, load_models, to_uint8
from engine.models.memory import picture_bytes
from engine.reconstructor import Reconstructor
from engine.setup import decoded_view
from engine.spec import EngineSpec, ModelSpec, StructureSpec
from tests.engine.backends import wrong_backends as wrong
from tests.tinymodels import write_autoencoders, write_tiny

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write tiny models with a KL autoencoder and a small one that decodes as it does."""
    folder = tmp_path_factory.mktemp("two-decoders")
    write_tiny(folder)
    write_autoencoders(folder)
    return folder


@pytest.fixture(scope="module")
def models(folder: Path) -> Models:
    """Load them with the small one for previews."""
    return load_models(ModelSpec(folder=str(folder), vae="kl", preview_vae="small"), "cpu")


@pytest.fixture(scope="module")
def windows(models: Models) -> list[Features]:
    """Random features of three windows."""
    rng = np.random.default_rng(0)
    units = models.shallow.tokens * models.shallow.width

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, np.float32)

    every = np.ones(units, bool)
    return [
        Features(
            f"w{i}",
            normal(models.tokens, models.context_dim),
            normal(*models.latent_shape),
            {block: LayerTarget(normal(units), every) for block in (1, 2, 3)},
        )
        for i in range(3)
    ]


def drawn(
    models: Models, windows: list[Features], cache: EngineCache | None = None, **settings: Any
) -> tuple[list[Pixels], list[Pixels], list[str]]:
    """Return previews, final pictures and the final ones' notes, in torch unless a backend is named."""
    whole = {"backend": "torch", "structure": StructureSpec(mode="none")} | settings
    engine = Reconstructor(EngineSpec(models=models.spec, **whole), models, cache.folder if cache else None)
    previews: list[Pixels] = []
    pictures = engine.reconstruct(windows, lambda first: previews.extend(one.pixels for one in first))
    assert not any(picture.fault for picture in pictures)
    return previews, [picture.pixels for picture in pictures], [picture.note for picture in pictures]


@pytest.mark.parametrize("structure", [StructureSpec(mode="none"), StructureSpec(iterations=2, renoise_strength=0.3)])
def test_preview_and_picture_have_a_decoder_each(
    folder: Path, models: Models, windows: list[Features], structure: StructureSpec
) -> None:
    """Previews are those of models with the small decoder alone, final pictures those of models with the large one."""
    previews, pictures, notes = drawn(models, windows, structure=structure)
    small, large = (load_models(ModelSpec(folder=str(folder), vae=name), "cpu") for name in ("small", "kl"))
    np.testing.assert_array_equal(previews, drawn(small, windows, structure=structure)[0])
    _, expected, large_notes = drawn(large, windows, structure=structure)
    np.testing.assert_array_equal(pictures, expected)
    assert notes == large_notes == [""] * len(windows)


def test_where_stage_2_does_not_help_the_preview_is_decoded_in_full(
    folder: Path, models: Models, windows: list[Features]
) -> None:
    """Windows without usable structure keep stage 1, by the large decoder."""
    bare = [Features(one.window_id, one.c, one.z) for one in windows]
    structure = StructureSpec(iterations=2)
    _, pictures, notes = drawn(models, bare, structure=structure)
    large = load_models(ModelSpec(folder=str(folder), vae="kl"), "cpu")
    assert all(notes)
    np.testing.assert_array_equal(pictures, drawn(large, bare)[1])


@pytest.mark.big
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_exported_decoders_are_two(models: Models, windows: list[Features], cache: EngineCache, backend: str) -> None:
    """In other runtimes preview and picture are torch's, to one level, each by its own decoder."""
    for name in ("vae", "preview_vae"):
        ours, theirs = (
            drawn(models, windows, cache, backend=one, final_decoder=name)[:2] for one in (backend, "torch")
        )
        for mine, torch_s in zip(ours, theirs, strict=True):
            assert np.abs(np.asarray(mine, int) - np.asarray(torch_s, int)).max() <= 1


def test_it_is_exported_as_it_is(models: Models, cache: EngineCache) -> None:
    """Another runtime makes of latents what the small decoder makes of them in torch."""
    file = exported(exportable(models), "preview_decoder", cache, OPSETS[0])
    backend = NetworkBackend("onnx", models, {"preview_decoder": OnnxRunner(file, "onnx", models.device)})
    latents = torch.randn(3, *models.latent_shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(backend.decode(latents, preview=True), models.decode_preview(latents), atol=1e-4, rtol=0)


def test_the_small_one_may_decode_the_final_picture(models: Models, windows: list[Features]) -> None:
    """Then preview and picture of stage 1 are the same, and gradients of stage 2 go through it."""
    previews, pictures, _ = drawn(models, windows, final_decoder="preview_vae")
    np.testing.assert_array_equal(previews, pictures)
    latents = torch.randn(1, *models.latent_shape, generator=torch.Generator().manual_seed(0))
    for name, decode in (("vae", models.decode_pixels), ("preview_vae", models.decode_preview)):
        view = decoded_view(models, EngineSpec(models=models.spec, final_decoder=name))
        expected = models.shallow.features(models.shallow.patches(decode(latents)), (1, 2))
        for block, values in view(latents, (1, 2)).items():
            assert torch.equal(values, expected[block])


def test_its_numbers_are_proven_too(models: Models) -> None:
    """A wrong small decoder is named."""
    reference = reference_of(models, None)
    assert prove(wrong.Changed(models, "preview_decoder", wrong.right), models, reference).runs == 30
    fault = prove(wrong.Changed(models, "preview_decoder", wrong.swapped_rows), models, reference).fault
    assert fault.startswith("the preview decoder at batch 2 differs from torch")


def test_a_budget_holds_for_both(models: Models, windows: list[Features]) -> None:
    """Within a budget the pictures are the same."""
    plain = Reconstructor(EngineSpec(models=models.spec, backend="torch"), models)
    thrifty = Reconstructor(EngineSpec(models=models.spec, backend="torch", memory_gib=64), models)
    thrifty.warm_up(2)
    for one, other in zip(plain.reconstruct(windows), thrifty.reconstruct(windows), strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1


def test_what_it_takes_is_by_its_own_type(folder: Path) -> None:
    """In half precision the small decoder takes half, whatever the type of the other."""
    models = load_models(ModelSpec(folder=str(folder), vae="kl", preview_vae="small"), "cpu")
    whole = picture_bytes(models, preview=True)
    models.preview_autoencoder = replace(models.preview_autoencoder, dtype=torch.float16)
    assert 2 * picture_bytes(models, preview=True) == whole


def test_another_latent_space_is_refused(folder: Path, tmp_path: Path) -> None:
    """An autoencoder that reads latents otherwise is named in one line, with the correlation."""
    from diffusers import AutoencoderTiny

    other = AutoencoderTiny.from_pretrained(folder / "small")
    for weight in other.decoder.parameters():
        weight.data = weight.data.roll(1, 0)
    other.save_pretrained(tmp_path / "other")
    spec = ModelSpec(folder=str(folder), vae="kl", preview_vae=str(tmp_path / "other"))
    with pytest.raises(
        ModelError, match=r"does not share the latent space of .*kl: .* correlates by -?0\.\d\d"
    ) as caught:
        Reconstructor(EngineSpec(models=spec, backend="torch", device="cpu"))
    assert "\n" not in str(caught.value)


def test_what_cannot_be_is_refused_before_anything_is_read(folder: Path, tmp_path: Path) -> None:
    """Other shapes, another class, and a final decoder that is not there are one line each."""
    from diffusers import AutoencoderTiny

    widths = {f"{side}_block_out_channels": (8, 8) for side in ("encoder", "decoder")}
    blocks = {f"num_{side}_blocks": (1, 1) for side in ("encoder", "decoder")}
    AutoencoderTiny(latent_channels=8, **widths, **blocks).save_pretrained(tmp_path / "small")
    with pytest.raises(ModelError, match=r"latents of 8 channels, 2 pixels a cell, and those of .* have 4 channels"):
        load_models(ModelSpec(folder=str(folder), vae="kl", preview_vae=str(tmp_path / "small")), "cpu")
    with pytest.raises(ModelError, match="a VAE of class 'UNet2DConditionModel'"):
        load_models(ModelSpec(folder=str(folder), vae="kl", preview_vae="unet"), "cpu")
    with pytest.raises(ValidationError, match=r"models\.preview_vae names none"):
        EngineSpec(final_decoder="preview_vae")


def test_it_changes_neither_feature_space_nor_other_exports(folder: Path, models: Models) -> None:
    """Bundles and exported networks of the same models go on."""
    without = load_models(ModelSpec(folder=str(folder), vae="kl"), "cpu")
    assert models.feature_space == without.feature_space
    assert to_uint8(models.decode_pixels(torch.zeros(1, *models.latent_shape))).shape == (1, 16, 16, 3)
    for part in ("unet", "decoder"):
        assert weights_hash(models, part) == weights_hash(without, part)
    assert weights_hash(models, "preview_decoder") != weights_hash(models, "decoder")
