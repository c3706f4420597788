"""Play recordings as live LSL streams, with their own timing.

A replay at `speed` declares the rate at which samples really come (sfreq times speed), so that any LSL client reads
a stream that is true to its clock, and says in desc/replay/{speed,sfreq} what the source's own rate was; `LiveIngest`
filters and cuts by that one, so windows hold the same samples at any speed. desc/replay/samples says after how many
samples the stream ends by itself (not when it loops): its end is no loss then.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stream.errors import RecordingError
from stream.lsl.discovery import load_lsl
from stream.lsl.metadata import stream_info
from stream.recording.alignment import align, length, with_unique_names
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording

TICK_S = 0.004
AHEAD = 8192
"""Samples looked at in a tick."""
LEAD_S = 0.5
"""Seconds between the first consumer and the first sample: its marker inlet connects meanwhile."""
LINGER_S = 1.0
"""Seconds that an outlet stays: it takes with it what was not fetched yet."""
SPEEDS = (0.1, 100.0)


def replay(
    *recordings: Recording,
    speed: float = 1.0,
    loop: bool = False,
    wait_for_consumers: bool = True,
    progress: Callable[[float, float], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Replay recordings on one time line (see `stream.recording.alignment`), to their end or until `stop` is set.

    Each stream gets an outlet of its own name; samples in bad segments are sent without a number, see
    `RecordedStream.masked_data`. The events of each recording that has some go, as text, to '<its first stream's
    name>-markers', type 'Markers', with the timestamps of the samples they fell on. Where a recording holds the events
    of several marker streams, each is sent under its own name.

    Parameters
    ----------
    *recordings : Recording
    speed : float
        0.1 to 100.
    loop : bool
        Begin again at the end of the longest; timestamps go on.
    wait_for_consumers : bool
        Begin only when somebody reads one of the data streams.
    progress : callable, optional
        Called some times a second with the seconds played of the whole (of the source) and its length.
    stop : threading.Event, optional

    Raises
    ------
    RecordingError
        The speed is out of range, or a recording is empty.
    """
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise RecordingError(f"speed {speed:g} is out of range; choose {SPEEDS[0]:g} to {SPEEDS[1]:g}")
    for recording in recordings:
        if not all(len(stream.times) for stream in recording.streams):
            raise RecordingError(f"recording {recording.name!r} holds a stream without samples")
    if not any(recording.streams for recording in recordings):
        raise RecordingError("there is no data stream to replay; name a recording that holds one")
    stop = stop or threading.Event()
    lsl = load_lsl()
    player = _Player(lsl, with_unique_names(align(recordings)), speed, loop=loop)
    while wait_for_consumers and not stop.is_set() and not player.consumed():
        stop.wait(TICK_S)
    begin = lsl.local_clock() + LEAD_S
    while not stop.is_set():
        player.play(begin, stop, progress)
        begin += player.length / speed
        if not loop:
            break
    stop.wait(LINGER_S)


class _Markers:
    """The events of a marker stream on their way out."""

    def __init__(self, lsl: Any, name: str, source_id: str, events: Sequence[Event]) -> None:
        names = {tuple(column for column, _ in event.columns) for event in events}
        self._columns = names.pop() if len(names) == 1 else ()
        info = lsl.StreamInfo(name, "Markers", max(1, len(self._columns)), 0.0, "string", source_id)
        channels: Any = info.desc().append_child("channels") if self._columns else None
        for column in self._columns:
            channels.append_child("channel").append_child_value("label", column)
        info.desc().append_child("replay").append_child_value("events", str(len(events)))
        self._outlet = lsl.StreamOutlet(info)
        self._events = sorted(events, key=lambda event: event.time)
        self._times = np.array([event.time for event in self._events])

    def push(self, due: float, done: int, begin: float, speed: float) -> int:
        """Send what has fallen due after the first `done`; return how many were sent by then."""
        upto = int(np.searchsorted(self._times, due, side="right"))
        for event in self._events[done:upto]:
            row = [text for _, text in event.columns] if self._columns else [event.label]
            self._outlet.push_sample(row, begin + event.time / speed)
        return upto


