from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from decoder.features import Features, LayerTarget, StructureModel
from engine.errors import FeatureError
from engine.likelihood import Operator
from engine.models import Models
from engine.reconstructor import Reconstructor
from engine.spec import EngineSpec, StructureSpec
from engine.structure import make_targets, pull

SIDE, UNITS, SHRINKAGE, NOISE = 4, 20, 0.4, 0.05
C = np.zeros((2, 4), np.float32)
MIX = torch.randn(2, UNITS, SIDE**2, generator=torch.Generator().manual_seed(3))
KEPT = {2: np.arange(0, UNITS, 2, dtype=np.int32), 1: np.arange(UNITS, dtype=np.int32)}
N_KEPT = sum(len(units) for units in KEPT.values())


def view(x: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
    """Show two made-up blocks, linear in a 1 x 4 x 4 latent, about 5."""
    return {block: 5 + x.flatten(1) @ MIX[block - 1].T for block in blocks}


def answering() -> Operator:
    """Give the operator of a decoder that shrinks toward 5 and adds white noise."""
    eye = np.eye(N_KEPT, dtype=np.float32) / NOISE
    offset = np.full(N_KEPT, 5 * (1 - SHRINKAGE) / NOISE, np.float32)
    return Operator(StructureModel(KEPT, eye, SHRINKAGE * eye, offset), UNITS)


def decoded(shown: Tensor, seed: int = 0) -> list[Features]:
    """Say of pictures what that decoder says."""
    rng = np.random.default_rng(seed)
    found = {block: values.numpy() for block, values in view(shown, (1, 2)).items()}
    made = []
    for i in range(len(shown)):
        s = {}
        for block, units in KEPT.items():
            mask = np.isin(np.arange(UNITS), units)
            said = 5 + SHRINKAGE * (found[block][i] - 5) + NOISE * rng.normal(size=UNITS)
            s[block] = LayerTarget(np.where(mask, said, 0).astype(np.float32), mask)
        made.append(Features(str(i), C, None, s))
    return made


def latents(n: int = 6, seed: int = 0) -> Tensor:
    """Made-up pictures."""
    return torch.randn(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


FREE = StructureSpec(iterations=1000, learning_rate=0.05, decay=0.997, proximal=0, anchor=0)


def test_the_original_is_the_minimum() -> None:
    """Pulled by likelihood a picture ends at the original; pulled to what was decoded it ends where that is shrunk."""
    original, start = latents(), torch.zeros(6, 1, SIDE, SIDE)
    targets = answering().targets(decoded(original))
    assert targets.loss(view(original, targets.blocks)).mean().item() == pytest.approx(1, abs=0.3)
    pulled = pull(start, view, targets, FREE)
    assert targets.loss(view(pulled, targets.blocks)).mean() <= targets.loss(view(original, targets.blocks)).mean()
    torch.testing.assert_close(pulled, original, atol=0.25, rtol=0)
    shrunk = pull(start, view, make_targets(decoded(original), (1.0, 1.0), UNITS), FREE)
    torch.testing.assert_close(shrunk, SHRINKAGE * original, atol=0.25, rtol=0)


def test_a_batch_equals_its_members() -> None:
    """Six samples pulled together end where each ends alone."""
    windows, start = decoded(latents()), latents(seed=1)
    spec, operator = StructureSpec(iterations=20), answering()
    together = pull(start, view, operator.targets(windows), spec)
    for i, one in enumerate(windows):
        alone = pull(start[i : i + 1], view, operator.targets([one]), spec)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=0)


def test_a_bad_target_spoils_only_its_own_sample() -> None:
    """NaN, an empty or smaller mask and a missing block are reported for their sample; the others move as if alone."""
    good, *rest = decoded(latents(5))
    values, mask = rest[0].s[1].values, rest[0].s[1].mask
    bad = [
        replace(rest[0], s={**rest[0].s, 1: LayerTarget(np.full_like(values, np.nan), mask)}),
        replace(rest[1], s={**rest[1].s, 1: LayerTarget(values, np.zeros_like(mask))}),
        replace(rest[2], s={**rest[2].s, 1: LayerTarget(values, np.arange(UNITS) > 0)}),
        replace(rest[3], s={2: rest[3].s[2]}),
        replace(rest[3], s={}),
    ]
    operator, start, spec = answering(), latents(6, seed=1), StructureSpec(iterations=5)
    targets = operator.targets([good, *bad])
    assert targets.problems[0] is None
    words = ("not finite", "mask is empty", "lacks units", "block 1: not decoded", "no decoded structure")
    assert all(word in (problem or "") for word, problem in zip(words, targets.problems[1:], strict=True))
    moved = pull(start, view, targets, spec)
    assert torch.equal(moved[1:], start[1:])
    torch.testing.assert_close(moved[:1], pull(start[:1], view, operator.targets([good]), spec), atol=1e-6, rtol=0)
    assert not torch.equal(moved[0], start[0])


def test_another_clip_is_refused() -> None:
    """A model of more units than the CLIP has, and windows of another number of units, are errors by name."""
    with pytest.raises(FeatureError, match="block 2"):
        Operator(StructureModel({2: KEPT[2]}, *np.zeros((2, 1, len(KEPT[2])), np.float32), np.zeros(1, np.float32)), 10)
    odd = {block: LayerTarget(np.ones(UNITS + 1, np.float32), np.ones(UNITS + 1, bool)) for block in KEPT}
    with pytest.raises(FeatureError, match="window 'odd'"):
        answering().targets([Features("odd", C, None, odd)])


@pytest.fixture(scope="module")
def shrunk(desk: Models, pictures: NDArray[np.uint8]) -> tuple[StructureModel, list[Features]]:
    """Four pictures' features decoded and shrunk to two fifths, and what is known of that."""
    mean = {block: values.mean(axis=0) for block, values in desk.structure(pictures, (1, 2)).items()}
    rng = np.random.default_rng(0)
    units = {block: np.sort(rng.permutation(len(values))[:1000]).astype(np.int32) for block, values in mean.items()}
    said = rng.normal(size=(50, 2000)).astype(np.float32)
    kept_mean = np.concatenate([mean[block][units[block]] for block in units])
    offset = (1 - SHRINKAGE) * (said @ kept_mean)
    c, z = desk.encode_text(["a goat", "a hot dog", "a glass", "a fire extinguisher"]), desk.encode_latents(pictures)
    true, made = desk.structure(pictures, (1, 2)), []
    for i in range(4):
        s = {}
        for block, own in units.items():
            mask = np.isin(np.arange(len(mean[block])), own)
            value = mean[block] + SHRINKAGE * (true[block][i] - mean[block])
            s[block] = LayerTarget(np.where(mask, value, 0).astype(np.float32), mask)
        noise = rng.standard_normal(z[i].shape)
        made.append(Features(f"w{i}", c[i], (0.6 * z[i] + 0.3 * noise).astype(np.float32), s))
    return StructureModel(units, said, SHRINKAGE * said, offset), made


def changed(engine: Reconstructor, model: StructureModel, **structure: object) -> Reconstructor:
    """Give the same engine with other settings of stage 2."""
    other = engine.spec.structure.model_copy(update=structure)
    return Reconstructor(engine.spec.model_copy(update={"structure": other}), engine.models, answers=model)


@pytest.mark.parametrize("mode", ["fast", "onestep"])
def test_pictures_come_nearer_to_their_originals(
    desk: Models, pictures: NDArray[np.uint8], shrunk: tuple[StructureModel, list[Features]], mode: str
) -> None:
    """On the desk models, by either way, the loss falls; a batch equals its members; K = 0 is stage 1."""
    model, windows = shrunk
    structure = StructureSpec(mode=mode, loss="likelihood", iterations=3, learning_rate=0.05)
    engine = Reconstructor(EngineSpec(threads=1, steps=1, structure=structure), desk, answers=model)
    finals = engine.reconstruct(windows[:2])
    assert [picture.stage for picture in finals] == [2, 2]
    alone = engine.reconstruct(windows[1:2])[0]
    assert np.abs(finals[1].pixels.astype(int) - alone.pixels).max() <= 1
    assert "no closer" in changed(engine, model, iterations=0).reconstruct(windows[:1])[0].note
    by_paper = changed(engine, model, loss="paper").reconstruct(windows[:1])[0]
    assert np.abs(by_paper.pixels.astype(int) - finals[0].pixels).max() > 1
