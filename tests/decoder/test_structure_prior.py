"""Structure through what pictures are like: spots on even ground, told by noisy projections of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets
from decoder.data.training_set import gather
from decoder.errors import TrainingError
from decoder.models.bundle import Bundle
from decoder.models.structure_prior import Maps, Network
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.spec import DecoderSpec, StructurePriorSpec
from decoder.training.train import fit_targets
from decoder.training.train_linear import fit_linear
from decoder.training.train_structure import fit_latent_map
from stream.types.events import Event
from stream.types.windows import Channels, Window
from tests.decoder.test_bundle_files import with_old_names

GRID, WIDTH = 5, 4
N_CHANNELS = 40
PRIOR = StructurePriorSpec(components=4, features=60, width=16, epochs=15, batch=32, learning_rate=5e-3)
SPEC = DecoderSpec(
    features=("z", "s"),
    blocks=(1, 2),
    unit_fraction=1.0,
    s_gain=1.0,
    structure_prior=PRIOR,
    preprocess=PreprocessSpec(),
)
CHANNELS = Channels(tuple(f"V{i}" for i in range(N_CHANNELS)), ("misc",) * N_CHANNELS, ("%",) * N_CHANNELS)


def spots(n: int, seed: int) -> Targets:
    """Structure of pictures of one spot each: numbers of each patch, in two blocks, answer to how near it is."""
    rng = np.random.default_rng(seed)
    row, column = (each.ravel() for each in np.mgrid[:GRID, :GRID])
    centre, size = rng.uniform(0, GRID - 1, (2, n, 1)), rng.uniform(0.5, 1.2, (n, 1))
    near = np.exp(-0.5 * ((row - centre[0]) ** 2 + (column - centre[1]) ** 2) / size**2)
    mixing = np.random.default_rng(99).normal(size=(2, WIDTH))
    latent = np.repeat(np.repeat(near.reshape(n, 1, GRID, GRID), 2, axis=2), 2, axis=3)
    z = np.concatenate([latent, 1 - 2 * latent], axis=1).astype(np.float32)
    s = {}
    for block, seen in ((1, near), (2, np.sqrt(near))):
        units = np.zeros((n, 1 + GRID**2, WIDTH))
        units[:, 1:] = seen[:, :, None] * mixing[block - 1]
        s[block] = units.reshape(n, -1).astype(np.float16)
    return Targets(z=z, s=s, grid=GRID)


def shown(targets: Targets, seed: int, noise: float = 0.25) -> tuple[list[Window], StimulusTable]:
    """Windows that hold a random projection of the first block, and their stimuli."""
    rng = np.random.default_rng(seed)
    units = targets.s[1].astype(np.float64)
    mixing = np.random.default_rng(5).normal(size=(units.shape[1], N_CHANNELS)) / 4
    data = (units @ mixing + noise * rng.normal(size=(len(units), N_CHANNELS))).astype(np.float32)
    names = [f"spot {seed}-{row}" for row in range(len(units))]
    windows = [
        Window(f"w{row}", data[row][:, None], CHANNELS, 0.0, float(row), 0.0, Event(float(row), name), row, row)
        for row, name in enumerate(names)
    ]
    images = np.random.default_rng(seed).integers(0, 256, (len(names), 4, 4, 3), dtype=np.uint8)
    return windows, StimulusTable(tuple(names), images)


@pytest.fixture(scope="module")
def trained() -> Bundle:
    """Train on 200 windows, with 1,000 pictures that nobody was shown."""
    targets = spots(200, 1)
    windows, stimuli = shown(targets, 1)
    return fit_targets(windows, stimuli, targets, SPEC, image_bank=spots(1000, 2))


def explained(bundle: Bundle, windows: list[Window], truth: Targets, block: int) -> float:
    """Share of variance of the units that are handed on."""
    found = [features.s[block] for features in bundle.decode(windows)]
    mask = found[0].mask
    values, true = np.stack([one.values for one in found])[:, mask], truth.s[block].astype(np.float32)[:, mask]
    return float(1 - np.square(values - true).sum() / np.square(true - true.mean(axis=0)).sum())


def test_structure_comes_nearer_to_the_truth(trained: Bundle) -> None:
    """On windows of pictures never seen, the prior explains much of what ridge by itself leaves of both blocks."""
    targets = spots(200, 1)
    windows, stimuli = shown(targets, 1)
    by_itself = fit_targets(windows, stimuli, targets, SPEC.model_copy(update={"structure_prior": None, "s_gain": 0.0}))
    truth = spots(150, 3)
    asked, _ = shown(truth, 3)
    for block in (1, 2):
        left = 1 - explained(by_itself, asked, truth, block)
        assert 1 - explained(trained, asked, truth, block) < 0.8 * left
    assert trained.meta["scores"]["s1"]["prior"]["selection_r"] > trained.meta["scores"]["s1"]["r"]


def test_a_prior_of_an_earlier_version_is_read(trained: Bundle, tmp_path: Path) -> None:
    """What is 'latent_map' now was 'layout' in the weights of before 0.1.0."""
    windows, _ = shown(spots(3, 3), 3)
    trained.save(tmp_path / "b")
    with_old_names(tmp_path / "b", {"latent_map": "layout"})
    for one, other in zip(Bundle.load(tmp_path / "b").decode(windows), trained.decode(windows), strict=True):
        np.testing.assert_allclose(one.structure_latent, other.structure_latent, atol=5e-4)


def test_half_of_the_units_are_handed_on(trained: Bundle) -> None:
    """The best half by held-out windows; the class token, which has no place, is not among them; the rest is 0."""
    windows, _ = shown(spots(2, 3), 3)
    for layer in trained.decode(windows)[0].s.values():
        assert layer.mask.sum() == round(0.5 * layer.mask.size)
        assert not layer.mask[:WIDTH].any()
        assert (layer.values[~layer.mask] == 0).all()


def test_the_latent_that_goes_with_the_structure_is_told(trained: Bundle) -> None:
    """Of windows never seen, the structure_latent is nearer to the true latent than what ridge decodes by itself."""
    truth = spots(150, 3)
    windows, _ = shown(truth, 3)
    decoded = trained.decode(windows)
    structure_latent, z = (np.stack([getattr(one, name) for one in decoded]) for name in ("structure_latent", "z"))
    assert np.square(structure_latent - truth.z).sum() < 0.8 * np.square(z - truth.z).sum()


@pytest.mark.parametrize("side", [3, 10, 11])
def test_structure_latents_are_of_any_size(side: int) -> None:
    """Latents that are not a whole number of cells a patch are resized; smooth ones are told all the same."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:GRID, :GRID] / (GRID - 1)
    slope = rng.normal(size=(200, 2, 1, 1))
    maps = (slope[:, :1] * row + slope[:, 1:] * column).astype(np.float32)
    row, column = np.mgrid[:side, :side] / (side - 1)
    z = (slope[:, :1] * row + slope[:, 1:] * column).astype(np.float32)
    structure_latent = fit_latent_map(maps[:150], z[:150])
    left = np.square(structure_latent(maps[150:]) - z[150:]).sum() / np.square(z[150:]).sum()
    assert structure_latent(maps).shape == (200, 1, side, side)
    assert left < 0.05


