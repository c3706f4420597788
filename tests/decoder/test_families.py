"""What every family of decoders that a config may name keeps to; a module with a `fit` of its own is held to it too."""

from pathlib import Path

import numpy as np
import pytest

from decoder.data.stimuli import StimulusTable
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.models.bundle import Bundle
from decoder.models.family import families
from decoder.spec import DecoderSpec
from decoder.training.train import fit
from stream.types.windows import Window
from tests.decoder.conftest import LinearEncoders

N_TRAIN = 90


@pytest.fixture(params=["ridge", *families(trained_by_name=True)])
def spec(request: pytest.FixtureRequest) -> DecoderSpec:
    """Return settings that name the family."""
    return DecoderSpec(family=request.param, features=("c", "z"), cv_folds=3)


@pytest.fixture
def bundle(windows: list[Window], stimuli: StimulusTable, encoders: LinearEncoders, spec: DecoderSpec) -> Bundle:
    """Train on all but the last 30 pictures."""
    return fit(windows[:N_TRAIN], stimuli, encoders, spec)


def test_pictures_never_trained_on_are_told_apart(
    bundle: Bundle, windows: list[Window], stimuli: StimulusTable, encoders: LinearEncoders
) -> None:
    """Above chance, as its scores by held-out pictures claim; and confidence is a share."""
    held_out = windows[N_TRAIN:]
    decoded = bundle.decode(held_out)
    z = np.stack([features.z for features in decoded])
    truth = encoders.encode_latents(stimuli.images[N_TRAIN:])
    assert two_way(correlation_matrix(truth, z)).mean() > 0.55
    assert bundle.meta["scores"]["z"]["two_way"] > 0.55
    assert [features.window_id for features in decoded] == [window.id for window in held_out]
    assert all(0 <= features.confidence <= 1 for features in decoded)


def test_a_window_alone_and_a_bundle_loaded_again_give_the_same(
    bundle: Bundle, windows: list[Window], tmp_path: Path
) -> None:
    """A window gives what it gives among others, from memory and from the file."""
    bundle.save(tmp_path / "b")
    loaded = Bundle.load(tmp_path / "b")
    for window, among in zip(windows[N_TRAIN:], bundle.decode(windows[N_TRAIN:]), strict=True):
        for alone in (bundle.decode([window])[0], loaded.decode([window])[0]):
            np.testing.assert_allclose(alone.c, among.c, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(alone.z, among.z, rtol=1e-4, atol=1e-5)
            assert alone.confidence == pytest.approx(among.confidence, abs=1e-4)


def test_preprocessing_is_followed(
    windows: list[Window], stimuli: StimulusTable, encoders: LinearEncoders, spec: DecoderSpec
) -> None:
    """Samples outside the times that `decoder.preprocess` chooses change nothing."""
    chosen = spec.model_copy(update={"preprocess": spec.preprocess.model_copy(update={"tmin": 0.05})})
    bundle = fit(windows[:N_TRAIN], stimuli, encoders, chosen)
    first = windows[N_TRAIN]
    data = first.data.copy()
    data[:, :5] *= -1
    changed = Window(**{name: getattr(first, name) for name in Window.__slots__} | {"data": data})
    one, other = bundle.decode([first, changed])
    np.testing.assert_allclose(other.z, one.z, rtol=1e-4, atol=1e-5)
