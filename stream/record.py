"""Record LSL streams to an XDF file, with the same account of gaps as the live ingest."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream.clock import Gap, SampleClock
from stream.errors import RecordingError, SourceError
from stream.sources import LOOK_S, StreamSelector, find, load_lsl, matches
from stream.xdf_writer import XdfWriter

if TYPE_CHECKING:
    import pylsl

LOG = logging.getLogger(__name__)
TICK_S = 0.01
OFFSET_EVERY_S = 5.0
FLUSH_EVERY_S = 1.0
BOUNDARY_EVERY_S = 10.0
BUFFERED_S = 360  # what liblsl holds while the disk is busy or a lost source is looked for
CHUNK = 4096


@dataclass(slots=True)
class StreamAccount:
    """What was recorded of one stream.

    Attributes
    ----------
    name, type, source_id : str
    samples : int
        In the file.
    lost : int
        Missing by the timestamps (regular streams).
    gap_count : int
    gaps : list of Gap
        The newest 100, times in the LSL clock of this machine.
    disconnections : int
        How often the source went away.
    """

    name: str
    type: str
    source_id: str
    samples: int = 0
    lost: int = 0
    gap_count: int = 0
    gaps: list[Gap] = field(default_factory=list)
    disconnections: int = 0


@dataclass(frozen=True, slots=True)
class RecordAccount:
    """What a recording holds: where it is, how large, how long it took, and each stream's account."""

    file: str
    bytes: int
    seconds: float
    streams: tuple[StreamAccount, ...]

    @property
    def lost(self) -> int:
        """Samples missing, all streams together."""
        return sum(stream.lost for stream in self.streams)


def record(
    path: Path,
    selectors: Sequence[StreamSelector] = (),
    *,
    seconds: float | None = None,
    timeout_s: float = 10.0,
    peers: tuple[str, ...] = ("127.0.0.1",),
    progress: Callable[[RecordAccount], None] | None = None,
    stop: threading.Event | None = None,
) -> RecordAccount:
    """Record until `stop` is set or `seconds` are over.

    Samples go into the file as they came (numbers, format and stamps untouched), clock offsets beside them.

    Parameters
    ----------
    path : Path
        New XDF file.
    selectors : sequence of StreamSelector
        Each names one stream; left empty, every stream that is there at the start is recorded.
    seconds : float, optional
    timeout_s : float
        How long to look for the streams.
    peers : tuple of str
        Machines asked directly, where multicast does not reach.
    progress : callable, optional
        Called about twice a second.
    stop : threading.Event, optional

    Raises
    ------
    SourceError
        A stream is missing, ambiguous or doubled.
    RecordingError
        The file cannot be written, or no longer; says what was saved.
    """
    stop = stop or threading.Event()
    lsl = load_lsl(peers)
    tracks = [_Track(lsl, info) for info in _choose(lsl, selectors, timeout_s, stop)]
    try:
        with XdfWriter(path) as file:
            recorder = _Recorder(file, tracks)
            recorder.run(seconds, progress, stop)
            return recorder.account()
    finally:
        for track in tracks:
            track.close()


def _choose(
    lsl: Any, selectors: Sequence[StreamSelector], timeout_s: float, stop: threading.Event
) -> "list[pylsl.StreamInfo]":
    """Resolve the streams to record; a stream that two selectors name is recorded once."""
    if selectors:
        chosen = [find(selector, timeout_s, lsl=lsl, stop=stop) for selector in selectors]
        return list({info.uid(): info for info in chosen}.values())
    deadline = time.monotonic() + timeout_s
    while not (found := lsl.resolve_streams(LOOK_S)) and time.monotonic() < deadline and not stop.is_set():
        pass
    if not found:
        raise SourceError(f"no stream at all within {timeout_s:g} s; start the amplifier's LSL app first")
    ids = [info.source_id() for info in found if info.source_id()]
    if twins := sorted({f"{one!r}" for one in ids if ids.count(one) > 1}):
        raise SourceError(f"several streams carry source_id {', '.join(twins)}; stop one, or name what to record")
    return sorted(found, key=lambda info: (info.nominal_srate() == 0, info.name()))