def test_a_window_alone_equals_its_batch_and_survives_the_disk(trained: Bundle, tmp_path: Path) -> None:
    """Decoding one by one, and by the bundle read back, gives what decoding all at once gives."""
    windows, _ = shown(spots(20, 4), 4)
    trained.save(tmp_path / "b")
    loaded = Bundle.load(tmp_path / "b")
    together = trained.decode(windows)
    for row, window in enumerate(windows):
        for other in (trained.decode([window])[0], loaded.decode([window])[0]):
            for block, layer in together[row].s.items():
                np.testing.assert_allclose(other.s[block].values, layer.values, atol=5e-4)
                np.testing.assert_array_equal(other.s[block].mask, layer.mask)
            np.testing.assert_allclose(other.structure_latent, together[row].structure_latent, atol=5e-4)


def test_training_is_seeded_and_leaves_the_global_generator_alone() -> None:
    """The same windows give the same network; torch's own random numbers go on as if nothing had been trained."""
    quick = SPEC.model_copy(update={"structure_prior": PRIOR.model_copy(update={"epochs": 1})})
    targets, image_bank = spots(60, 1), spots(64, 2)
    windows, stimuli = shown(targets, 1)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    once, again = (fit_targets(windows, stimuli, targets, quick, image_bank=image_bank) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    for name, array in once.models["all"].tensors().items():
        np.testing.assert_array_equal(array, again.models["all"].tensors()[name])


def test_without_pictures_or_places_it_is_refused() -> None:
    """The error names the setting; a CLIP whose patches form no square is refused too."""
    targets = spots(60, 1)
    windows, stimuli = shown(targets, 1)
    with pytest.raises(TrainingError, match=r"data\.image_bank"):
        fit_targets(windows, stimuli, targets, SPEC)
    with pytest.raises(TrainingError, match="square"):
        fit_targets(windows, stimuli, replace(targets, grid=3), SPEC, image_bank=spots(64, 2))
    with pytest.raises(ValueError, match="add s to features"):
        DecoderSpec(features=("c",), structure_prior=PRIOR)


def test_models_of_other_features_need_no_pictures() -> None:
    """What is fitted beside structure, such as the folds by which an encoder is judged, is fitted without the prior."""
    windows, stimuli = shown(spots(60, 1), 1)
    embeddings = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    samples = gather(windows, stimuli, SPEC)
    assert fit_linear(samples, Targets(e=embeddings), SPEC).model.structure is None


@pytest.mark.parametrize("grid", [2, 5, 7, 8])
def test_the_network_takes_any_grid(grid: int) -> None:
    """Odd grids are halved and doubled again without losing a row."""
    assert Network(6, grid, 8, 0.1)(torch.zeros(3, 6, grid, grid)).shape == (3, 6, grid, grid)


def test_maps_keep_what_their_axes_span() -> None:
    """With as many components as a patch has numbers, units come back from maps, but for the class token."""
    rng = np.random.default_rng(0)
    units = {2: rng.normal(size=(3, (1 + GRID**2) * WIDTH)).astype(np.float32)}
    axes, _ = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))
    means = {2: rng.normal(size=units[2].shape[1]).astype(np.float32)}
    maps = Maps(GRID, means, {2: axes.astype(np.float32)})
    back = maps.deviations(maps.of(units))[2]
    np.testing.assert_allclose(back[:, WIDTH:], (units[2] - means[2])[:, WIDTH:], atol=1e-5)
    assert not back[:, :WIDTH].any()
    nothing = maps.of(units, {2: np.zeros(units[2].shape[1], bool)})
    assert not nothing.any()
