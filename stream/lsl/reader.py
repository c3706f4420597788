"""One stream, read in a thread of its own and looked for again when it is lost."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stream.epochs.stream_buffer import StreamStats
from stream.errors import SourceError, StreamError
from stream.lsl.discovery import LOOK_S, Source, describe, describe_streams, find_among, matches, only
from stream.lsl.inlets import DataInlet, Inlet
from stream.lsl.offset import HostClocks
from stream.lsl.stamps import StampWatch
from stream.markers.markers import TriggerColumn
from stream.types.events import Event
from stream.types.source_spec import ReadingSpec, StreamSelector
from stream.types.windows import Channels

logger = logging.getLogger(__name__)
BATCH_S = 0.003
"""Seconds from chunk to chunk at least: a stream pushed sample by sample would wake the thread each time."""
LOST_AFTER_S = 3.0
"""Seconds of silence after which a regular stream counts as lost."""
STALL_S = 0.25
"""Seconds; a pull takes 0.02, so what takes longer is this process standing still, not the stream."""


class MarkerReceiver(Protocol):
    """Where the markers of a reader go; called from its thread."""

    def mark(self, events: list[Event]) -> None:
        """Receive markers."""

    def ended(self) -> bool:
        """Return whether the source has sent all it said it would."""

    def failed(self, error: StreamError) -> None:
        """Record that a reader has ended by itself."""


class Receiver(MarkerReceiver, Protocol):
    """Where the samples of several readers go, and their markers; called from their threads."""

    def take(self, stream: int, data: NDArray[np.float64], times: NDArray[np.float64], events: list[Event]) -> None:
        """Receive samples in SI units, and markers that came as one of their columns."""

    def interrupted(self, stream: int) -> None:
        """Note that a stream is silent or gone."""

    def stream_stats(self, stream: int) -> StreamStats:
        """Return a stream's account."""


