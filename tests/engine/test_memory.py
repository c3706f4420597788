import numpy as np
import pytest
import torch

from engine.errors import MemoryBudgetError
from engine.memory import (
    GIB,
    RUNTIME,
    budgeted,
    check_budget,
    peak_bytes,
    picture_bytes,
    plan_decode,
    weight_bytes,
)
from engine.models import Models, load_models


def test_weights_are_counted_as_they_are_loaded(desk: Models) -> None:
    """The figure from the files' headers is that of the loaded modules; CLIP serves two parts and counts once."""
    loaded = sum(p.numel() * p.element_size() for m in (desk.unet, desk.vae, desk.clip) for p in m.parameters())
    assert weight_bytes(desk) == pytest.approx(loaded, rel=0.01)


def test_a_budget_gives_slices_then_tiles_then_a_refusal(desk: Models) -> None:
    """Two pictures at once, tiles, and an error that names the figure, as the budget shrinks."""
    fixed, each = RUNTIME + weight_bytes(desk), picture_bytes(desk)
    assert plan_decode(desk, None).slices is None
    assert plan_decode(desk, (fixed + 2.5 * each) / GIB).slices == 2
    assert plan_decode(desk, (fixed + 0.5 * each) / GIB).tiled
    with pytest.raises(MemoryBudgetError, match=r"need .* GiB"):
        plan_decode(desk, (fixed + 0.1 * each) / GIB)


def test_slices_and_tiles_give_the_same_pictures(desk: Models) -> None:
    """Slices change rounding only; tiles, which overlap and are blended, stay close."""
    fixed, each = RUNTIME + weight_bytes(desk), picture_bytes(desk)
    latents = torch.randn(3, *desk.latent_shape, generator=torch.Generator().manual_seed(0)) * 0.5
    with torch.no_grad():
        whole = desk.decode_pixels(latents)
        sliced = budgeted(desk.decode_pixels, desk, (fixed + 1.5 * each) / GIB)(latents)
    torch.testing.assert_close(sliced, whole, atol=1e-4, rtol=0)
    own = load_models(desk.spec, "cpu")  # tiling is a setting of the module, which others share
    tiled = budgeted(own.decode_pixels, own, (fixed + 0.5 * each) / GIB)(latents)
    assert tiled.shape == whole.shape
    assert np.corrcoef(tiled.numpy().ravel(), whole.numpy().ravel())[0, 1] > 0.98


def test_a_warm_up_beyond_the_budget_is_refused_with_the_figure() -> None:
    """What was really taken counts, unless something earlier had taken as much."""
    cpu = torch.device("cpu")
    before = peak_bytes(cpu)
    held = torch.ones(before // 4 + (64 << 20))
    after = peak_bytes(cpu)
    assert after - before > held.nbytes // 2 or after > before
    with pytest.raises(MemoryBudgetError, match=f"took {after / GIB:.2f} GiB"):
        check_budget(0.05, before, after)
    check_budget(0.05, after, after)
    check_budget(after / GIB + 0.01, before, after)
    check_budget(None, before, after)


def test_slices_are_of_few_sizes(desk: Models) -> None:
    """Decoding within a budget asks a backend for powers of two alone, so that it compiles few programs."""
    fixed, each = RUNTIME + weight_bytes(desk), picture_bytes(desk)
    asked: list[int] = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        asked.append(len(latents))
        return latents

    limited = budgeted(decode, desk, (fixed + 5.5 * each) / GIB)
    latents = torch.arange(7.0).view(7, 1, 1, 1)
    assert torch.equal(limited(latents), latents)
    assert asked == [4, 2, 1]
