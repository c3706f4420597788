"""Recordings of one vector a picture: spike counts, or fMRI responses that were estimated beforehand."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels

PERIOD = 2.0
"""Seconds from one picture to the next."""
DELAY = 0.2
"""Seconds from a picture to its vector."""


def numbered_channels(kind: str, n: int, unit: str, *, name: str | None = None) -> Channels:
    """Name `n` channels of one kind by their number, from 1; `name` is the kind where it is left out."""
    return Channels(tuple(f"{name or kind}{number:03d}" for number in range(1, n + 1)), (kind,) * n, (unit,) * n)


def vector_recording(
    name: str, description: str, *, kind: str, channels: Channels, labels: Sequence[str], data: NDArray[np.float32]
) -> Recording:
    """Lay vectors on a time line: every 2 s a picture, and 0.2 s later the vector that answers to it.

    The data sets hold no times of single vectors, so these are ours; nothing is decoded from them.

    Parameters
    ----------
    name, description : str
    kind : str
        Type of the stream: 'spikes', 'fMRI'.
    channels : Channels
    labels : sequence of str, one a vector
    data : ndarray, shape (n_vectors, n_channels)
    """
    onsets = 1.0 + PERIOD * np.arange(len(labels), dtype=np.float64)
    stream = RecordedStream(name, kind, f"replay-{name}", channels, 0.0, onsets + DELAY, data)
    events = tuple(Event(float(time), label) for time, label in zip(onsets, labels, strict=True))
    return Recording(name, description, (stream,), events)
