from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from decoder.features import Evidence, Features, LayerTarget, block_name
from engine.errors import FeatureError
from engine.sampling.sampling import make_schedule
from engine.spec import StructureSpec
from engine.stage2.losses import structure_loss
from engine.stage2.optimise import optimise_latent, optimise_through_sampler
from engine.stage2.targets import make_targets
from engine.stage2_loss.terms import TERMS, Answers, Iterate, LossWeights

UNITS = 12
C = np.zeros((2, 4), np.float32)
MIX = torch.randn(2, UNITS, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def view(latents: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
    """Show two made-up blocks: smooth functions of a 1 x 4 x 4 latent."""
    flat = latents.flatten(1)
    return {block: torch.tanh(flat @ MIX[block - 1].to(flat.dtype).T) for block in blocks}


def window(name: str, values: dict[int, np.ndarray], mask: np.ndarray | None = None) -> Features:
    """Make decoded structure by block, with one mask for all."""
    kept = np.ones(UNITS, bool) if mask is None else mask
    return Features(name, C, None, {b: LayerTarget(v.astype(np.float32), kept) for b, v in values.items()})


def random_window(name: str, seed: int) -> Features:
    """Two blocks of random targets behind a random mask."""
    rng = np.random.default_rng(seed)
    return window(name, {1: rng.uniform(-0.8, 0.8, UNITS), 2: rng.uniform(-0.8, 0.8, UNITS)}, rng.random(UNITS) < 0.7)


def test_weights_follow_the_paper() -> None:
    """w_i is layer weight / ||target_i||, the inverse norms scaled to sum to 1."""
    values = {1: np.full(UNITS, 1.0), 2: np.full(UNITS, 3.0)}
    targets = make_targets([window("a", values)], (1.5, 1.2), UNITS)
    assert targets.weights[1].item() == pytest.approx(1.5 * 0.75)
    assert targets.weights[2].item() == pytest.approx(1.2 * 0.25)
    found = {1: torch.zeros(1, UNITS), 2: torch.full((1, UNITS), 1.0)}
    assert structure_loss(found, targets).item() == pytest.approx(1.5 * 0.75 * 1 + 1.2 * 0.25 * 4)


def test_masked_units_count_for_nothing() -> None:
    """Values and features outside the mask change neither weights nor loss."""
    mask = np.arange(UNITS) < 3
    clean, dirty = np.where(mask, 0.5, 0.0), np.where(mask, 0.5, 99.0)
    losses = []
    for values in (clean, dirty):
        targets = make_targets([window("a", {1: values}, mask)], (1.0,), UNITS)
        features = torch.where(torch.from_numpy(mask), 0.1, 7.0).float()[None]
        losses.append(structure_loss({1: features}, targets).item())
    assert losses[0] == losses[1] == pytest.approx(0.16 * 3 / UNITS)


def test_a_bad_target_spoils_only_its_own_sample() -> None:
    """NaN, infinity, an empty mask and a zero norm are reported for their sample; the others move as if alone."""
    good = random_window("good", 0)
    bad = [
        window("nan", {1: np.full(UNITS, np.nan)}),
        window("inf", {1: np.full(UNITS, np.inf)}),
        window("empty", {1: np.ones(UNITS)}, np.zeros(UNITS, bool)),
        window("zero", {1: np.zeros(UNITS)}),
        window("nothing", {}),
    ]
    targets = make_targets([good, *bad], (1.5, 1.2), UNITS)
    assert targets.problems[0] is None
    words = ("not finite", "not finite", "mask is empty", "target is zero", "no decoded structure")
    assert all(word in (problem or "") for word, problem in zip(words, targets.problems[1:], strict=True))
    x = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    moved = optimise_latent(x, view, targets, StructureSpec(iterations=5))
    assert torch.equal(moved[1:], x[1:])
    alone = optimise_latent(x[:1], view, make_targets([good], (1.5, 1.2), UNITS), StructureSpec(iterations=5))
    torch.testing.assert_close(moved[:1], alone, atol=1e-6, rtol=0)
    assert not torch.equal(moved[0], x[0])


def test_one_bad_block_leaves_the_others() -> None:
    """A sample with one NaN block is optimised by its other block alone."""
    rng = np.random.default_rng(0)
    second = rng.uniform(-0.5, 0.5, UNITS)
    mixed = make_targets([window("a", {1: np.full(UNITS, np.nan), 2: second})], (1.5, 1.2), UNITS)
    assert mixed.problems == (None,)
    assert mixed.weights[1].item() == 0
    assert mixed.weights[2].item() == pytest.approx(1.2)


@pytest.mark.parametrize(("optimiser", "steps"), [("adam", 20), ("gradient", 6)])
def test_a_batch_equals_its_members(optimiser: Literal["adam", "gradient"], steps: int) -> None:
    """Six samples optimised together end where each ends alone."""
    windows = [random_window(str(i), i) for i in range(6)]
    x = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    z = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    spec = StructureSpec(iterations=steps, optimiser=optimiser)
    together = optimise_latent(x, view, make_targets(windows, (1.5, 1.2), UNITS), spec, z)
    for i, one in enumerate(windows):
        alone = optimise_latent(x[i : i + 1], view, make_targets([one], (1.5, 1.2), UNITS), spec, z[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=0)


def test_optimising_lowers_the_loss_and_never_raises_it() -> None:
    """The best iterate is kept: with a wild learning rate nothing gets worse, with a sane one it gets much better."""
    windows = [random_window(str(i), i) for i in range(4)]
    targets = make_targets(windows, (1.5, 1.2), UNITS)
    x = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    before = structure_loss(view(x, targets.blocks), targets)
    for rate, share in ((10.0, 1.0), (0.05, 0.7)):
        spec = StructureSpec(iterations=40, learning_rate=rate, weights=LossWeights(proximal=0))
        after = structure_loss(view(optimise_latent(x, view, targets, spec), targets.blocks), targets)
        assert (after <= before * share).all()


def test_gradient_descent_leaves_what_the_loss_hardly_depends_on() -> None:
    """One step is the gradient at the length of the learning rate; Adam moves all numbers by it."""
    slopes = torch.tensor([1.0, 0.5, 0.1, 0.0]).repeat(4)
    targets = make_targets([window("a", {1: np.ones(16)}, np.ones(16, bool))], (1.0,), 16)
    moved = {}
    optimisers: tuple[Literal["adam", "gradient"], ...] = ("adam", "gradient")
    for optimiser in optimisers:
        spec = StructureSpec(iterations=1, optimiser=optimiser, learning_rate=0.1, weights=LossWeights(proximal=0))
        found = optimise_latent(torch.zeros(1, 1, 4, 4), lambda x, _: {1: slopes * x.flatten(1)}, targets, spec)
        moved[optimiser] = found.flatten()
    torch.testing.assert_close(moved["adam"], torch.where(slopes > 0, 0.1, 0.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(moved["gradient"], 0.1 * slopes / slopes.square().mean().sqrt(), atol=1e-4, rtol=0)


def test_no_iterations_change_nothing() -> None:
    """K = 0 gives back what came in."""
    x = torch.randn(1, 1, 4, 4)
    targets = make_targets([random_window("a", 0)], (1.5, 1.2), UNITS)
    assert torch.equal(optimise_latent(x, view, targets, StructureSpec(iterations=0)), x)


def test_proximal_term_and_latent_prior_hold() -> None:
    """A heavy proximal term keeps the start; a heavy latent prior leads to z."""
    x, z = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.3)
    targets = make_targets([random_window("a", 0)], (1.5, 1.2), UNITS)
    hold, lead = (
        StructureSpec(iterations=60, weights=LossWeights(proximal=to_start, latent_prior=to_z))
        for to_start, to_z in ((1e6, 0), (0, 1e6))
    )
    held = optimise_latent(x, view, targets, hold)
    assert held.abs().max() < 0.01
    led = optimise_latent(x, view, targets, lead, z)
    assert (led - z).abs().max() < 0.05


def test_every_term_has_a_weight_and_is_each_sample_s_own() -> None:
    """`TERMS` names the weights and no other; a term is a number a sample, the same alone and among others."""
    assert set(TERMS) == set(LossWeights.model_fields)
    x, start, z = torch.randn(3, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    features = {1: torch.randn(3, 16, generator=torch.Generator().manual_seed(1))}
    answers, maps = (torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) for n in (3, 16))
    for term in TERMS.values():
        value = term(Iterate(x, features, start, z, Answers(answers, {1: maps})))
        assert value is not None
        assert value.shape == (3,)
        for k in range(3):
            own = slice(k, k + 1)
            evidence = Answers(answers[own], {1: maps})
            alone = term(Iterate(x[own], {1: features[1][own]}, start[own], z[own], evidence))
            torch.testing.assert_close(alone, value[own])


def test_likelihood_term_leads_to_pictures_that_explain_the_window() -> None:
    """Its misfit falls further than without it, member by member as in a batch; without evidence it changes nothing."""
    rng = np.random.default_rng(5)
    maps = {block: rng.normal(0, 0.3, (UNITS, 4)).astype(np.float32) for block in (1, 2)}
    plain = [random_window(str(i), i) for i in range(3)]
    named = {block_name(block): values for block, values in maps.items()}
    windows = [replace(one, evidence=Evidence(rng.normal(size=4).astype(np.float32), named)) for one in plain]
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    def moved(features: list[Features], weight: float, start: Tensor = x) -> Tensor:
        targets = make_targets(features, (1.5, 1.2), UNITS)
        return optimise_latent(
            start, view, targets, StructureSpec(iterations=30, weights=LossWeights(likelihood=weight))
        )

    def misfit(latents: Tensor) -> np.ndarray:
        shown = {block: values.numpy() for block, values in view(latents, (1, 2)).items()}
        predicted = sum(shown[block] @ maps[block] for block in maps)
        answers = np.stack([one.evidence.answer for one in windows if one.evidence is not None])
        return np.square(answers - predicted).sum(axis=1)

    together = moved(windows, 5.0)
    assert (misfit(together) < 0.8 * misfit(moved(windows, 0.0))).all()
    assert torch.equal(moved(plain, 5.0), moved(windows, 0.0))
    for i, one in enumerate(windows):
        torch.testing.assert_close(together[i : i + 1], moved([one], 5.0, x[i : i + 1]), atol=1e-4, rtol=0)
    more = named | {"thumbnail": np.ones((2, 4), np.float32)}
    wider = [replace(one, evidence=Evidence(np.ones(4, np.float32), more)) for one in plain]
    assert torch.equal(moved(wider, 5.0), moved(plain, 5.0))


def test_another_number_of_units_is_an_error() -> None:
    """Features of another CLIP are refused by name and size."""
    with pytest.raises(FeatureError, match="block 1 of s"):
        make_targets([window("a", {1: np.ones(UNITS)})], (1.0,), UNITS + 1)


def test_exact_gradients_agree_with_finite_differences() -> None:
    """The first exact step on z and c goes down the gradient of the loss through the whole sampler (float64)."""
    targets = make_targets([random_window("a", 0)], (1.5, 1.2), UNITS)
    targets = type(targets)(
        {b: v.double() for b, v in targets.values.items()},
        {b: v.double() for b, v in targets.masks.items()},
        {b: v.double() for b, v in targets.weights.items()},
        targets.problems,
    )
    schedule = make_schedule({"prediction_type": "v_prediction"}, kind="ddim", steps=3, strength=0.7)
    generator = torch.Generator().manual_seed(0)
    z, c, noise = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((1, 1, 4, 4), (1, 2, 4), (3, 1, 1, 4, 4))
    )

    def predict(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return torch.sin(x + c.sum(dim=(1, 2)).view(-1, 1, 1, 1)) * (t.view(-1, 1, 1, 1) / 1000)

    def loss(z: Tensor, c: Tensor) -> Tensor:
        from engine.sampling.sampling import begin, sample

        x0 = sample(predict, schedule, begin(schedule, z, noise[0]), c, list(noise[1:]))
        return structure_loss(view(x0, (1, 2)), targets)

    assert torch.autograd.gradcheck(loss, (z.requires_grad_(), c.requires_grad_()), eps=1e-6, atol=1e-7)
    spec = StructureSpec(mode="exact", iterations=30, learning_rate=0.02)
    best = optimise_through_sampler(predict, schedule, (z.detach(), c.detach(), noise), view, targets, spec)
    assert structure_loss(view(best, (1, 2)), targets).item() < loss(z, c).item()