class StreamReader(ABC):
    """Reads one stream in a thread of its own, and looks for it again when it is lost.

    Parameters
    ----------
    lsl : module
    stop : threading.Event
        Ends the thread.
    clocks : HostClocks
    reconnect : bool
        Look for the stream again when it is lost.

    Attributes
    ----------
    name, source_id : str
        Of the stream that was found.
    stamps : StampWatch
    away : str or None
        What keeps the stream away now, with the way out.
    gone : set of str
        Unique ids of the outlets that were lost.
    losses : int
        How often the stream went away.
    kin : StreamSelector or None
        What else may be taken for the stream when it is back, where it is not there by its source id.
    """

    what = "stream"
    measures = True
    """True if it measures the clock of the stream's host, whoever else does."""

    def __init__(self, lsl: Any, stop: threading.Event, clocks: HostClocks, *, reconnect: bool) -> None:
        self._lsl, self._stop, self._clocks, self._reconnect = lsl, stop, clocks, reconnect
        self._inlet: Inlet | None = None
        self._thread: threading.Thread | None = None
        self._again = StreamSelector()
        self.kin: StreamSelector | None = None
        self._uid = ""
        self._refusals = 0
        self._lost_line = ""
        self.name = self.source_id = ""
        self.stamps = StampWatch()
        self.away: str | None = None
        self.gone: set[str] = set()
        self.losses = 0

    def attach(self, info: Any) -> None:
        """Read the description of the stream that was resolved.

        Raises
        ------
        SourceError
            It does not answer, or cannot be read.
        """
        self._inlet = self._make(info)
        self._note(info)
        with _Answering(self._lsl, self.name):
            self._learn(self._inlet.info())

    def open(self) -> None:
        """Connect to what was found."""
        assert self._inlet is not None
        with _Answering(self._lsl, self.name):
            self._inlet.open()

    def start(self, receiver: MarkerReceiver) -> None:
        """Begin to read, in a thread."""
        assert self._inlet is not None
        with _Answering(self._lsl, self.name):
            self._inlet.measure(claim=self.measures)
        self._receiver = receiver
        self._thread = threading.Thread(target=self._read, name=f"lsl-{self.name}", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread, which ends, and lets the connection go, once the stop event is set."""
        if self._thread:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Let the connection go that no thread reads."""
        if self._inlet:
            self._inlet.close()
        self._inlet = None

    @abstractmethod
    def _make(self, info: Any) -> Inlet:
        """Make the inlet of a stream that was found."""

    @abstractmethod
    def _learn(self, info: Any) -> None:
        """Read the full description; of a stream that is back, hold it against what it was."""

    @abstractmethod
    def _pump(self) -> None:
        """Send on what has come in."""

    @abstractmethod
    def _ended(self) -> bool:
        """Return whether the stream was to end now: a replay has sent all it said it would."""

    def _note(self, info: Any) -> None:
        self._uid, self.name, self.source_id = info.uid(), info.name(), info.source_id()
        self._again = StreamSelector(name=info.name(), type=info.type(), source_id=info.source_id() or None)
        self.gone.discard(self._uid)

    def _read(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    if self._inlet:
                        self._pump()
                    else:
                        self._look_again()
                except self._lsl.util.LostError:
                    self.gone.add(self._uid)
                    self.close()
                    self._lost()
                    if not self._reconnect:
                        break
        except StreamError as error:
            logger.error("ingest ended: %s", error)
            self._receiver.failed(error)
        except Exception as error:
            # Whoever started this thread must learn that it ended, whatever a window's receiver threw.
            logger.exception("ingest failed")
            self._receiver.failed(StreamError(f"ingest of {self.name!r} failed: {error!r}"))
        finally:
            self.close()

    def _lost(self) -> None:
        """Record that the stream is gone."""
        self.losses += 1
        if self._ended():
            logger.info("%s %s has ended", self.what, self.name)
            return
        logger.warning("%s %s is lost", self.what, self.name)
        by = f"source_id {self.source_id!r}" if self.source_id and not self.kin else "name and type"
        way = f"looked for by its {by}; start its program again" if self._reconnect else "source.reconnect is off"
        self.away = self._lost_line = f"{self.what} {self.name!r} is lost: {way}"

    def _look_again(self) -> None:
        """Look for the lost stream and connect to it if it is back; say at once what keeps it away."""
        try:
            around = self._lsl.resolve_streams(LOOK_S)
            info = only(around, self._again, lsl=self._lsl)
            if info is None and self.kin:
                # Of exactly its type: one of another type may be in use beside it.
                info = only([each for each in around if each.type() == self.kin.type], self.kin, lsl=self._lsl)
            if info is None:
                self._refusals = 0
                self._name_others(around)
                return
            inlet = self._make(info)
            try:
                with _Answering(self._lsl, self.name):
                    self._learn(inlet.info())
                    inlet.open()
                    inlet.measure(claim=self.measures)
            except BaseException:
                inlet.close()
                raise
        except ChangedError:
            raise
        except SourceError as error:
            # A stream that is ending is announced for a moment longer: one that does not answer twice is blocked.
            self._refusals += 1
            if self._refusals > 1:
                self.away = f"{self.what} {self.name!r} cannot be taken up again: {error}"
            if self._refusals == 2:
                logger.warning("%s", self.away)
            return
        self._inlet, self._refusals, self.away = inlet, 0, None
        before = self.source_id
        self._note(info)
        changed = f", with source_id {self.source_id!r}" if self.source_id != before else ""
        logger.warning("%s %s is back%s", self.what, self.name, changed)

    def _name_others(self, around: list[Any]) -> None:
        """Log which streams bear the lost one's name, but another source id: they are not taken for it."""
        namesakes = [info for info in around if matches(self._again.model_copy(update={"source_id": None}), info)]
        if self.away and namesakes:
            self.away = (
                f"{self.what} {self.name!r} is lost: looked for by its source_id {self.source_id!r}, which is not that "
                f"of {describe_streams(namesakes)}; if that is meant, start the session again"
            )
        elif self.away:
            self.away = self._lost_line


class ChangedError(SourceError):
    """A stream came back as another one than it was: its samples cannot go on where they stopped."""


class Reader(StreamReader):
    """Reads a stream of samples.

    Parameters
    ----------
    lsl : module
    spec : ReadingSpec
        Which stream, and how to read it.
    stop : threading.Event
        Ends the thread.
    clocks : HostClocks
    needed : sequence of str, optional
        Names or kinds of the channels that are used; all when left out.
    reconnect : bool
        Look for the stream again when it is lost.

    Attributes
    ----------
    source : Source
        What was found.
    triggers : list of TriggerColumn
        Which columns' onsets are markers.
    """

    source: Source

    def __init__(
        self, lsl: Any, spec: ReadingSpec, stop: threading.Event, clocks: HostClocks, *,
        needed: Sequence[str] | None = None, reconnect: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(lsl, stop, clocks, reconnect=reconnect)
        self._spec, self._needed = spec, needed
        self._known = False
        self._heard, self._quiet_s = 0.0, 0.0
        self._silent = False
        self.triggers: list[TriggerColumn] = []

    def find(
        self, around: list[Any] | None, timeout_s: float, on_missing: Callable[[str], None] | None = None
    ) -> list[Any]:
        """Find the source and read its description; return the streams that the last look-around found.

        Parameters
        ----------
        seen, timeout_s, on_missing
            As `stream.lsl.discovery.find_among` has them.

        Raises
        ------
        SourceError
            A stream is missing, ambiguous, duplicated, or its units are not known.
        """
        info, around = find_among(around, self._spec, timeout_s, lsl=self._lsl, stop=self._stop, on_missing=on_missing)
        self.attach(info)
        for warning in self.source.warnings:
            logger.warning("%s", warning)
        return around

    def read(self, stream: int, receiver: Receiver) -> None:
        """Begin to read, in a thread; `stream` says to the receiver which one this is."""
        self._stream, self._samples, source = stream, receiver, self.source
        self._limit_s = max(LOST_AFTER_S, 3 / (source.sfreq * source.speed)) if source.sfreq else np.inf
        self._heard = time.monotonic()
        self.start(receiver)

    def _make(self, info: Any) -> DataInlet:
        return DataInlet(self._lsl, info, self._clocks, stamps=self._spec.stamps, sfreq=self._spec.sfreq)

    def _learn(self, info: Any) -> None:
        spec = self._spec
        source = describe(
            info, spec.unit, sfreq=spec.sfreq, kind=spec.type, needed=self._needed, names=spec.channel_names
        )
        if self._known and (change := _change(self.source, source)):
            raise ChangedError(f"stream {source.name!r} came back with {change}: start again")
        self.source, self._known = source, True

    def _ended(self) -> bool:
        return self.ended()

    def ended(self) -> bool:
        """Return whether the source has sent all it said it would."""
        announced = self.source.samples
        return announced is not None and self._samples.stream_stats(self._stream).samples >= announced

    def _pump(self) -> None:
        assert isinstance(self._inlet, DataInlet)
        data, times = self._inlet.pull()
        now = time.monotonic()
        # What this process slept through is not the stream's silence.
        self._quiet_s += min(now - self._heard, STALL_S)
        self._heard = now
        if len(times):
            self.stamps.note(times, self._lsl.local_clock())
            self._quiet_s = 0.0
            if self._silent:
                self._silent, self.away = False, None
                logger.warning("stream %s is back", self.name)
        events = [event for column in self.triggers for event in column.feed(data, times)] if len(times) else []
        self._samples.take(self._stream, data * self.source.factors, times, events)
        if len(times):
            self._stop.wait(max(0.0, BATCH_S - (time.monotonic() - now)))
        elif self._quiet_s > self._limit_s and self._samples.stream_stats(self._stream).state == "streaming":
            self._silent = True
            self.away = f"stream {self.name!r} is silent: its program runs, but sends no samples"
            logger.warning("stream %s is silent", self.name)
            self._samples.interrupted(self._stream)

    def _lost(self) -> None:
        super()._lost()
        if not self._silent:
            self._samples.interrupted(self._stream)
        self._silent, self._quiet_s = False, 0.0


def _change(was: Source, now: Source) -> str | None:
    """Return what differs between a source and what came back in its place."""
    if len(was.channels) != len(now.channels):
        return f"{len(now.channels)} channels instead of {len(was.channels)}"
    if was.channels != now.channels:
        pairs = zip(_described(was.channels), _described(now.channels), strict=True)
        differing = next(((old, new) for old, new in pairs if old != new), None)
        return f"channel {differing[1]} instead of {differing[0]}" if differing else "other electrode positions"
    if (was.sfreq, was.speed) != (now.sfreq, now.speed):
        return f"{now.sfreq * now.speed:g} Hz instead of {was.sfreq * was.speed:g} Hz"
    return None


def _described(channels: Channels) -> list[str]:
    columns = zip(channels.names, channels.kinds, channels.units, strict=True)
    return [f"{name} ({kind}, {unit})" for name, kind, unit in columns]


class _Answering:
    """Turns liblsl's silence while a connection is made into a line that says what to look at."""

    def __init__(self, lsl: Any, name: str) -> None:
        self._silences, self._name = (lsl.util.TimeoutError, lsl.util.LostError), name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, self._silences):
            raise SourceError(f"stream {self._name!r} was found but does not answer: is a firewall between?") from error
