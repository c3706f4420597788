"""What a simulated brain does besides seeing, without end: as `background`, block after block with memory in between.

Blocks have a fixed length, so that a seed gives the same samples in whatever chunks they are asked for.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.simulation.background import ALPHA_HZ, BLINK_PEAK, BLINK_S, EYES
from decoder.simulation.eeg import SFREQ, Participant, unit_rms
from decoder.simulation.headmodel import leadfield

Floats = NDArray[np.float64]

BLOCK_S = 0.5
SLOWEST_HZ = 0.01
"""Slower than this the background grows no more; offline, it ends at eight periods of the recording."""
SECTIONS_A_DECADE = 3
REFERENCE_HZ = 4.0
"""Where the filter's gain is set to that of exactly 1/f."""
RUN_IN_S = 60.0
"""Is made and thrown away, so that the slowest activity is there from the first sample."""
BLINKS_OFTEN_S = 2.0
DRIFT = 100.0
"""RMS of electrodes that drift, in uV of EEG."""
DRIFT_S = 20.0
"""Time constant of the drift."""


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """What a participant or an amplifier may do to a recording besides the preset's own noise.

    Attributes
    ----------
    blinks : bool
        Blink every two seconds.
    drift : bool
        Let the electrodes drift by 100 uV (MEG: the sensors by 2.5 pT) within tens of seconds.
    drop : bool
        Lose 20 to 100 ms of samples every five seconds or so.
    jitter : bool
        Stamp chunks with errors of 4 ms (standard deviation).
    """

    blinks: bool = False
    drift: bool = False
    drop: bool = False
    jitter: bool = False


class PinkFilter:
    """Turn white noise into noise of power spectrum 1/f, chunk by chunk.

    Zeros and poles alternate at even distances of log frequency (Keshner 1982), within 0.3 dB from 0.01 Hz to a third
    of the rate.

    Parameters
    ----------
    n : int
        Time courses.
    sfreq : float
        Of what is filtered; with unit variance between 0.01 Hz and half of the rate that `Participant.record` has.
    """

    def __init__(self, n: int, sfreq: float) -> None:
        from scipy.signal import sosfreqz

        count = int(np.ceil(SECTIONS_A_DECADE * np.log10(sfreq / SLOWEST_HZ)))
        poles = SLOWEST_HZ * 10 ** (np.arange(count) / SECTIONS_A_DECADE)
        zeros = poles * 10 ** (0.5 / SECTIONS_A_DECADE)
        self._sos = np.zeros((count, 6))
        self._sos[:, [0, 3]] = 1
        self._sos[:, 1], self._sos[:, 4] = -np.exp(-2 * np.pi * np.stack([zeros, poles]) / sfreq)
        _, gain = sosfreqz(self._sos, [REFERENCE_HZ], fs=sfreq)
        density = 1 / (REFERENCE_HZ * np.log(SFREQ / 2 / SLOWEST_HZ))
        self._sos[0, :3] *= np.sqrt(density * sfreq / 2) / np.abs(gain[0])
        self._state = np.zeros((count, n, 2))

    def __call__(self, white: Floats) -> Floats:
        """Filter the next samples, (n, n_times)."""
        from scipy.signal import sosfilt

        out, self._state = sosfilt(self._sos, white, zi=self._state)
        return np.asarray(out)