def _marker_streams(lsl: Any, recordings: Sequence[Recording]) -> list[_Markers]:
    """Make the marker streams of all recordings; of those that bear their own names, no two bear one."""
    streams: list[_Markers] = []
    names = {stream.name for recording in recordings for stream in recording.streams}
    for recording in recordings:
        own = source_id = recording.name
        if recording.streams:
            own, source_id = recording.streams[0].name, recording.streams[0].source_id
        parts: dict[str, list[Event]] = {}
        for event in recording.events:
            parts.setdefault(event.stream, []).append(event)
        if len(parts.keys() - {""}) < 2:
            parts = {"": list(recording.events)} if recording.events else {}
        for part, events in parts.items():
            name = part or f"{own}-markers"
            name = next(each for each in (name, f"{own}-{part}", *(f"{own}-{part}-{n}" for n in range(2, 9999)))
                        if each not in names)  # fmt: skip
            names.add(name)
            streams.append(_Markers(lsl, name, f"{source_id}-{part or 'markers'}", events))
    return streams


class _Player:
    def __init__(self, lsl: Any, recordings: Sequence[Recording], speed: float, *, loop: bool) -> None:
        self._lsl, self._speed = lsl, speed
        self._streams = [stream for recording in recordings for stream in recording.streams]
        self._data = [stream.masked_data for stream in self._streams]
        self._outlets = [
            lsl.StreamOutlet(_info(lsl, stream, recording.description, speed, loop=loop))
            for recording in recordings
            for stream in recording.streams
        ]
        self._markers = _marker_streams(lsl, recordings)
        self.length = max(length(recording) for recording in recordings)

    def consumed(self) -> bool:
        return any(outlet.have_consumers() for outlet in self._outlets)

    def play(self, begin: float, stop: threading.Event, progress: Callable[[float, float], None] | None) -> None:
        """Send everything of one pass as it falls due."""
        sent = [0] * len(self._streams)
        marked = [0] * len(self._markers)
        reported = -1.0
        while not stop.is_set():
            due = (self._lsl.local_clock() - begin) * self._speed
            for i, markers in enumerate(self._markers):
                marked[i] = markers.push(due, marked[i], begin, self._speed)
            for i, stream in enumerate(self._streams):
                last = _due(stream, sent[i], due)
                if last > sent[i]:
                    stamps = begin + stream.times[sent[i] : last] / self._speed
                    self._outlets[i].push_chunk(self._data[i][sent[i] : last], stamps.tolist())
                    sent[i] = last
            if progress and due - reported >= 0.1 * self._speed:
                reported = due
                progress(min(max(due, 0.0), self.length), self.length)
            if due >= self.length and sent == [len(stream.times) for stream in self._streams]:
                if progress:
                    progress(self.length, self.length)
                break
            stop.wait(TICK_S)


def _due(stream: RecordedStream, sent: int, due: float) -> int:
    """Count the samples that are due; timestamps of a real recording may step back, samples keep their order."""
    ahead = stream.times[sent : sent + AHEAD]
    late = np.flatnonzero(ahead > due)
    return sent + (int(late[0]) if len(late) else len(ahead))


def _info(lsl: Any, stream: RecordedStream, description: str, speed: float, *, loop: bool) -> Any:
    """Declare a stream, channels and all."""
    rate = stream.sfreq * speed
    info = stream_info(lsl, stream.name, stream.type, stream.channels, rate, stream.source_id, description)
    entry = info.desc().append_child("replay")
    entry.append_child_value("speed", repr(float(speed)))
    entry.append_child_value("sfreq", repr(float(stream.sfreq)))
    if not loop:
        entry.append_child_value("samples", str(len(stream.times)))
    return info
