"""Epochs, and recordings of several sessions, put one after the other on a time line."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels

PAUSE = 1.0
"""Seconds without samples between two epochs or sessions: no window, and no filter, runs from one into the next."""


def epoch_recording(
    name: str,
    description: str,
    *,
    kind: str,
    channels: Channels,
    times: NDArray[np.float64],
    data: NDArray[np.float32],
    labels: Sequence[str],
) -> Recording:
    """Lay epochs on a time line, a second of nothing between them, with an event at time 0 of each.

    Parameters
    ----------
    name, description : str
    kind : str
        Type of the stream: 'EEG', 'MEG'.
    channels : Channels
    times : ndarray, shape (n_times,)
        Of an epoch's samples, in seconds from its event; evenly spaced.
    data : ndarray, shape (n_epochs, n_channels, n_times)
    labels : sequence of str, one an epoch
    """
    n_epochs, n_channels, n_times = data.shape
    sfreq = float(round((n_times - 1) / (times[-1] - times[0]), 3))
    pitch = n_times + round(PAUSE * sfreq)
    samples = pitch * np.arange(n_epochs)[:, None] + np.arange(n_times)
    rows = np.ascontiguousarray(data.transpose(0, 2, 1), dtype=np.float32).reshape(-1, n_channels)
    stream = RecordedStream(name, kind, f"replay-{name}", channels, sfreq, samples.ravel() / sfreq, rows)
    onsets = samples[:, 0] / sfreq - times[0]
    events = tuple(Event(float(time), label) for time, label in zip(onsets, labels, strict=True))
    return Recording(name, description, (stream,), events)


def join_recordings(name: str, recordings: Sequence[Recording]) -> Recording:
    """Join recordings of one stream each, of the same channels and rate, one after the other."""
    first = recordings[0].streams[0]
    times, events, bad, start = [], [], [], 0.0
    for recording in recordings:
        stream = recording.streams[0]
        times.append(stream.times + start)
        events += [replace(event, time=event.time + start) for event in recording.events]
        bad += [replace(segment, start=segment.start + start) for segment in stream.bad]
        start += float(stream.times[-1]) + PAUSE + 1 / stream.sfreq
    data = np.concatenate([recording.streams[0].data for recording in recordings])
    stream = replace(
        first, name=name, source_id=f"replay-{name}", times=np.concatenate(times), data=data, bad=tuple(bad)
    )
    warnings = tuple(dict.fromkeys(line for recording in recordings for line in recording.warnings))
    return Recording(name, recordings[0].description, (stream,), tuple(events), warnings=warnings)
