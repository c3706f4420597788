"""The training of the desk models: losses against known answers, and a smoke run of every step."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from engine.composing.bank import HELD_OUT, compose_bank
from engine.composing.compose import compose_one
from engine.composing.pack import DESK, load_pack
from tools.desk import losses
from tools.desk.train import RECIPES, SEED, Recipe, Trainer, main, text_states

PACK = DESK / "emoji"
NUMBERS = [n for n in range(5) if n not in HELD_OUT]

STEPS = {"clip": (24, 3e-4), "autoencoder": (6, 6e-4), "unet": (12, 8e-4), "unet-lcm": (2, 3e-4)}


@pytest.fixture(scope="module")
def bank():
    """Compose two pictures."""
    return compose_bank(PACK, NUMBERS, SEED)


@pytest.fixture(scope="module")
def trainer(bank, tmp_path_factory):
    """Train each model for a few steps on one fixed batch, in order."""
    made = Trainer(bank, torch.arange(len(bank)), tmp_path_factory.mktemp("models"), torch.device("cpu"))
    made.histories = {}
    for name, (steps, rate) in STEPS.items():
        made.histories[name] = made.run(name, Recipe(len(bank), steps, rate, RECIPES[name].weight_decay, 0.5))
    return made


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_training_learns(trainer, name):
    """On a fixed batch every loss stays finite, and those that start from nothing fall."""
    history = trainer.histories[name]
    assert np.isfinite(history).all()
    if name != "unet-lcm":  # starts from its teacher, with nothing left to fall in a few steps
        quarter = len(history) // 4
        assert np.mean(history[-quarter:]) < 0.9 * np.mean(history[:quarter])


def test_what_was_trained_loads_by_the_engine_s_own_loaders(trainer, bank):
    """The saved folder is one that `engine.models.loading` takes; its text states are those the UNet was trained on."""
    from engine.models.loading import load_models
    from engine.spec import ModelSpec

    models = load_models(ModelSpec(folder=str(trainer.out)), device="cpu")
    latents = models.encode_latents(bank.images.numpy())
    assert latents.shape == (len(bank), 8, 16, 16)
    assert abs(latents.std() - 1) < 0.1
    assert models.decode_latents(latents[:1]).shape == (1, 128, 128, 3)
    states = text_states(trainer._clip(), trainer.tokens[1:3]).numpy()
    assert np.allclose(models.encode_text(bank.phrases[1:3]), states, atol=1e-5)
    out = models.unet(
        torch.from_numpy(latents[:1]), torch.tensor([999]), encoder_hidden_states=torch.tensor(states[:1])
    )
    assert torch.isfinite(out.sample).all()


@pytest.mark.parametrize("part", ["clip", "autoencoder", "unet", "unet-lcm"])
def test_weights_have_the_shapes_of_the_shipped_ones(trainer, part):
    """Remade weights can take the place of those in models/desk: the same names and shapes, in 16 bit."""

    def shapes(folder):
        with safe_open(next((folder / part).glob("*.safetensors")), "pt") as file:
            return {key: (file.get_slice(key).get_shape(), file.get_slice(key).get_dtype()) for key in file.keys()}  # noqa: SIM118

    assert shapes(trainer.out) == shapes(DESK)


def test_training_needs_what_comes_before(bank, tmp_path):
    """The UNet cannot be trained before CLIP and autoencoder; the command says so in one line and stops."""
    with pytest.raises(SystemExit, match="no trained autoencoder"):
        main(
            [
                "--out",
                str(tmp_path),
                "--only",
                "unet",
                "--pictures",
                "8",
                "--steps",
                "1",
                "--batch",
                "2",
                "--workers",
                "1",
            ]
        )


def test_the_command_notes_how_a_model_was_made(tmp_path):
    """One model is trained by the command, in worker processes too, and its recipe lies beside it."""
    main(
        ["--out", str(tmp_path), "--only", "clip", "--pictures", "8", "--steps", "1", "--batch", "4", "--workers", "2"]
    )
    note = json.loads((tmp_path / "clip" / "training.json").read_text())
    assert (note["steps"], note["batch"], note["pictures"], note["seed"]) == (1, 4, 5, SEED)
    assert np.isfinite(note["last_loss"])


def test_the_bank_holds_the_composed_pictures(bank):
    """Pictures of the bank are those of the composer, number by number, with their captions among the true ones."""
    pack = load_pack()
    for row, number in enumerate(NUMBERS):
        stimulus = compose_one(pack, SEED, number)
        assert np.array_equal(bank.images[row].numpy(), stimulus.image)
        assert set(stimulus.captions) <= {bank.phrases[i] for i in bank.true[row] if i >= 0}


def test_drawn_captions_are_true(bank):
    """A caption drawn for a picture is true of it, and not every caption is true of every picture."""
    rows = torch.arange(len(bank))
    drawn = bank.draw_captions(rows, torch.Generator().manual_seed(0))
    holds = bank.holds(rows, drawn)
    assert holds.diagonal().all()
    assert not holds.all()
    assert (drawn > 0).all()


def test_contrast_counts_every_positive():
    """Perfectly aligned pairs cost nothing at a high scale; two equal pictures share their captions at log 2."""
    eye = torch.eye(4)
    assert losses.contrast(eye, eye, torch.tensor(100.0), torch.eye(4, dtype=torch.bool)) < 1e-6
    same = torch.tensor([[1.0, 0], [1, 0]])
    every = torch.ones(2, 2, dtype=torch.bool)
    assert torch.isclose(losses.contrast(same, same, torch.tensor(100.0), every), torch.log(torch.tensor(2.0)))


def test_fidelity_is_least_for_the_true_picture():
    """A perfect picture of unit-variance latents costs next to nothing, a grey one more, SSIM agrees."""
    generator = torch.Generator().manual_seed(0)
    true = torch.rand((2, 3, 32, 32), generator=generator)
    latents = torch.randn((64, 4, 8, 8), generator=generator)
    assert losses.fidelity(true, true, latents) < 1e-3
    assert losses.fidelity(true.mean().expand_as(true), true, latents) > 0.3
    assert torch.isclose(losses.structural_similarity(true, true), torch.tensor(1.0))


def test_ssim_is_scikit_image_s():
    """SSIM with uniform 7 x 7 windows is scikit-image's, where all windows lie inside."""
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a = rng.random((32, 32)).astype(np.float32)
    b = np.clip(a + 0.2 * rng.standard_normal((32, 32)), 0, 1).astype(np.float32)
    expected = metrics.structural_similarity(a, b, data_range=1, win_size=7, use_sample_covariance=False)
    mine = losses.structural_similarity(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None])
    assert abs(mine.item() - expected) < 1e-4


