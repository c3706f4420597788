"""Patterns and time courses against a simulated participant whose sources and latencies are known."""

from dataclasses import dataclass

import numpy as np
import pytest

from decoder.errors import TrainingError
from decoder.evaluation.patterns import patterns
from decoder.evaluation.timecourse import Decodability, Smear, decodability, edges, onset, sliding
from decoder.simulation.eeg import SFREQ, Participant, Truth, waveform
from decoder.solvers.ridge import decompose, fit_ridge
from tests.decoder.simple import SIMPLE

N = 600
REPEATS = 2
TIMES = np.arange(round(0.45 * SFREQ)) / SFREQ


@dataclass(frozen=True)
class World:
    """A recording cut into epochs, each with its picture, and the truth about it."""

    data: np.ndarray
    rows: np.ndarray
    truth: Truth
    feature: np.ndarray

    def amplitudes(self, *names: str) -> np.ndarray:
        """Give the true amplitudes of the sources that encode some features, trial by trial."""
        return self.truth.amplitudes[:, np.isin(self.feature, names)]


@pytest.fixture(scope="module")
def world() -> World:
    """600 pictures of coarse noise with random meanings, each shown twice to the easy participant."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8).repeat(6, axis=1).repeat(6, axis=2)
    meanings = rng.normal(size=(N, 40)).astype(np.float32)
    labels = [str(row) for row in range(N)]
    participant = Participant("eeg", SIMPLE, 3, pictures, meanings)
    raw, truth = participant.record(pictures, meanings, labels, run=1, repeats=REPEATS, soa=0.7)
    signal = raw.get_data()
    starts = np.round(truth.onsets * SFREQ).astype(int)
    data = np.stack([signal[:, s : s + len(TIMES)] for s in starts]).astype(np.float32)
    return World(data, np.array([int(name) for name in truth.labels]), truth, np.asarray(truth.sources.feature))


def decoded(world: World, targets: np.ndarray) -> np.ndarray:
    """Decode targets by ridge."""
    inputs = (1e6 * world.data[:, :, ::4]).reshape(len(world.data), -1)
    spectrum = decompose(inputs)
    weights, intercept = fit_ridge(spectrum, targets, np.full(targets.shape[1], spectrum.eigenvalues.mean()))
    return inputs @ weights + intercept


def test_the_pattern_is_haufes_formula() -> None:
    """cov(X) W cov(S)^-1, computed as it is written along the decoded axes, equals what comes from the output alone."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(300, 4, 5)) @ rng.normal(size=(5, 5))
    weights = rng.normal(size=(20, 3))
    X = data.reshape(300, -1)
    covariance = np.cov(X.T, bias=True)
    values, axes = np.linalg.eigh(weights.T @ covariance @ weights)
    turned = weights @ axes[:, ::-1]
    expected = covariance @ turned @ np.linalg.inv(turned.T @ covariance @ turned) * np.sqrt(values[::-1])
    found = patterns(data, X @ weights)
    sign = np.sign((found.components.reshape(3, -1) * expected.T).sum(axis=1))
    np.testing.assert_allclose(found.components.reshape(3, -1), sign[:, None] * expected.T, atol=1e-9)
    np.testing.assert_allclose(found.shares, values[::-1] / values.sum())


def test_a_channel_that_only_cancels_noise_has_weight_and_no_pattern() -> None:
    """Haufe's example: the second channel sees noise alone, is weighted as much, and its pattern is zero."""
    rng = np.random.default_rng(0)
    signal, noise = rng.normal(size=(2, 20_000))
    data = np.stack([signal + noise, noise], axis=1)[:, :, None]
    found = patterns(data, (data[:, :, 0] @ [1, -1])[:, None])
    assert found.strength[0, 0] == pytest.approx(1, abs=0.03)
    assert found.strength[1, 0] < 0.03


