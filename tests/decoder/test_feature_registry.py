"""The registry of features: every part of a decoder reads the same entries."""

from dataclasses import fields
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoder.data.feature_registry import FEATURES, feature_of, label_of
from decoder.data.targets import Targets
from decoder.features import Features, block_name, block_of
from decoder.spec import DecoderSpec


def test_configs_and_containers_know_the_same_features() -> None:
    """What a config may ask for, what targets and decoded windows hold, and the registry are one list."""
    allowed = get_args(get_args(DecoderSpec.model_fields["features"].annotation)[0])
    assert set(allowed) == set(FEATURES)
    for kind in (Targets, Features):
        assert set(FEATURES) <= {field.name for field in fields(kind)}


def test_gains_are_the_settings_of_the_spec() -> None:
    """An entry reads its own setting; a feature without one is left as it is."""
    spec = DecoderSpec(c_gain=0.25, z_gain=0.5, s_gain=1.5)
    assert {key: feature.gain_in(spec) for key, feature in FEATURES.items()} == {"c": 0.25, "z": 0.5, "e": 0, "s": 1.5}


@given(block=st.integers(1, 99))
def test_blocks_are_read_from_the_names_that_they_are_given(block: int) -> None:
    """Name and number of a block tell each other, and lead to the entry of `s`."""
    assert block_of(block_name(block)) == block
    assert feature_of(block_name(block)) is FEATURES["s"]
    assert label_of(block_name(block)) == f"s (structure), block {block}"


@pytest.mark.parametrize("name", ["", "s", "sx", "z1", "stage2", "picture", "category", "confidence"])
def test_other_names_are_no_blocks(name: str) -> None:
    """Words that only begin alike are no blocks of structure."""
    assert block_of(name) is None
    assert name in FEATURES or feature_of(name) is None


def test_decoded_arrays_come_back_by_name() -> None:
    """A window is built from arrays by name and gives them back flat; what was not decoded is None."""
    rng = np.random.default_rng(0)
    shapes = {"c": (3, 5), "z": (2, 3, 3), "s2": (8,)}
    values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    window = Features.from_values("w", values, {"s2": np.ones(8, np.bool_)}, 0.5)
    assert window.names == ("c", "z", "s2")
    for name, value in values.items():
        np.testing.assert_array_equal(window.values(name), value.ravel())
    assert window.values("e") is window.values("s1") is None
    assert Features.from_values("w", {}, {}, 0.0).names == ()
