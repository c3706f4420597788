"""Holes in the first second of a stream, when its jitter is not known yet."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LEAST = 0.75  # of a sample: the shortest hole, as later on
VISIBLE = 0.02  # of a sample: a step below this is no jitter worth the name
EXACT = 0.05  # of a sample: how near to whole samples a hole lies in a stream without jitter
CHANCE = 1e-6  # at which jitter may look like a hole
MOST = 3  # steps in one second beyond which they are the stream's own way and no holes


def first_holes(stamps: NDArray[np.float64], period: float) -> dict[int, int]:
    """Find the holes among a stream's first timestamps.

    A hole moves every later timestamp up for good; jitter goes up and comes down again. So a hole is where all that
    comes after lies above all that came before, by more than a multiple of the farthest fall in the whole stretch
    (which only jitter makes). With n independent draws of jitter, a share of x of their range is left free below or
    above all but one of them with a chance of about n (1 - x)^(n - 2); the multiple makes that one in a million:
    1.6 for 20 chunks in the second, 22 for 7. A crystal slower than its nominal rate looks like a fall, so it hides
    what is shorter than its drift in the second.

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
    late = stamps - stamps[0] - np.arange(len(stamps)) * period
    highest = np.maximum.accumulate(late)
    rise = np.minimum.accumulate(late[::-1])[::-1][1:] - highest[:-1]
    fall = float((highest - late).max())
    steps = np.diff(late)
    up = rise > LEAST * period
    drawn = np.cumsum(~up & (np.abs(steps) > VISIBLE * period))
    draws = 1 + int(drawn[-1]) if len(drawn) else 1
    if draws == 1:
        lost = np.round(steps / period)
        places = np.flatnonzero(up & (np.abs(steps - lost * period) < EXACT * period)) + 1
        counts = lost[places - 1]
    else:
        multiple = max(1.0, (draws / CHANCE) ** (1 / (draws - 2)) - 1) if draws > 2 else np.inf
        # A late chunk at either end, whose return is not seen, would look the same.
        inside = (drawn > 0) & (drawn < drawn[-1])
        places = np.flatnonzero(up & inside & (rise > multiple * fall)) + 1
        edges = [0, *places.tolist(), len(late)]
        levels = [np.median(late[a:b]) for a, b in pairwise(edges)]
        counts = np.round(np.diff(levels) / period)
    if len(places) > MOST:
        return {}
    return {int(place): max(1, int(count)) for place, count in zip(places, counts, strict=True)}
