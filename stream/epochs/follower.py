"""A further stream, read at the times of the one that decides the windows."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from stream.epochs.stream_buffer import StreamBuffer
from stream.errors import StreamError
from stream.signal.filters import NYQUIST_SHARE, FilterSpec
from stream.types.source_spec import ReadingSpec
from stream.types.window_spec import SLACK
from stream.types.windows import Channels

PATIENCE_S = 2.0
"""Seconds that a window waits for a stream that is behind, or three samples of a slow one."""
CUBIC, LINEAR = (1, 2), (0, 1)
"""Nodes before and after the interval that a time lies in."""


class FollowerSpec(ReadingSpec):
    """A further stream whose channels join each window, interpolated at the times of the source's samples.

    Regular streams are interpolated by cubics (through two samples before and two after), irregular ones by straight
    lines. A regular stream faster than the windows gets a low-pass below their Nyquist frequency. A window waits for
    the samples that this needs, so it is ready later by two samples of a slower stream. Samples that are not finite
    numbers (gaze in a blink) count as missing.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    filters: FilterSpec = FilterSpec()
    """Its own filters, at its own rate."""
    prefix: str = Field("", max_length=32)
    """Prefix of the names of its channels, where two streams have channels of one name."""
    longest_silence: float = Field(0.5, gt=0, le=3600)
    """Irregular streams: seconds between two samples above which a window that lies there is flagged."""


@dataclass(frozen=True, slots=True)
class CheckedSegment:
    """A segment of one stream or several, at the times of the first, and whether it can be trusted.

    Attributes
    ----------
    data : ndarray, shape (n_channels, n_times), float32
    times : ndarray, shape (n_times,), float64
    lost : int
        Samples missing, of all its streams together.
    interpolated : tuple of str
        Channels that were interpolated from their neighbours.
    reason : str or None
        Why the data should not be trusted.
    """

    data: NDArray[np.float32]
    times: NDArray[np.float64]
    lost: int
    interpolated: tuple[str, ...]
    reason: str | None


