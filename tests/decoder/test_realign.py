"""Realignment: drifted channels are mapped back, and a map that does harm is let go of."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.linalg import expm

from decoder.alignment.realign import Realigner, RealignSpec, alignment
from decoder.data.stimuli import StimulusTable
from decoder.errors import BundleError
from decoder.estimators.classifiers import CategorySpec
from decoder.evaluation.metrics import correlation_matrix, two_way
from decoder.features import Features
from decoder.models.bundle import Bundle
from decoder.models.category import fit_category
from decoder.preprocessing.session_moments import fit_session_moments
from decoder.spec import DecoderSpec
from decoder.training.train import fit
from stream.types.windows import Channels, Window
from tests.decoder.conftest import N_CHANNELS, N_TIMES, LinearEncoders
from tests.decoder.test_category import CHANNELS, labelled, templates, trials
from tests.decoder.test_category import window as category_window

SPEC = RealignSpec(every=30, memory=90)


def coloured(seed: int, n: int) -> np.ndarray:
    """Windows of correlated channels about one mean response, in volts."""
    world = np.random.default_rng(1)
    mixing, response = world.normal(size=(N_CHANNELS, N_CHANNELS)), 3 * world.normal(size=(N_CHANNELS, N_TIMES))
    noise = np.random.default_rng(seed).normal(size=(n, N_CHANNELS, N_TIMES))
    return (1e-6 * (response + mixing @ noise)).astype(np.float32)


def test_changed_gains_are_undone() -> None:
    """The map of a session whose channels were each scaled is the inverse of the scaling."""
    gains = np.random.default_rng(0).uniform(0.3, 3, N_CHANNELS)
    session = (gains[:, None] * coloured(2, 400)).astype(np.float32)
    found = alignment(fit_session_moments(coloured(1, 400)), fit_session_moments(session), 400)
    np.testing.assert_allclose(found @ np.diag(gains), np.eye(N_CHANNELS), atol=0.1)


def test_a_turned_montage_is_turned_back() -> None:
    """A mixture of channels that no symmetric map undoes is settled by the mean response."""
    skew = np.random.default_rng(3).normal(size=(N_CHANNELS, N_CHANNELS))
    turn = expm(0.15 * (skew - skew.T))
    session = (turn @ coloured(2, 400)).astype(np.float32)
    found = alignment(fit_session_moments(coloured(1, 400)), fit_session_moments(session), 400)
    before, after = (np.linalg.norm(x - np.eye(N_CHANNELS)) for x in (turn, found @ turn))
    assert after < 0.25 * before


def test_an_unchanged_session_is_left_as_it_is() -> None:
    """The map between two halves of one session is nearly the identity."""
    found = alignment(fit_session_moments(coloured(1, 400)), fit_session_moments(coloured(2, 400)), 400)
    np.testing.assert_allclose(found, np.eye(N_CHANNELS), atol=0.1)


def test_a_dead_channel_is_not_blown_up() -> None:
    """A channel that fell silent is not amplified beyond a hundredfold, and the map is finite."""
    session = coloured(2, 400)
    session[:, 4] = 0
    found = alignment(fit_session_moments(coloured(1, 400)), fit_session_moments(session), 400)
    assert np.isfinite(found).all()
    assert np.abs(found @ session[0]).max() < 10 * np.abs(coloured(1, 1)).max()


@pytest.fixture
def bundle(
    window_maker: Callable[..., list[Window]], stimuli: StimulusTable, channels: Channels, encoders: LinearEncoders
) -> Bundle:
    """Train on three noisy recordings of all pictures."""
    windows = [window for seed in (1, 2, 3) for window in window_maker(stimuli, channels, noise=3.0, seed=seed)]
    return fit(windows, stimuli, encoders, DecoderSpec(features=("z",)))


@pytest.fixture
def session(window_maker: Callable[..., list[Window]], stimuli: StimulusTable, channels: Channels) -> list[Window]:
    """Another recording of them."""
    return window_maker(stimuli, channels, noise=3.0, seed=4) + window_maker(stimuli, channels, noise=3.0, seed=5)


def mixed(windows: list[Window], map_: np.ndarray) -> list[Window]:
    """Send windows through a mixture of channels."""
    return [replace(w, data=(map_ @ w.data).astype(np.float32)) for w in windows]


def followed(realigner: Realigner, windows: list[Window]) -> list[Features]:
    """Decode, then learn from it, as the live loop does."""
    found = realigner.decode(windows)
    realigner.follow()
    return found


def told(windows: list[Window], decode: Callable, stimuli: StimulusTable, encoders: LinearEncoders) -> float:
    """Two-way identification of the last 120 windows, decoded one after the other."""
    found = [decode([window])[0].z for window in windows][-120:]
    truth = encoders.encode_latents(stimuli.images)
    return float(two_way(correlation_matrix(truth - truth.mean(axis=0), np.stack(found) - truth.mean(axis=0))).mean())


def test_a_drifted_session_is_decoded_again(
    bundle: Bundle, session: list[Window], stimuli: StimulusTable, encoders: LinearEncoders
) -> None:
    """Changed gains cost accuracy; realigned, most of it comes back, with no label looked at."""
    gains = np.exp(1.5 * np.random.default_rng(0).normal(size=N_CHANNELS))
    blind = [replace(window, event=None) for window in mixed(session, np.diag(gains))]
    realigner = Realigner(bundle, SPEC)
    clean, drifted = (told(x, bundle.decode, stimuli, encoders) for x in (session, blind))
    restored = told(blind, partial(followed, realigner), stimuli, encoders)
    assert drifted < clean - 0.04
    assert restored > drifted + 0.7 * (clean - drifted)
    assert realigner.state.learned >= 1
    assert realigner.state.rolled_back == 0


def test_a_map_that_does_harm_is_rolled_back(
    bundle: Bundle, session: list[Window], caplog: pytest.LogCaptureFixture
) -> None:
    """When the drift ends, what was learned from it hurts: it is let go of, counted, and said."""
    gains = np.exp(1.5 * np.random.default_rng(0).normal(size=N_CHANNELS))
    realigner = Realigner(bundle, SPEC)
    for window in mixed(session[:90], np.diag(gains)):
        followed(realigner, [window])
    assert realigner.state.active
    for window in session[90:120]:
        followed(realigner, [window])
    assert not realigner.state.active
    assert realigner.state.rolled_back == 1
    assert "realignment rolled back" in caplog.text
    alone, plain = realigner.decode([session[120]])[0], bundle.decode([session[120]])[0]
    np.testing.assert_array_equal(alone.z, plain.z)


def test_a_steady_session_is_decoded_to_the_bit(bundle: Bundle, session: list[Window]) -> None:
    """Where nothing has drifted no map does better, and none is taken."""
    realigner = Realigner(bundle, SPEC)
    for window in session:
        np.testing.assert_array_equal(followed(realigner, [window])[0].z, bundle.decode([window])[0].z)
    assert realigner.state.learned == 0


def test_judging_a_map_leaves_the_evidence_of_a_category_decoder_as_it_is() -> None:
    """A decoder that adds up trials says of every window what it says without judging, however often maps are judged.

    The session does not drift, so no map is taken, but one is learned and judged after every thirty windows.
    """
    data, rows = trials(300, 0.6)
    model = fit_category(labelled(data, rows), templates(), CategorySpec(choose=None, accumulate=25, forget_after=60))[
        0
    ]
    moments = fit_session_moments(data)
    bundle = Bundle({"all": model}, CHANNELS, sfreq=128.0, n_times=64, tmin=0.0, moments=moments)
    fresh, truth = trials(300, 0.6, seed=8)
    fresh = fresh[truth == 1]
    session = [category_window(one, "house", float(t)) for t, one in enumerate(fresh)]
    session = [replace(window, id=f"w{t}") for t, window in enumerate(session)]
    apart = bundle.without_memory()
    plain = [apart.decode([window])[0] for window in session]
    assert np.mean([one.c.mean() - one.categories["house"] for one in plain]) > 0.05
    realigner = Realigner(bundle, SPEC)
    for window, expected in zip(session, plain, strict=True):
        found = followed(realigner, [window])[0]
        np.testing.assert_array_equal(found.c, expected.c)
        assert found.confidence == expected.confidence
    assert realigner.state.learned == 0


def test_a_bundle_without_moments_is_refused(bundle: Bundle) -> None:
    """Single samples have no covariance to align; the message says what to do."""
    bundle.moments = None
    with pytest.raises(BundleError, match="leave 'realign' out"):
        Realigner(bundle, SPEC)
