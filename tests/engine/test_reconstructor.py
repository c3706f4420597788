from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.features import Features, LayerTarget
from engine.errors import FeatureError
from engine.models.loading import Models
from engine.picture import Picture, fault_of
from engine.reconstructor import Reconstructor
from engine.spec import EngineSpec, ModelSpec, StructureSpec
from engine.stage2.losses import structure_loss
from engine.stage2.optimise import optimise_latent
from engine.stage2.targets import make_targets

OPTIMISATION_ALONE = {
    "iterations": 2,
    "learning_rate": 0.08,
    "weights": {"latent_prior": 1},
    "renoise_strength": 0,
    "refinement_rounds": 1,
    "candidates": 1,
    "guidance": None,
}


def spec(**structure: object) -> EngineSpec:
    """One thread, two steps and few iterations without re-noising, on the desk models."""
    settings = StructureSpec(**OPTIMISATION_ALONE | structure)  # type: ignore[arg-type]
    return EngineSpec(threads=1, steps=2, strength=0.7, structure=settings)


@pytest.fixture(scope="module")
def engine(desk: Models) -> Reconstructor:
    """One reconstructor for the whole module, so that earlier calls would be felt."""
    return Reconstructor(spec(), desk)


def with_parts(engine: Reconstructor, **parts: object) -> Reconstructor:
    """Give an engine other parts to run on: unet, decode or view."""
    engine.setup = replace(engine.setup, **parts)  # type: ignore[arg-type]
    return engine