class Follower:
    """Clock, filters and ring of a further stream.

    Parameters
    ----------
    name : str
    channels : Channels
        SI units.
    sfreq : float
        Of the source; 0 for an irregular stream.
    spec : FollowerSpec
    rate : float
        Of the windows that it is to join; 0 where these are irregular.
    speed : float
        Source seconds per second of the LSL clock.
    seconds : float
        Of the source, kept in the ring.

    Attributes
    ----------
    channels : Channels
        After the filters, with the prefix.
    buffer : StreamBuffer
    patience : float
        Seconds of the LSL clock that a window waits for it.

    Raises
    ------
    StreamError
        The filters do not fit the stream, or let pass what the windows' rate cannot carry.
    """

    def __init__(
        self, name: str, channels: Channels, sfreq: float, spec: FollowerSpec, *,
        rate: float, speed: float, seconds: float,
    ) -> None:  # fmt: skip
        self.name, self.filters = name, _below(rate, spec.filters, sfreq, name)
        self.patience = patience(spec, sfreq, speed)
        self.buffer = StreamBuffer(
            channels, sfreq, self.filters,
            speed=speed, seconds=seconds + self.patience * speed, name=name, setting="sfreq of this stream under extra",
        )  # fmt: skip
        source = self.buffer.channels
        bads = tuple(spec.prefix + each for each in source.montage.bads)
        names = tuple(spec.prefix + each for each in source.names)
        self.channels = replace(source, names=names, montage=replace(source.montage, bads=bads))
        self._prefix, self._speed = spec.prefix, speed
        self._silence = np.inf if sfreq else spec.longest_silence / speed
        self._nodes = CUBIC if sfreq else LINEAR

    def reaches(self, time: float) -> bool:
        """Check that the samples are there that the value at `time` needs."""
        ring, after = self.buffer.ring, self._nodes[1]
        return ring.stop - ring.start > sum(self._nodes) and time < ring.time(ring.stop - after)

    def read(self, times: NDArray[np.float64]) -> CheckedSegment | None:
        """Interpolate at some times, shape (n,), increasing; None where the first lies before what is held.

        After the last sample there is (see `patience`) its value stays.
        """
        ring, (before, after) = self.buffer.ring, self._nodes
        low, high = self._interval(times[0]) - before, self._interval(times[-1]) + after + 1
        low, high = min(low, ring.stop - before - after - 1), min(high, ring.stop)
        segment = ring.read(low, high) if low >= max(ring.start, self.buffer.line) else None
        if segment is None:
            return None
        nodes, weights = lagrange(segment.times, times, before, after)
        weights[times > segment.times[-1]] = np.eye(before + after + 1)[-1]
        rows = segment.data.T  # a channel's samples side by side
        data = np.zeros((len(rows), len(times)), np.float32)
        for node, weight in zip(nodes.T, weights.T.astype(np.float32), strict=True):
            data += rows.take(node, axis=1) * weight
        unusable, lost, reasons = self.buffer.against(low, high, segment.present, self._prefix)
        missing = self._missing(times, segment.times[-1])
        silence = max(float(np.diff(segment.times).max()), times[-1] - segment.times[-1])
        if lost + missing:
            reasons = [f"{lost + missing} samples lost", *reasons]
        elif silence > self._silence:
            reasons = [f"silent for more than {self._silence * self._speed:g} s", *reasons]
        reason = f"{self.name}: {'; '.join(reasons)}" if reasons else None
        names = tuple(self._prefix + each for each in self.buffer.interpolated(low, high))
        return CheckedSegment(data, times, unusable + missing, names, reason)

    def _interval(self, time: float) -> int:
        """Return the row of the last sample not after `time`; the last but one for the last sample and later."""
        position = self.buffer.ring.position(time, self.buffer.line)
        return int(np.floor(np.clip(position, -2, self.buffer.ring.stop - 2)))

    def _missing(self, times: NDArray[np.float64], last: float) -> int:
        """Count the samples of a regular stream that should have come within `times` after the last one that came."""
        if not self.buffer.sfreq or times[-1] <= last:
            return 0
        rate = self.buffer.sfreq / float(self.buffer.chain.factor) * self._speed
        seconds = float(times[-1] - max(last, times[0] - 1 / rate))
        return max(1, math.floor(seconds * rate + SLACK))


def patience(spec: FollowerSpec, sfreq: float, speed: float) -> float:
    """Return how long a window waits for a stream, in seconds of the LSL clock."""
    slow = 3 / sfreq if sfreq else spec.longest_silence
    return max(PATIENCE_S, slow / speed)


def lagrange(
    times: NDArray[np.float64], targets: NDArray[np.float64], before: int, after: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Compute the weights of the polynomial through the samples round each time.

    Parameters
    ----------
    times : ndarray, shape (m,)
        Of the samples, strictly increasing; m > before + after.
    targets : ndarray, shape (n,)
    before, after : int
        Samples used before and after the interval's first.

    Returns
    -------
    nodes : ndarray of int, shape (n, before + after + 1)
    weights : ndarray, shape (n, before + after + 1)
    """
    first = np.searchsorted(times, targets, side="right") - 1
    first = np.clip(first, before, len(times) - 1 - after)
    nodes = first[:, None] + np.arange(-before, after + 1)
    at = times[nodes]
    weights = np.ones_like(at)
    for j in range(nodes.shape[1]):
        for other in range(nodes.shape[1]):
            if other != j:
                weights[:, j] *= (targets - at[:, other]) / (at[:, j] - at[:, other])
    return nodes, weights


def _below(rate: float, spec: FilterSpec, sfreq: float, name: str) -> FilterSpec:
    """Add a low-pass below the windows' Nyquist frequency to the filters of a faster stream."""
    rate_out = spec.resample or sfreq / spec.decimate
    if not rate or rate_out <= rate * 1.001:
        return spec
    lowpass = spec.lowpass or NYQUIST_SHARE * rate
    if lowpass >= rate / 2:
        raise StreamError(
            f"stream {name!r}: lowpass {lowpass:g} Hz aliases in windows of {rate:g} Hz; set its filters' lowpass "
            f"under {rate / 2:g} Hz, or make the fastest stream the source"
        )
    return spec.model_copy(update={"lowpass": lowpass})
