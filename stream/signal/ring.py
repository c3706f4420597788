"""A ring of samples: one writer, many readers, nothing allocated after the start."""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Segment:
    """Samples copied out of the ring.

    Attributes
    ----------
    data : ndarray, shape (n, n_channels), float32
        Its transpose is contiguous.
    times : ndarray, shape (n,), float64
    present : ndarray, shape (n,), bool
        False where the sample was lost and its place filled.
    """

    data: NDArray[np.float32]
    times: NDArray[np.float64]
    present: NDArray[np.bool_]


class Ring:
    """The newest samples of a stream, addressed by their count since its start.

    Writing a chunk costs O(chunk). A reader in another thread either gets what was written or None and a count in
    `overruns`: the writer may pass it at any time, so what was copied is checked after the copy.

    Parameters
    ----------
    capacity : int
        Samples kept.
    n_channels : int
    """

    def __init__(self, capacity: int, n_channels: int) -> None:
        if capacity < 1:
            raise ValueError(f"a ring of {capacity} samples cannot hold anything; ask for 1 or more")
        self.capacity = capacity
        self.overruns = 0
        # Written to once: memory that is only promised would grow, and cost page faults, while the ring fills.
        # A channel's samples lie side by side, as in a window: cutting one is a plain copy.
        self._data = np.empty((n_channels, capacity), dtype=np.float32)
        self._data.fill(0.0)
        self._times = np.zeros(capacity)
        self._present = np.zeros(capacity, dtype=np.bool_)
        self._counting = threading.Lock()  # readers may miss at once; the writer never waits for it
        self._claimed = 0  # samples begun, ahead of `stop` while a write is under way
        self._stop = 0

    @property
    def stop(self) -> int:
        """One past the newest sample."""
        return self._stop

    @property
    def start(self) -> int:
        """The oldest sample that is still there."""
        return max(0, self._claimed - self.capacity)

    def write(self, data: NDArray[np.float32], times: NDArray[np.float64], *, present: bool = True) -> None:
        """Append samples.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels)
        times : ndarray, shape (n,)
        present : bool
            False for samples that stand in for lost ones.
        """
        n = len(data)
        kept = min(n, self.capacity)  # of a longer chunk only the end can stay
        self._claimed = self._stop + n
        for place, source in self._pieces(self._stop + n - kept, self._stop + n):
            part = slice(n - kept + source.start, n - kept + source.stop)
            self._data[:, place] = data[part].T
            self._times[place] = times[part]
            self._present[place] = present
        self._stop += n

    def read(self, start: int, stop: int) -> Segment | None:
        """Copy samples start..stop, or None (and one more overrun) if they are no longer, or not yet, there."""
        n = stop - start
        out = Segment(np.empty((len(self._data), n), np.float32).T, np.empty(n), np.empty(n, np.bool_))
        if stop > self._stop:
            return None
        if start >= self.start:
            for place, part in self._pieces(start, stop):
                out.data[part] = self._data[:, place].T
                out.times[part] = self._times[place]
                out.present[part] = self._present[place]
        if start < self.start:
            with self._counting:
                self.overruns += 1
            return None
        return out

    def mean_square(self, n: int) -> NDArray[np.float64] | None:
        """Compute each channel's mean square over the newest n samples that are there, without copying them.

        Returns
        -------
        ndarray, shape (n_channels,), or None
            None where there is none, or where the writer has passed meanwhile.
        """
        stop = self._stop
        start = max(self.start, stop - n)
        if start >= stop:
            return None
        total = np.zeros(len(self._data))
        for place, _ in self._pieces(start, stop):
            part = self._data[:, place]
            total += np.einsum("ij,ij->i", part, part, dtype=np.float64)
        return total / (stop - start) if start >= self.start else None

    def time(self, index: int) -> float:
        """Return the time of one sample that is there."""
        return float(self._times[index % self.capacity])

    def row(self, index: int) -> NDArray[np.float32]:
        """Copy one sample that is there."""
        copy: NDArray[np.float32] = self._data[:, index % self.capacity].copy()
        return copy

    def position(self, time: float, since: int = 0) -> float:
        """Return where `time` falls among the samples from `since` on, in samples: 12.5 is midway from 12 to 13.

        inf after the last sample. Before the first it is extrapolated (-inf from a single sample, and for a time that
        is not a number). Times must increase from `since` on.
        """
        if np.isnan(time):
            return -np.inf
        low, high = max(self.start, since), self.stop - 1
        if high < low or time > self.time(high):
            return np.inf
        if high == low:
            return low if time == self.time(low) else -np.inf
        if time < self.time(low):
            high = low + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.time(middle) <= time else (low, middle)
        return low + (time - self.time(low)) / (self.time(high) - self.time(low))

    def _pieces(self, start: int, stop: int) -> list[tuple[slice, slice]]:
        """Return where samples start..stop lie: slices of the ring beside slices of the run."""
        first = start % self.capacity
        n = stop - start
        head = min(n, self.capacity - first)
        pieces = [(slice(first, first + head), slice(0, head))]
        if head < n:
            pieces.append((slice(0, n - head), slice(head, n)))
        return pieces
