"""Play a recording as live LSL streams, with its own timing.

A replay at `speed` declares the rate at which samples really come (sfreq times speed), so that any LSL client reads
a stream that is true to its clock, and says in desc/replay/{speed,sfreq} what the source's own rate was; `LiveIngest`
filters and cuts by that one, so windows hold the same samples at any speed. desc/replay/samples says after how many
samples the stream ends by itself (not when it loops): its end is no loss then.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from stream.errors import RecordingError
from stream.recordings import RecordedStream, Recording
from stream.sources import load_lsl

TICK_S = 0.004
AHEAD = 8192  # samples looked at a tick
LEAD_S = 0.5  # between the first consumer and the first sample: its marker inlet connects meanwhile
LINGER_S = 1.0  # an outlet takes with it what was not fetched yet
SPEEDS = (0.1, 100.0)


def replay(
    recording: Recording,
    *,
    speed: float = 1.0,
    loop: bool = False,
    wait_for_consumers: bool = True,
    progress: Callable[[float, float], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Play a recording; returns at its end or after `stop` is set.

    Each stream gets an outlet of its own name; events go, as text, to '<first stream's name>-markers', type
    'Markers', with the timestamps of the samples they fell on.

    Parameters
    ----------
    recording : Recording
    speed : float
        0.1 to 100.
    loop : bool
        Begin again at the end; timestamps go on.
    wait_for_consumers : bool
        Begin only when somebody reads one of the data streams.
    progress : callable, optional
        Called some times a second with the seconds played of the whole (of the source) and its length.
    stop : threading.Event, optional

    Raises
    ------
    RecordingError
        The speed is out of range, or the recording is empty.
    """
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise RecordingError(f"speed {speed:g} is out of range; choose {SPEEDS[0]:g} to {SPEEDS[1]:g}")
    if not recording.streams or not all(len(stream.times) for stream in recording.streams):
        raise RecordingError(f"recording {recording.name!r} holds a stream without samples")
    stop = stop or threading.Event()
    lsl = load_lsl()
    player = _Player(lsl, recording, speed, loop=loop)
    while wait_for_consumers and not stop.is_set() and not player.consumed():
        stop.wait(TICK_S)
    begin = lsl.local_clock() + LEAD_S
    while not stop.is_set():
        player.play(begin, stop, progress)
        begin += player.length / speed
        if not loop:
            break
    stop.wait(LINGER_S)


class _Player:
    def __init__(self, lsl: Any, recording: Recording, speed: float, *, loop: bool) -> None:
        self._lsl, self._speed = lsl, speed
        self._streams = recording.streams
        self._outlets = [
            lsl.StreamOutlet(_info(lsl, stream, recording.description, speed, loop=loop)) for stream in self._streams
        ]
        first = self._streams[0]
        marker_info = lsl.StreamInfo(f"{first.name}-markers", "Markers", 1, 0.0, "string", f"{first.source_id}-markers")
        self._marker_outlet = lsl.StreamOutlet(marker_info)
        self._events = sorted(recording.events, key=lambda event: event.time)
        self._event_times = np.array([event.time for event in self._events])
        # One period after the last sample, so that a loop's first sample follows in step.
        ends = [stream.times[-1] + (1 / stream.sfreq if stream.sfreq else 0.5) for stream in self._streams]
        self.length = float(max(*ends, self._event_times[-1] if len(self._events) else 0.0))

    def consumed(self) -> bool:
        return any(outlet.have_consumers() for outlet in self._outlets)

    def play(self, begin: float, stop: threading.Event, progress: Callable[[float, float], None] | None) -> None:
        """Push everything of one pass as it falls due."""
        sent = [0] * len(self._streams)
        marked = 0
        reported = -1.0
        while not stop.is_set():
            due = (self._lsl.local_clock() - begin) * self._speed
            upto = int(np.searchsorted(self._event_times, due, side="right"))
            for event in self._events[marked:upto]:
                self._marker_outlet.push_sample([event.label], begin + event.time / self._speed)
            marked = upto
            for i, stream in enumerate(self._streams):
                last = _due(stream, sent[i], due)
                if last > sent[i]:
                    stamps = begin + stream.times[sent[i] : last] / self._speed
                    self._outlets[i].push_chunk(stream.data[sent[i] : last], stamps.tolist())
                    sent[i] = last
            if progress and due - reported >= 0.1 * self._speed:
                reported = due
                progress(min(max(due, 0.0), self.length), self.length)
            if due >= self.length and sent == [len(stream.times) for stream in self._streams]:
                break
            stop.wait(TICK_S)


def _due(stream: RecordedStream, sent: int, due: float) -> int:
    """How many samples have fallen due; a real recording's timestamps may step back, its samples keep their order."""
    ahead = stream.times[sent : sent + AHEAD]
    late = np.flatnonzero(ahead > due)
    return sent + (int(late[0]) if len(late) else len(ahead))


def _info(lsl: Any, stream: RecordedStream, description: str, speed: float, *, loop: bool) -> Any:
    """Declare a stream, channels and all."""
    channels = stream.channels
    info = lsl.StreamInfo(stream.name, stream.type, len(channels), stream.sfreq * speed, "float32", stream.source_id)
    desc = info.desc()
    desc.append_child_value("description", description)
    entry = desc.append_child("replay")
    entry.append_child_value("speed", repr(float(speed)))
    entry.append_child_value("sfreq", repr(float(stream.sfreq)))
    if not loop:
        entry.append_child_value("samples", str(len(stream.times)))
    listed = desc.append_child("channels")
    for name, kind, unit in zip(channels.names, channels.kinds, channels.units, strict=True):
        channel = listed.append_child("channel")
        channel.append_child_value("label", name)
        channel.append_child_value("type", kind.upper())
        channel.append_child_value("unit", unit)
    return info