def test_components_are_in_the_signals_unit_and_add_up(world: World) -> None:
    """Scaling the decoded feature changes nothing, scaling the signal scales the pattern; squares add to strength."""
    guess = decoded(world, world.amplitudes("luminance"))
    found, scaled = patterns(world.data, guess), patterns(2 * world.data, 1e3 * guess)
    np.testing.assert_allclose(scaled.components, 2 * found.components, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(found.strength**2, (found.components**2).sum(axis=0))
    assert (np.diff(found.shares) <= 0).all()
    assert found.shares.sum() <= 1 + 1e-9


@pytest.mark.parametrize("name", ["luminance", "semantic"])
def test_patterns_recover_each_sources_topography_and_latency(world: World, name: str) -> None:
    """Source by source: topography r > 0.9 at the peak, which is within 30 ms of its own, in the median."""
    guess = decoded(world, world.amplitudes(name))
    r, late = [], []
    for source, column in zip(np.flatnonzero(world.feature == name), guess.T, strict=True):
        pattern = patterns(world.data, column[:, None]).components[0]
        peak = int((pattern**2).mean(axis=0).argmax())
        r.append(abs(np.corrcoef(pattern[:, peak], world.truth.leadfield[:, source])[0, 1]))
        late.append(TIMES[peak] - world.truth.sources.latency[source])
    assert np.median(r) > 0.9
    assert np.median(np.abs(late)) < 0.03


@pytest.mark.parametrize("name", ["luminance", "semantic"])
def test_maps_of_a_feature_are_where_and_when_its_sources_are(world: World, name: str) -> None:
    """A whole feature: strength peaks within 30 ms of the truth; its map, and leading components', r > 0.9 with it."""
    amplitudes = world.amplitudes(name) - world.amplitudes(name).mean(axis=0)
    own = world.feature == name
    course = waveform(TIMES, world.truth.sources.latency[own][:, None], world.truth.sources.width[own][:, None])
    response = (amplitudes[:, None, :] * world.truth.leadfield[:, own]) @ course
    guess = decoded(world, amplitudes)
    found = patterns(world.data, guess)
    strength = response.std(axis=0)
    peak = int((strength**2).mean(axis=0).argmax())
    assert abs(found.peak(TIMES) - TIMES[peak]) < 0.03
    assert np.corrcoef(found.strength[:, peak], strength[:, peak])[0, 1] > 0.9
    _, _, axes = np.linalg.svd(guess - guess.mean(axis=0), full_matrices=False)
    for component, axis in zip(found.components[:3], axes, strict=False):
        truth = np.einsum("n,nct->ct", amplitudes @ axis, response)
        peak = int((truth**2).mean(axis=0).argmax())
        assert abs(np.corrcoef(component[:, peak], truth[:, peak])[0, 1]) > 0.9


def test_a_decoder_that_always_says_the_same_has_no_pattern(world: World) -> None:
    """A constant is refused by name."""
    with pytest.raises(TrainingError, match="a constant has no pattern"):
        patterns(world.data, np.ones((len(world.data), 3)))


def by_picture(world: World, values: np.ndarray) -> np.ndarray:
    """Give trial-by-trial values once a picture."""
    return values[np.unique(world.rows, return_index=True)[1]]


def test_features_rise_when_their_sources_answer(world: World) -> None:
    """Low-level content is decoded first and best at its sources' latency, meaning later, each within 30 ms."""
    centres, binning = sliding(TIMES)
    parts = list((world.data @ binning).transpose(2, 0, 1) * 1e6)
    targets = {name: by_picture(world, world.amplitudes(name)) for name in ("luminance", "semantic")}
    found = decodability(parts, targets, world.rows, np.random.default_rng(0), n_permutations=40)
    latency = [world.truth.sources.latency[world.feature == name].mean() for name in targets]
    np.testing.assert_allclose(centres[found.score.argmax(axis=1)], latency, atol=0.03)
    first, second = (onset(course, *edges(TIMES, binning), Smear()) for course in found.significant)
    assert first is not None
    assert second is not None
    assert 0.04 < first.told_by < second.told_by < 0.24
    assert first.not_before is not None
    assert first.not_before < latency[0] - 0.03 < first.told_by  # its sources answer from 30 ms before their peak
    assert not found.significant[:, centres < 0.03].any()


def test_noise_alone_stays_within_its_band(world: World) -> None:
    """Signals in which nothing answers: no part passes the family-wise threshold, and most lie in their own band."""
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(len(world.rows), 20)).astype(np.float32) for _ in range(15)]
    targets = {name: by_picture(world, world.amplitudes(name)) for name in ("luminance", "semantic")}
    found = decodability(parts, targets, world.rows, rng, n_permutations=60)
    assert not found.significant.any()
    inside = (found.score >= found.low) & (found.score <= found.high)
    assert inside.mean() > 0.8
    assert all(onset(course, np.arange(15.0), np.arange(15.0), Smear()) is None for course in found.significant)


