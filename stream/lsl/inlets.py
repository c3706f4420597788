"""Inlets, each of one stream, with times in our clock."""

import logging
import math
import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from stream.lsl.offset import HostClocks

if TYPE_CHECKING:
    import pylsl

logger = logging.getLogger(__name__)
CHUNK_S = 0.5
"""Seconds of samples that one pull may bring."""
CORRECT_EVERY_S = 5.0
BUFFER_S = 60
MARKERS = 1024
"""Markers that one pull may bring."""
IRREGULAR = 100
"""liblsl counts an irregular stream's buffer in hundreds of samples."""


class Inlet:
    """The inlet of one stream.

    Recovery by liblsl is off: it raises no event, and an inlet destroyed while it recovers can abort the process
    (liblsl issue 220). A lost source raises LostError here and is looked for anew.

    Parameters
    ----------
    lsl : module
    info : pylsl.StreamInfo
    clocks : HostClocks
    stamps : {'source', 'arrival'}
        Whose time stamps.
    sfreq : float, optional
        The true rate, where the stream declares none.
    """

    def __init__(
        self, lsl: Any, info: "pylsl.StreamInfo", clocks: HostClocks, *,
        stamps: Literal["source", "arrival"] = "source", sfreq: float | None = None,
    ) -> None:  # fmt: skip
        declared = info.nominal_srate()
        self.sfreq = sfreq or declared
        buffer = BUFFER_S if declared else math.ceil(BUFFER_S * max(1.0, self.sfreq / IRREGULAR))
        self._lsl, self._arrival = lsl, stamps == "arrival"
        self._inlet = lsl.StreamInlet(info, max_buflen=buffer, recover=False)
        self._offset = clocks.of(info.hostname())
        self._measured = -math.inf

    def info(self) -> Any:
        """Ask for the full description of the stream."""
        return self._inlet.info(5.0)

    def open(self) -> None:
        """Begin to receive."""
        self._inlet.open_stream(5.0)

    def close(self) -> None:
        """Let the connection go."""
        self._offset.leave(self._inlet)
        self._inlet.close_stream()

    def measure(self, *, claim: bool = False) -> None:
        """Measure how far the clock of the stream's host is from ours, unless another stream of it does."""
        self._measured = time.monotonic()
        self._offset.measure(self._inlet, claim=claim)

    def times(self, stamps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return time stamps, shape (n,), in our clock; of the samples that have just come."""
        if not self._arrival:
            return stamps + self._offset.seconds
        later = np.arange(len(stamps) - 1, -1, -1) / self.sfreq if self.sfreq else np.zeros(len(stamps))
        arrived: NDArray[np.float64] = self._lsl.local_clock() - later
        return arrived

    def _correct(self) -> None:
        """Measure the clock when it is due."""
        if time.monotonic() - self._measured > CORRECT_EVERY_S:
            try:
                self.measure()
            except self._lsl.util.TimeoutError:
                logger.warning("no answer on the clock offset; the last one stays in use")


class DataInlet(Inlet):
    """The inlet of a stream of samples."""

    def __init__(self, lsl: Any, info: "pylsl.StreamInfo", clocks: HostClocks, **options: Any) -> None:
        super().__init__(lsl, info, clocks, **options)
        rows = max(256, round(self.sfreq * CHUNK_S))
        self._buffer = np.empty((rows, info.channel_count()), dtype=self._inlet.np_dtype)

    def pull(self) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Wait up to 20 ms for samples, and their times in our clock.

        Returns
        -------
        samples : ndarray, shape (n, n_channels)
            As they were sent; written over by the next pull.
        times : ndarray, shape (n,), float64
        """
        self._correct()
        n = len(self._buffer)
        _, stamps = self._inlet.pull_chunk(timeout=0.02, max_samples=n, dest_obj=self._buffer, min_samples=1)
        return self._buffer[: len(stamps)], self.times(np.asarray(stamps, dtype=np.float64))


class MarkerInlet(Inlet):
    """The inlet of a stream of markers."""

    def pull(self) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Wait up to 0.1 s for markers, shape (n, n_columns), texts as bytes, and their times, shape (n,)."""
        self._correct()
        rows, stamps = self._inlet.pull_chunk(timeout=0.1, max_samples=MARKERS, min_samples=1, as_numpy=True)
        return rows, self.times(np.asarray(stamps, dtype=np.float64))
