"""Decoded features, smoothed over the windows of a stream."""

import numpy as np
import pytest

from decoder.features import Evidence, Features, LayerTarget
from decoder.smoothing import FeatureSmoother


def features(value: float, *, confidence: float = 0.5, tokens: int = 2, z: bool = True) -> Features:
    """Make features all of whose numbers are one value."""
    latent = np.full((1, 2, 2), value, np.float32)
    target = LayerTarget(np.full(3, value, np.float32), np.array([True, False, True]))
    evidence = Evidence(np.full(2, value, np.float32), {})
    return Features("w", np.full((tokens, 4), value, np.float32), latent if z else None, {1: target}, confidence, {},
                    np.full(4, value, np.float32), latent if z else None, evidence)  # fmt: skip


def test_features_follow_a_step_as_an_exponential_does() -> None:
    """After so many seconds of another value 1 - 1/e of the step is there, in every feature, at any pace."""
    for step in (0.05, 0.25):
        smoother = FeatureSmoother(1.0)
        smoother.update(features(0.0), 0.0)
        for number in range(1, round(1.0 / step) + 1):
            found = smoother.update(features(1.0), number * step)
        for value in (found.c, found.z, found.e, found.structure_latent, found.s[1].values):
            assert value is not None
            np.testing.assert_allclose(value, 1 - np.exp(-1), rtol=1e-5)


def test_what_is_a_windows_own_stays_its_own() -> None:
    """Confidence, mask and evidence are never mixed, nor features of another shape or that one of the two lacks."""
    smoother = FeatureSmoother(1.0)
    smoother.update(features(0.0, confidence=0.1, tokens=3, z=False), 0.0)
    found = smoother.update(features(1.0, confidence=0.9), 0.25)
    assert found.confidence == 0.9
    assert found.evidence is not None
    assert (found.evidence.answer == 1).all()
    assert (found.c == 1).all()
    assert found.z is not None
    assert (found.z == 1).all()
    assert found.e is not None
    assert found.e[0] == pytest.approx(1 - np.exp(-0.25), rel=1e-5)


def test_a_pause_or_a_restart_begins_anew() -> None:
    """What was decoded long before, or before time ran back, has no say."""
    for onset in (6.0, -3.0):
        smoother = FeatureSmoother(1.0)
        smoother.update(features(0.0), 0.0)
        assert (smoother.update(features(1.0), onset).c == 1).all()