class _Track:
    """One stream on its way into the file."""

    def __init__(self, lsl: Any, info: "pylsl.StreamInfo") -> None:
        self._lsl = lsl
        self.account = StreamAccount(info.name(), info.type(), info.source_id())
        self.number = 0
        self.header = ""
        self.offsets: list[tuple[float, float]] = []
        self.first = self.last = 0.0
        self._shape = (info.channel_count(), info.channel_format(), info.nominal_srate())
        self._clock = SampleClock(info.nominal_srate())
        self._measured = -np.inf
        self._inlet: Any = None
        self._resolved = info
        self._given_up = False

    def open(self) -> None:
        """Connect.

        Raises
        ------
        SourceError
            The stream does not answer.
        """
        if not self._connect(self._resolved):
            raise SourceError(
                f"stream {self.account.name!r} was found but does not answer: is a firewall between?"
            ) from None

    def close(self) -> None:
        if self._inlet:
            self._inlet.close_stream()
        self._inlet = None

    def offset(self) -> tuple[float, float] | None:
        """Measure the clock when it is due; (time in the source's clock, seconds to add)."""
        now = time.monotonic()
        if self._inlet is None or now - self._measured < OFFSET_EVERY_S:
            return None
        try:
            value = self._inlet.time_correction(5.0 if not self.offsets else 0.2)
        except (self._lsl.util.TimeoutError, self._lsl.util.LostError):
            LOG.warning("stream %s: no answer on the clock offset", self.account.name)
            self._measured = now
            return None
        self._measured = now
        self.offsets.append((self._lsl.local_clock() - value, value))
        return self.offsets[-1]

    def pull(self) -> tuple[NDArray[np.float64], NDArray[Any]] | None:
        """Take what has come in; None if nothing has."""
        if self._inlet is None and (self._given_up or not self._find_again()):
            return None
        try:
            data, stamps = self._inlet.pull_chunk(timeout=0.0, max_samples=CHUNK, as_numpy=True)
        except self._lsl.util.LostError:
            LOG.warning("stream %s is lost", self.account.name)
            self.account.disconnections += 1
            self.close()
            return None
        if not len(stamps):
            return None
        return stamps, data

    def count(self, stamps: NDArray[np.float64]) -> None:
        """Enter samples that are in the file into the account."""
        account = self.account
        if not account.samples:
            self.first = float(stamps[0])
        self.last = float(stamps[-1])
        account.samples += len(stamps)
        offset = self.offsets[-1][1] if self.offsets else 0.0
        for _, gap in self._clock.feed(stamps + offset).gaps:
            account.gap_count += 1
            account.lost += gap.lost
            account.gaps = [*account.gaps[-99:], gap]

    def _connect(self, info: "pylsl.StreamInfo") -> bool:
        inlet = self._lsl.StreamInlet(info, max_buflen=BUFFERED_S, recover=False)
        try:
            self.header = inlet.info(5.0).as_xml()
            inlet.open_stream(5.0)
        except (self._lsl.util.TimeoutError, self._lsl.util.LostError):
            inlet.close_stream()
            return False
        self._inlet, self._measured = inlet, -np.inf
        return True

    def _find_again(self) -> bool:
        """Look once for the lost source; one that came back otherwise shaped is not the same stream."""
        account = self.account
        wanted = StreamSelector(name=account.name, type=account.type, source_id=account.source_id or None)
        found = [info for info in self._lsl.resolve_streams(LOOK_S) if matches(wanted, info)]
        if len(found) != 1:
            return False
        shape = (found[0].channel_count(), found[0].channel_format(), found[0].nominal_srate())
        if shape != self._shape:
            LOG.error("stream %s came back with other channels or another rate; not recorded any more", account.name)
            self._given_up = True
            return False
        return self._connect(found[0])


class _Recorder:
    def __init__(self, file: XdfWriter, tracks: list[_Track]) -> None:
        self._file, self._tracks = file, tracks
        self._begun = time.monotonic()
        self._flushed = self._marked = self._reported = self._begun

    def run(
        self, seconds: float | None, progress: Callable[[RecordAccount], None] | None, stop: threading.Event
    ) -> None:
        try:
            for track in self._tracks:
                track.open()
                track.number = self._file.stream(track.header)
            self._begun = time.monotonic()
            while not stop.is_set() and (seconds is None or time.monotonic() - self._begun < seconds):
                self._move()
                self._keep(progress)
                stop.wait(TICK_S)
            self._move()
            for track in self._tracks:
                self._file.footer(track.number, track.first, track.last, track.account.samples, track.offsets)
            self._file.flush()
        except RecordingError as error:
            raise RecordingError(f"{error}; saved: {self._saved()}") from None

    def account(self) -> RecordAccount:
        seconds = round(time.monotonic() - self._begun, 3)
        return RecordAccount(
            str(self._file.path), self._file.size, seconds, tuple(track.account for track in self._tracks)
        )

    def _move(self) -> None:
        for track in self._tracks:
            if offset := track.offset():
                self._file.offset(track.number, *offset)
            for _ in range(64):  # a backlog is worked off in turns
                if (chunk := track.pull()) is None:
                    break
                self._file.samples(track.number, *chunk)
                track.count(chunk[0])

    def _keep(self, progress: Callable[[RecordAccount], None] | None) -> None:
        now = time.monotonic()
        if now - self._marked > BOUNDARY_EVERY_S:
            self._file.boundary()
            self._marked = now
        if now - self._flushed > FLUSH_EVERY_S:
            self._file.flush()
            self._flushed = now
        if progress and now - self._reported > 0.5:
            progress(self.account())
            self._reported = now

    def _saved(self) -> str:
        return ", ".join(f"{t.account.samples} samples of {t.account.name}" for t in self._tracks) or "nothing"
