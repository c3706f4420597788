"""The inlets of one source: its samples and its markers, on one clock."""

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream.events import Event, event_of
from stream.offset import ClockOffset

if TYPE_CHECKING:
    import pylsl

LOG = logging.getLogger(__name__)
CHUNK_S = 0.5  # the most that one pull may bring
CORRECT_EVERY_S = 5.0


class Inlets:
    """The data inlet and the markers' of one source, on one clock.

    Recovery by liblsl is off: it raises no event, and an inlet destroyed while it recovers can abort the process
    (liblsl issue 220). A lost source raises LostError here and is looked for anew.
    """

    def __init__(self, lsl: Any, info: "pylsl.StreamInfo", marker_infos: "Sequence[pylsl.StreamInfo]" = ()) -> None:
        rate = info.nominal_srate()
        self._lsl = lsl
        self._data = lsl.StreamInlet(info, max_buflen=60, recover=False)
        self._offset = ClockOffset(lsl, self._data, info.hostname())
        self._markers = [lsl.StreamInlet(each, max_buflen=60, recover=False) for each in marker_infos]
        # Streams of one host share one offset, else markers slip against samples.
        self._offsets = {info.hostname(): self._offset}
        for each, inlet in zip(marker_infos, self._markers, strict=True):
            self._offsets.setdefault(each.hostname(), ClockOffset(lsl, inlet, each.hostname()))
        self._marker_offsets = [self._offsets[each.hostname()] for each in marker_infos]
        self._buffer = np.empty((max(256, round(rate * CHUNK_S)), info.channel_count()), dtype=self._data.np_dtype)
        self._measured = -np.inf

    def info(self) -> Any:
        """Ask for the full description of the data stream."""
        return self._data.info(5.0)

    def open(self) -> None:
        """Begin to receive; the markers first: a replay that waits for consumers begins when data are asked for."""
        for inlet in (*self._markers, self._data):
            inlet.open_stream(5.0)

    def close(self) -> None:
        """Let the connections go."""
        for inlet in (self._data, *self._markers):
            if inlet:
                inlet.close_stream()
        self._data, self._markers = None, []

    def measure(self) -> None:
        """Measure how far the clocks of the sources' hosts are from ours."""
        self._measured = time.monotonic()
        for offset in self._offsets.values():
            offset.measure()

    def pull(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Wait up to 20 ms for samples, shape (n, n_channels), and their times in our clock, shape (n,)."""
        if time.monotonic() - self._measured > CORRECT_EVERY_S:
            try:
                self.measure()
            except self._lsl.util.TimeoutError:
                LOG.warning("no answer on the clock offset; the last one stays in use")
        n = len(self._buffer)
        _, stamps = self._data.pull_chunk(timeout=0.02, max_samples=n, dest_obj=self._buffer, min_samples=1)
        return self._buffer[: len(stamps)].astype(np.float64), np.asarray(
            stamps, dtype=np.float64
        ) + self._offset.seconds

    def pull_events(self) -> list[Event]:
        """Take the markers that have come, with times in our clock."""
        events: list[Event] = []
        for inlet, offset in zip(self._markers, self._marker_offsets, strict=True):
            rows, stamps = inlet.pull_chunk(timeout=0.0)
            pairs = zip(rows or (), stamps, strict=True)
            made = (event_of(stamp + offset.seconds, row[0]) for row, stamp in pairs)
            events += [event for event in made if event]
        return events
