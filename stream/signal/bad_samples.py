"""Samples that no device can have measured, and channels that say nothing, found as the samples come."""

import numpy as np
from numpy.typing import NDArray

from stream.types.units import MOST_OF_OTHERS, MOST_OF_UNIT
from stream.types.windows import Channels

BLOCK_S = 0.1
"""Seconds; a channel's own level is estimated in blocks of this length."""
HEADROOM = 100.0
"""Multiple of what a channel has moved within a block so far by which it may jump."""
JUMPS = {"V": 1e-2, "T": 1e-9, "T/m": 1e-8}
"""What a body's channel may always jump to, in SI units: electrodes pop by millivolts. Filters do not forget much more
within a window, so a longer stay there is a new level, from which they begin anew."""
FEWEST = 5
"""Samples in a block, to estimate how far a channel moves."""
REMEMBERED_S = 60.0
"""Seconds in which a channel's level so far fades to a third."""
ANY_UNIT = 1e30
"""float32 ends at 3e38, and its squares at 2e19; sums must stay finite."""
UNSEEN = 1e9
"""Multiple of what the unit allows, before anything has been seen of a channel."""
STAYS_S = 1.0
"""Seconds after which a channel that stays bad or flat is a bad channel."""
BODY = frozenset({"eeg", "eog", "ecg", "emg", "seeg", "ecog", "dbs", "bio", "mag", "grad", "ref_meg"})
"""Kinds whose channels never stand still while they measure."""

GOOD, FLAT, BAD, LOST = 0, 1, 2, 3
"""State of a channel at a sample: it measures, does not move, says nothing of use, or there is no sample at all."""

States = NDArray[np.int8]