class Ongoing:
    """A participant's background, alpha, sensor noise and blinks as an endless stream.

    Parameters
    ----------
    participant : Participant
    sfreq : float
    rng : numpy.random.Generator
    misbehaviour : Misbehaviour
        Whether blinks are frequent, and electrodes drift.
    """

    def __init__(
        self, participant: Participant, sfreq: float, rng: np.random.Generator, misbehaviour: Misbehaviour
    ) -> None:
        preset, unit = participant.preset, participant.unit
        self._rng, self._sfreq, self._block = rng, sfreq, round(BLOCK_S * sfreq)
        fields = participant.background_fields
        self._fields = fields * preset.background * unit / np.sqrt(np.mean((fields**2).sum(axis=1)))
        self._alpha_fields = preset.alpha * unit * unit_rms(participant.alpha_fields) / 2
        # White noise has the same density at any rate.
        self._sensor = preset.sensor * unit * np.sqrt(sfreq / SFREQ)
        self._pink = PinkFilter(fields.shape[1], sfreq)
        kernel = np.hanning(2 * round(sfreq))
        self._kernel = kernel / np.linalg.norm(kernel)
        self._wander = np.zeros(len(kernel) - 1)
        self._phase = 2 * np.pi * rng.uniform(size=(self._alpha_fields.shape[1], 1))
        self._blinks = _Blinks(
            participant, sfreq, BLINKS_OFTEN_S if misbehaviour.blinks else preset.blink_every, rng, self._block
        )
        self._drift = DRIFT * unit if misbehaviour.drift else 0.0
        self._drifting = np.asarray(rng.normal(size=fields.shape[0]))
        self._left = np.empty((len(fields), 0))
        self._run_in()

    def take(self, n: int) -> Floats:
        """Return the next n samples, (n_channels, n), in V or T."""
        blocks = [self._left]
        while sum(block.shape[1] for block in blocks) < n:
            blocks.append(self._next())
        whole = np.concatenate(blocks, axis=1)
        self._left = whole[:, n:].copy()
        return whole[:, :n]

    def _run_in(self) -> None:
        for _ in range(round(RUN_IN_S / BLOCK_S)):
            self._pink(self._rng.normal(size=(self._fields.shape[1], self._block)))
        self._envelope()

    def _next(self) -> Floats:
        data: Floats = self._fields @ self._pink(self._rng.normal(size=(self._fields.shape[1], self._block)))
        data += self._alpha_fields @ self._alpha()
        data += self._sensor * self._rng.normal(size=data.shape)
        data += self._blinks.next()
        if self._drift:
            data += self._drifts()
        return data

    def _envelope(self) -> Floats:
        """Return how strong alpha is, 0 to 1: slow noise of unit variance, cut off below 0 and at 2."""
        from scipy.signal import lfilter

        wander, self._wander = lfilter(self._kernel, 1, self._rng.normal(size=self._block), zi=self._wander)
        return np.asarray(np.clip(wander, 0, 2) / 2)

    def _alpha(self) -> Floats:
        steps = 0.3 / np.sqrt(self._sfreq) * self._rng.normal(size=(len(self._phase), self._block))
        steps += 2 * np.pi * ALPHA_HZ / self._sfreq
        phase = self._phase + np.cumsum(steps, axis=1)
        self._phase = phase[:, -1:] % (2 * np.pi)
        return np.asarray(np.sqrt(2) * self._envelope() * np.sin(phase))

    def _drifts(self) -> Floats:
        """Let each electrode wander on a straight line from block to block, as slow as an AR(1) process."""
        keep = np.exp(-BLOCK_S / DRIFT_S)
        last: Floats = self._drifting
        self._drifting = keep * last + np.sqrt(1 - keep**2) * self._rng.normal(size=last.shape)
        share = np.arange(self._block) / self._block
        return np.asarray(self._drift * (np.outer(last, 1 - share) + np.outer(self._drifting, share)))


class _Blinks:
    """Blinks at random moments, some of which go on in the next block."""

    def __init__(
        self, participant: Participant, sfreq: float, every: float, rng: np.random.Generator, block: int
    ) -> None:
        field = leadfield(participant.info, EYES, np.array([[0.0, 0.6, 0.8]] * 2)).sum(axis=1)
        self._field: Any = participant.unit * BLINK_PEAK * field / np.abs(field).max()
        self._shape = np.hanning(round(BLINK_S * sfreq))
        self._sfreq, self._every, self._rng, self._block = sfreq, every, rng, block
        self._course = np.zeros(block + len(self._shape))
        self._start = rng.exponential(every) * sfreq

    def next(self) -> Floats:
        """Return the next block, (n_channels, block)."""
        while self._start < self._block:
            start = int(self._start)
            self._course[start : start + len(self._shape)] += self._shape * self._rng.uniform(0.6, 1)
            self._start += (BLINK_S + self._rng.exponential(self._every)) * self._sfreq
        self._start -= self._block
        block, rest = self._course[: self._block], self._course[self._block :]
        self._course = np.concatenate([rest, np.zeros(self._block)])
        return np.asarray(np.outer(self._field, block))
