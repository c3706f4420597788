"""Training end to end on a linear world, and the bundle that comes of it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decoder.data.stimuli import StimulusTable
from decoder.errors import BundleError, TrainingError
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.features import Features
from decoder.models.bundle import Bundle
from decoder.preprocessing.preprocess import PreprocessSpec, fit_preprocessor
from decoder.spec import DecoderSpec
from decoder.training.train import fit
from stream.types.windows import Channels, Quality, Window

SPEC = DecoderSpec(blocks=(1, 2, 3, 4, 5, 6))


@pytest.fixture
def bundle(windows: list[Window], stimuli: StimulusTable, encoders) -> Bundle:
    """Train on the first 90 pictures."""
    return fit(windows[:90], stimuli, encoders, SPEC)


def flat(features: list[Features]) -> np.ndarray:
    """Everything decoded, a row a window."""
    rows = [[f.c.ravel(), np.ravel(f.z), *(f.s[b].values for b in sorted(f.s)), [f.confidence]] for f in features]
    return np.stack([np.concatenate(row) for row in rows])


def test_held_out_pictures_are_decoded(bundle: Bundle, windows: list[Window], stimuli: StimulusTable, encoders) -> None:
    """Pictures never trained on are told from each other well above chance, by c and by z."""
    found = bundle.decode(windows[90:])
    truth_z = encoders.encode_latents(stimuli.images[90:])
    truth_c = encoders.encode_text([f"caption {i}" for i in range(90, 120)])
    z = np.stack([f.z for f in found])
    c = np.stack([f.c for f in found])
    assert two_way(correlation_matrix(truth_z, z)).mean() > 0.8
    assert two_way(correlation_matrix(truth_c[:, 1:], c[:, 1:])).mean() > 0.7
    np.testing.assert_array_equal(c[:, 0], truth_c[:, 0])
    assert [f.window_id for f in found] == [w.id for w in windows[90:]]


def test_best_decoded_units_are_kept(bundle: Bundle, windows: list[Window]) -> None:
    """A quarter of each block is kept; none of the units that are mere noise; the rest is 0."""
    found = bundle.decode(windows[:1])[0]
    assert sorted(found.s) == [1, 2, 3, 4, 5, 6]
    for layer in found.s.values():
        assert layer.mask.sum() == 10
        assert not layer.mask[30:].any()
        assert (layer.values[~layer.mask] == 0).all()


def test_a_window_alone_equals_its_batch(bundle: Bundle, windows: list[Window]) -> None:
    """Decoding one by one gives what decoding all at once gives."""
    np.testing.assert_allclose(
        flat([bundle.decode([w])[0] for w in windows]), flat(bundle.decode(windows)), rtol=1e-4, atol=1e-5
    )


def test_test_windows_change_no_fitted_number(windows: list[Window], stimuli: StimulusTable, encoders) -> None:
    """Windows of no known stimulus (here: wildly scaled) leave every tensor as it was."""
    foreign = [replace(w, data=w.data * 1e6, event=replace(w.event, label="test")) for w in windows[90:] if w.event]
    one = fit(windows[:90], stimuli, encoders, SPEC)
    two = fit([*windows[:90], *foreign], stimuli, encoders, SPEC)
    assert two.meta["left_out"]["not a stimulus"] == 30
    theirs = two.models["all"].tensors()
    for name, array in one.models["all"].tensors().items():
        np.testing.assert_array_equal(array, theirs[name])


def test_bundle_loads_elsewhere_to_equal_predictions(bundle: Bundle, windows: list[Window], tmp_path: Path) -> None:
    """A fresh process decodes the same windows to the same bits."""
    bundle.save(tmp_path / "b")
    np.save(tmp_path / "w.npy", np.stack([w.data for w in windows]))
    code = """
