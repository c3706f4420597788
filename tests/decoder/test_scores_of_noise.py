"""On noise every score that training reports lies around chance, whatever was chosen, and no window is believed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from decoder.data.stimuli import StimulusTable
from decoder.data.targets import Targets
from decoder.data.training_set import Origin, gather
from decoder.estimators.regression import RegressionSpec
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.models.bundle import Bundle
from decoder.preprocessing.preprocess import PreprocessSpec
from decoder.spec import DecoderSpec, EncodingSpec, StructurePriorSpec
from decoder.training.nested import inner_splits
from decoder.training.train import fit_targets
from minddiffuser.evaluation.verdict import verdict_of_training
from stream.types.events import Event
from stream.types.windows import Channels, Window
from tests.decoder.test_embedding import CONV

N, N_CHANNELS, N_TIMES = 100, 8, 12
SEEDS = 16
IDS = tuple(f"p{row}" for row in range(N))
CHANNELS = Channels(tuple(f"E{i}" for i in range(N_CHANNELS)), ("eeg",) * N_CHANNELS, ("V",) * N_CHANNELS)
STIMULI = StimulusTable(IDS, np.random.default_rng(0).integers(0, 256, (N, 4, 4, 3), dtype=np.uint8))
ALL = PreprocessSpec(components=None, decimate=4)
SPECS = {
    "ridge": DecoderSpec(features=("c", "z", "s"), blocks=(1, 2)),
    "one penalty": DecoderSpec(
        features=("z", "s"), blocks=(1,), preprocess=ALL, regression=RegressionSpec(per_target=False)
    ),
    "by correlation": DecoderSpec(features=("z", "s"), blocks=(1,), regression=RegressionSpec(by="correlation")),
    "gains": DecoderSpec(features=("z",), z_gain=2, regression=RegressionSpec(by="correlation")),
    "kernel": DecoderSpec(features=("z",), preprocess=PreprocessSpec(kernel="rbf")),
    "structure alone": DecoderSpec(features=("s",), blocks=(1,)),
    "two folds": DecoderSpec(features=("z", "s"), blocks=(1,), cv_folds=2),
    "embedding": DecoderSpec(features=("c", "e"), family="ridge"),
    "encoder": DecoderSpec(features=("c", "e"), conv=CONV.model_copy(update={"epochs": 8, "cv_folds": 2})),
    "structure prior": DecoderSpec(
        features=("z", "s"), blocks=(1,), structure_prior=StructurePriorSpec(epochs=1, width=8, features=20)
    ),
    "posterior": DecoderSpec(
        features=("z", "s"), blocks=(1,), encoding=EncodingSpec(features=("blocks",), posterior=("z", "s"))
    ),
}


def recorded(data: np.ndarray) -> list[Window]:
    """One window a picture."""
    return [
        Window(f"w{row}", one, CHANNELS, 100.0, float(row), 0.0, Event(float(row), IDS[row]), row + 1.0, row + 1.0)
        for row, one in enumerate(data)
    ]


def trained_on_noise(spec: DecoderSpec, seed: int) -> tuple[Bundle, float]:
    """Fit on windows that have nothing to do with the features; gives the bundle, and its mean claim on fresh ones."""
    rng = np.random.default_rng(seed)
    noise, fresh = (1e-6 * rng.normal(size=(2, N, N_CHANNELS, N_TIMES))).astype(np.float32)
    drawn = {name: rng.normal(size=(N, *shape)) for name, shape in {"c": (2, 5), "z": (2, 3, 3), "e": (8,)}.items()}
    given: dict[str, Any] = {name: drawn[name].astype(np.float32) for name in drawn if name in spec.features}
    if "s" in spec.features:
        given["s"] = {block: rng.normal(size=(N, 5 * 60)).astype(np.float16) for block in spec.blocks}
    bank_z, bank_s = rng.normal(size=(80, 2, 3, 3)).astype(np.float32), rng.normal(size=(80, 5 * 60)).astype(np.float16)
    image_bank = Targets(z=bank_z, s={1: bank_s}) if spec.image_bank_features else None
    bundle = fit_targets(recorded(noise), STIMULI, Targets(**given, grid=2), spec, image_bank=image_bank)
    return bundle, float(np.mean([found.confidence for found in bundle.decode(recorded(fresh))]))


def word_of(bundle: Bundle) -> str:
    """Return the verdict's word for a bundle's training scores."""
    found = verdict_of_training({"scores": bundle.meta["scores"], "bundle": "b"})
    assert found is not None
    return found.word


def reported(scores: Mapping[str, Any], path: str = "") -> dict[str, float]:
    """Find every score of quality, by its place: r, whose chance is 0, and shares of pictures told, less one half."""
    out = {}
    for name, value in scores.items():
        if isinstance(value, Mapping):
            if name != "selection":
                out |= reported(value, f"{path}{name}.")
        elif name == "r":
            out[path + name] = value
        elif name in {"two_way", "told", "told_by_half"}:
            out[path + name] = value - 0.5
    return out


@pytest.mark.parametrize("name", SPECS)
def test_scores_of_noise_lie_around_chance(name: str) -> None:
    """Over sixteen seeds the mean of each score is within four standard errors, by their own spread, of chance.

    The verdict of at most two of them is that it works: each has a measure to judge it by.
    Fresh noise is believed by luck only: of one seed in forty the held-out windows are told two standard errors better.
    """
    found: list[dict[str, float]] = []
    claims, words = [], []
    for seed in range(SEEDS):
        bundle, claim = trained_on_noise(SPECS[name], seed)
        found.append(reported(bundle.meta["scores"]))
        claims.append(claim)
        words.append(word_of(bundle))
    assert {"r", "told"} <= {key.split(".")[-1] for key in found[0]}
    for key in found[0]:
        values = np.array([each[key] for each in found])
        assert abs(values.mean()) < 4 * values.std(ddof=1) / np.sqrt(SEEDS), (key, values.mean())
    assert words.count("Works") <= 2, words
    assert np.mean(claims) < 0.02
    assert np.median(claims) == 0


def test_scores_are_what_fresh_windows_show() -> None:
    """Where there is a signal, what is reported is what a decoder does on pictures that nobody trained it on."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(N, 2, 3, 3)).astype(np.float32)
    mixing = rng.normal(size=(18, N_CHANNELS * N_TIMES)) / 3
    data = features.reshape(N, -1) @ mixing + rng.normal(size=(N, N_CHANNELS * N_TIMES))
    windows = recorded((1e-6 * data).reshape(N, N_CHANNELS, N_TIMES).astype(np.float32))
    spec = DecoderSpec(features=("z",))
    told, shown, words = [], [], []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(N)
        train, test = order[:70], order[70:]
        bundle = fit_targets([windows[row] for row in train], STIMULI, Targets(z=features), spec)
        told.append(bundle.meta["scores"]["z"]["two_way"])
        words.append(word_of(bundle))
        mean = features[train].mean(axis=0)
        decoded = np.stack([np.asarray(one.z) for one in bundle.decode([windows[row] for row in test])])
        shown.append(float(two_way(correlation_matrix(features[test] - mean, decoded - mean)).mean()))
    assert np.mean(told) > 0.7
    assert words == ["Works"] * 6
    assert np.mean(told) == pytest.approx(np.mean(shown), abs=0.05)


