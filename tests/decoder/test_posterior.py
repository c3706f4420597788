"""Features decoded through an encoding model: the closed form, what few windows gain by it, and what is kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets, compute_targets
from decoder.encoding.posterior import fit_posterior
from decoder.errors import TrainingError
from decoder.models.bundle import WHOLE, Bundle
from decoder.models.linear import LinearModel
from decoder.spec import DecoderSpec, EncodingSpec
from decoder.training.train import fit
from stream.types.windows import Channels, Window

FEW, WAVES = 5, 2.0
N_BANK, N_FEATURES, N_ANSWERS = 20_000, 6, 3
SPEC = DecoderSpec(
    features=("z", "s"),
    blocks=(1,),
    cv_folds=3,
    z_gain=0.0,
    s_gain=0.0,
    unit_fraction=0.7,
    encoding={"features": ("blocks", "thumbnail"), "posterior": ("z", "s")},
)


def pictures(n: int, seed: int) -> StimulusTable:
    """Give pictures that differ in few ways, as natural ones do."""
    ways = np.random.default_rng(5).normal(size=(FEW, 4 * 4 * 3))
    drawn = 128 + 20 * np.random.default_rng(seed).normal(size=(n, FEW)) @ ways
    images = drawn.clip(0, 255).astype(np.uint8).reshape(n, 4, 4, 3)
    return StimulusTable(tuple(f"p{row}" for row in range(n)), images, None)


def bank_of(n: int, encoders) -> Targets:
    """Compute features of pictures that nobody was shown."""
    return compute_targets(pictures(n, 31), encoders, features=("z", "s"), blocks=SPEC.blocks, seen=SPEC.seen)


def test_it_is_the_gaussian_posterior_mean() -> None:
    """The map is the one that covariances tell, computed by hand; its spread is told, and undone by the power."""
    rng = np.random.default_rng(0)
    mixing, onto = rng.normal(size=(N_FEATURES, N_FEATURES)), rng.normal(size=(N_FEATURES, N_ANSWERS))
    bank = (rng.normal(size=(N_BANK, N_FEATURES)) @ mixing + 3).astype(np.float32)
    answers = (bank @ onto - 1).astype(np.float32)
    found = fit_posterior(answers, {"z": bank, "s1": bank[:, :2]}, {"z": 0.0, "s1": 1.0})
    prior = mixing.T @ mixing
    exact = np.linalg.solve(onto.T @ prior @ onto + np.eye(N_ANSWERS), onto.T @ prior)
    np.testing.assert_allclose(found.maps["z"].weights, exact, atol=0.03)
    np.testing.assert_allclose(found.centre, (3 * np.ones(N_FEATURES)) @ onto - 1, atol=0.1)
    new = rng.normal(size=(N_BANK, N_FEATURES)) @ mixing + 3
    said = (new @ onto - 1 + rng.normal(size=(N_BANK, N_ANSWERS)) - found.centre).astype(np.float32)
    decoded = found.maps["z"](said)
    slopes = [np.polyfit(decoded[:, k], new[:, k], 1)[0] for k in range(N_FEATURES)]
    np.testing.assert_allclose(slopes, 1, atol=0.05)  # a posterior mean is right on average
    spread = found.maps["s1"](said).std(axis=0)
    np.testing.assert_allclose(np.square(spread).sum(), np.square(new[:, :2].std(axis=0)).sum(), rtol=0.03)


def in_waves(windows: list[Window], seed: int, waves: float = WAVES) -> list[Window]:
    """Add what all brains do: few large waves that have nothing to do with the picture, at all channels together."""
    shape = windows[0].data.shape
    shapes = np.random.default_rng(6).normal(size=(30, shape[0] * shape[1]))
    drawn = waves * 1e-6 * np.random.default_rng([seed, 9]).normal(size=(len(windows), 30)) @ shapes
    return [
        replace(one, data=one.data + own.reshape(shape).astype(np.float32))
        for one, own in zip(windows, drawn, strict=True)
    ]


def test_pictures_that_nobody_was_shown_help_where_noise_is_large(
    window_maker: Callable[..., list[Window]], channels: Channels, encoders
) -> None:
    """With few windows in large waves z of new pictures is nearer the truth than ridge's; training says so."""
    everything = pictures(120, 8)
    shown, new = everything.select(everything.ids[:60]), everything.select(everything.ids[60:])
    first, second = (in_waves(window_maker(everything, channels, noise=1.0, seed=seed), seed) for seed in (1, 2))
    training = first[:60] + second[:60]
    bundle = fit(training, shown, encoders, SPEC, image_bank=bank_of(3000, encoders))
    plain = fit(training, shown, encoders, SPEC.model_copy(update={"encoding": None}))
    truth = encoders.encode_latents(new.images).reshape(60, -1)
    r = {}
    for name, model in (("posterior", bundle), ("ridge", plain)):
        decoded = np.stack([one.decoded("z") for one in model.decode(first[60:])])
        r[name] = np.mean([np.corrcoef(decoded[:, k], truth[:, k])[0, 1] for k in range(truth.shape[1])])
    assert r["posterior"] > r["ridge"] + 0.05
    told = bundle.meta["scores"]["z"]
    assert told["used"] == "posterior"
    assert told["posterior"]["r"] > told["ridge"]["r"] + 0.2
    assert bundle.meta["scores"]["s1"]["posterior"]["selection_r"] > 0


