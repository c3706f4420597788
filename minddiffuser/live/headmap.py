"""The signal channel by channel, for a head map: level beside the calibration's, what is wrong, place on the head."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream.types.units import times

if TYPE_CHECKING:
    from stream.epochs.ingest_stats import IngestStats
    from stream.quality.signal_profile import SignalProfile
    from stream.types.montage import Montage
    from stream.types.windows import Channels

MOST_CHANNELS = 1024
SECONDS = 5
"""Newest levels, one a second, whose median counts: a blink is not a channel's level."""
HIGH_TIMES, LOW_TIMES = 5.0, 0.1
"""Of the calibration's level: beyond, a channel is bad. Between days, good ones differ by up to 2.7."""
STANDARD = "easycap-M1"
"""MNE's montage that knows where the names of the 10-10 system lie, on a sphere."""
OLDER = {"t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8", "a1": "tp9", "a2": "tp10", "m1": "tp9", "m2": "tp10"}
"""Older names, and the ears', where the montage has others."""
LEAST_PLACES = 10
"""Places of a montage from which the head's centre can be told."""
CENTRE_M = (0.0, 0.0, 0.04)
"""Where it is otherwise, in metres: between the ears and up."""
Plane = Mapping[str, tuple[float, float]]


class HeadMap:
    """Judges the channels that a decoder takes, once a second.

    Parameters
    ----------
    channels : Channels
        The decoder's.
    montage : Montage
        Of the stream, with the `names` of its channels.
    names : sequence of str
    profile : SignalProfile, optional
        The calibration's levels; without it no channel is held against any.
    """

    def __init__(
        self, channels: Channels, montage: Montage, names: Sequence[str], profile: SignalProfile | None = None
    ) -> None:
        self._channels = channels
        self._places = places_of(channels.names, montage, names)
        self._bads = frozenset(montage.bads)
        levels = zip(profile.names, profile.level, strict=True) if profile and profile.level else ()
        self._reference = dict(levels)
        self._levels: dict[str, deque[float]] = {}

    def update(self, levels: Mapping[str, float], stats: IngestStats) -> dict[str, Any]:
        """Add the newest second, and return what goes into the metrics as `signal`.

        Parameters
        ----------
        levels : mapping of str to float
            Root mean square about the mean of each channel over the newest second, in its unit.
        stats : IngestStats
        """
        pairs = zip(self._channels.names, self._channels.units, strict=True)
        return {
            "channels": [self._channel(name, unit, levels.get(name), stats) for name, unit in pairs][:MOST_CHANNELS]
        }

    def _channel(self, name: str, unit: str, level: float | None, stats: IngestStats) -> dict[str, Any]:
        kept = self._levels.setdefault(name, deque(maxlen=SECONDS))
        if level is not None and math.isfinite(level):
            kept.append(level)
        usual = float(np.median(kept)) if kept else None
        reference = self._reference.get(name)
        reason = self._against(name, usual, reference, stats)
        known = "unknown" if usual is None or reference is None else "good"
        x, y = self._places.get(name, (None, None))
        return {
            "name": name,
            "level": usual,
            "reference_level": reference,
            "unit": unit,
            "status": "bad" if reason else known,
            "reason": reason,
            "x": x,
            "y": y,
        }

    def _against(self, name: str, level: float | None, reference: float | None, stats: IngestStats) -> str:
        """Return what is wrong with a channel; '' where nothing is."""
        if stats.state == "lost":
            return "its stream is lost"
        if name in stats.bad_channels:
            return "no usable samples"
        if name in stats.flat_channels or level == 0:
            return "flat: it does not move"
        if level is not None and reference:
            ratio = level / reference
            if not LOW_TIMES <= ratio <= HIGH_TIMES:
                return f"{'noisy' if ratio > 1 else 'weak'}: {times(ratio)} the calibration's level"
        return "marked as bad by the recording system" if name in self._bads else ""


def places_of(wanted: Sequence[str], montage: Montage, names: Sequence[str]) -> Plane:
    """Find where channels lie on a head seen from above, nose up, its outline a circle of 1.

    Places that the stream gives go before those of the 10-10 system; channels of other names have none.

    Parameters
    ----------
    wanted : sequence of str
    montage : Montage
    names : sequence of str
        Channels of the montage, one each.
    """
    given = {name: place for name, place in zip(names, montage.places, strict=False) if place is not None}
    own = {name: np.array(given[name]) for name in wanted if name in given}
    found = _flat(own, _centre(np.array(list(own.values()))) if len(own) >= LEAST_PLACES else np.array(CENTRE_M))
    if rest := [name for name in wanted if name not in found]:
        standard = _standard()
        found |= {name: standard[name.lower()] for name in rest if name.lower() in standard}
    return found


def _standard() -> Plane:
    import mne

    positions = mne.channels.make_standard_montage(STANDARD).get_positions()["ch_pos"]
    places = {name.lower(): np.asarray(place) for name, place in positions.items()}
    flat = _flat(places, _centre(np.array(list(places.values()))))
    return {**{older: flat[name] for older, name in OLDER.items()}, **flat}


def _centre(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit a sphere to places, shape (n, 3), by least squares; return its centre."""
    rows = np.column_stack([2 * places, np.ones(len(places))])
    solution, *_ = np.linalg.lstsq(rows, (places**2).sum(axis=1), rcond=None)
    centre: NDArray[np.float64] = solution[:3]
    return centre


def _flat(places: Mapping[str, NDArray[np.float64]], centre: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
    """Unroll a head onto a plane (azimuthal equidistant): its equator becomes the circle of 1."""
    flat = {}
    for name, place in places.items():
        x, y, z = place - centre
        if (radius := math.hypot(x, y, z)) > 0:
            outward = math.acos(z / radius) / (math.pi / 2)
            beside = math.hypot(x, y) or 1.0
            flat[name] = (round(float(outward * x / beside), 3), round(float(outward * y / beside), 3))
    return flat
