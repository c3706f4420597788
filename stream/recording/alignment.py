"""Recordings made side by side, put on one time line."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace

from stream.types.recording import RecordedStream, Recording

logger = logging.getLogger(__name__)
AGREE_S = 5.0
"""Seconds by which dates, whole seconds at times, may differ from the LSL clocks."""


def align(recordings: Sequence[Recording]) -> tuple[Recording, ...]:
    """Shift recordings so that each begins as long after the first as it was recorded.

    The LSL clock of the recording machine tells (two XDF files), else the measurement dates. Where one is not known, or
    the recordings do not overlap, all begin together, with a warning.

    Returns
    -------
    recordings : tuple of Recording
        In the order given; the earliest begins at 0.
    """
    if len(recordings) < 2:
        return tuple(recordings)
    begins, by = _begins(recordings)
    if begins and not _are_contiguous(begins, recordings):
        begins, by = None, f"by {by} they do not overlap"
    if begins is None:
        logger.warning("all recordings begin together: %s", by)
        return tuple(recordings)
    first = min(begins)
    shifted = [shift(recording, begin - first) for recording, begin in zip(recordings, begins, strict=True)]
    starts = ", ".join(f"{one.name} at {begin - first:.3f} s" for one, begin in zip(recordings, begins, strict=True))
    logger.info("%s, by %s", starts, by)
    return tuple(shifted)


def shift(recording: Recording, seconds: float) -> Recording:
    """Return a recording whose times are later by some seconds."""
    return replace(
        recording,
        streams=tuple(_later(stream, seconds) for stream in recording.streams),
        events=tuple(replace(event, time=event.time + seconds) for event in recording.events),
        other_events=tuple(replace(event, time=event.time + seconds) for event in recording.other_events),
        begun=None if recording.begun is None else recording.begun - seconds,
        lsl_begun=None if recording.lsl_begun is None else recording.lsl_begun - seconds,
    )


def _later(stream: RecordedStream, seconds: float) -> RecordedStream:
    bad = tuple(replace(segment, start=segment.start + seconds) for segment in stream.bad)
    return replace(stream, times=stream.times + seconds, bad=bad)


def with_unique_names(recordings: Sequence[Recording]) -> tuple[Recording, ...]:
    """Add numbers to streams, and recordings of markers alone, whose name or source id an earlier one has."""
    names: set[str] = set()
    ids: set[str] = set()

    def free(name: str, source_id: str) -> tuple[str, str]:
        endings = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
        ending = next(end for end in endings if name + end not in names and source_id + end not in ids)
        names.add(name + ending)
        ids.add(source_id + ending)
        if ending:
            logger.warning("there is a stream %s already; the next one is called %s", name, name + ending)
        return name + ending, source_id + ending

    told_apart = []
    for recording in recordings:
        streams = []
        for stream in recording.streams:
            name, source_id = free(stream.name, stream.source_id)
            streams.append(replace(stream, name=name, source_id=source_id))
        name = recording.name if streams else free(recording.name, recording.name)[0]
        told_apart.append(replace(recording, name=name, streams=tuple(streams)))
    return tuple(told_apart)


def length(recording: Recording) -> float:
    """Return the seconds from a recording's time 0 to one period after its last sample, or to its last event."""
    # One period after the last sample, so that a loop's first sample follows in step.
    ends = [stream.times[-1] + (1 / stream.sfreq if stream.sfreq else 0.5) for stream in recording.streams]
    return float(max([0.0, *ends, *(event.time for event in recording.events[-1:])]))


def _begins(recordings: Sequence[Recording]) -> tuple[list[float] | None, str]:
    dates = [one.begun for one in recordings if one.begun is not None]
    clocks = [one.lsl_begun for one in recordings if one.lsl_begun is not None]
    dated, clocked = len(dates) == len(recordings), len(clocks) == len(recordings)
    # Clocks of different machines have nothing to do with each other; the dates would show it.
    if clocked and (
        not dated or all(abs((a - clocks[0]) - (b - dates[0])) < AGREE_S for a, b in zip(clocks, dates, strict=True))
    ):
        return clocks, "the LSL clock"
    if dated:
        return dates, "the measurement dates"
    undated = ", ".join(one.name for one in recordings if one.begun is None)
    return None, f"no measurement date in {undated}"


def _are_contiguous(begins: Sequence[float], recordings: Sequence[Recording]) -> bool:
    """Check that no recording begins after all before it have ended."""
    segments = sorted((begin, begin + length(one)) for begin, one in zip(begins, recordings, strict=True))
    end = segments[0][1]
    for begin, stop in segments[1:]:
        if begin > end:
            return False
        end = max(end, stop)
    return True
