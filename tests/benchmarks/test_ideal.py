"""The ideal observer: its likelihood is the density of what trials are, and it names what no noise hides."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from benchmarks.ideal import IdealObserver, identified
from benchmarks.thingslike_data import Trials
from decoder.encoding.noise import fit_noise

N_CHANNELS, N_TIMES, N_PICTURES = 3, 4, 5


def small_world(rng: np.random.Generator) -> IdealObserver:
    """Return an observer of few pictures, channels and times."""
    root = rng.normal(size=(N_CHANNELS * N_TIMES,) * 2)
    noise = fit_noise(rng.normal(size=(400, len(root))) @ root, N_CHANNELS)
    answers, slopes = rng.normal(size=(2, N_PICTURES, len(root)))
    return IdealObserver(3 * answers, 40 * slopes, noise, gain_jitter=0.3, latency_jitter=0.02)


def test_the_ideal_observer_equals_brute_force() -> None:
    """Of a small case the likelihoods are scipy's, with the covariance of noise, gain and latency written out."""
    rng = np.random.default_rng(0)
    observer = small_world(rng)
    whitener = observer.noise.whiten(np.eye(N_CHANNELS * N_TIMES)).astype(np.float64)
    covariance = np.linalg.inv(whitener @ whitener.T)
    responses = 3 * rng.normal(size=(7, N_CHANNELS * N_TIMES))
    brute = [
        multivariate_normal(
            answer, covariance + 0.3**2 * np.outer(answer, answer) + 0.02**2 * np.outer(slope, slope)
        ).logpdf(responses)
        for answer, slope in zip(observer.answers, observer.slopes, strict=True)
    ]
    found = observer.log_likelihood(responses)
    np.testing.assert_allclose(found - found[:1], np.subtract(brute, brute[0]), rtol=1e-4, atol=1e-4)


def test_more_presentations_tell_more_and_noise_alone_tells_nothing() -> None:
    """Shares rise with the presentations that are added; of answers to another picture none is named right."""
    rng = np.random.default_rng(1)
    observer = small_world(rng)
    rows = np.tile(np.arange(N_PICTURES), 40)
    whitener = observer.noise.whiten(np.eye(N_CHANNELS * N_TIMES))
    noise = rng.normal(size=(len(rows), len(whitener))) @ np.linalg.inv(whitener)
    data = (0.2 * observer.answers[rows] + noise).reshape(-1, N_CHANNELS, N_TIMES).astype(np.float32)
    weak = IdealObserver(0.2 * observer.answers, observer.slopes, observer.noise, 0.0, 0.0)
    trials = Trials(data, rows, np.zeros(N_TIMES), np.zeros((1, 1), np.float32), np.zeros((1, 1, 1, 3), np.uint8))
    found = identified(weak, trials, (1, 4, 40))
    assert found["1"]["n"] == len(rows)
    assert 1 / N_PICTURES < found["1"]["top1"] < found["4"]["top1"] <= found["40"]["top1"]
    assert found["40"]["top1"] == pytest.approx(1.0)
    assert found["1"]["top5"] == 1.0
    shifted = Trials(data, (rows + 1) % N_PICTURES, trials.times, trials.embeddings, trials.images)
    assert identified(weak, shifted, (40,))["40"]["top1"] == 0.0