def test_velocity_is_diffusers_and_can_be_undone():
    """x_t and v are diffusers' own, and from them the clean latent and the noise come back."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_pretrained(DESK / "scheduler")
    generator = torch.Generator().manual_seed(1)
    clean, noise = torch.randn((2, 2, 8, 4, 4), generator=generator)
    t = torch.tensor([100, 700])
    signal = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    x, velocity = losses.diffuse(clean, noise, signal)
    assert torch.allclose(x, scheduler.add_noise(clean, noise, t), atol=1e-5)
    assert torch.allclose(velocity, scheduler.get_velocity(clean, noise, t), atol=1e-5)
    for made, true in zip(losses.clean_from_velocity(x, velocity, signal), (clean, noise), strict=True):
        assert torch.allclose(made, true, atol=1e-5)


def test_consistency_is_the_lcm_scheduler_s_and_the_identity_at_zero():
    """At timestep 0 the latent itself comes out; elsewhere what diffusers' LCMScheduler calls denoised."""
    from diffusers import LCMScheduler

    scheduler = LCMScheduler.from_pretrained(DESK / "scheduler-lcm")
    scheduler.set_timesteps(2)
    t = scheduler.timesteps[:1]
    generator = torch.Generator().manual_seed(2)
    x, velocity = torch.randn((2, 1, 8, 4, 4), generator=generator)
    expected = scheduler.step(velocity, t[0], x, generator=generator).denoised
    signal = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    assert torch.allclose(losses.consistency(x, velocity, signal, t), expected, atol=1e-5)
    assert torch.equal(losses.consistency(x, velocity, torch.ones(1, 1, 1, 1), torch.zeros(1)), x)
