"""Running statistics of a stream, with a memory that grows from the first sample and then fades exponentially."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


class RunningMean:
    """Mean so far, the sample itself included; older samples weigh exp(-age / memory).

    Parameters
    ----------
    memory : float
        In samples.
    """

    def __init__(self, memory: float) -> None:
        self._keep = float(np.exp(-1.0 / memory))
        self._first: Rows | None = None
        self._state: Rows | None = None

    def reset(self) -> None:
        """Begin anew with the next sample."""
        self._first = self._state = None

    def feed(self, data: Rows) -> Rows:
        """Return the mean at each of the next samples, shape (n, n_channels)."""
        from scipy import signal

        if not len(data):
            return data
        if self._first is None or self._state is None:
            self._first = data[0].copy()
            self._state = np.zeros((1, data.shape[1] + 1))
        columns = np.concatenate([data - self._first, np.ones((len(data), 1))], axis=1)
        sums, self._state = signal.lfilter([1.0], [1.0, -self._keep], columns, axis=0, zi=self._state)
        mean: Rows = sums[:, :-1] / sums[:, -1:] + self._first
        return mean


class PercentSignal:
    """Percent change against the running mean; 0 where that is 0."""

    def __init__(self, memory: float) -> None:
        self._mean = RunningMean(memory)
        self.reset = self._mean.reset

    def feed(self, data: Rows) -> Rows:
        """Convert the next samples, shape (n, n_channels)."""
        mean = self._mean.feed(data)
        return 100.0 * np.divide(data - mean, mean, out=np.zeros_like(mean), where=mean != 0)


class Drift:
    """Takes out the straight line that fits the signal so far best, at its present end.

    Discounted least squares of level and slope (Brown, Smoothing, Forecasting and Prediction, 1963, ch. 9), weights
    exp(-age / memory). The first sample gives 0, and so does the second: a line goes through any two points.

    Parameters
    ----------
    memory : float
        In samples.
    """

    def __init__(self, memory: float) -> None:
        self._keep = float(np.exp(-1.0 / memory))
        self.reset()

    def reset(self) -> None:
        """Begin anew with the next sample."""
        self._weights = np.zeros(3)  # sums of w, w k, w k^2 over ages k
        self._first: Rows | None = None
        self._level: Rows = np.zeros(0)  # sum of w x
        self._slope: Rows = np.zeros(0)  # sum of w k x

    def feed(self, data: Rows) -> Rows:
        """Remove drift from the next samples, shape (n, n_channels)."""
        out = np.empty_like(data)
        if len(data) and self._first is None:
            self._first = data[0].copy()
            self._level = self._slope = np.zeros_like(self._first)
        for i, row in enumerate(data):
            w0, w1, w2 = self._weights
            self._weights = np.array([1 + self._keep * w0, self._keep * (w1 + w0), self._keep * (w2 + 2 * w1 + w0)])
            shifted = row - self._first
            self._slope = self._keep * (self._slope + self._level)
            self._level = shifted + self._keep * self._level
            w0, w1, w2 = self._weights
            spread = w0 * w2 - w1 * w1
            now = (self._level * w2 - self._slope * w1) / spread if spread > 0 else self._level / w0
            out[i] = shifted - now
        return out