def test_family_wise_error_is_held(world: World) -> None:
    """Of 40 recordings of noise, few have any part past the threshold: 5 % are expected."""
    wrong = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows = np.arange(60)
        parts = [rng.normal(size=(60, 5)).astype(np.float32) for _ in range(4)]
        targets = {"one": rng.normal(size=(60, 3))}
        wrong += bool(decodability(parts, targets, rows, rng, n_permutations=39).significant.any())
    assert wrong <= 6


def test_categories_are_decoded_across_stretches_of_time() -> None:
    """Two categories that every stretch shares are told apart where they differ and not elsewhere."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, 200)
    silent = rng.normal(size=(200, 6)).astype(np.float32)
    telling = silent + rows[:, None].astype(np.float32)
    found = decodability(
        [silent, telling], {"category": np.eye(2)}, rows, rng, runs=np.full(200, "a"), n_permutations=60
    )
    np.testing.assert_array_equal(found.significant, [[False, True]])


def of_blocks(seed: int, *, trials: int, runs: int, effect: float = 0.0) -> Decodability:
    """Decode four categories in 64 blocks, each of which has a level of its own, and the category an effect."""
    rng = np.random.default_rng(seed)
    blocks = np.concatenate([rng.permutation(np.arange(64 // runs) % 4) for _ in range(runs)])
    rows = np.repeat(blocks, trials)
    level = np.repeat(rng.normal(size=(64, 10)), trials, axis=0) + effect * rng.normal(size=(4, 10))[rows]
    part = (level + 0.3 * rng.normal(size=level.shape)).astype(np.float32)
    of_run = np.sort(np.arange(len(rows)) % runs).astype(str)
    return decodability(
        [part],
        {"category": np.eye(4, dtype=np.float32)},
        rows,
        np.random.default_rng(1),
        runs=of_run,
        n_permutations=39,
    )


@pytest.mark.parametrize(("trials", "runs"), [(8, 1), (8, 4), (1, 1)], ids=["blocks", "runs of blocks", "no blocks"])
def test_levels_of_blocks_are_not_taken_for_categories(trials: int, runs: int) -> None:
    """Of 200 recordings in which a block's level has nothing to do with its category, about 5 % pass the threshold.

    The bounds hold 99.9 % of binomial counts of 200 at 5 %. Cut within blocks, and permuted trial by trial, it was a
    fifth of them.
    """
    passed = sum(bool(of_blocks(seed, trials=trials, runs=runs).significant.any()) for seed in range(200))
    assert 1 <= passed <= 21


def test_an_effect_in_blocks_is_found() -> None:
    """Where the category has a level of its own, half as large again as the blocks', it is found every time."""
    assert all(
        of_blocks(seed, trials=8, runs=runs, effect=1.5).significant.all() for seed in range(10) for runs in (1, 4)
    )


def test_pictures_of_a_group_are_permuted_together() -> None:
    """Pictures that go together, such as neighbours in time, are not taken for many that happen to be alike.

    Ten groups of eight pictures whose features and signal are each that of the group, and have nothing in common.
    """
    passed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rows = np.arange(80)
        part = (np.repeat(rng.normal(size=(10, 4)), 8, axis=0) + 0.3 * rng.normal(size=(80, 4))).astype(np.float32)
        target = np.repeat(rng.normal(size=(10, 2)), 8, axis=0)
        groups = np.repeat(np.arange(10), 8).astype(str)
        found = decodability([part], {"one": target}, rows, rng, groups=groups, n_permutations=39)
        passed += bool(found.significant.any())
    assert passed <= 14


def test_a_feature_that_never_changes_is_refused() -> None:
    """Nothing can be decoded of a constant, and the feature is named."""
    with pytest.raises(TrainingError, match="'z' is the same for all 30 pictures"):
        decodability([np.zeros((30, 2), np.float32)], {"z": np.ones((30, 4))}, np.arange(30), np.random.default_rng(0))