import sys, numpy as np
from pathlib import Path
from decoder.models.bundle import Bundle
from stream.types.windows import Window
folder = Path(sys.argv[1]); b = Bundle.load(folder / "b")
data = np.load(folder / "w.npy")
found = b.decode([Window(str(i), d, b.channels, 100.0, 0, -0.05, None, 0, 0) for i, d in enumerate(data)])
np.savez(folder / "out.npz", c=[f.c for f in found], z=[f.z for f in found], s=[f.s[6].values for f in found],
         sure=[f.confidence for f in found])
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
    here = bundle.decode(windows)
    with np.load(tmp_path / "out.npz") as there:
        np.testing.assert_array_equal(there["c"], [f.c for f in here])
        np.testing.assert_array_equal(there["z"], [f.z for f in here])
        np.testing.assert_array_equal(there["s"], [f.s[6].values for f in here])
        np.testing.assert_array_equal(there["sure"], [f.confidence for f in here])


def test_channels_are_found_by_name(bundle: Bundle, windows: list[Window], channels: Channels) -> None:
    """Shuffled channels with an extra one among them decode as the trained order does."""
    order = np.random.default_rng(0).permutation(len(channels) + 1)
    window = windows[100]
    wide = np.concatenate([window.data, np.full((1, window.data.shape[1]), 9, np.float32)])
    names, kinds, units = (*channels.names, "extra"), (*channels.kinds, "misc"), (*channels.units, "V")
    other = Channels(*(tuple(each[i] for i in order) for each in (names, kinds, units)))
    shuffled = replace(window, data=wide[order], channels=other)
    np.testing.assert_array_equal(flat(bundle.decode([shuffled])), flat(bundle.decode([window])))


def test_what_does_not_fit_is_refused_by_name(bundle: Bundle, windows: list[Window], channels: Channels) -> None:
    """Another montage, unit, rate, window or feature space is refused, and the message says which."""
    lacking = Channels(channels.names[1:], channels.kinds[1:], channels.units[1:])
    with pytest.raises(BundleError, match="lacks 1 of the bundle's 12 channels: E0;"):
        bundle.check(lacking, 100.0)
    with pytest.raises(BundleError, match="E0 comes in 'uV'"):
        bundle.check(Channels(channels.names, channels.kinds, ("uV",) * 12), 100.0)
    with pytest.raises(BundleError, match="250 Hz"):
        bundle.check(channels, 250.0)
    with pytest.raises(BundleError, match="19 samples"):
        bundle.decode([replace(windows[0], data=windows[0].data[:, 1:])])
    bundle.check_feature_space("linear-0")
    with pytest.raises(BundleError, match="feature space linear-0"):
        bundle.check_feature_space("another")


