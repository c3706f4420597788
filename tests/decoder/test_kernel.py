"""Ridge in the space of a Gaussian kernel."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from decoder.data.stimuli import StimulusTable
from decoder.models.bundle import Bundle
from decoder.models.linear import LinearModel
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.solvers.kernel import fit_kernel
from decoder.solvers.ridge import column_correlations, decompose, fit_ridge
from decoder.spec import DecoderSpec
from decoder.training.train import fit
from stream.types.windows import Window

RBF = DecoderSpec(preprocess=PreprocessSpec(kernel="rbf"))


def gaussian(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Say what the kernel is, the slow way."""
    return np.exp(-np.square(a[:, None] - b[None]).sum(axis=2) / (2 * width**2))


def test_ridge_on_its_features_is_kernel_ridge() -> None:
    """Predictions are those of the textbook's dual formula, centring included."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(80, 6)).astype(np.float32)
    new = rng.normal(size=(30, 6)).astype(np.float32)
    targets = np.stack([np.abs(inputs[:, 0]), inputs[:, 1] * inputs[:, 2]], axis=1)
    kernel = fit_kernel(inputs, 1.0, 1000)
    weights, intercept = fit_ridge(decompose(kernel(inputs)), targets, np.full(2, 0.7))
    width = float(np.sqrt(np.square(inputs).sum(axis=1).mean()))
    plain, across = gaussian(inputs, inputs, width), gaussian(new, inputs, width)
    centre = np.eye(80) - 1 / 80
    dual = np.linalg.solve(centre @ plain @ centre + 0.7 * np.eye(80), targets - targets.mean(axis=0))
    expected = (across - plain.mean(axis=0)) @ centre @ dual + targets.mean(axis=0)
    np.testing.assert_allclose(kernel(new) @ weights + intercept, expected, atol=2e-3)


def test_follows_what_has_no_sign() -> None:
    """The size of an input, whatever its sign, is told; linear ridge tells nothing of it."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(900, 4)).astype(np.float32)
    targets = np.abs(inputs[:, :1])
    told = []
    for made in (inputs, fit_kernel(inputs[:600], 1.0, 1000)(inputs)):
        weights, intercept = fit_ridge(decompose(made[:600]), targets[:600], np.ones(1))
        told.append(float(column_correlations(targets[600:], made[600:] @ weights + intercept)[0]))
    assert told[0] < 0.3
    assert told[1] > 0.9


def test_few_landmarks_span_the_space() -> None:
    """No more axes than landmarks; a third of the windows as landmarks tells nearly as much as all."""
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(900, 4)).astype(np.float32)
    targets = np.abs(inputs[:, :1])
    made = fit_kernel(inputs[:600], 1.0, 200)(inputs)
    assert made.shape[1] <= 200
    weights, intercept = fit_ridge(decompose(made[:600]), targets[:600], np.ones(1))
    assert column_correlations(targets[600:], made[600:] @ weights + intercept)[0] > 0.9


def test_a_bundle_keeps_its_kernel(
    windows: list[Window], stimuli: StimulusTable, encoders: object, tmp_path: Path
) -> None:
    """Saved and loaded it decodes to the same bits, one window alone as in its batch, and unlike plain ridge."""
    bundle = fit(windows[:90], stimuli, encoders, RBF)
    bundle.save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    model = loaded.models["all"]
    assert isinstance(model, LinearModel)
    assert model.preprocessor.kernel is not None
    here, there = bundle.decode(windows[90:]), loaded.decode(windows[90:])
    np.testing.assert_array_equal([f.z for f in here], [f.z for f in there])
    np.testing.assert_allclose(loaded.decode(windows[90:91])[0].z, there[0].z, rtol=1e-3, atol=1e-4)
    linear = fit(windows[:90], stimuli, encoders, DecoderSpec()).decode(windows[90:91])[0]
    assert not np.allclose(linear.z, there[0].z, atol=1e-3)


def test_far_from_all_landmarks_the_mean_is_decoded(
    windows: list[Window], stimuli: StimulusTable, encoders: object
) -> None:
    """A window unlike any in training gives a finite answer, and no confidence."""
    bundle = fit(windows[:90], stimuli, encoders, RBF)
    found = bundle.decode([replace(windows[95], data=windows[95].data * 1e4)])[0]
    assert np.isfinite(found.z).all()
    assert found.confidence < 0.05


def test_categories_are_refused() -> None:
    """A decoder of categories takes channels, not axes of a kernel."""
    with pytest.raises(ValidationError, match=r"set preprocess\.kernel to linear"):
        DecoderSpec.model_validate({"preprocess": {"kernel": "rbf"}, "category": {"method": "pattern"}})
