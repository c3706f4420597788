"""Holes in the first second of a stream, when its jitter is not known yet."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LEAST = 0.75  # of a sample: the shortest hole, as later on
EXACT = 0.05  # of a sample: steps back up to this are no jitter worth the name, and holes as near to whole samples
VISIBLE = 0.05  # of the largest step back: a step above this is a new draw of jitter
CHANCE = 1e-6  # at which jitter may look like a hole
MOST = 3  # steps in one second beyond which they are the stream's own way and no holes


def first_holes(stamps: NDArray[np.float64], period: float) -> dict[int, int]:
    """Find the holes among a stream's first timestamps.

    A hole moves every later timestamp up for good; jitter goes up and comes down again. In a stream that hardly ever
    steps back, a hole is a step of whole samples. In another it is where all that comes after lies above all that
    came before, by more than a multiple of the largest step back. With n independent draws of jitter a share x of
    their range is left free above or below all but one of them with a chance of about n (1 - x)^(n - 2); the multiple
    makes that one in a million: 1.5 for 20 chunks in the second, 22 for 7. (Simulated, 1,000 streams each: no false
    hole with 20 independent chunks a second or more, uniform to Student's t; 2 % with two chunks a second, whose one
    step happens to be of whole samples.)

    Parameters
    ----------
    stamps : ndarray, shape (n,), float64
        Not smoothed.
    period : float
        Nominal, in seconds of the timestamps' clock.

    Returns
    -------
    dict of int to int
        Place of the first sample after each hole -> samples missing.
    """
    if len(stamps) < 2:
        return {}
    late = stamps - stamps[0] - np.arange(len(stamps)) * period
    steps = np.diff(late)
    back = -float(steps.min())
    if back <= EXACT * period:
        counts = np.round(steps / period)
        places = np.flatnonzero((counts >= 1) & (np.abs(steps - counts * period) <= EXACT * period)) + 1
        counts = counts[places - 1]
    else:
        places = _steps_for_good(late, steps, back, period)
        levels = [np.median(late[a:b]) for a, b in pairwise([0, *places.tolist(), len(late)])]
        counts = np.round(np.diff(levels) / period)
    if len(places) > MOST:
        return {}
    return {int(place): max(1, int(count)) for place, count in zip(places, counts, strict=True)}


def _steps_for_good(
    late: NDArray[np.float64], steps: NDArray[np.float64], back: float, period: float
) -> NDArray[np.intp]:
    """Find after which steps everything is later than before, by more than jitter explains."""
    rise = np.minimum.accumulate(late[::-1])[::-1][1:] - np.maximum.accumulate(late)[:-1]
    up = rise > LEAST * period
    drawn = np.cumsum(~up & (np.abs(steps) > VISIBLE * back))
    draws = 1 + int(drawn[-1])
    multiple = max(1.0, (draws / CHANCE) ** (1 / (draws - 2)) - 1) if draws > 2 else np.inf
    # A late chunk at either end, whose return is not seen, would look the same.
    inside = (drawn > 0) & (drawn < drawn[-1])
    return np.flatnonzero(up & inside & (rise > multiple * back)) + 1