def test_another_reference_is_said(bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A stream against another electrode than the training's gives one warning; one that does not say gives none."""
    known = bundle.channels.against("Cz")
    Bundle(bundle.models, known, sfreq=100.0, n_times=bundle.n_times, tmin=bundle.tmin).save(tmp_path / "b")
    loaded = Bundle.load(tmp_path / "b")
    for reference, said in (("", 0), ("Cz", 0), ("A1", 1), ("A1", 1)):
        loaded.check(known.against(reference), 100.0)
        assert caplog.text.count("against Cz, this is against A1") == said


@pytest.mark.parametrize("name", ["weights.safetensors", "bundle.json"])
def test_tampered_file_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    """One changed number in either file is found."""
    bundle.save(tmp_path / "b")
    path = tmp_path / "b" / name
    if name == "bundle.json":
        content = json.loads(path.read_text())
        content["tmin"] += 0.1
        path.write_text(json.dumps(content))
    else:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(BundleError, match=name):
        Bundle.load(tmp_path / "b")


def test_missing_bundle_and_foreign_folder_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    """Nothing there: train first. Something else there: it is left alone."""
    with pytest.raises(BundleError, match="train one first"):
        Bundle.load(tmp_path / "none")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.txt").write_text("sun")
    with pytest.raises(BundleError, match="not a bundle"):
        bundle.save(tmp_path / "photos")
    assert (tmp_path / "photos" / "holiday.txt").read_text() == "sun"
    bundle.save(tmp_path / "b")
    bundle.save(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "photos"]


def test_folds_never_decode_a_picture_they_saw(windows: list[Window], stimuli: StimulusTable, encoders) -> None:
    """Each picture goes to the fold without it: changing its training window leaves its decoding as it was."""
    spec = DecoderSpec(features=("z",), hold_out=4)
    one = fit(windows, stimuli, encoders, spec)
    assert set(one.held_out) == set(stimuli.ids)
    assert len(one.models) == 5
    fold = one.held_out["p11"]
    spoilt = [replace(w, data=-w.data) if w.event and one.held_out[w.event.label] == fold else w for w in windows]
    two = fit(spoilt, stimuli, encoders, spec)
    np.testing.assert_array_equal(one.decode([windows[11]])[0].z, two.decode([windows[11]])[0].z)
    stranger = replace(windows[11], event=None)
    assert (one.decode([stranger])[0].z != two.decode([stranger])[0].z).any()


def test_confidence_falls_with_noise_artefacts_and_silence(
    bundle: Bundle, windows: list[Window], stimuli: StimulusTable, channels: Channels, window_maker
) -> None:
    """Clean windows are believed more than pure noise, dead channels, bursts, and windows rejected upstream."""

    def sure(chosen: list[Window]) -> float:
        found = [f.confidence for f in bundle.decode(chosen)]
        assert min(found) >= 0
        assert max(found) <= 1
        return float(np.mean(found))

    fresh = window_maker(stimuli, channels, noise=1.0, seed=2)[90:]
    clean = sure(fresh)
    assert clean > 0.3
    assert sure(window_maker(stimuli, channels, noise=1.0, seed=3, signal=0.0)) < 0.6 * clean
    assert sure([replace(w, data=np.zeros_like(w.data)) for w in fresh]) < 0.05
    assert sure([replace(w, data=w.data * 10) for w in fresh]) < 0.5 * clean
    assert sure([replace(w, quality=Quality(rejected="blink")) for w in fresh]) == 0
    assert sure([replace(w, data=np.full_like(w.data, np.nan)) for w in fresh]) == 0


def test_gain_undoes_shrinkage(windows: list[Window], stimuli: StimulusTable, encoders) -> None:
    """With full gain, held-out z spreads as the true z does; directions stay."""
    plain = fit(windows[:90], stimuli, encoders, DecoderSpec(features=("z",)))
    full = fit(windows[:90], stimuli, encoders, DecoderSpec(features=("z",), z_gain=1.0))
    truth = encoders.encode_latents(stimuli.images)
    mean = truth[:90].mean(axis=0)
    a, b = (np.stack([f.z for f in x.decode(windows[90:])]) - mean for x in (plain, full))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9999
    assert a.std() < 0.95 * truth.std()
    assert 0.8 < b.std() / truth.std() < 1.2


def test_structure_alone_is_decoded_and_believed(windows: list[Window], stimuli: StimulusTable, encoders) -> None:
    """Without c, z and e, confidence is learned from the structure: windows with a signal have some, noise has less."""
    bundle = fit(windows, stimuli, encoders, DecoderSpec(features=("s",), blocks=(2,)))
    noise = [replace(w, data=np.zeros_like(w.data)) for w in windows]
    assert set(bundle.decode(windows[:1])[0].s) == {2}
    assert np.mean([f.confidence for f in bundle.decode(windows)]) > 0.3
    assert np.mean([f.confidence for f in bundle.decode(noise)]) < 0.05


def test_noise_only_is_not_decoded(stimuli: StimulusTable, channels: Channels, encoders, window_maker) -> None:
    """Windows without response score at chance in cross-validation, and are not believed."""
    noise = window_maker(stimuli, channels, noise=1.0, seed=5, signal=0.0)
    bundle = fit(noise, stimuli, encoders, DecoderSpec(features=("c", "z")))
    for feature in ("c", "z"):
        assert abs(bundle.meta["scores"][feature]["two_way"] - 0.5) < 0.1
    assert np.mean([f.confidence for f in bundle.decode(noise)]) < 0.15


def test_too_little_to_learn_from_is_said(windows: list[Window], stimuli: StimulusTable, encoders) -> None:
    """Few windows, or windows of two kinds, end in one line that says so."""
    with pytest.raises(TrainingError, match="5 of 5 windows"):
        fit(windows[:5], stimuli, encoders, SPEC)
    odd = replace(windows[3], data=windows[3].data[:, :10])
    with pytest.raises(TrainingError, match="differs"):
        fit([*windows[:3], odd, *windows[4:]], stimuli, encoders, SPEC)


def test_a_cache_that_cannot_be_written_costs_a_warning(
    windows: list[Window], stimuli: StimulusTable, encoders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file where the cache's folder should be: the bundle is trained all the same, and the log says why."""
    (tmp_path / "cache").write_text("in the way")
    bundle = fit(windows[:40], stimuli, encoders, DecoderSpec(features=("z",)), cache=tmp_path / "cache")
    assert bundle.decode(windows[:1])[0].z is not None
    assert "targets are not kept" in caplog.text


def test_preprocessing_is_the_textbook_chain() -> None:
    """The one matrix equals time choice, mean over samples and z-scoring done step by step."""
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(50, 3, 12)) * 1e-6 + 2e-6).astype(np.float32)
    times = np.arange(12) / 10 - 0.2
    spec = PreprocessSpec(tmin=0.0, tmax=0.7, decimate=2, components=None)
    binned = data[:, :, 2:10].reshape(50, 3, 4, 2).mean(axis=3).reshape(50, -1)
    expected = (binned - binned.mean(axis=0)) / binned.std(axis=0)
    np.testing.assert_allclose(fit_preprocessor(data, times, spec)(data), expected, atol=1e-3)


