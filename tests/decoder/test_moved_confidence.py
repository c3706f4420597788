"""After a bundle was moved it believes the windows it decodes as much as a bundle does that was trained on such."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import expm

from decoder.adaptation.recalibrate import recalibrate
from decoder.alignment.realign import Realigner, RealignSpec
from decoder.data.splits import group_folds
from decoder.data.stimuli import StimulusTable
from decoder.estimators.classifiers import CategorySpec
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.models.bundle import Bundle
from decoder.models.category import fit_category
from decoder.models.confidence import fit_typicality
from decoder.models.embedding import EmbeddingModel
from decoder.models.linear import LinearModel
from decoder.preprocessing.session_moments import fit_session_moments
from decoder.spec import DecoderSpec
from decoder.training.train import fit
from stream.types.windows import Channels, Window
from tests.decoder.conftest import N_CHANNELS, make_windows
from tests.decoder.test_badchannels import FAMILIES
from tests.decoder.test_category import CHANNELS, labelled, templates, trials
from tests.decoder.test_category import window as category_window
from tests.decoder.test_embedding import CONV, PooledEncoders

pytestmark = pytest.mark.slow

KINDS = {
    **{name: spec for name, spec in FAMILIES.items() if spec.category is None},
    "conv": DecoderSpec(features=("c", "e"), family="conv", conv=CONV.model_copy(update={"epochs": 30, "cv_folds": 3})),
    "embedding": DecoderSpec(features=("c", "e"), family="ridge", text_embedding_from="embedding"),
    "structure": DecoderSpec(features=("s",), blocks=(2,)),
}


def gains(windows: list[Window]) -> list[Window]:
    """Scale each channel by a factor of its own."""
    factors = np.exp(np.random.default_rng(3).normal(size=(N_CHANNELS, 1)))
    return [replace(w, data=(factors * w.data).astype(np.float32)) for w in windows]


def turned_cap(windows: list[Window]) -> list[Window]:
    """Mix channels as a cap put on anew does."""
    skew = np.random.default_rng(4).normal(size=(N_CHANNELS, N_CHANNELS))
    return [replace(w, data=(expm(0.1 * (skew - skew.T)) @ w.data).astype(np.float32)) for w in windows]


def another_course(windows: list[Window]) -> list[Window]:
    """Let responses and noise come later, as no map of channels undoes: new weights are needed."""
    return [replace(w, data=np.roll(w.data, 7, axis=1)) for w in windows]


def unchanged(windows: list[Window]) -> list[Window]:
    """Leave windows as they are."""
    return windows


def believed(bundle: Bundle, windows: list[Window]) -> float:
    """Mean confidence."""
    return float(np.mean([found.confidence for found in bundle.decode(windows)]))


def told(bundle: Bundle, windows: list[Window], stimuli: StimulusTable, encoders: PooledEncoders) -> float:
    """Two-way identification of the last thirty pictures by the features that confidence goes by."""
    found, images = bundle.decode(windows), stimuli.images
    truths = {
        "c": encoders.encode_text([f"caption {row}" for row in range(120)])[:, 1:],
        "z": encoders.encode_latents(images),
        "e": encoders.embed_images(images),
    }
    decoded = {"c": [f.c[1:] for f in found] if found[0].c.size else None}
    decoded |= {name: [getattr(f, name) for f in found] for name in ("z", "e")}
    if isinstance(bundle.models["all"], EmbeddingModel) and bundle.models["all"].calibrated_encoder is not None:
        decoded["c"] = None
    out = []
    for name, values in decoded.items():
        if values is None or values[0] is None:
            continue
        mean = truths[name][:90].mean(axis=0)
        out.append(two_way(correlation_matrix(truths[name][90:] - mean, np.stack(values) - mean)).mean())
    if not out:
        mask = found[0].s[2].mask
        truth = encoders.structure(images)[2][:, mask]
        values = np.stack([f.s[2].values[mask] for f in found])
        mean = truth[:90].mean(axis=0)
        out.append(two_way(correlation_matrix(truth[90:] - mean, values - mean)).mean())
    return float(np.mean(out))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, list[Window], StimulusTable], Bundle]:
    """Train each kind of bundle once, and read it from disk for each test that moves it."""
    folder = tmp_path_factory.mktemp("trained")

    def bundle(kind: str, windows: list[Window], stimuli: StimulusTable) -> Bundle:
        if not (folder / kind).exists():
            fit(windows, stimuli, PooledEncoders(stimuli), KINDS[kind]).save(folder / kind)
        return Bundle.load(folder / kind)

    return bundle


@pytest.mark.parametrize("drift", [gains, turned_cap, another_course, unchanged])
@pytest.mark.parametrize("kind", KINDS)
def test_a_moved_bundle_believes_its_session_as_a_trained_one_does_its_own(
    kind: str,
    drift: Callable[[list[Window]], list[Window]],
    trained: Callable[[str, list[Window], StimulusTable], Bundle],
    stimuli: StimulusTable,
    channels: Channels,
) -> None:
    """New pictures of the session are believed as they are by a bundle trained on as much of it; artefacts are not."""
    encoders = PooledEncoders(stimuli)
    noise = 0.5 if kind == "conv" else 1.0
    recorded = [make_windows(stimuli, channels, noise=noise, seed=seed) for seed in (1, 2, 7)]
    bundle = trained(kind, [w for one in recorded[:2] for w in one[:90]], stimuli)
    session = drift(recorded[2])
    moved = recalibrate(bundle, session[:90], stimuli, encoders)
    own = believed(bundle, recorded[2][90:])
    assert own > 0.25
    found = believed(moved, session[90:])
    score = moved.meta["scores"]["confidence"]
    if drift is another_course:
        own = 2 * score["claimed"] - 1
    assert found == pytest.approx(own, abs=0.17)
    assert score["told"] == pytest.approx(told(moved, session[90:], stimuli, encoders), abs=0.15)
    assert believed(moved, [replace(w, data=10 * w.data) for w in session[90:]]) <= 0.5 * found
    assert believed(moved, [replace(w, data=0 * w.data) for w in session[90:]]) < 0.1


def test_few_windows_of_an_unchanged_session_leave_confidence_as_it_was(
    stimuli: StimulusTable, channels: Channels
) -> None:
    """Two dozen windows, with which the bundle is rolled back: fresh ones are believed as before."""
    encoders = PooledEncoders(stimuli)
    windows = [w for seed in (1, 2, 3) for w in make_windows(stimuli, channels, noise=1.0, seed=seed)[:90]]
    bundle = fit(windows, stimuli, encoders, DecoderSpec(features=("z",)))
    session = make_windows(stimuli, channels, noise=1.0, seed=8)
    moved = recalibrate(bundle, session[:24], stimuli, encoders)
    assert believed(moved, session[90:]) == pytest.approx(believed(bundle, session[90:]), abs=0.1)


@pytest.mark.parametrize("method", ["erp", "frequency"])
def test_a_realigned_category_decoder_believes_as_it_did(method: str) -> None:
    """Realigned without labels, trials through changed gains are believed as those without; unaligned, they are not."""
    data, rows = trials(400, 1.5)
    frequencies = {"face": 9.0, "house": 13.0}
    if method == "frequency":
        rng = np.random.default_rng(5)
        time = np.arange(data.shape[2]) / 128
        waves = np.sin(2 * np.pi * np.array([9.0, 13.0])[rows, None] * time + rng.uniform(0, 6, (400, 1)))
        data = (1e-6 * (rng.normal(size=data.shape) + rng.normal(size=(1, 4, 1)) * waves[:, None])).astype(np.float32)
    spec = CategorySpec(choose=None) if method == "erp" else CategorySpec(method="frequency", frequencies=frequencies)
    model = fit_category(labelled(data[:250], rows[:250]), templates(), spec)[0]
    moments = fit_session_moments(data[:250])
    bundle = Bundle({"all": model}, CHANNELS, sfreq=128.0, n_times=64, tmin=0.0, moments=moments)
    factors = np.array([3.0, 0.3, 2.0, 0.5])[:, None]
    plain = [category_window(one, "x", float(t)) for t, one in enumerate(data[250:])]
    drifted = [replace(w, data=(factors * w.data).astype(np.float32)) for w in plain]
    realigner = Realigner(bundle, RealignSpec(every=30, memory=90))
    for window in drifted[:90]:
        realigner.decode([window])
        realigner.follow()
    assert realigner.state.active
    found = float(np.mean([realigner.decode([window])[0].confidence for window in drifted[90:]]))
    assert believed(bundle, drifted[90:]) < 0.1
    assert found == pytest.approx(believed(bundle, plain[90:]), abs=0.05)


def test_typicality_of_few_windows_takes_fresh_ones_for_usual() -> None:
    """Of thirty windows of forty channels, those held out tell what is usual: fresh ones are typical, artefacts not."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(40, 40))
    data = (mixing @ rng.normal(size=(230, 40, 25))).astype(np.float32)
    folds = group_folds([str(row) for row in range(30)], 5, rng)
    held_out = fit_typicality(data[:30], folds)
    assert held_out(data[30:]).mean() > 0.9
    assert fit_typicality(data[:30])(data[30:]).mean() < held_out(data[30:]).mean()
    assert held_out(10 * data[30:]).mean() < 0.05