def test_a_small_batch_is_optimised_on_one_thread_and_the_others_are_given_back(
    desk: Models, windows: list[Features]
) -> None:
    """One window takes one thread, eight take all; afterwards, and after an error, torch has as many as before."""
    seen: list[int] = []
    engine = Reconstructor(spec(iterations=1), desk)
    view = engine.setup.view
    with_parts(engine, view=lambda x, blocks: (seen.append(torch.get_num_threads()), view(x, blocks))[1])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        engine.reconstruct(windows[:1])
        assert set(seen) == {1}
        seen.clear()
        engine.reconstruct(windows * 2)
        assert set(seen) == {2}
        with_parts(engine, view=lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.reconstruct(windows[:1])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_windows_of_a_stream_may_share_their_noise(desk: Models, windows: list[Features]) -> None:
    """With noise of the stream, windows with the same features give the same pixels; each with its own, they do not."""
    twins = [windows[0], replace(windows[0], window_id="later")]
    of_stream, of_window = (
        Reconstructor(spec(iterations=1).model_copy(update={"noise": noise}), desk).reconstruct(twins)
        for noise in ("stream", "window")
    )
    np.testing.assert_array_equal(of_stream[0].pixels, of_stream[1].pixels)
    assert of_stream[0].seed == of_stream[1].seed
    assert (of_window[0].pixels != of_window[1].pixels).any()


def test_preview_comes_before_the_picture(desk: Models, windows: list[Features]) -> None:
    """Stage-1 pictures of all windows go out once, before stage 2 begins; ids, seeds and confidences are carried."""
    previews: list[list[Picture]] = []
    order: list[str] = []
    engine = Reconstructor(spec(), desk)
    view = engine.setup.view
    with_parts(engine, view=lambda *given: (order.append("stage 2"), view(*given))[1])
    finals = engine.reconstruct(windows, lambda made: (order.append("preview"), previews.append(made))[1])
    assert order[0] == "preview"
    assert order.count("preview") == 1
    assert "stage 2" in order
    assert [p.window_id for p in previews[0]] == [p.window_id for p in finals] == [w.window_id for w in windows]
    assert all(p.stage == 1 and p.pixels.shape == (128, 128, 3) for p in previews[0])
    assert any(p.stage == 2 for p in finals)
    assert [p.seed for p in previews[0]] == [p.seed for p in finals]
    assert [p.confidence for p in finals] == [w.confidence for w in windows]
    for picture in finals:
        assert (picture.stage == 2) == (picture.note == "")
        assert {"stage1", "decode1", "stage2", "decode2"} <= set(picture.timings)


def test_a_batch_equals_its_members_in_any_order(engine: Reconstructor, windows: list[Features]) -> None:
    """Each picture is the same alone, in a batch, and in a batch the other way round."""
    together = engine.reconstruct(windows)
    backwards = engine.reconstruct(windows[::-1])[::-1]
    alone = [engine.reconstruct([w])[0] for w in windows]
    for a, b, c in zip(together, backwards, alone, strict=True):
        assert a.window_id == b.window_id == c.window_id
        for other in (b, c):
            difference = np.abs(a.pixels.astype(int) - other.pixels.astype(int))
            assert difference.max() <= 1
            assert (difference > 0).mean() < 0.1  # 1e-4 tips up to 5 % over a rounding edge


def test_the_seed_makes_the_picture(desk: Models, engine: Reconstructor, windows: list[Features]) -> None:
    """The same window and seed give the same bytes whatever came before; another seed gives another picture."""
    before = engine.reconstruct(windows[:1])[0]
    engine.reconstruct(windows[1:3])
    assert np.array_equal(engine.reconstruct(windows[:1])[0].pixels, before.pixels)
    other = Reconstructor(spec().model_copy(update={"seed": 1}), desk).reconstruct(windows[:1])[0]
    assert other.seed != before.seed
    assert not np.array_equal(other.pixels, before.pixels)


def test_no_iterations_give_stage_1(desk: Models, windows: list[Features]) -> None:
    """With K = 0 the final pictures are the previews, whatever finish says."""
    previews: list[Picture] = []
    finals = Reconstructor(spec(iterations=0, renoise_strength=0.4), desk).reconstruct(windows, previews.extend)
    for preview, final in zip(previews, finals, strict=True):
        assert np.array_equal(preview.pixels, final.pixels)


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        ({}, 5),
        ({"renoise_strength": 0.4}, 6),
        ({"renoise_strength": 0.4, "refinement_rounds": 2, "candidates": 3}, 11),
        ({"refinement_rounds": 2, "candidates": 3}, 5),
    ],
)
def test_fast_calls_the_unet_as_often_as_it_says(
    desk: Models, windows: list[Features], structure: dict[str, object], expected: int
) -> None:
    """N calls for the preview, N - 1 more (the first is shared), and to finish one by round and draw; no autograd."""
    calls: list[bool] = []
    engine = Reconstructor(spec(**structure).model_copy(update={"steps": 3}), desk)
    predict = engine.backend.unet

    def counted(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert not any(tensor.requires_grad for tensor in (x, c))
        out = predict(x, t, c, mask)
        calls.append(out.requires_grad)
        return out

    with_parts(engine, unet=counted)
    engine.reconstruct(windows[:2])
    assert calls == [False] * expected


def test_re_noising_draws_each_window_s_own_noise(desk: Models, windows: list[Features]) -> None:
    """A batch that is refined by more UNet calls gives the pictures that its windows give alone."""
    engine = Reconstructor(spec(renoise_strength=0.4, refinement_rounds=2, candidates=2), desk)
    together = engine.reconstruct(windows[:3])
    for f, found in zip(windows[:3], together, strict=True):
        alone = engine.reconstruct([f])[0]
        assert np.abs(found.pixels.astype(int) - alone.pixels.astype(int)).max() <= 1


def refined(engine: Reconstructor, windows: list[Features]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the latents that stage 2 ends with, and their structure loss by the view that it went by."""
    decode, decoded, view = engine.setup.decode, [], engine.setup.view
    with_parts(engine, decode=lambda x: (decoded.append(x), decode(x))[1])
    engine.reconstruct(windows)
    targets = make_targets(windows, engine.setup.layer_weights, engine.setup.units)
    with torch.no_grad():
        return decoded[-1], structure_loss(view(decoded[-1], targets.blocks), targets)


def test_the_candidate_nearest_to_the_decoded_structure_is_kept(desk: Models, windows: list[Features]) -> None:
    """Of four noises each window gets the latent of least structure loss; the first is that of a single candidate."""
    (first, one), (kept, four) = (
        refined(Reconstructor(spec(renoise_strength=0.7, candidates=count), desk), windows) for count in (1, 4)
    )
    same = (first == kept).flatten(1).all(dim=1)
    assert not same.all()
    assert (four < one)[~same].all()


def test_another_round_restores_what_the_re_noising_lost(desk: Models, windows: list[Features]) -> None:
    """With a strong re-noising, two rounds end nearer to the decoded structure, summed over windows, than one."""
    (_, one), (_, two) = (
        refined(Reconstructor(spec(renoise_strength=0.6, refinement_rounds=rounds, iterations=8), desk), windows)
        for rounds in (1, 2)
    )
    assert two.sum() < one.sum()


@pytest.fixture(scope="module")
def with_structure_latent(windows: list[Features]) -> list[Features]:
    """Windows with a latent of their structure: here another's, so that it is seen where a picture comes from."""
    return [replace(f, structure_latent=other.z) for f, other in zip(windows, windows[1:] + windows[:1], strict=True)]


def test_stage_2_begins_at_the_structure_latent(desk: Models, with_structure_latent: list[Features]) -> None:
    """Its first round re-noises that latent as it is, the second optimises; without re-noising it is not used."""
    for rounds in (1, 2):
        optimised: list[torch.Tensor] = []
        engine = Reconstructor(spec(renoise_strength=0.3, refinement_rounds=rounds), desk)
        view = engine.setup.view
        with_parts(engine, view=lambda x, blocks, view=view, seen=optimised: (seen.append(x), view(x, blocks))[1])
        (latents, _) = refined(engine, with_structure_latent)
        assert len(optimised) == (rounds - 1) * 3 + 1  # each of two steps and the last, and the test's own look
    structure_latents, z = (
        torch.from_numpy(np.stack([getattr(f, name) for f in with_structure_latent]))
        for name in ("structure_latent", "z")
    )
    assert (latents - structure_latents).square().mean() < (latents - z).square().mean()
    plain = [replace(f, structure_latent=None) for f in with_structure_latent]
    (with_it, _), (without, _) = (refined(Reconstructor(spec(), desk), each) for each in (with_structure_latent, plain))
    assert torch.equal(with_it, without)


def test_stage_2_may_begin_at_the_decoded_z(desk: Models, windows: list[Features]) -> None:
    """Optimisation then moves z itself and asks no UNet; a window without z is begun at stage 1."""
    engine = Reconstructor(spec(start="z"), desk)
    z = torch.from_numpy(np.stack([f.z for f in windows[:1] if f.z is not None]))
    targets = make_targets(windows[:1], engine.setup.layer_weights, engine.setup.units)
    moved = optimise_latent(z, engine.setup.view, targets, engine.spec.structure, z)
    torch.testing.assert_close(refined(engine, windows[:1])[0], moved, atol=1e-4, rtol=0)
    assert not engine.reconstruct([replace(windows[0], z=None)])[0].fault


def test_the_structure_latent_has_its_share_of_the_final_latent(
    desk: Models, windows: list[Features], with_structure_latent: list[Features]
) -> None:
    """The final latent lies as far toward it as is asked for; windows without such a latent stay what they were."""
    none, some, plain, same = (
        refined(
            Reconstructor(spec(renoise_strength=0.3, refinement_rounds=1, structure_latent_share=share), desk), each
        )[0]
        for each in (with_structure_latent[:1], windows[:1])
        for share in (0, 0.4)
    )
    asked = torch.from_numpy(np.stack([other.z for other in windows[1:2] if other.z is not None]))
    torch.testing.assert_close(some, 0.6 * none + 0.4 * asked, atol=1e-5, rtol=0)
    assert torch.equal(plain, same)


def test_windows_with_and_without_such_a_latent_share_a_call(
    desk: Models, with_structure_latent: list[Features]
) -> None:
    """Each becomes what it becomes alone, in its own place; one that is not finite is left out, with a warning."""
    engine = Reconstructor(spec(renoise_strength=0.3), desk)
    broken = replace(with_structure_latent[2], structure_latent=np.full_like(with_structure_latent[2].z, np.nan))
    mixed = [
        with_structure_latent[0],
        replace(with_structure_latent[1], structure_latent=None),
        broken,
        with_structure_latent[3],
    ]
    alone = [
        with_structure_latent[0],
        replace(with_structure_latent[1], structure_latent=None),
        replace(with_structure_latent[2], structure_latent=None),
        with_structure_latent[3],
    ]
    for f, found in zip(alone, engine.reconstruct(mixed), strict=True):
        expected = engine.reconstruct([f])[0]
        assert np.abs(found.pixels.astype(int) - expected.pixels.astype(int)).max() <= 1
    with pytest.raises(FeatureError, match="structure_latent has shape"):
        engine.reconstruct([replace(with_structure_latent[0], structure_latent=np.zeros((1, 2, 2), np.float32))])


def test_re_noising_has_a_guidance_of_its_own(desk: Models, windows: list[Features]) -> None:
    """By default it is stage 1's; another one changes the picture, and takes each window twice through the UNet."""
    seen: dict[float | None, tuple[torch.Tensor, list[int]]] = {}
    for guidance in (None, 1.0, 2.0):
        engine, batches = Reconstructor(spec(renoise_strength=0.5, guidance=guidance), desk), []
        predict = engine.backend.unet
        with_parts(
            engine,
            unet=lambda x, *rest, predict=predict, batches=batches: (batches.append(len(x)), predict(x, *rest))[1],
        )
        seen[guidance] = refined(engine, windows[:2])[0], batches
    assert torch.equal(seen[None][0], seen[1.0][0])
    assert not torch.equal(seen[1.0][0], seen[2.0][0])
    assert seen[1.0][1] == [2, 2, 2, 2]
    assert seen[2.0][1] == [2, 2, 2, 4]


def test_fast_never_differentiates_the_unet(desk: Models, windows: list[Features]) -> None:
    """With a UNet that cannot be differentiated stage 2 still moves the picture."""

    class NoGradient(torch.autograd.Function):
        @staticmethod
        def forward(_: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(*_: object) -> torch.Tensor:
            raise AssertionError("a gradient reached the UNet")

    engine = Reconstructor(spec().model_copy(update={"steps": 2}), desk)
    predict = engine.backend.unet
    with_parts(engine, unet=lambda x, t, c, mask: predict(x, t, c, mask) + 0 * NoGradient.apply(x))
    previews: list[Picture] = []
    finals = engine.reconstruct(windows[:2], previews.extend)
    assert any(not np.array_equal(a.pixels, b.pixels) for a, b in zip(previews, finals, strict=True))


def test_captions_of_any_length_share_a_batch(desk: Models, windows: list[Features]) -> None:
    """Captions of 1 to 16 tokens, filled up and masked, give the pictures that each gives alone, unmasked."""
    engine = Reconstructor(spec(mode="none"), desk)
    short = [replace(w, c=w.c[:n]) for w, n in zip(windows, (1, 5, 11, 16), strict=True)]
    together = engine.reconstruct(short)

    def unmasked(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            out: torch.Tensor = desk.unet(x, t, c[:, : int(mask.sum())], return_dict=False)[0]
        return out

    with_parts(engine, unet=unmasked)
    for f, found in zip(short, together, strict=True):
        alone = engine.reconstruct([f])[0]
        assert np.abs(found.pixels.astype(int) - alone.pixels.astype(int)).max() <= 1


def test_why_stage_1_stands_is_warned_of_once(
    desk: Models, windows: list[Features], caplog: pytest.LogCaptureFixture
) -> None:
    """A decoder without structure has the same note in each window's picture, and one line in the log."""
    engine = Reconstructor(spec(), desk)
    for window in windows[:3]:
        (picture,) = engine.reconstruct([Features(window.window_id, window.c, window.z)])
        assert picture.note == "no decoded structure"
    warned = [record for record in caplog.records if record.levelname == "WARNING" and "stands" in record.message]
    assert len(warned) == 1


def test_missing_and_broken_features(engine: Reconstructor, windows: list[Features]) -> None:
    """Windows without z, without s, or with NaN anywhere each get a picture and leave the others as they were."""
    whole = engine.reconstruct(windows[:1])[0]
    w = windows[1]
    assert w.z is not None
    nan = {b: LayerTarget(np.full_like(t.values, np.nan), t.mask) for b, t in w.s.items()}
    broken = [
        Features("no z", w.c, None, w.s),
        Features("no s", w.c, w.z),
        Features("nan s", w.c, w.z, nan),
        Features("nan z", w.c, np.full_like(w.z, np.nan), w.s),
        Features("nan c", np.full_like(w.c, np.nan), w.z, w.s),
        Features("other tokens", w.c[:5], w.z, w.s),
    ]
    made = engine.reconstruct([*broken[:3], windows[0], *broken[3:]])
    assert [p.window_id for p in made] == ["no z", "no s", "nan s", "w0", "nan z", "nan c", "other tokens"]
    assert all(p.pixels.std() > 1 for p in made)
    assert (made[1].stage, made[1].note) == (1, "no decoded structure")
    assert made[2].stage == 1
    assert "not finite" in made[2].note
    assert np.abs(made[3].pixels.astype(int) - whole.pixels.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("c", "z", "words"), [((16, 64), (8, 16, 16), "c has shape"), ((16, 128), (4, 16, 16), "z has shape")]
)
def test_features_of_other_models_are_refused(
    engine: Reconstructor, c: tuple[int, ...], z: tuple[int, ...], words: str
) -> None:
    """The error names the window and both shapes."""
    with pytest.raises(FeatureError, match=words):
        engine.reconstruct([Features("odd", np.zeros(c, np.float32), np.zeros(z, np.float32))])


@pytest.mark.parametrize("mode", ["onestep", "exact"])
def test_the_paper_s_stage_2_comes_closer(desk: Models, windows: list[Features], mode: str) -> None:
    """A few exact steps through UNet, decoder and CLIP bring the picture closer to the decoded structure."""
    engine = Reconstructor(spec(mode=mode, iterations=3, learning_rate=0.03), desk)
    made = engine.reconstruct(windows[:1])[0]
    assert (made.stage, made.note) == (2, "")


def test_stable_diffusion_s_layout_runs(stable_diffusion: Path) -> None:
    """A Stable Diffusion folder makes pictures with guidance and DDIM, by configuration alone."""
    made_by = Reconstructor(
        EngineSpec(
            models=ModelSpec(folder=str(stable_diffusion)),
            device="cpu",
            steps=4,
            guidance=5,
            structure=StructureSpec(mode="none"),
        )
    )
    c = made_by.models.encode_text(["ab"])[0]
    z = np.zeros((4, 8, 8), np.float32)
    with_z, without = made_by.reconstruct([Features("a", c, z), Features("b", c)])
    assert with_z.pixels.shape == without.pixels.shape == (16, 16, 3)
    assert (with_z.stage, with_z.note) == (1, "")
    made_by.warm_up()


@pytest.mark.parametrize("broken", ["z", "c"])
def test_a_picture_whose_numbers_are_not_finite_is_a_fault_of_its_own_window(
    engine: Reconstructor, windows: list[Features], broken: str
) -> None:
    """Decoded numbers that overflow in the networks give no picture, at neither stage; the batch's others are whole."""
    alone = engine.reconstruct(windows[:1])[0]
    previews: list[Picture] = []
    flood = replace(windows[1], **{broken: np.full_like(getattr(windows[1], broken), 3e38)})
    whole, faulty = engine.reconstruct([windows[0], flood], previews.extend)
    assert "not finite" in faulty.fault
    assert "not finite" in previews[1].fault
    assert (whole.fault, previews[0].fault) == ("", "")
    assert whole.stage == alone.stage
    assert np.abs(whole.pixels.astype(int) - alone.pixels.astype(int)).max() <= 1


def test_what_overflows_in_half_precision_is_tried_again_in_float32(
    tiny: Models, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs its own window time: the picture is what float32 makes of it, the others are as ever."""
    half = Models(tiny.spec.model_copy(update={"dtype": "float16"}), "cpu")
    c, z = tiny.empty_caption, np.ones(tiny.latent_shape, np.float32)
    calm, flood = Features("calm", c, z), Features("flood", c, 1e6 * z)
    settings = EngineSpec(threads=1, backend="torch", structure=StructureSpec(mode="none"))
    previews: list[Picture] = []
    first, second = Reconstructor(settings, half).reconstruct([calm, flood], previews.extend)
    assert "not finite" in previews[1].fault
    assert (first.fault, first.backend) == ("", "torch")
    assert (second.fault, second.backend) == ("", "torch (float32)")
    assert np.array_equal(second.pixels, Reconstructor(settings, tiny).reconstruct([flood])[0].pixels)
    assert "window flood: numbers that are not finite in torch.float16; tried again in float32" in caplog.text
    (hopeless,) = Reconstructor(settings, half).reconstruct([replace(flood, z=3e38 * z)])
    assert "not finite" in hopeless.fault


def test_what_is_not_finite_in_decoded_features_is_named(windows: list[Features]) -> None:
    """c, z, structure_latent and confidence must be finite; a block of s need not be, stage 2 leaves it out."""
    w = windows[0]
    assert w.z is not None
    nan = np.full_like(w.z, np.nan)
    assert fault_of(w) == ""
    assert fault_of(replace(w, z=nan)) == "z not finite"
    assert fault_of(replace(w, c=np.full_like(w.c, np.inf), confidence=np.nan)) == "c and confidence not finite"
    assert fault_of(replace(w, structure_latent=nan)) == "structure_latent not finite"
    assert fault_of(replace(w, z=None)) == ""
    assert fault_of(replace(w, s={1: LayerTarget(np.full(3, np.nan, np.float32), np.ones(3, bool))})) == ""