def test_whitening_decorrelates_the_channels() -> None:
    """Whitened channels that shared their noise no longer do."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(400, 1, 5))
    data = (1e-6 * (3 * shared + rng.normal(size=(400, 4, 5)))).astype(np.float32)
    out = fit_preprocessor(data, np.arange(5.0), PreprocessSpec(whiten=True, components=None))(data)
    between = np.corrcoef(out.reshape(400, 4, 5).transpose(1, 0, 2).reshape(4, -1))
    assert np.abs(between - np.eye(4)).max() < 0.1


def test_whitening_over_time_decorrelates_the_times() -> None:
    """Noise that lasts for several samples no longer does, and channels stay apart."""
    rng = np.random.default_rng(0)
    slow = np.cumsum(rng.normal(size=(400, 3, 6)), axis=2)
    data = (1e-6 * slow).astype(np.float32)
    spec = PreprocessSpec(whiten=True, whiten_time=True, components=None)
    between = np.corrcoef(fit_preprocessor(data, np.arange(6.0), spec)(data).T)
    assert np.abs(between - np.eye(18)).max() < 0.2


def test_components_keep_the_largest_variance() -> None:
    """Of z-scored inputs, the leading principal components are kept, uncorrelated and in order."""
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(100, 2)) @ rng.normal(size=(2, 30)) + 0.01 * rng.normal(size=(100, 30))).astype(np.float32)
    out = fit_preprocessor(data[:, :, None], np.zeros(1), PreprocessSpec(components=2))(data[:, :, None])
    assert out.shape == (100, 2)
    covariance = np.cov(out.T)
    assert abs(covariance[0, 1]) < 1e-3 * covariance[0, 0]
    assert covariance[0, 0] > covariance[1, 1]
    assert np.trace(covariance) > 0.99 * 30 * 100 / 99 * 0.99
