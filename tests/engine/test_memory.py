import numpy as np
import pytest
import torch

from engine.errors import MemoryBudgetError
from engine.models.loading import Models
from engine.models.memory import (
    GIB,
    THRIFTIEST,
    DecodePlan,
    decode_by,
    forget_peak,
    peak_bytes,
    picture_bytes,
    plan_decode,
)
from engine.reconstructor import Reconstructor
from engine.spec import EngineSpec

CPU = torch.device("cpu")


def test_a_budget_gives_slices_then_tiles_then_a_refusal(desk: Models) -> None:
    """Beside what all else takes with one tile: two pictures at once, tiles, an error that names the figure."""
    taken, each = GIB, picture_bytes(desk)
    assert plan_decode(desk, (taken + 1.8 * each) / GIB / 0.98, taken) == DecodePlan(2, False)
    assert plan_decode(desk, (taken + 0.7 * each) / GIB / 0.98, taken) == THRIFTIEST
    with pytest.raises(MemoryBudgetError, match=r"is 0.9 and the engine takes 1.00 GiB"):
        plan_decode(desk, 0.9, taken)


def test_slices_and_tiles_give_the_same_pictures(desk: Models) -> None:
    """Slices change rounding only; tiles, which overlap and are blended, stay close, and leave the module as it was."""
    latents = torch.randn(3, *desk.latent_shape, generator=torch.Generator().manual_seed(0)) * 0.5
    with torch.no_grad():
        whole = desk.decode_pixels(latents)
        sliced = decode_by(DecodePlan(1, False), desk.decode_pixels, desk)(latents)
    torch.testing.assert_close(sliced, whole, atol=1e-4, rtol=0)
    tiled = decode_by(THRIFTIEST, desk.decode_pixels, desk)(latents)
    assert tiled.shape == whole.shape
    assert 0.98 < np.corrcoef(tiled.numpy().ravel(), whole.numpy().ravel())[0, 1] < 0.999999
    with torch.no_grad():
        torch.testing.assert_close(desk.decode_pixels(latents), whole, atol=0, rtol=0)


def test_the_peak_is_of_what_was_taken_since_it_was_forgotten() -> None:
    """A gigabyte that was held before and given back is not counted again; one that is held now is."""
    held = torch.ones(1 << 28)
    high = peak_bytes(CPU)
    del held
    forget_peak(CPU)
    low = peak_bytes(CPU)
    assert high - low > 0.9 * GIB
    again = torch.ones(1 << 27)
    assert peak_bytes(CPU) - low > 0.9 * again.nbytes


def test_a_warm_up_keeps_to_its_budget_or_is_refused(desk: Models) -> None:
    """What is taken afterwards is within the budget, and a budget too small is refused with the figure."""
    wide = Reconstructor(EngineSpec(backend="torch", memory_gib=64), desk)
    wide.warm_up(2)
    forget_peak(CPU)
    wide.dry_run(2)
    needed = peak_bytes(CPU) / GIB
    with pytest.raises(MemoryBudgetError, match=r"memory_gib is 0.2 and the engine takes \d+\.\d\d GiB"):
        Reconstructor(EngineSpec(backend="torch", memory_gib=0.2), desk).warm_up()
    slim = Reconstructor(EngineSpec(backend="torch", memory_gib=needed + 0.1), desk)
    slim.warm_up(2)
    forget_peak(CPU)
    slim.dry_run(2)
    assert peak_bytes(CPU) / GIB <= needed + 0.1


def test_slices_are_of_few_sizes(desk: Models) -> None:
    """Decoding within a budget asks a backend for powers of two alone, so that it compiles few programs."""
    asked: list[int] = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        asked.append(len(latents))
        return latents

    limited = decode_by(DecodePlan(5, False), decode, desk)
    latents = torch.arange(7.0).view(7, 1, 1, 1)
    assert torch.equal(limited(latents), latents)
    assert asked == [4, 2, 1]
