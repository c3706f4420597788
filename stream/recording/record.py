"""Record LSL streams to an XDF file, with the same account of gaps as the live ingest."""

import logging
import threading
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordingError, SourceError
from stream.files.xdf_writer import XdfWriter
from stream.lsl.discovery import LOOK_S, SAMPLED, duplicates_of, find_among, is_markers, load_lsl
from stream.recording.stream_watcher import StreamWatcher, connect, key_of
from stream.signal.clock import Gap, SampleClock
from stream.types.source_spec import StreamSelector
from stream.types.units import channel_kind

if TYPE_CHECKING:
    import pylsl

logger = logging.getLogger(__name__)
TICK_S = 0.01
OFFSET_EVERY_S = 5.0
FLUSH_EVERY_S = 1.0
BOUNDARY_EVERY_S = 10.0
AT_ONCE_S, LAST_WAIT_S = 1e-3, 2.0
CHUNK = 4096
RATE_AFTER_S = 2.0
"""Seconds of samples before their rate is compared with the declared one."""
RATE_TOLERANCE = 0.02
HOLE_S = 0.5
"""Seconds between two samples: longer than any device's chunk."""


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
    since : float
        Seconds after the recording's start at which the stream came.
    declared_hz : float
        The rate that the stream declares; 0 where it is irregular.
    measured_hz : float or None
        The rate at which its samples are stamped, holes left out; None while that is not known.
    warning : str or None
        What is wrong with its rate.
    """

    name: str
    type: str
    source_id: str
    samples: int = 0
    lost: int = 0
    gap_count: int = 0
    gaps: list[Gap] = field(default_factory=list)
    disconnections: int = 0
    since: float = 0.0
    declared_hz: float = 0.0
    measured_hz: float | None = None
    warning: str | None = None


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
    left_out: Callable[[str], None] | None = None,
    may_end: Container[str] = (),
) -> RecordAccount:
    """Record until `stop` is set or `seconds` are over.

    Samples go into the file as they came (numbers, format and stamps untouched), clock offsets beside them. Streams
    that come later join, if they are meant; one that went away and comes back goes on where it was.

    Parameters
    ----------
    path : Path
        New XDF file.
    selectors : sequence of StreamSelector
        Each names one stream, which must be there at the start; left empty, every stream is recorded.
    seconds : float, optional
    timeout_s : float
        How long to look for the streams.
    peers : tuple of str
        Machines asked directly, where multicast does not reach.
    progress : callable, optional
        Called about twice a second.
    stop : threading.Event, optional
    left_out : callable, optional
        Called with a line for each stream that is duplicated or does not answer and so is not recorded; left out,
        that is an error.
    may_end : container of str
        Names of streams of which nobody is warned when they end before the recording.

    Raises
    ------
    SourceError
        A stream is missing, ambiguous, duplicated, or does not answer.
    RecordingError
        The file cannot be written, or no longer; says what was saved.
    """
    stop = stop or threading.Event()
    lsl = load_lsl(peers)
    streams = _choose(lsl, selectors, timeout_s, stop, left_out)
    tracks: list[_Track] = []
    try:
        with XdfWriter(path) as file, StreamWatcher(lsl, selectors, streams) as scout:
            recorder = _Recorder(lsl, file, scout, tracks, may_end)
            for info in streams:
                if opened := _connected(lsl, info, left_out):
                    recorder.join(info, *opened)
            recorder.run(seconds, progress, stop)
            return recorder.account()
    finally:
        for track in tracks:
            track.close()


def _connected(
    lsl: Any, info: "pylsl.StreamInfo", left_out: Callable[[str], None] | None
) -> tuple[Any, str] | None:  # fmt: skip
    if (opened := connect(lsl, info)) is None:
        line = f"stream {info.name()!r} was found but does not answer: is a firewall between?"
        if left_out is None:
            raise SourceError(line)
        left_out(line)
    return opened


def _choose(
    lsl: Any, selectors: Sequence[StreamSelector], timeout_s: float, stop: threading.Event,
    left_out: Callable[[str], None] | None,
) -> "list[pylsl.StreamInfo]":  # fmt: skip
    """Find the streams to record; a stream that two selectors name is recorded once."""
    if selectors:
        around: list[pylsl.StreamInfo] | None = None
        streams: dict[str, pylsl.StreamInfo] = {}
        for selector in selectors:
            info, around = find_among(around, selector, timeout_s, lsl=lsl, stop=stop)
            streams[info.uid()] = info
        return list(streams.values())
    deadline = time.monotonic() + timeout_s
    while not (around := lsl.resolve_streams(LOOK_S)) and time.monotonic() < deadline and not stop.is_set():
        pass
    if not around and stop.is_set():
        raise SourceError("stopped before a stream was found")
    if not around:
        raise SourceError(f"no stream at all within {timeout_s:g} s; start the amplifier's LSL app first")
    if twins := sorted({repr(info.source_id()) for info in around if len(duplicates_of(info, around)) > 1}):
        line = f"several streams carry source_id {', '.join(twins)}; stop one, or name what to record"
        if left_out is None:
            raise SourceError(line)
        left_out(line)
        around = [
            info for info in around if info.uid() in {one.uid() for one in [*duplicates_of(info, around), info][:1]}
        ]
    return sorted(around, key=lambda info: (info.nominal_srate() == 0, info.name()))


class _Track:
    """One stream on its way into the file."""

    def __init__(self, lsl: Any, info: "pylsl.StreamInfo", number: int, since: float) -> None:
        self._lsl = lsl
        self.key = key_of(info)
        self.number = number
        self.account = StreamAccount(
            info.name(), info.type(), info.source_id(), since=since, declared_hz=info.nominal_srate()
        )
        self._rate = RunningRate()
        self._sampled = channel_kind(info.type()) in SAMPLED and not is_markers(info)
        self.offsets: list[tuple[float, float]] = []
        self.first = self.last = 0.0
        self._clock = SampleClock(info.nominal_srate())
        self._inlet: Any = None
        self._uncounted: list[NDArray[np.float64]] = []
        self._opened = self._measured = 0.0

    @property
    def connected(self) -> bool:
        return self._inlet is not None

    def attach(self, inlet: Any) -> None:
        """Begin or go on with a source that is there (again)."""
        self._inlet, self._opened, self._measured = inlet, time.monotonic(), -np.inf

    def close(self) -> None:
        if self._inlet:
            self._inlet.close_stream()
        self._inlet = None

    def offset(self, wait_s: float = AT_ONCE_S) -> tuple[float, float] | None:
        """Measure the clock when it is due; (time in the source's clock, seconds to add).

        Hardly waits: liblsl measures in a thread of its own, and a source that ends takes with it what was not pulled.
        """
        now = time.monotonic()
        if self._inlet is None or now - self._measured < OFFSET_EVERY_S:
            return None
        try:
            value = self._inlet.time_correction(wait_s)
        except self._lsl.util.TimeoutError:
            if now - self._opened > OFFSET_EVERY_S:
                logger.warning("stream %s: no answer on the clock offset", self.account.name)
                self._measured = now
            return None
        except self._lsl.util.LostError:
            return None
        self._measured = now
        self.offsets.append((self._lsl.local_clock() - value, value))
        return self.offsets[-1]

    def pull(self) -> tuple[NDArray[np.float64], NDArray[Any]] | None:
        """Receive what has come in; None if nothing has.

        Raises
        ------
        pylsl.util.LostError
            The source is gone.
        """
        if self._inlet is None:
            return None
        data, stamps = self._inlet.pull_chunk(timeout=0.0, max_samples=CHUNK, as_numpy=True)
        return (stamps, data) if len(stamps) else None

    def count(self, stamps: NDArray[np.float64]) -> None:
        """Count samples that are in the file."""
        if not self.account.samples:
            self.first = float(stamps[0])
        self.last = float(stamps[-1])
        self.account.samples += len(stamps)
        self._uncounted.append(stamps)
        self._rate.feed(stamps)
        # A jump of the clock must not look like a gap: what comes before the first offset waits for it.
        if self._measured > 0 or time.monotonic() - self._opened > OFFSET_EVERY_S:
            self.find_gaps()

    def find_gaps(self) -> None:
        """Look for gaps in what was counted."""
        account = self.account
        offset = self.offsets[-1][1] if self.offsets else 0.0
        for stamps in self._uncounted:
            for _, gap in self._clock.feed(stamps + offset).gaps:
                account.gap_count += 1
                account.lost += gap.lost
                account.gaps = [*account.gaps[-99:], gap]
        self._uncounted.clear()
        self._judge_rate()

    def _judge_rate(self) -> None:
        """Hold the rate of the stamps against the declared one."""
        account, declared = self.account, self.account.declared_hz
        account.measured_hz = measured = self._rate.hz if declared or self._sampled else None
        if measured is None:
            return
        if declared and abs(measured / declared - 1) > RATE_TOLERANCE:
            account.warning = f"declares {declared:g} Hz and sends {measured:.4g} Hz"
        elif not declared:
            account.warning = f"declares no rate (0 Hz) and sends {measured:.4g} Hz"
        else:
            account.warning = None

    def warn(self) -> None:
        """Log what is wrong with the rate, once the recording is over."""
        if self.account.warning:
            logger.warning(
                "stream %s %s: the file says what it declares; state the true rate as source.sfreq where it is used",
                self.account.name,
                self.account.warning,
            )


class RunningRate:
    """The rate at which samples are stamped, over all segments without a hole.

    Attributes
    ----------
    hz : float or None
        None before `RATE_AFTER_S` of such segments.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._steps, self._seconds = 0, 0.0

    def feed(self, stamps: NDArray[np.float64]) -> None:
        """Add the next time stamps, shape (n,)."""
        stamps = stamps[np.isfinite(stamps)]
        if not len(stamps):
            return
        steps = np.diff(stamps if self._last is None else np.concatenate([[self._last], stamps]))
        # A hole, or a clock that was set anew, is no step of the stream.
        whole = steps[np.abs(steps) < HOLE_S]
        self._last = float(stamps[-1])
        self._steps, self._seconds = self._steps + len(whole), self._seconds + float(whole.sum())

    @property
    def hz(self) -> float | None:
        """Samples a second."""
        return self._steps / self._seconds if self._seconds >= RATE_AFTER_S else None


class _Recorder:
    def __init__(
        self, lsl: Any, file: XdfWriter, scout: StreamWatcher, tracks: list[_Track], may_end: Container[str]
    ) -> None:
        self._lsl, self._file, self._watcher, self._tracks, self._may_end = lsl, file, scout, tracks, may_end
        self._begun = time.monotonic()
        self._flushed = self._marked = self._reported = self._begun

    def join(self, info: "pylsl.StreamInfo", inlet: Any, header: str) -> None:
        """Begin with a stream, or go on with the one that it was before it went away."""
        key = key_of(info)
        track = next((track for track in self._tracks if track.key == key and not track.connected), None)
        back = track is not None
        if track is None:
            since = round(time.monotonic() - self._begun, 3)
            track = _Track(self._lsl, info, self._file.stream(header), since)
            self._tracks.append(track)
        logger.info("stream %s is back" if back else "recording stream %s", info.name())
        track.attach(inlet)

    def run(
        self, seconds: float | None, progress: Callable[[RecordAccount], None] | None, stop: threading.Event
    ) -> None:
        try:
            while not stop.is_set() and (seconds is None or time.monotonic() - self._begun < seconds):
                while not self._watcher.arrivals.empty():
                    self.join(*self._watcher.arrivals.get())
                self._move()
                self._keep(progress)
                stop.wait(TICK_S)
            self._move()
            for track in self._tracks:
                # A short recording is over before the first answer is in; nothing more is pulled now.
                if not track.offsets and (offset := track.offset(LAST_WAIT_S)):
                    self._file.offset(track.number, *offset)
                track.find_gaps()
                track.warn()
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
            try:
                for _ in range(64):  # a backlog is worked off in turns
                    if (chunk := track.pull()) is None:
                        break
                    self._file.samples(track.number, *chunk)
                    track.count(chunk[0])
            except self._lsl.util.LostError:
                name = track.account.name
                logger.log(logging.INFO if name in self._may_end else logging.WARNING, "stream %s is lost", name)
                track.account.disconnections += 1
                track.close()
                self._watcher.lost(track.key)

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
