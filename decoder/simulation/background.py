"""What a simulated brain does besides seeing: 1/f activity, alpha bursts, blinks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.simulation.headmodel import leadfield

Floats = NDArray[np.float64]

ALPHA_HZ = 10.0
BLINK_PEAK = 100.0
BLINK_S = 0.35
EYES = np.array([[-0.03, 0.072, -0.02], [0.03, 0.072, -0.02]])


def coloured(n: int, n_times: int, rng: np.random.Generator) -> Floats:
    """Draw n independent time courses of power spectrum 1/f and unit variance, (n, n_times)."""
    spectrum = np.fft.rfft(rng.normal(size=(n, n_times)))
    frequency = np.arange(spectrum.shape[1], dtype=np.float64)
    # Slower than a few periods a recording would be drift, which amplifiers filter out.
    frequency[:8] = np.inf
    noise = np.fft.irfft(spectrum / np.sqrt(frequency), n_times)
    return np.asarray(noise / noise.std(axis=1, keepdims=True))


def alpha_bursts(n: int, n_times: int, sfreq: float, rng: np.random.Generator) -> Floats:
    """Draw n rhythms at 10 Hz that wax and wane together over seconds; 1 is the RMS at the height of a burst."""
    time = np.arange(n_times) / sfreq
    width = round(sfreq)
    kernel = np.hanning(2 * width)
    wander = np.convolve(rng.normal(size=n_times), kernel / np.linalg.norm(kernel), mode="same")
    envelope = np.clip(wander, 0, 2) / 2
    phase = 2 * np.pi * rng.uniform(size=(n, 1)) + 0.3 * np.cumsum(rng.normal(size=(n, n_times)), axis=1) / np.sqrt(
        sfreq
    )
    return np.asarray(np.sqrt(2) * envelope * np.sin(2 * np.pi * ALPHA_HZ * time + phase))


def blinks(info: Any, n_times: int, sfreq: float, every: float, rng: np.random.Generator) -> Floats:
    """Draw blinks at random moments, (n_channels, n_times); the strongest channel sees up to 100.

    Parameters
    ----------
    info : mne.Info
    n_times : int
    sfreq : float
    every : float
        Mean seconds from one to the next.
    rng : numpy.random.Generator
    """
    field = leadfield(info, EYES, np.array([[0.0, 0.6, 0.8]] * 2)).sum(axis=1)
    shape = np.hanning(round(BLINK_S * sfreq))
    course = np.zeros(n_times + len(shape))
    time = rng.exponential(every)
    while time * sfreq < n_times:
        start = int(time * sfreq)
        course[start : start + len(shape)] += shape * rng.uniform(0.6, 1)
        time += BLINK_S + rng.exponential(every)
    return np.outer(BLINK_PEAK * field / np.abs(field).max(), course[:n_times])
