"""Which segments of a stream become windows, and what is taken out of each."""

import math
import re
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

LONGEST_S = 60.0
"""No window lies or lasts longer: what asks for more was meant in milliseconds."""
SLACK = 1e-3
"""Of a sample, or of a second for irregular streams: two clocks that agree still differ in the last digits."""


class WindowSpec(BaseModel):
    """Which segments of the stream are decoded. Times are in seconds of the source, whatever the replay's speed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    mode: Literal["event", "sliding", "sample", "mean"] = "event"
    """'event': locked to markers. 'sliding': every `step`. 'sample': the first sample in [tmin, tmax] of a marker.
    'mean': the mean of all samples in [tmin, tmax], one vector (fMRI: the volumes 4 to 8 s after a picture)."""
    tmin: float = -0.1
    """Start relative to the event (sliding: only tmax - tmin counts)."""
    tmax: float = 0.8
    """End relative to the event; the sample at tmax itself is not part of the window."""
    step: float = Field(0.5, gt=0)
    """Seconds between sliding windows."""
    baseline: tuple[float, float] | None = None
    """Segment whose mean is subtracted channel by channel; may begin before tmin, must end by tmax."""
    detrend: bool = False
    """Subtract from each channel the straight line that fits the window best (from the baseline segment, too)."""
    delay: float = 0.0
    """Seconds from a marker to the light that it announces, as `minddiffuser present CONFIG --timing` measures and
    writes it: windows are cut about the light, in training, evaluation and live alike."""
    events: str = ".*"
    """Regular expression that a marker's whole label must match; a dot stands for a line break, too."""
    repeats: int = Field(1, ge=1, le=10_000)
    """Average up to so many presentations of one label: the k-th gives the mean of k, then a new mean begins."""
    rejected: Literal["flag", "drop"] = "flag"
    """Windows over a gap or past an amplitude limit: handed on with the reason, or counted and not handed on."""

    @field_validator("tmin", "tmax", "step", "baseline", "delay")
    @classmethod
    def _in_seconds(cls, value: float | tuple[float, float] | None) -> float | tuple[float, float] | None:
        for seconds in value if isinstance(value, tuple) else (value,):
            if seconds is not None and abs(seconds) > LONGEST_S:
                raise ValueError(f"is {seconds:g} s: seconds, not milliseconds; did you mean {seconds / 1000:g}?")
        return value

    @field_validator("events")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value, re.DOTALL)
        except re.error as error:
            raise ValueError(f"events {value!r} is not a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _times_in_order(self) -> Self:
        if self.delay and self.mode == "sliding":
            raise ValueError("delay is from a marker to its light, and sliding windows have no marker: take it out")
        if self.tmax <= self.tmin:
            raise ValueError(f"tmax {self.tmax:g} must lie after tmin {self.tmin:g}")
        if self.baseline and not self.baseline[0] < self.baseline[1] <= self.tmax:
            raise ValueError(f"baseline {self.baseline} must be (start, end) with start < end <= tmax {self.tmax:g}")
        return self

    def samples(self, sfreq: float) -> int:
        """Count the samples of a rate that go into a window ('mean': are averaged)."""
        if self.mode == "sample":
            return 1
        samples = (self.tmax - self.tmin) * sfreq
        return max(1, math.floor(samples + SLACK) if self.mode == "mean" else round(samples))


def trend(data: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a straight line to each channel by least squares.

    Parameters
    ----------
    data : ndarray, shape (n_channels, n_times)

    Returns
    -------
    level, slope : ndarray, shape (n_channels,)
        At the first sample; per sample.
    """
    places = np.arange(data.shape[1], dtype=np.float64)
    centred = places - places.mean()
    mean = data.mean(axis=1, dtype=np.float64)
    slope: NDArray[np.float64] = (data - mean[:, None]) @ centred / (centred @ centred)
    return mean - slope * places.mean(), slope


def line(level: NDArray[np.float64], slope: NDArray[np.float64], start: int, n: int) -> NDArray[np.float64]:
    """Draw n samples of each channel's line from place `start` on, shape (n_channels, n)."""
    return level[:, None] + slope[:, None] * np.arange(start, start + n)
