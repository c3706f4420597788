"""How far a config's filters move an answer in time, measured on a step."""

from __future__ import annotations

from math import ceil

import numpy as np

from decoder.evaluation.timecourse import Smear
from stream.signal.filters import FilterChain, FilterSpec
from stream.types.windows import Channels

SETTLE_S = 1.0
"""Before and after the step: longer than any filter of an evoked response rings."""
SHOWS, WHOLE = 0.1, 0.9
"""Shares of the greatest deflection at which a step begins to show, and has come in full."""
ONE = Channels(("step",), ("eeg",), ("V",))
TEMPORAL = ("highpass", "lowpass", "order", "notch", "notch_quality", "decimate", "resample")
"""What in a spec changes the course in time of a channel by itself."""


def smear_of(filters: FilterSpec, sfreq: float) -> Smear:
    """Measure by how much a config's filters smear a step.

    Parameters
    ----------
    filters : FilterSpec
    sfreq : float
        Of the samples that go in; 0 (irregular): nothing can be filtered, and nothing is smeared.

    Raises
    ------
    stream.errors.StreamError
        A frequency does not fit the rate.
    """
    if not sfreq:
        return Smear()
    spec = FilterSpec(**{name: getattr(filters, name) for name in TEMPORAL})
    n = round(SETTLE_S * sfreq)
    # Where the step lies between two samples that come out matters: of all such places, the worst.
    places = range(n, n + ceil(1 / FilterChain(spec, ONE, sfreq).factor))
    found = np.array([_of_step(spec, sfreq, n, place) for place in places])
    before, after = found.max(axis=0).tolist()
    return Smear(before, after)


def _of_step(spec: FilterSpec, sfreq: float, n: int, place: int) -> tuple[float, float]:
    """Return by how much a step at a sample shows early, and how late it has come in full (s)."""
    out = FilterChain(spec, ONE, sfreq).feed((np.arange(2 * n) >= place)[:, None].astype(np.float64), 0)
    times = (np.arange(2 * n)[out.newest] - place) / sfreq + out.ahead
    deflection = np.abs(out.data[:, 0])
    deflection /= deflection.max()
    shows, whole = (float(times[(deflection >= share).argmax()]) for share in (SHOWS, WHOLE))
    return max(0.0, -shows), max(0.0, whole)
