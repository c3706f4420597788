"""Polyphase resampling of a stream, sample by sample."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from stream.errors import StreamError
from stream.signal.bad_samples import BAD, LOST, States

HALF_LENGTH = 10
"""Of the filter, in samples of the slower rate, as in scipy's resample_poly."""
LARGEST_FACTOR = 1000


def ratio(sfreq: float, target: float) -> Fraction:
    """Find the factor between two rates as a fraction of whole numbers.

    Raises
    ------
    StreamError
        The stream is irregular, or no such fraction comes within one part in 100,000.
    """
    if not sfreq:
        raise StreamError("an irregular stream cannot be resampled; leave resample out")
    factor = Fraction(target / sfreq).limit_denominator(LARGEST_FACTOR)
    if factor.numerator > LARGEST_FACTOR or abs(float(factor) * sfreq / target - 1) > 1e-5:
        raise StreamError(f"{sfreq:g} Hz cannot be resampled to {target:g} Hz by whole factors up to {LARGEST_FACTOR}")
    return factor


class Resampler:
    """Change a stream's rate by a fraction; in any chunking the same bits.

    The filter is scipy's resample_poly's (a windowed sinc at the lower Nyquist frequency, Kaiser 5). It looks
    `delay` ahead: a sample comes out so long after its own time, stamped with its own time.

    Parameters
    ----------
    factor : Fraction
        New rate over old.
    n_channels : int

    Attributes
    ----------
    delay : float
        In samples of the old rate.
    """

    def __init__(self, factor: Fraction, n_channels: int) -> None:
        from scipy import signal

        self._up, self._down = factor.numerator, factor.denominator
        slower = max(self._up, self._down)
        half = HALF_LENGTH * slower
        taps = signal.firwin(2 * half + 1, 1 / slower, window=("kaiser", 5.0)) * self._up
        self.delay = half / self._up
        self._length = -(-len(taps) // self._up)
        padded = np.zeros(self._length * self._up)
        padded[: len(taps)] = taps
        # Row p holds the taps of phase p, the newest sample's last.
        self._phases = padded.reshape(self._length, self._up).T[:, ::-1].copy()
        self._states = np.full((self._length, n_channels), LOST, np.int8)
        self._history = np.zeros((self._length, n_channels))
        self._begun = False
        self._seen = 0

    def reset(self) -> None:
        """Forget the signal so far: the next sample is taken for the level it always had."""
        self._begun = False

    def feed(
        self, data: NDArray[np.float64], index: int, states: States | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64], States]:
        """Resample the next samples.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels)
        index : int
            Grid place of the first.
        states : ndarray of int8, shape (n, n_channels), optional
            See `stream.signal.bad_samples`; left out, all are good.

        Returns
        -------
        data : ndarray, shape (m, n_channels)
            At the new rate.
        newest : ndarray of int, shape (m,)
            The sample that completed each.
        ahead : ndarray, shape (m,)
            Each one's own place minus `newest`, in samples of the old rate: mostly negative, by `delay`.
        states : ndarray of int8, shape (m, n_channels)
            The worse of the samples on both sides of its own place; `BAD` where any of those that it stands for is.
        """
        if not len(data):
            return (
                np.empty((0, data.shape[1])),
                np.empty(0, np.intp),
                np.empty(0),
                np.empty((0, data.shape[1]), np.int8),
            )
        if not self._begun:
            self._history[:], self._states[:], self._begun = data[0], LOST, True
        joined = np.concatenate([self._history, data])
        states = np.zeros(data.shape, np.int8) if states is None else states
        states = np.concatenate([self._states, states])
        first, stop = -(-index * self._up // self._down), -(-(index + len(data)) * self._up // self._down)
        steps = np.arange(first, stop) * self._down
        newest, phase = steps // self._up - index, steps % self._up
        out = np.empty((len(steps), data.shape[1]))
        for i, (at, p) in enumerate(zip(newest.tolist(), phase.tolist(), strict=True)):
            # A plain product and sum, not BLAS: its order of summation must not hang on the chunk.
            out[i] = (self._phases[p][:, None] * joined[at + 1 : at + 1 + self._length]).sum(axis=0)
        ahead = phase / self._up - self.delay
        centre = np.round(newest + ahead, 9)
        before, after = (self._length + edge(centre).astype(np.intp) for edge in (np.floor, np.ceil))
        worse = np.maximum(states[before], states[after])
        if len(steps) and (states == BAD).any():
            reach = self._down / self._up / 2
            nearest, furthest = (
                self._length + edge(centre + way * reach).astype(np.intp)
                for edge, way in ((np.floor, -1), (np.ceil, 1))
            )
            for step in range(int((furthest - nearest).max()) + 1):
                row = np.clip(nearest + step, 0, np.minimum(furthest, len(states) - 1))
                worse = np.where(states[row] == BAD, np.maximum(worse, BAD), worse)
        rows = centre >= -self._seen  # nothing is said about the time before the stream
        self._history, self._states = joined[-self._length :], states[-self._length :]
        self._seen += len(data)
        return out[rows], newest[rows].astype(np.intp), ahead[rows], worse[rows]