def test_where_ridge_does_better_that_is_said(
    window_maker: Callable[..., list[Window]], channels: Channels, encoders, caplog: pytest.LogCaptureFixture
) -> None:
    """In noise that is hardly more than white there is nothing to gain, and a line says what to leave out."""
    shown = pictures(60, 8)
    made = [in_waves(window_maker(shown, channels, noise=1.0, seed=seed), seed, waves=0.5) for seed in (1, 2)]
    bundle = fit(made[0] + made[1], shown, encoders, SPEC, image_bank=bank_of(1000, encoders))
    told = bundle.meta["scores"]["z"]
    assert told["posterior"]["r"] < told["ridge"]["r"]
    assert "z is decoded better by ridge" in caplog.text
    assert "take it out of decoder.encoding.posterior" in caplog.text


def test_a_bundle_keeps_it(windows: list[Window], stimuli: StimulusTable, encoders, tmp_path: Path) -> None:
    """Windows are decoded alike before and after a save; what is not decoded stays."""
    bundle = fit(windows, stimuli, encoders, SPEC, image_bank=bank_of(300, encoders))
    bundle.save(tmp_path / "bundle")
    model = bundle.models[WHOLE]
    assert isinstance(model, LinearModel)
    model.posterior, kept = None, model.posterior
    plain = bundle.decode(windows[:3])
    model.posterior = kept
    found, again = (each.decode(windows[:3]) for each in (bundle, Bundle.load(tmp_path / "bundle")))
    for one, other, ridge in zip(found, again, plain, strict=True):
        for name in ("z", "s1"):
            np.testing.assert_array_equal(one.decoded(name), other.decoded(name))
            assert not np.allclose(one.decoded(name), ridge.decoded(name))
        assert one.confidence == ridge.confidence
        out = ~one.s[1].mask
        np.testing.assert_array_equal(one.s[1].values[out], ridge.s[1].values[out])


@pytest.mark.parametrize("feature", ["z", "s"])
def test_one_feature_alone(feature: str, windows: list[Window], stimuli: StimulusTable, encoders) -> None:
    """What is not named is decoded by ridge."""
    bank, encoding = bank_of(300, encoders), EncodingSpec.model_validate({"features": ("blocks",)})
    own = encoding.model_copy(update={"posterior": (feature,)})
    specs = [SPEC.model_copy(update={"encoding": one}) for one in (encoding, own)]
    plain, found = (fit(windows, stimuli, encoders, spec, image_bank=bank).decode(windows[:1])[0] for spec in specs)
    for name, of in (("z", "z"), ("s1", "s")):
        assert np.array_equal(plain.decoded(name), found.decoded(name)) is (of != feature)


def test_what_it_lacks_is_one_line(
    window_maker: Callable[..., list[Window]], stimuli: StimulusTable, channels: Channels, encoders
) -> None:
    """No bank, too few pictures, a prior beside it: each is said."""
    made = [window_maker(stimuli, channels, noise=1.0, seed=seed) for seed in (1, 2, 3)]
    with pytest.raises(TrainingError, match=r"set data\.image_bank to how many"):
        fit(made[0], stimuli, encoders, SPEC)
    bank = bank_of(50, encoders)
    small = replace(bank, seen={"thumbnail": bank.seen["thumbnail"][:, :5]})
    with pytest.raises(TrainingError, match=r"data\.image_bank give 5 numbers of 'thumbnail', .* at least as large"):
        fit(made[0], stimuli, encoders, SPEC, image_bank=small)
    few = [window for windows in made for window in windows[:9]]
    with pytest.raises(TrainingError, match="one participant and at least ten pictures"):
        fit(few, stimuli, encoders, SPEC, image_bank=bank_of(50, encoders))
    with pytest.raises(ValueError, match="takes the place of structure_prior"):
        DecoderSpec(encoding={"posterior": ("s",)}, structure_prior={})
    with pytest.raises(ValueError, match=r"encoding\.posterior decodes z: add it to features"):
        DecoderSpec(features=("s",), encoding={"posterior": ("z",)})
    with pytest.raises(ValueError, match="Input should be 'z' or 's'"):
        DecoderSpec(encoding={"posterior": ("c",)})