@pytest.mark.parametrize(("split", "n_folds"), [("picture", 5), ("picture", 2), ("run", 4), ("subject", 2)])
def test_what_chooses_is_never_what_is_scored(split: str, n_folds: int) -> None:
    """Neither pictures nor, where asked, runs of the held-out fold are among those by which its settings are chosen."""
    windows = recorded(np.zeros((N, N_CHANNELS, N_TIMES), np.float32)) * 2
    origins = [Origin(f"r{row % 4}", f"r{row % 4}", f"s{row // N}") for row in range(2 * N)]
    spec = DecoderSpec(split=split)  # type: ignore[arg-type]
    samples = gather(windows, STIMULI, spec, origins=origins)
    folds = samples.folds(n_folds, np.random.default_rng(0))
    for number, (train, test) in enumerate(folds):
        inner = inner_splits(samples, folds, number)
        assert inner
        for fit, aside in inner:
            assert not set(samples.groups[fit]) & set(samples.groups[aside])
            assert not (set(samples.groups[fit]) | set(samples.groups[aside])) & set(samples.groups[test])
            assert set(fit) | set(aside) <= set(train)
            if split != "picture":
                assert not (set(samples.units[fit]) | set(samples.units[aside])) & set(samples.units[test])
        rows = np.concatenate([aside for _, aside in inner])
        assert len(rows) == len(set(rows))


def test_where_nothing_can_be_chosen_by_other_windows_scores_say_so() -> None:
    """Two pictures in two folds: each training part is of one, and the scores are those of selection, by name."""
    rng = np.random.default_rng(0)
    windows = recorded(rng.normal(size=(N, N_CHANNELS, N_TIMES)).astype(np.float32))
    both = [
        Window(*(getattr(w, f) for f in Window.__slots__[:6]), windows[i % 2].event, 0, 0)
        for i, w in enumerate(windows)
    ]
    targets = Targets(z=rng.normal(size=(N, 2, 3, 3)).astype(np.float32))
    scores = fit_targets(both, STIMULI, targets, DecoderSpec(features=("z",))).meta["scores"]
    assert set(scores["z"]) == {"selection_r", "selection_two_way"}
