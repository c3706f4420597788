"""What a window says of a whole picture: the encoding model's own likelihood, kept with the decoder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decoder.data.stimuli import StimulusTable
from decoder.data.training_set import TrainingSet
from decoder.encoding import evidence
from decoder.encoding.evidence import fit_evidence
from decoder.encoding.model import fit_encoding
from decoder.models.bundle import Bundle
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.spec import DecoderSpec
from decoder.training.train import fit
from stream.types.windows import Window

N_PICTURES, N_CHANNELS, N_TIMES = 120, 6, 3
UNITS = {"s1": 10, "s2": 30}


def world(repeats: int = 2) -> tuple[TrainingSet, dict[str, np.ndarray]]:
    """Simulate windows that follow the first block's units, in noise of unit variance."""
    rng = np.random.default_rng(4)
    s = {block: rng.normal(2, 1, (N_PICTURES, n)).astype(np.float16) for block, n in UNITS.items()}
    weights = 0.5 * rng.normal(size=(UNITS["s1"], N_CHANNELS * N_TIMES))
    rows = np.tile(np.arange(N_PICTURES), repeats)
    data = (s["s1"].astype(float) @ weights)[rows] + rng.normal(size=(len(rows), N_CHANNELS * N_TIMES))
    names = np.char.mod("%03d", rows)
    windows = data.reshape(-1, N_CHANNELS, N_TIMES).astype(np.float32)
    times = np.arange(N_TIMES) / 100
    return TrainingSet(windows, times, rows, names, np.full(len(rows), "only"), names, tuple("abcdef")), s


def misfit(found: evidence.Evidence, s: dict[str, np.ndarray]) -> np.ndarray:
    """Compute the squared misfit of one window with each picture."""
    predicted = sum(s[block].astype(np.float32) @ values for block, values in found.maps.items())
    return np.square(found.answer - predicted).sum(axis=1)


def test_misfit_is_the_likelihood_of_the_encoding_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minus half the misfit differs between pictures as the model's log-likelihood does; few directions say most."""
    samples, s = world()
    model = fit_encoding(s, samples.data, samples.rows, samples.groups, np.random.default_rng(0), n_axes=20)
    exact = model.log_likelihood(s, samples.data[:5].reshape(5, -1)).T
    for least, tolerance in ((0.0, 1e-2), (evidence.LEAST_SIGNAL, 2.0)):
        monkeypatch.setattr(evidence, "LEAST_SIGNAL", least)
        reader = fit_evidence(samples, s, PreprocessSpec(), 20, 0)
        assert reader is not None
        for one, own in zip(reader(samples.data[:5]), exact, strict=True):
            found = -0.5 * misfit(one, s)
            np.testing.assert_allclose(found - found.mean(), own - own.mean(), atol=tolerance)


def test_what_drives_the_channels_is_told() -> None:
    """The block that drives the simulated channels has the drive, and variance is explained; strangers are left out."""
    samples, s = world()
    reader = fit_evidence(samples, s, PreprocessSpec(), 20, 0)
    assert reader is not None
    assert reader.drive.shape == (2, N_CHANNELS, N_TIMES)
    assert reader.drive[0].mean() > 5 * reader.drive[1].mean()
    assert reader.explained.mean() > 0.4
    halves = np.where(np.arange(len(samples.rows)) % 2, "one", "other")
    assert fit_evidence(replace(samples, subjects=halves), s, PreprocessSpec(), 20, 0) is None


def test_a_bundle_keeps_its_encoding_model(
    windows: list[Window], stimuli: StimulusTable, encoders, tmp_path: Path
) -> None:
    """Decoded windows say the same before and after a save; a bundle without an encoding model says nothing."""
    spec = DecoderSpec(
        features=("s",), blocks=(1, 2), cv_folds=3, encoding={"features": ("blocks", "thumbnail", "early")}
    )
    bundle = fit(windows, stimuli, encoders, spec)
    bundle.save(tmp_path / "bundle")
    before, after = (each.decode(windows[:3]) for each in (bundle, Bundle.load(tmp_path / "bundle")))
    for one, other in zip(before, after, strict=True):
        assert one.evidence is not None
        assert other.evidence is not None
        np.testing.assert_array_equal(one.evidence.answer, other.evidence.answer)
        assert {"s1", "s2", "thumbnail", "contrast"} <= {*one.evidence.maps} == {*other.evidence.maps}
        for name, values in one.evidence.maps.items():
            np.testing.assert_array_equal(values, other.evidence.maps[name])
    assert after[0].evidence is not None
    assert after[0].evidence.maps is after[1].evidence.maps
    plain = fit(windows, stimuli, encoders, spec.model_copy(update={"encoding": None}))
    assert plain.decode(windows[:1])[0].evidence is None
