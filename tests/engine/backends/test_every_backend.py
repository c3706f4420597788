"""What holds for the whole engine with every backend that runs here, on tiny models with random weights."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache as cache_results

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.steady import run as steady
from decoder.features import Features, LayerTarget
from engine.backends.cache import EngineCache
from engine.batching import make_batches
from engine.models.loading import Models
from engine.picture import Picture
from engine.reconstructor import Reconstructor
from engine.registry import BACKENDS
from engine.spec import EngineSpec, StructureSpec
from engine.stage1 import generate
from engine.stage2.improve import latents_of
from engine.stage2.targets import make_targets

CPU = torch.device("cpu")
MINUTES = {"torch-compile"}
PRESENT = [name for name, entry in BACKENDS.items() if name not in MINUTES and entry.unavailable_because(CPU) is None]
MODES = ["none", "fast", "onestep", "exact"]
Make = Callable[[str, str], Reconstructor]


@pytest.fixture(scope="module")
def make(tiny: Models, cache: EngineCache) -> Make:
    """Give a reconstructor for a backend and a mode of stage 2, the same one to all tests."""

    @cache_results
    def build(backend: str, mode: str) -> Reconstructor:
        structure = StructureSpec(mode=mode, iterations=2, learning_rate=0.05)  # type: ignore[arg-type]
        spec = EngineSpec(backend=backend, threads=1, guidance=2, structure=structure)  # type: ignore[arg-type]
        return Reconstructor(spec, tiny, cache.folder)

    return build


def windows(models: Models, count: int) -> list[Features]:
    """Give random features; captions of every length, every third window without z."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        c = rng.standard_normal((1 + i % models.tokens, models.context_dim)).astype(np.float32)
        z = None if i % 3 == 2 else rng.standard_normal(models.latent_shape).astype(np.float32)
        units = models.shallow.tokens * models.shallow.width
        s = {
            block: LayerTarget(rng.standard_normal(units).astype(np.float32), rng.random(units) < 0.5)
            for block in (1, 2)
        }
        made.append(Features(f"w{i}", c, z, s))
    return made


def pixels_of(engine: Reconstructor, features: list[Features]) -> dict[tuple[str, int], Tensor]:
    """Return each window's pixels before rounding, of stage 1 and of stage 2 where it is done."""
    setup, found = engine.setup, {}
    for batch in make_batches(features, setup):
        preview = generate(batch, setup)
        found.update({(f.window_id, 1): x for f, x in zip(batch.features, preview.pixels, strict=True)})
        if setup.spec.structure.mode != "none":
            targets = make_targets(batch.features, setup.layer_weights, setup.units)
            latents = latents_of(batch, preview.first, targets, setup)
            found.update({(f.window_id, 2): x for f, x in zip(batch.features, latents, strict=True)})
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", PRESENT)
def test_a_batch_equals_its_members(make: Make, backend: str, mode: str) -> None:
    """To 1e-4 each window's stage-1 pixels and stage-2 latent are the same alone, in a batch and in another order."""
    with torch.enable_grad():
        engine = make(backend, mode)
        features = windows(engine.models, 5)
        together = pixels_of(engine, features)
        backwards = pixels_of(engine, features[::-1])
        alone = {key: x for f in features for key, x in pixels_of(engine, [f]).items()}
    assert set(together) == set(backwards) == set(alone)
    assert len(together) == len(features) * (1 if mode == "none" else 2)
    for key, expected in alone.items():
        for found in (together[key], backwards[key]):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def broken(f: Features) -> dict[str, tuple[Features, str]]:
    """Give windows that each have one fault, and the words that report it."""
    nan = {block: replace(t, values=np.full_like(t.values, np.nan)) for block, t in f.s.items()}
    empty = {block: replace(t, mask=np.zeros_like(t.mask)) for block, t in f.s.items()}
    zero = {block: replace(t, values=np.zeros_like(t.values)) for block, t in f.s.items()}
    huge = {block: replace(t, values=np.full_like(t.values, 1e30)) for block, t in f.s.items()}
    return {
        "nan": (replace(f, window_id="nan", s=nan), "not finite"),
        "empty": (replace(f, window_id="empty", s=empty), "mask is empty"),
        "zero": (replace(f, window_id="zero", s=zero), "target is zero"),
        "huge": (replace(f, window_id="huge", s=huge), "came no closer"),
    }


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("backend", PRESENT)
def test_a_bad_sample_spoils_only_itself(make: Make, backend: str, mode: str) -> None:
    """NaN, an empty mask, a zero norm and absurd values are reported in their own picture, and the rest is as ever."""
    with torch.enable_grad():
        engine = make(backend, mode)
        good = windows(engine.models, 2)
        bad = broken(good[0])
        mixed = [good[0], *(f for f, _ in bad.values()), good[1]]
        whole, found = pixels_of(engine, good), pixels_of(engine, mixed)
        made: dict[str, Picture] = {p.window_id: p for p in engine.reconstruct(mixed)}
    for key, expected in whole.items():
        torch.testing.assert_close(found[key], expected, atol=1e-4, rtol=0)
    for name, (_, words) in bad.items():
        assert made[name].stage == 1
        assert words in made[name].note
        assert np.isfinite(made[name].pixels).all()


def test_a_bad_block_is_reported_and_the_others_are_used(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A window with one NaN block is still pulled by the other, and the log names both window and block."""
    with torch.enable_grad():
        engine = make("torch", "exact")
        f = windows(engine.models, 1)[0]
        f = replace(f, s=f.s | {2: replace(f.s[2], values=np.full_like(f.s[2].values, np.nan))})
        (picture,) = engine.reconstruct([f])
    assert "window w0: block 2 of s cannot be used" in caplog.text
    assert "block 1" not in caplog.text
    assert picture.note in {"", "stage 2 came no closer to the decoded structure"}


@pytest.mark.parametrize("backend", PRESENT)
def test_the_engine_stays_as_it_is_after_warm_up(make: Make, backend: str) -> None:
    """Over mixed batches, captions, and missing z and s nothing is compiled anew and memory stays flat."""
    with torch.enable_grad():
        found = steady(make(backend, "fast"), 100)
    assert found["compiled_in_warm_up"] > 0 or backend in {"torch", "onnx"}
    assert found["compiled_after"] == 0
    assert found["end_mb"] - found["start_mb"] < 10
