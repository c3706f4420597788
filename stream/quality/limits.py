"""Which windows are rejected by the amplitude of their channels, and which are mended first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stream.quality.signal_profile import SignalProfile
from stream.signal.filters import FilterSpec
from stream.signal.interpolate import placed, spline_weights
from stream.types.units import for_people
from stream.types.windows import Cause, Channels

MONTAGE = "easycap-M1"
"""Knows the places of the 10-10 system."""
MENDED_SHARE = 0.1
"""Share of the EEG channels with a place that may be interpolated in a window, one at least."""
LEAST_PLACED = 8
"""Fewer EEG channels with a place are too far from one another to stand in for one another."""
AVERAGED = 1e-3
"""Share of the signal below which the mean over EEG channels is taken to have been subtracted."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """What came of holding a window against its limits.

    Attributes
    ----------
    data : ndarray, shape (n_channels, n_times), float32
    interpolated : tuple of str
        Channels that were over their limit and are replaced by what the others tell of their place.
    reason, cause, channels
        As `stream.types.windows.Quality` has them; None and empty where the window is within its limits.
    """

    data: Floats
    interpolated: tuple[str, ...] = ()
    reason: str | None = None
    cause: Cause | None = None
    channels: tuple[str, ...] = ()


class Limits:
    """Hold windows against limits of peak-to-peak amplitude, live and offline.

    Parameters
    ----------
    parts : sequence of (Channels, FilterSpec)
        The channels of a window, stream by stream. Where a spec names limits by kind they are these; where it leaves
        them to the calibration, each channel has its own from the profile, and single EEG channels over it are
        interpolated where they and enough others have a place on the head.
    profile : SignalProfile, optional
        Left out, there are no limits but those that a spec names.
    """

    def __init__(self, parts: Sequence[tuple[Channels, FilterSpec]], profile: SignalProfile | None = None) -> None:
        self._names: tuple[str, ...] = tuple(name for channels, _ in parts for name in channels.names)
        self._units = tuple(unit for channels, _ in parts for unit in channels.units)
        kinds = [kind for channels, _ in parts for kind in channels.kinds]
        limits = [pair for channels, spec in parts for pair in _limits(channels, spec, profile)]
        self._lowest: Doubles = np.array([low for low, _ in limits])
        self._highest: Doubles = np.array([high for _, high in limits])
        self._any = bool((self._highest < np.inf).any() or (self._lowest > -np.inf).any())
        own = [spec.reject_peak_to_peak == "calibration" for channels, spec in parts for _ in channels.names]
        self._eeg = np.flatnonzero([kind == "eeg" for kind in kinds])
        self._placed = self._with_place([row for row in self._eeg.tolist() if own[row] and self._highest[row] < np.inf])
        if len(self._placed) >= LEAST_PLACED:
            _weights(self._placed_names(), self._placed_names()[:1])  # MNE loads now, not while samples wait

    def __call__(self, data: Floats) -> LimitCheck:
        """Hold the data of a window, shape (n_channels, n_times), against the limits."""
        if not self._any:
            return LimitCheck(data)
        spans = np.ptp(data, axis=1)
        over = np.flatnonzero(spans > self._highest)
        if len(over) and self._can_mend(over):
            mended = self._mend(data, over)
            if not (np.ptp(mended, axis=1) > self._highest).any():
                return LimitCheck(mended, interpolated=tuple(self._names[row] for row in over))
        if len(over):
            worst = int(over[np.argmax(spans[over] / self._highest[over])])
            return self._rejected(data, "limit", over, worst, float(spans[worst]))
        still = np.flatnonzero(spans < self._lowest)
        if len(still):
            return self._rejected(data, "flat", still, int(still[0]), float(spans[still[0]]))
        return LimitCheck(data)

    def _rejected(self, data: Floats, cause: Cause, rows: NDArray[np.intp], worst: int, span: float) -> LimitCheck:
        name, unit, names = self._names[worst], self._units[worst], tuple(self._names[row] for row in rows)
        size = for_people(span, unit)
        if cause == "limit":
            reason = f"{name}: peak-to-peak {size}, over its limit of {for_people(self._highest[worst], unit)}"
        else:
            reason = f"{name}: flat, peak-to-peak {size}, under {for_people(self._lowest[worst], unit)}"
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        return LimitCheck(data, (), reason + more, cause, names)

    def _with_place(self, rows: Sequence[int]) -> NDArray[np.intp]:
        if len(rows) < LEAST_PLACED:
            return np.empty(0, np.intp)
        known = placed(tuple(self._names[row] for row in rows), MONTAGE)
        return np.array([row for row, here in zip(rows, known, strict=True) if here], np.intp)

    def _placed_names(self) -> tuple[str, ...]:
        return tuple(self._names[row] for row in self._placed)

    def _can_mend(self, over: NDArray[np.intp]) -> bool:
        most = max(1, int(MENDED_SHARE * len(self._placed)))
        return len(self._placed) >= LEAST_PLACED and len(over) <= most and bool(np.isin(over, self._placed).all())

    def _mend(self, data: Floats, over: NDArray[np.intp]) -> Floats:
        """Replace some channels by what the others interpolate at their places."""
        good = self._placed[~np.isin(self._placed, over)]
        # In the order of the placed channels, as the weights are.
        rows = self._placed[np.isin(self._placed, over)]
        mended = data.copy()
        mended[rows] = _weights(self._placed_names(), tuple(self._names[row] for row in rows)) @ data[good]
        mean = data[self._eeg].mean(axis=0)
        if np.abs(mean).max() < AVERAGED * data[self._eeg].std():
            # An average reference has put a share of what was bad into all the others.
            mended[self._eeg] -= mended[self._eeg].mean(axis=0)
        return mended


@lru_cache(maxsize=256)
def _weights(names: tuple[str, ...], bad: tuple[str, ...]) -> Floats:
    return spline_weights(names, bad, MONTAGE).astype(np.float32)


def _limits(channels: Channels, spec: FilterSpec, profile: SignalProfile | None) -> Iterator[tuple[float, float]]:
    """Return the lowest and highest peak-to-peak of each channel of a stream."""
    fixed = spec.reject_peak_to_peak
    known = profile if profile is not None and profile.highest and fixed == "calibration" else None
    rows = (
        {(name, unit): row for row, (name, unit) in enumerate(zip(known.names, known.units, strict=True))}
        if known
        else {}
    )
    for name, kind, unit in zip(channels.names, channels.kinds, channels.units, strict=True):
        low, high = -np.inf, np.inf
        if known is not None and (row := rows.get((name, unit))) is not None:
            low, high = known.lowest[row], known.highest[row]
        elif not isinstance(fixed, str):
            high = fixed.get(kind, np.inf)
        yield spec.flat.get(kind, low), high
