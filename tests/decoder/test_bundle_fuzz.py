"""Bundles and caches from elsewhere: whatever they hold, one line of ours."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from decoder.errors import BundleError
from decoder.models.bundle import Bundle
from decoder.models.bundlefiles import digest_of
from tests.decoder.test_train_and_bundle import bundle

__all__ = ["bundle"]

KEYS = ("models", "channels", "sfreq", "n_times", "tmin", "held_out", "meta", "weights_sha256", "format")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def refusal(folder: Path) -> str:
    """Load a bundle; give the error's words, or nothing where it was good."""
    try:
        Bundle.load(folder)
    except BundleError as error:
        return str(error)
    return ""


@given(
    name=st.sampled_from(["bundle.json", "weights.safetensors"]), junk=st.binary(max_size=80), at=st.integers(0, 300)
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_broken_bundle_files_are_one_line(bundle: Bundle, tmp_path: Path, name: str, junk: bytes, at: int) -> None:
    """A bundle whose file is cut or overwritten is refused in one line."""
    bundle.save(tmp_path / "b")
    path = tmp_path / "b" / name
    path.write_bytes(path.read_bytes()[:at] + junk)
    message = refusal(tmp_path / "b")
    assert message
    assert "\n" not in message


@given(key=st.sampled_from(KEYS), value=JSON)
@example(key="models", value=[])
@example(key="channels", value=[1])
@example(key="models", value={"whole": {"family": "ridge", "settings": []}})
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_forged_bundles_are_one_line(bundle: Bundle, tmp_path: Path, key: str, value: Any) -> None:
    """A bundle with a right checksum and anything for a value is loaded or refused in one line."""
    bundle.save(tmp_path / "b")
    path = tmp_path / "b" / "bundle.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    content[key] = value
    path.write_text(json.dumps(content | {"sha256": digest_of(content)}))
    assert "\n" not in refusal(tmp_path / "b")


@given(weights=st.binary(max_size=100))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_forged_weights_are_one_line(bundle: Bundle, tmp_path: Path, weights: bytes) -> None:
    """Weights that are no safetensors, under a right checksum, are refused in one line."""
    bundle.save(tmp_path / "b")
    path = tmp_path / "b" / "bundle.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    content["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    (tmp_path / "b" / "weights.safetensors").write_bytes(weights)
    path.write_text(json.dumps(content | {"sha256": digest_of(content)}))
    message = refusal(tmp_path / "b")
    assert message
    assert "\n" not in message


def test_an_endless_bundle_is_not_read(bundle: Bundle, tmp_path: Path) -> None:
    """A bundle.json of many megabytes is refused before it is taken in."""
    bundle.save(tmp_path / "b")
    with (tmp_path / "b" / "bundle.json").open("r+b") as file:
        file.truncate(200 * 2**20)
    with pytest.raises(BundleError, match="larger than"):
        Bundle.load(tmp_path / "b")
