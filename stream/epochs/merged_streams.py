"""Several streams read as one, on the time line of the first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream.epochs.follower import CheckedSegment, Follower, FollowerSpec, patience
from stream.epochs.stream_buffer import StreamBuffer, StreamStats
from stream.errors import StreamError
from stream.signal.clock import STARTUP_S
from stream.signal.filters import FilterSpec
from stream.types.montage import side_by_side
from stream.types.windows import Channels


@dataclass(frozen=True, slots=True)
class ExtraStream:
    """A further stream as it was found: name, channels in SI units, rate (0: irregular), and what is wanted of it."""

    name: str
    channels: Channels
    sfreq: float
    spec: FollowerSpec
    speed: float = 1.0


class MergedStreams:
    """A stream, and others at the times of its samples.

    Parameters
    ----------
    name : str
        Of the stream that the others follow.
    channels : Channels
        Its own, in SI units.
    sfreq : float
        Its rate; 0 for an irregular stream.
    filters : FilterSpec
        Its own.
    extras : sequence of ExtraStream
    speed : float
        Source seconds per second of the LSL clock.
    span : float
        Seconds from the begin to the end of what is read at once.
    buffer_s : float
        Seconds of the source kept in the rings; at least three spans are.

    Attributes
    ----------
    channels : Channels
        Of all streams, one after the other.
    sfreq : float
        Of the first, after its filters.
    buffers : list of StreamBuffer
    ring : Ring
        Of the first.

    Raises
    ------
    StreamError
        Filters do not fit their stream, or two streams have channels of one name.
    """

    def __init__(
        self, name: str, channels: Channels, sfreq: float, filters: FilterSpec, extras: Sequence[ExtraStream], *,
        speed: float, span: float, buffer_s: float,
    ) -> None:  # fmt: skip
        # What the clock holds back comes in one piece; a stream that is waited for is behind by its patience at most.
        wait = max((patience(each.spec, each.spec.sfreq or each.sfreq, each.speed) for each in extras), default=0.0)
        seconds = max(buffer_s, 3 * (span + STARTUP_S + wait * speed))
        self._own = StreamBuffer(channels, sfreq, filters, speed=speed, seconds=seconds, name=name)
        self._filters = filters
        self.sfreq, self.ring = self._own.sfreq, self._own.ring
        self._followers = [
            Follower(
                each.name, each.channels, each.spec.sfreq or each.sfreq, each.spec,
                rate=self.sfreq, speed=each.speed, seconds=seconds,
            )
            for each in extras
        ]  # fmt: skip
        self._names = (name, *(each.name for each in extras))
        self.buffers = [self._own, *(follower.buffer for follower in self._followers)]
        self.channels = _joined([self._own, *self._followers], self._names)

    @property
    def start(self) -> int:
        """The first stream's oldest row that can be read."""
        return max(self.ring.start, self._own.line)

    @property
    def span(self) -> tuple[float, float]:
        """Times of the first stream's oldest and newest row that can be read; nan where there is none."""
        start, stop = self.start, self.ring.stop
        return (self.ring.time(start), self.ring.time(stop - 1)) if start < stop else (math.nan, math.nan)

    def problems(self) -> dict[str, str]:
        """Return the present problems of the streams, a line by key."""
        several = len(self.buffers) > 1
        return {
            f"{name} {key}": f"stream {name!r}: {line}" if several else line
            for name, buffer in zip(self._names, self.buffers, strict=True)
            for key, line in buffer.problems().items()
        }

    def position(self, time: float) -> float:
        """Return where `time` falls among the first stream's rows, as `Ring.position` does."""
        return self.ring.position(time, self._own.line)

    def complete(self, start: int, stop: int) -> bool:
        """Check that all streams have got to the end of the rows start..stop, or need not be waited for."""
        if stop > self.ring.stop:
            return False
        if start < self.start:
            return True  # too late for these, whatever else comes
        end, now = self.ring.time(stop - 1), self.ring.time(self.ring.stop - 1)
        return all(follower.reaches(end) or now - end > follower.patience for follower in self._followers)

    def read(self, start: int, stop: int) -> CheckedSegment | None:
        """Copy the first stream's rows start..stop, and the others at their times; None if any is not all there."""
        segment = self.ring.read(start, stop) if start >= self.start else None
        if segment is None:
            return None
        unusable, lost, reasons = self._own.against(start, stop, segment.present)
        reason = "; ".join([f"{lost} samples lost"] * (lost > 0) + reasons) or None
        names = self._own.interpolated(start, stop)
        if not self._followers:
            return CheckedSegment(np.ascontiguousarray(segment.data.T), segment.times, unusable, names, reason)
        parts: list[CheckedSegment] = []
        for follower in self._followers:
            if (part := follower.read(segment.times)) is None:
                return None
            parts.append(part)
        return CheckedSegment(
            np.concatenate([segment.data.T, *(part.data for part in parts)]),
            segment.times,
            unusable + sum(part.lost for part in parts),
            names + tuple(name for part in parts for name in part.interpolated),
            "; ".join(filter(None, [reason, *(part.reason for part in parts)])) or None,
        )

    @property
    def parts(self) -> list[tuple[Channels, FilterSpec]]:
        """Each stream's channels, and the filters that its limits are in."""
        return [(self._own.channels, self._filters), *((each.channels, each.filters) for each in self._followers)]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the streams."""
        return self._names

    def account(self) -> dict[str, StreamStats]:
        """Copy each stream's counters."""
        return {name: buffer.account() for name, buffer in zip(self._names, self.buffers, strict=True)}

    def levels(self, *, centred: bool = False) -> dict[str, float]:
        """Return each channel's RMS over the newest second, where there is one; about its mean if `centred`."""
        parts = [(self._own.channels, self._own), *((each.channels, each.buffer) for each in self._followers)]
        return {
            name: level
            for channels, buffer in parts
            if (levels := buffer.spreads() if centred else buffer.levels())
            for name, level in zip(channels.names, levels, strict=True)
        }


def unique_names(streams: Sequence[tuple[str, str]]) -> list[str]:
    """Return a unique name for each stream, given as (name, source id): two amplifiers of one make share a name."""
    names = [name for name, _ in streams]
    return [f"{name} ({source_id})" if names.count(name) > 1 else name for name, source_id in streams]


def _joined(parts: Sequence[StreamBuffer | Follower], names: Sequence[str]) -> Channels:
    """Return the channels of several streams, one after the other."""
    if len(set(names)) < len(names):
        raise StreamError(f"streams cannot be told apart, or one is named twice: {', '.join(names)}")
    owner: dict[str, str] = {}
    for part, name in zip(parts, names, strict=True):
        if twice := next((each for each in part.channels.names if each in owner), None):
            raise StreamError(
                f"streams {owner[twice]!r} and {name!r} both have a channel {twice!r}; set a prefix for one of them"
            )
        owner |= dict.fromkeys(part.channels.names, name)
    channels = [part.channels for part in parts]
    if len(channels) == 1:
        return channels[0]
    labels, kinds, units = (
        tuple(one for each in channels for one in getattr(each, key)) for key in ("names", "kinds", "units")
    )
    return Channels(labels, kinds, units, side_by_side([(each.montage, len(each)) for each in channels]))