def test_the_error_reported_is_that_of_new_windows(stimuli: StimulusTable, channels: Channels) -> None:
    """Over sessions of another person's, the error after moving is what the moved bundles do on new pictures.

    The least of ten candidates by the windows that chose it would be too small; that before is nobody's choice.
    """
    encoders = PooledEncoders(stimuli)
    spec = DecoderSpec(features=("z",))
    bundle = fit(make_windows(stimuli, channels, noise=2.0, seed=1)[:60], stimuli, encoders, spec)
    truth = encoders.encode_latents(stimuli.images).reshape(len(stimuli), -1)
    reported, shown, before, before_shown = [], [], [], []
    rng = np.random.default_rng(0)
    for seed in range(20):
        session = make_windows(stimuli, channels, noise=4.0, seed=100 + seed)
        turn, _ = np.linalg.qr(rng.normal(size=(N_CHANNELS, N_CHANNELS)))
        session = [replace(w, data=(turn @ w.data).astype(np.float32)) for w in session]
        order = rng.permutation(len(session))
        rows, others = order[:24], order[24:]
        moved = recalibrate(bundle, [session[row] for row in rows], stimuli, encoders, seed=seed)
        told = moved.meta["recalibrated"]["heads"]["z"]
        reported.append(told["error_after"])
        before.append(told["error_before"])
        power = np.square(truth[rows] - truth[rows].mean(axis=0)).sum() / (len(rows) - 1) * len(others)
        for one, out in ((moved, shown), (bundle, before_shown)):
            decoded = np.stack([np.ravel(f.z) for f in one.decode([session[row] for row in others])])
            out.append(float(np.square(decoded - truth[others]).sum() / power))
    # The reported errors are in units of the variance about the windows' own mean, which is 23 / 24 of the true one.
    difference = 23 / 24 * np.array(reported) - np.array(shown)
    assert abs(difference.mean()) < 3 * difference.std(ddof=1) / np.sqrt(20) + 0.01
    difference = 23 / 24 * np.array(before) - np.array(before_shown)
    assert abs(difference.mean()) < 3 * difference.std(ddof=1) / np.sqrt(20) + 0.01