class BadSamples:
    """Hold the last good value of each channel over samples that are not finite or absurd.

    A sample is absurd beyond what its unit allows (`units.MOST_OF_UNIT`), unless the channel has been at such levels
    all the time: then its scale is wrong, not the sample. A channel of the body that leaps beyond what filters forget
    within a window is held, too, for a tenth of a second; if it stays there, that is its level. In any chunking the
    same.

    Parameters
    ----------
    channels : Channels
    sfreq : float
        0 for an irregular stream.

    Attributes
    ----------
    counts : ndarray, shape (n_channels,), int64
        Bad samples of each channel since the start.
    stays_bad, flat : ndarray, shape (n_channels,), bool
        Channels that have been bad, or have not moved at all, for the last second.
    recovered : list of (int, int)
        Sample, among those that the last call took, from which on a channel is good again that had stayed bad; channel.
    """

    def __init__(self, channels: Channels, sfreq: float) -> None:
        n = len(channels)
        self._size = max(1, round(BLOCK_S * sfreq))
        self._stays = max(3, round(STAYS_S * sfreq)) if sfreq else 64
        self._keep = float(np.exp(-1 / max(1.0, REMEMBERED_S * sfreq / self._size))) if sfreq else 1.0
        self._most = np.array([MOST_OF_UNIT.get(unit, MOST_OF_OTHERS) for unit in channels.units])
        self._body = np.array([kind in BODY for kind in channels.kinds])
        jumps = np.array([JUMPS.get(unit, MOST_OF_OTHERS) for unit in channels.units])
        leaps = self._body if self._size >= FEWEST else np.zeros(n, np.bool_)
        self._jump = np.where(leaps, np.minimum(jumps, self._most), self._most)
        self._settled = np.zeros(n, np.bool_)  # at a new level since the last block
        self._newest = np.full(n, np.nan)  # the newest sample of a chunk in which some were bad
        self._raw = np.zeros(n)  # largest sample of the block so far, bad or not
        self._ceiling = np.minimum(self._most * UNSEEN, ANY_UNIT)  # what a sample may be, at most...
        self._floor = -self._ceiling  # ...and at least
        self._centre = np.zeros(n)  # where the channel was last
        self._level = np.zeros(n)  # how far it moves from there within a block
        self._held = np.zeros(n)
        self._bad_for = np.zeros(n, np.int64)
        self._low, self._high = np.full(n, np.inf), np.full(n, -np.inf)  # of the block so far
        self._first = np.full(n, np.nan)  # each channel's first sample of this block
        self._still = np.zeros(n, np.bool_)  # channels that have not moved in this block
        self._flat_for = np.zeros(n, np.int64)
        self._filled = 0
        self._clean: list[NDArray[np.float64]] = []  # samples of this block that were only looked at for absurd ones
        self._quiet = False  # no channel is bad, or stands still
        self._begun = False
        self.counts = np.zeros(n, np.int64)
        self.flat = np.zeros(n, np.bool_)
        self.recovered: list[tuple[int, int]] = []

    @property
    def stays_bad(self) -> NDArray[np.bool_]:
        """Channels that have been bad for the last second."""
        return self._bad_for >= self._stays

    def feed(self, data: NDArray[np.float64]) -> tuple[NDArray[np.float64], States | None]:
        """Add the next samples.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels)

        Returns
        -------
        data : ndarray, shape (n, n_channels)
            Finite; the same array where nothing is bad.
        states : ndarray of int8, shape (n, n_channels), or None
            `GOOD`, `FLAT` or `BAD`; None where all is good.
        """
        self.recovered = []
        # Nearly every chunk of a live stream ends here: what else is learnt of it waits for the end of its block, and
        # that for the samples after it, so that no window waits for what is learnt from its last block.
        inside = self._quiet and len(data) and self._filled + len(data) <= self._size
        if inside and (data >= self._floor).all() and (data <= self._ceiling).all():
            self._clean.append(data)
            self._filled += len(data)
            self._held = data[-1]
            return data, None
        if not self._begun and len(data):
            self._learn(data[: self._size])
        parts: list[NDArray[np.float64]] = []
        states: list[States | None] = []
        at = 0
        self._catch_up()
        while at < len(data):
            if self._filled >= self._size:
                self._close()
            part, state = self._feed(data[at : at + self._size - self._filled], at)
            parts.append(part)
            states.append(state)
            at += len(part)
            self._filled += len(part)
        self._quiet = not (self._bad_for.any() or self._still.any() or self.flat.any())
        if all(state is None for state in states):
            return data, None
        filled = [
            np.zeros(part.shape, np.int8) if state is None else state for part, state in zip(parts, states, strict=True)
        ]
        return np.concatenate(parts), np.concatenate(filled)

    def _catch_up(self) -> None:
        """Update how far the channels have moved in what was only looked at so far."""
        if self._clean:
            clean = np.concatenate(self._clean)
            np.minimum(self._low, clean.min(axis=0), out=self._low)
            np.maximum(self._high, clean.max(axis=0), out=self._high)
            self._clean = []

    def _learn(self, data: NDArray[np.float64]) -> None:
        """Estimate each channel's level from its first samples, some of which may be absurd."""
        self._begun = True
        if len(data) < self._size:
            return
        data = np.where(np.isfinite(data), data, np.nan)
        finite: NDArray[np.bool_] = np.logical_not(np.isnan(data).all(axis=0))
        self._centre[finite] = np.nanmedian(data[:, finite], axis=0)
        self._level[finite] = np.nanmedian(np.abs(data[:, finite] - self._centre[finite]), axis=0)
        self._draw(finite)

    def _draw(self, channels: NDArray[np.bool_]) -> None:
        """Draw the limits of some channels round where they were last."""
        reach = np.maximum(self._jump, HEADROOM * self._level)
        self._floor = np.where(channels, np.maximum(self._centre - reach, -ANY_UNIT), self._floor)
        self._ceiling = np.where(channels, np.minimum(self._centre + reach, ANY_UNIT), self._ceiling)

    def _feed(self, data: NDArray[np.float64], at: int) -> tuple[NDArray[np.float64], States | None]:
        """Add samples of one block."""
        states: States | None = None
        low, high = np.minimum.reduce(data), np.maximum.reduce(data)
        if (low >= self._floor).all() and (high <= self._ceiling).all():  # False where one is not a number
            self._held = data[-1]
            if self._bad_for.any():
                self.recovered += [(at, int(i)) for i in np.flatnonzero(self.stays_bad | self._settled)]
                self._bad_for[:] = 0
                self._settled[:] = False
        else:
            data, states = self._hold(data, at)
            low, high = data.min(axis=0), data.max(axis=0)
        np.minimum(self._low, low, out=self._low)
        np.maximum(self._high, high, out=self._high)
        if not self._filled:
            self._still = self._body & (data[0] == self._first)
            self.flat = self.flat & self._still
            self._first = data[0]
        if self._still.any() or self.flat.any():
            states = self._watch(data, states)
        return data, states

    def _hold(self, data: NDArray[np.float64], at: int) -> tuple[NDArray[np.float64], States]:
        bad = ~((data >= self._floor) & (data <= self._ceiling))
        back = (self.stays_bad | self._settled) & ~bad.all(axis=0)
        self._settled = self._settled & ~back
        np.fmax(self._raw, np.abs(data).max(axis=0), out=self._raw)
        self._newest = data[-1]
        self.recovered += [(at + int(np.argmin(bad[:, i])), int(i)) for i in np.flatnonzero(back)]
        self.counts += bad.sum(axis=0)
        rows = np.where(bad, -1, np.arange(len(data))[:, None])
        newest = np.maximum.accumulate(rows, axis=0)  # the last good row so far, -1 for one of an earlier call
        held = np.where(newest >= 0, np.take_along_axis(data, np.maximum(newest, 0), axis=0), self._held)
        self._held = held[-1].copy()
        self._bad_for = np.where(newest[-1] >= 0, len(data) - 1 - newest[-1], self._bad_for + len(data))
        return held, np.where(bad, np.int8(BAD), np.int8(GOOD))

    def _watch(self, data: NDArray[np.float64], states: States | None) -> States | None:
        """Look at the channels that have not moved of late."""
        moved = np.maximum.accumulate(data != self._first, axis=0)
        self._still &= ~moved[-1]
        if not self.flat.any():
            return states
        states = np.zeros(data.shape, np.int8) if states is None else states
        states[self.flat & ~moved & (states != BAD)] = FLAT
        self.flat = self.flat & ~moved[-1]
        return states

    def _close(self) -> None:
        """Draw the limits for the next block from this one and those before, and find flat channels."""
        moved = np.maximum(self._high - self._centre, self._centre - self._low)
        self._level = np.maximum(self._level * self._keep, moved)
        new = (self._bad_for >= self._filled) & (self._raw > 0) & (self._raw <= self._most)
        new &= np.isfinite(self._newest)
        self._centre = np.where(new, self._newest, self._held)
        self._settled |= new
        self._draw(np.ones_like(new))
        self._raw = np.zeros_like(self._raw)
        self._flat_for = np.where(self._still & (self._bad_for == 0), self._flat_for + self._filled, 0)
        self.flat = self._flat_for >= self._stays
        self._low, self._high = np.full_like(self._low, np.inf), np.full_like(self._high, -np.inf)
        self._filled = 0
