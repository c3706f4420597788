"""What the signal of a calibration was like, channel by channel: its limits, its level and its spectrum."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stream.errors import StreamError
from stream.types.windows import Channels, Window

KINDS = frozenset({"eeg", "mag", "grad", "seeg", "ecog", "dbs"})
"""Kinds of channels that have limits and levels: an eye's or heart's channel is there for what would be over them."""
BANDS = {
    "0.5-4 Hz": (0.5, 4.0),
    "4-8 Hz": (4.0, 8.0),
    "8-13 Hz": (8.0, 13.0),
    "13-30 Hz": (13.0, 30.0),
    "30-45 Hz": (30.0, 45.0),
    "45-65 Hz": (45.0, 65.0),
    "over 65 Hz": (65.0, np.inf),
}
"""Coarse on purpose: what changes from day to day stays inside a band. Mains hum has one of its own."""
ROBUST = 1.4826
"""Standard deviations of a normal variable in its median absolute deviation."""
WIDTHS = 4.0
"""Robust standard deviations of a channel's log peak-to-peak above its median from which a window is over the limit."""
WIDEST = 1.0
"""Of that deviation (2.7 times up or down): a channel that varies more is bad, not variable."""
LEAST_TIMES = 3.0
"""A limit is at least so many times the median: channels that hardly vary would reject what harms nobody."""
STILL = 1 / 30
"""Share of its median peak-to-peak below which a channel of a window is flat."""
LEAST_WINDOWS = 10
"""Fewer windows tell no limits."""


class SignalProfile(BaseModel):
    """Limits and levels of the channels of a calibration; JSON-able, kept in the bundle.

    All but `bands` has one number a channel, in the channels' SI units.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    units: tuple[str, ...]
    highest: tuple[float, ...] = ()
    """Largest peak-to-peak in a window; none of windows of one sample."""
    lowest: tuple[float, ...] = ()
    """Smallest peak-to-peak in a window."""
    level: tuple[float, ...] = ()
    """Median over seconds of the root mean square within each, after the filters; none of slow streams."""
    bands: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """By band of `BANDS`: the same of what lies within it."""

    @model_validator(mode="after")
    def _one_number_a_channel(self) -> Self:
        sizes = {len(self.names), len(self.kinds), len(self.units), *(len(each) for each in self.bands.values())}
        sizes |= {len(each) for each in (self.highest, self.lowest, self.level) if each}
        if len(sizes) > 1:
            raise ValueError("a signal profile needs one number a channel")
        return self

    def subset(self, names: Sequence[str]) -> "SignalProfile":
        """Return the profile of some channels; those that it does not know are left out."""
        rows = [row for row, name in enumerate(self.names) if name in set(names)]

        def of(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[row] for row in rows) if values else ()

        return SignalProfile(
            names=of(self.names),
            kinds=of(self.kinds),
            units=of(self.units),
            highest=of(self.highest),
            lowest=of(self.lowest),
            level=of(self.level),
            bands={name: of(values) for name, values in self.bands.items()},
        )

    def limits_by_kind(self) -> dict[str, tuple[str, list[float]]]:
        """Return each kind's unit and the limits of its channels, as `stream.quality.rejection` takes them."""
        out: dict[str, tuple[str, list[float]]] = {}
        for kind, unit, limit in zip(self.kinds, self.units, self.highest, strict=False):
            out.setdefault(kind, (unit, []))[1].append(limit)
        return out


def profile_of(meta: Mapping[str, Any]) -> SignalProfile | None:
    """Return the profile in a bundle's meta; None where it was trained before there were any.

    Raises
    ------
    StreamError
        It is none.
    """
    if meta.get("signal") is None:
        return None
    try:
        return SignalProfile.model_validate(meta["signal"])
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise StreamError(f"the bundle's signal profile cannot be read ({reason}): train the bundle again") from None


class SignalRecorder:
    """Collect what a profile is learned from: the levels of every second of recordings, and the spans of windows."""

    def __init__(self) -> None:
        self._levels: dict[str, list[float]] = {}
        self._bands: dict[str, list[NDArray[np.float64]]] = {}
        self._spans: list[NDArray[np.float64]] = []
        self._channels: Channels | None = None

    def add_second(self, channels: Channels, level: NDArray[np.float64], bands: NDArray[np.float64]) -> None:
        """Add one second: root mean squares of shape (n_channels,), and (n_channels, n_bands) of each band."""
        for row, name in enumerate(channels.names):
            self._levels.setdefault(name, []).append(float(level[row]))
            self._bands.setdefault(name, []).append(bands[row])

    def add_window(self, window: Window) -> None:
        """Add a window of the calibration; a rejected one, and one of other channels than the first, is left out."""
        self._channels = self._channels or window.channels
        if window.quality.rejected is None and window.channels == self._channels and window.data.shape[1] > 1:
            spans = np.ptp(window.data, axis=1).astype(np.float64)
            if np.isfinite(spans).all():
                self._spans.append(spans)

    def profile(self) -> SignalProfile | None:
        """Fit a profile; None where no channel is of a kind that has limits and moves."""
        if self._channels is None:
            return None
        middle, highest = _limits(self._spans)
        channels, levels = self._channels, {name: float(np.median(each)) for name, each in self._levels.items()}
        # A channel that does not move tells nothing, and any movement would be over its limit.
        rows = [
            row
            for row, (name, kind) in enumerate(zip(channels.names, channels.kinds, strict=True))
            if kind in KINDS and levels.get(name, 1.0) > 0 and (not len(middle) or middle[row] > 0)
        ]
        own = channels.subset(rows)
        timed = bool(rows) and all(name in levels for name in own.names)
        if not timed and not len(middle):
            return None
        bands = np.array([np.median(self._bands[name], axis=0) for name in own.names] if timed else [])
        return SignalProfile(
            names=own.names,
            kinds=own.kinds,
            units=own.units,
            highest=tuple(highest[rows].tolist()) if len(highest) else (),
            lowest=tuple((middle[rows] * STILL).tolist()) if len(middle) else (),
            level=tuple(levels[name] for name in own.names) if timed else (),
            bands={band: tuple(each.tolist()) for band, each in zip(BANDS, bands.T, strict=False)} if timed else {},
        )


def _limits(spans: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each channel's median peak-to-peak and its limit, by robust statistics of the logarithm; else nothing."""
    if len(spans) < LEAST_WINDOWS:
        return np.empty(0), np.empty(0)
    middle = np.median(spans, axis=0)
    logs = np.log(np.maximum(spans, np.finfo(np.float64).tiny))
    width = ROBUST * np.median(np.abs(logs - np.median(logs, axis=0)), axis=0)
    return middle, middle * np.maximum(np.exp(WIDTHS * np.minimum(width, WIDEST)), LEAST_TIMES)
