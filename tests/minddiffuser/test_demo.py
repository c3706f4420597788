"""The shipped decoder is the demo's: small, unchanged, for these models and settings, and it decodes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from decoder.errors import BundleError
from decoder.models.bundle import Bundle
from engine.models.loading import Models, load_models
from engine.spec import ModelSpec
from minddiffuser.config.spec import Config, load_config
from minddiffuser.shipped import DEMO_DECODER
from minddiffuser.workflows import demo
from tools.demo_decoder import halved

LARGEST = 20_000_000


@pytest.fixture(scope="module")
def desk() -> Models:
    """Return the desk models, none of which is loaded before it is used."""
    return load_models(ModelSpec(), "cpu")


@pytest.fixture(scope="module")
def config() -> Config:
    """Return the demo's config."""
    return load_config(demo.DEMO_CONFIG)


def test_the_shipped_decoder_is_what_the_demo_would_train(config: Config, desk: Models) -> None:
    """It fits the demo's config and the desk models, and no others; it takes no more than 20 MB."""
    bundle = demo.shipped_decoder(config, desk.feature_space)
    assert bundle is not None
    bundle.check_feature_space(desk.feature_space)
    assert sum(file.stat().st_size for file in DEMO_DECODER.iterdir()) < LARGEST
    other = config.model_copy(update={"data": config.data.model_copy(update={"seed": 1})})
    assert demo.shipped_decoder(other, desk.feature_space) is None
    assert demo.shipped_decoder(config, "of other models") is None


def test_a_changed_decoder_is_refused(
    config: Config, desk: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte of its weights is enough."""
    shutil.copytree(DEMO_DECODER, tmp_path / "demo")
    weights = tmp_path / "demo" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(demo, "DEMO_DECODER", tmp_path / "demo")
    with pytest.raises(BundleError, match="was changed since it was saved"):
        demo.shipped_decoder(config, desk.feature_space)


def test_half_precision_is_for_large_weights_that_it_can_hold() -> None:
    """Small tensors and numbers beyond its range stay as they are; reading gives single precision again."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(200, 200)).astype(np.float32)
    assert halved(weights).dtype == np.float16
    np.testing.assert_allclose(halved(weights).astype(np.float32), weights, atol=3e-3)
    assert halved(weights * np.float32(1e6)).dtype == np.float32
    assert halved(weights * np.float32(1e-9)).dtype == np.float32
    assert halved(weights[0]).dtype == np.float32
    kept = Bundle.load(DEMO_DECODER).models["all"].tensors()
    assert all(array.dtype != np.float16 for array in kept.values())
