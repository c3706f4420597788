"""The rate at which a stream really sends, held against the one it declares."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.02
"""A stream may be off its declared rate by this share: crystals are off by 0.01 %, a wrong header by much more."""
BLOCK_S = 0.1
"""Timestamps are averaged over blocks of this length, of the source at its declared rate."""
LOOK = 8
"""Durations from block to block that one look judges."""
SCALES = 5
"""Looks at durations of 1, 2, 4, 8 and 16 blocks: the longer ones see through more jitter."""
EXACT = 0.005
"""Share by which a measured rate may be wrong before it is named: half of what packets move, over the whole time."""
MOST_BLOCKS = LOOK * 2 ** (SCALES - 1) + 1
"""Blocks kept: one more than the longest look has durations."""
SHORTEST_S = 0.5
"""A look counts only if it took this long by the timestamps: what a device had saved up comes in one burst."""
EVEN = 0.4
"""Share of the spread that randomly lost samples would have; a wrong rate is more even than that."""
STANDSTILL = 0.01
"""Durations under this share of what they should be are no rate at all: the timestamps stand still."""

AT_ONCE = 0.1
"""Of a sample: a timestamp that follows the one before it so closely is of the same packet."""
LONGEST_S = 0.3
"""Of a packet; a longer one may be what a device had saved up."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the newest durations at one scale say.

    Attributes
    ----------
    share : float
        Measured rate over declared.
    right, off, wrong : bool
        Whether the rate is within `TOLERANCE`; whether it is outside, beyond what jitter explains; and beyond what lost
        samples explain.
    """

    share: float
    right: bool
    off: bool
    wrong: bool


class RateMeter:
    """Judge a stream's rate from its timestamps, in any chunking the same.

    Jitter moves the mean of a block to and fro and averages out over longer durations. Lost samples make some
    durations longer: the median hardly sees few of them, and many scatter the durations more than a wrong rate, which
    segments all alike. A rate is called wrong where two looks in a row at one scale agree on it.

    Parameters
    ----------
    sfreq : float
        Samples a second of the source, as declared.
    speed : float
        Source seconds per second of the timestamps' clock.

    Attributes
    ----------
    suspect : float or None
        The rate that the newest look at some scale found instead of the declared one, in Hz of the source; fewer
        samples may be lost ones.
    verdict : float or None
        The same, once a second look has confirmed it; None again when the rate is right.
    trusted : bool
        Whether the rate has ever been found right.
    """

    def __init__(self, sfreq: float, speed: float) -> None:
        self._sfreq = sfreq
        self._size = max(1, round(BLOCK_S * sfreq))
        self._expected = self._size / (sfreq * speed)
        self._shortest = SHORTEST_S / speed
        self._period = 1 / (sfreq * speed)
        self._longest = max(1, round(LONGEST_S * sfreq))
        self._last, self._place = np.nan, 0  # the newest timestamp, and the place of its sample in its packet
        self._part: list[NDArray[np.float64]] = []
        self._filled = 0
        self._blocks = 0
        self._means: list[float] = []
        self._looks: list[Look | None] = [None] * SCALES
        self.suspect: float | None = None
        self.verdict: float | None = None
        self.trusted = False

    def feed(self, stamps: NDArray[np.float64]) -> list[tuple[int, float | None]]:
        """Add the next timestamps, not smoothed.

        Returns
        -------
        list of (int, float or None)
            How many of these had come where `suspect` changed, and to what.
        """
        changes: list[tuple[int, float | None]] = []
        at = 0
        while at < len(stamps):
            # A block is judged when the next one begins: no window waits for what is learnt from its last block.
            if self._filled == self._size:
                before = self.suspect
                self._close()
                if self.suspect != before:
                    changes.append((at, self.suspect))
            piece = stamps[at : at + self._size - self._filled]
            self._part.append(piece)
            self._filled += len(piece)
            at += len(piece)
        return changes

    def _spread(self, stamps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return stamps with the samples of a packet, stamped at once, side by side: whole packets beat with blocks."""
        with np.errstate(invalid="ignore"):  # some may be infinite
            steps = np.diff(stamps, prepend=self._last)
        at_once = (steps >= 0) & (steps < AT_ONCE * self._period)
        self._last = float(stamps[-1])
        if not at_once.any():
            self._place = 0
            return stamps
        places = np.arange(len(stamps))
        begins = np.maximum.accumulate(np.where(at_once, -1, places))
        places = np.where(begins >= 0, places - begins, places + self._place + 1) % self._longest
        self._place = int(places[-1])
        return stamps + places * self._period

    def _close(self) -> None:
        """Add the block that is full, and look at each scale whose durations are complete."""
        block = self._spread(np.concatenate(self._part))
        self._part, self._filled = [], 0
        self._means.append(float(block.mean()) if np.isfinite(block).all() else np.nan)
        for scale in range(SCALES):
            step = 2**scale
            if self._blocks and self._blocks % (LOOK * step) == 0:
                self._look(scale, np.array(self._means[-LOOK * step - 1 :: step]))
        del self._means[:-MOST_BLOCKS]
        self._blocks += 1

    def _look(self, scale: int, means: NDArray[np.float64]) -> None:
        durations = np.diff(means)
        durations = durations[np.isfinite(durations)]
        if len(durations) <= LOOK // 2 or durations.sum() < self._shortest:
            return
        before, look = self._looks[scale], judged(durations / (self._expected * 2**scale), self._size * 2**scale)
        self._looks[scale] = look
        self.trusted = self.trusted or look.right
        # Where shorter durations are right, longer ones are off by the holes in them: epochs, outages.
        rights = [each is not None and each.right for each in self._looks]
        off = [each for i, each in enumerate(self._looks) if each and each.off and not any(rights[:i])]
        self.suspect = off[-1].share * self._sfreq if off else None
        agreed = look.wrong and before and before.wrong and abs(look.share / before.share - 1) < TOLERANCE / 2
        if agreed and not any(rights[:scale]):
            self.verdict = self._measured(look.share)
        elif look.right and not off:
            self.verdict = None

    def _measured(self, share: float) -> float | None:
        """Measure the rate over all blocks, in Hz; None while packets leave more doubt than `EXACT`.

        Where no line fits, because the rate has changed meanwhile, the newest look's share counts.
        """
        means = np.array(self._means)
        if not np.isfinite(means).all():
            return share * self._sfreq
        places = np.arange(len(means))
        slope, begin = np.polyfit(places, means - means[0], 1)
        fitted = self._expected / float(slope)
        swing = float(np.abs(means - means[0] - begin - slope * places).max())
        if swing <= EXACT * (means[-1] - means[0]):
            return fitted * self._sfreq
        if abs(fitted / share - 1) > 2 * TOLERANCE:
            return share * self._sfreq
        return None if len(means) < MOST_BLOCKS else fitted * self._sfreq


def judged(lengths: NDArray[np.float64], samples: int) -> Look:
    """Estimate the rate from durations of so many samples each, in units of what they should be."""
    middle = float(np.median(lengths))
    if middle < STANDSTILL:
        return Look(np.inf, right=False, off=False, wrong=False)
    spread = 1.4826 * float(np.median(np.abs(lengths - middle))) / middle
    doubt = 3 * 1.2533 * spread / float(np.sqrt(len(lengths)))
    share = 1 / middle
    distance = abs(share - 1)
    # The packets of a device and the blocks here beat against each other: all durations together know of no beat.
    whole = (1 / float(lengths.mean()) - 1) * np.sign(share - 1)
    off = bool(min(distance, whole) > TOLERANCE + doubt)
    # Were samples lost at random, so many would arrive in each duration, give or take:
    scatter = float(np.sqrt(max(0.0, 1 - share) / samples))
    uneven = share < 1 and spread >= EVEN * scatter
    return Look(share, right=distance + doubt < TOLERANCE, off=off, wrong=off and not uneven)
