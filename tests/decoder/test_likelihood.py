import numpy as np
import pytest

from decoder.bundle import Bundle
from decoder.errors import BundleError
from decoder.features import StructureModel
from decoder.likelihood import fit_structure_model
from decoder.spec import DecoderSpec
from decoder.splits import group_folds
from decoder.stimuli import StimulusTable
from decoder.train import fit
from engine.spec import EngineSpec, StructureSpec
from minddiffuser.live import ready_engine
from stream.windows import Window
from tests.decoder.conftest import LinearEncoders

N, UNITS, SHRINKAGE, NOISE = 2000, 12, 0.4, 0.3
UNITS_OF = {1: np.arange(0, 5, dtype=np.int32), 3: np.arange(2, 9, dtype=np.int32)}
MIXING = np.eye(UNITS) + 0.2 * np.random.default_rng(0).normal(size=(UNITS, UNITS))


def world(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures' features, and what a decoder that shrinks them and adds noise says of them, both float32."""
    rng = np.random.default_rng(seed)
    truth = 3 + rng.normal(size=(N, UNITS)) @ MIXING
    noise = NOISE * rng.normal(size=(N, UNITS)) @ MIXING[::-1]
    return (2 + SHRINKAGE * (truth - 3) + noise).astype(np.float32), truth.astype(np.float32)


@pytest.fixture(scope="module")
def model() -> StructureModel:
    """Learned from 2,000 windows."""
    decoded, truth = world(1)
    folds = group_folds([str(i) for i in range(N)], 5, np.random.default_rng(0))
    return fit_structure_model(decoded, truth, folds, UNITS_OF)


def misfit(model: StructureModel, decoded: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Mean square of the whitened residual, by window."""
    return np.square(decoded @ model.said.T - features @ model.seen.T - model.offset).mean(axis=1)


def test_residuals_of_the_true_picture_are_white(model: StructureModel) -> None:
    """For windows not learned from, the residual of the picture shown has mean 0 and unit covariance."""
    decoded, truth = world(2)
    residual = decoded @ model.said.T - truth @ model.seen.T - model.offset
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(np.cov(residual.T), np.eye(UNITS), atol=0.15)


def test_the_original_is_likelier_than_what_was_decoded(model: StructureModel) -> None:
    """The picture shown fits better than one whose features are the decoded ones, and than other pictures do."""
    decoded, truth = world(3)
    own = misfit(model, decoded, truth)
    assert own.mean() == pytest.approx(1, abs=0.1)
    assert (misfit(model, decoded, decoded) > own).mean() > 0.95
    assert (misfit(model, decoded, np.roll(truth, 1, axis=0)) > own).mean() > 0.95


def test_a_minimum_lies_at_the_truth(model: StructureModel) -> None:
    """Averaged over windows of one picture, the loss has its minimum at that picture's features."""
    rng = np.random.default_rng(4)
    _, truth = world(5)
    noise = NOISE * rng.normal(size=(N, UNITS)) @ MIXING[::-1]
    said = (2 + SHRINKAGE * (truth[:1] - 3) + noise).astype(np.float32).mean(axis=0)
    best = np.linalg.lstsq(model.seen, said @ model.said.T - model.offset, rcond=None)[0]
    np.testing.assert_allclose(best, truth[0], atol=0.05 * np.ptp(truth))


def test_a_bundle_keeps_its_structure_model(
    tmp_path_factory: pytest.TempPathFactory, stimuli: StimulusTable, windows: list[Window], encoders: LinearEncoders
) -> None:
    """Training with s writes it; loading gives the same; units are those of the heads, in the config's order."""
    bundle = fit(windows, stimuli, encoders, DecoderSpec(features=("z", "s"), blocks=(3, 1), cv_folds=3))
    saved = tmp_path_factory.mktemp("bundle") / "b"
    bundle.save(saved)
    ours, theirs = bundle.structure, Bundle.load(saved).structure
    assert ours is not None
    assert theirs is not None
    assert list(ours.units) == list(theirs.units) == [3, 1]
    for name in ("said", "seen", "offset"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    masks = bundle.decode(windows[:1])[0].s
    assert all((np.flatnonzero(masks[block].mask) == units).all() for block, units in ours.units.items())
    features = bundle.decode(windows)
    kept = np.stack([np.concatenate([f.s[b].values[u] for b, u in ours.units.items()]) for f in features])
    true = encoders.structure(stimuli.images[stimuli.rows(w.event.label for w in windows if w.event)])
    shown = np.concatenate([true[b][:, u] for b, u in ours.units.items()], axis=1)
    assert misfit(ours, kept, shown).mean() < 0.9 * misfit(ours, kept, np.roll(shown, 1, axis=0)).mean()


def test_held_out_models_share_nothing(stimuli: StimulusTable, windows: list[Window], encoders: LinearEncoders) -> None:
    """A bundle that decodes pictures by models that never saw them has no structure model; asking for it is refused."""
    spec = DecoderSpec(features=("z", "s"), blocks=(1,), cv_folds=3, hold_out=2)
    bundle = fit(windows, stimuli, encoders, spec)
    assert bundle.structure is None
    asked = EngineSpec(structure=StructureSpec(loss="likelihood"))
    with pytest.raises(BundleError, match=r"structure\.loss 'likelihood' needs a bundle with a structure model"):
        ready_engine(asked, bundle)