def test_the_error_reported_is_the_plain_squared_error(stimuli: StimulusTable, channels: Channels) -> None:
    """Where all folds choose alike, error is what ridge on the residual leaves of held-out windows, and no more."""
    encoders = PooledEncoders(stimuli)
    bundle = fit(make_windows(stimuli, channels, noise=1.0, seed=1), stimuli, encoders, DecoderSpec(features=("z",)))
    session = another_course(make_windows(stimuli, channels, noise=1.0, seed=7))
    moved = recalibrate(bundle, session, stimuli, encoders, seed=3)
    told = moved.meta["recalibrated"]["heads"]["z"]
    old, new = bundle.models["all"], moved.models["all"]
    assert isinstance(old, LinearModel)
    assert isinstance(new, LinearModel)
    data = np.stack([w.data for w in session])
    truth = encoders.encode_latents(stimuli.images).reshape(len(stimuli), -1).astype(np.float64)
    groups = list(stimuli.ids)
    left = {"error_before": 0.0, "error_after": 0.0}
    for train, test in group_folds(groups, 5, np.random.default_rng(3)):
        for name, prepare in (("error_before", old.preprocessor), ("error_after", new.preprocessor)):
            inputs = prepare(data).astype(np.float64)
            decoded = inputs @ old.heads[0].weights + old.heads[0].intercept
            if name == "error_after":
                X, residual = inputs[train] - inputs[train].mean(axis=0), (truth - decoded)[train]
                scatter = X.T @ X
                level = np.linalg.eigvalsh(scatter)
                level = level[level > 1e-9 * level[-1]].mean()
                ridge = np.linalg.solve(scatter + told["penalty"] * level * np.eye(len(scatter)), X.T @ residual)
                decoded += residual.mean(axis=0) + (inputs - inputs[train].mean(axis=0)) @ ridge
            left[name] += np.square(decoded - truth)[test].sum() / np.square(truth - truth.mean(axis=0)).sum()
    assert told["error_before"] == pytest.approx(left["error_before"], rel=2e-3)
    assert told["error_after"] == pytest.approx(left["error_after"], rel=2e-3)
