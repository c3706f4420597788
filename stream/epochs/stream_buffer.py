"""One stream's way in: clock, filters and ring."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import StreamError
from stream.quality.stream_account import StreamStats, StreamTroubles
from stream.signal.bad_samples import BAD, BadSamples, States
from stream.signal.clock import Gap, SampleClock, StampedChunk, figure
from stream.signal.filters import FilterChain, FilterSpec
from stream.signal.marks import Marks
from stream.signal.ring import Ring
from stream.types.windows import Channels

__all__ = ["StreamBuffer", "StreamStats"]

FASTEST_IRREGULAR = 1000.0
"""Samples a second that an irregular stream's ring is made for ..."""
IRREGULAR_NUMBERS = 2**22
"""... as far as so many numbers go."""
BLIND, BLIND_IRREGULAR = 10, 50
"""Samples in a row whose timestamps are of no use, or all the same."""
RECENT_S = 30.0
"""Seconds of the source after which a past problem is no longer reported as present."""
MOST_NUMBERS = 2**30
"""Numbers of 4 bytes that a ring holds at most."""


class StreamBuffer:
    """Places the samples of one stream on its time line, filters them and keeps the newest.

    Parameters
    ----------
    channels : Channels
        SI units.
    sfreq : float
        Of the source; 0 for an irregular stream.
    filters : FilterSpec
    speed : float
        Source seconds per second of the LSL clock.
    seconds : float
        Of the source, kept in the ring.
    name, setting : str
        Of the stream, and of the config's entry for its rate; for messages.

    Attributes
    ----------
    channels : Channels
        After the filters.
    sfreq : float
        After the filters.
    chain : FilterChain
    ring : Ring
        Rows of lost samples are filled and marked as absent.
    line : int
        The row since which the ring's times increase: a source's clock may step back.
    stats : StreamStats
    marks : Marks
        What is known against the ring's rows.

    Raises
    ------
    StreamError
        The filters do not fit the stream, or its ring would not fit in memory.
    """

    def __init__(
        self, channels: Channels, sfreq: float, filters: FilterSpec, *,
        speed: float, seconds: float, name: str = "source", setting: str = "source.sfreq",
    ) -> None:  # fmt: skip
        self._speed, self._declared, self._name, self._setting = speed, sfreq, name, setting
        self._clock = SampleClock(sfreq, speed)
        self.chain = FilterChain(filters, channels, sfreq)
        self.channels, self.sfreq, n = self.chain.channels, self.chain.sfreq, max(1, len(self.chain.channels))
        rows = seconds * (self.sfreq or FASTEST_IRREGULAR)
        rows = max(1024, round(rows if sfreq else min(rows, IRREGULAR_NUMBERS / n)))
        if rows * n > MOST_NUMBERS:
            raise StreamError(
                f"stream {name!r}: {seconds:g} s of {n} channels at {self.sfreq:g} Hz are {rows * n * 4 / 1e9:.0f} GB; "
                "take a shorter window or source.buffer_s, fewer channels, or filters.decimate"
            )
        self.ring = Ring(rows, n)
        self.line = 0
        self.marks = Marks()
        self._bad = BadSamples(self.chain.needed, sfreq)
        self._lag = math.ceil(self.chain.delay * self.sfreq)
        self._held: NDArray[np.float64] = np.empty((0, len(channels)))  # what the clock has not placed yet
        self._interpolated = [(0, self.chain.interpolated)]  # from which row on which channels
        self._troubles = StreamTroubles(RECENT_S * (sfreq or FASTEST_IRREGULAR))
        self.stats = StreamStats()

    def take(self, data: NDArray[np.floating[Any]], raw_times: NDArray[np.float64]) -> None:
        """Add the next samples.

        Parameters
        ----------
        data : ndarray, shape (n, n_channels)
            In SI units; n at most a quarter of the ring, or rows are written over before they can be read.
        raw_times : ndarray, shape (n,), float64
            LSL time of this machine, clock-corrected, not smoothed.

        Raises
        ------
        StreamError
            The stream does not send at its rate.
        """
        if len(data):
            self.stats.samples += len(data)
            self.stats.state = "streaming"
            stamped = self._clock.feed(raw_times)
            meter = self._clock.meter
            if meter and meter.verdict and not meter.trusted:
                rate = figure(meter.verdict)
                raise StreamError(
                    f"stream {self._name!r} is said to have {self._declared:g} Hz but sends {rate} samples a second: "
                    f"windows and filters would be wrong; if that is its true rate, set {self._setting}: {rate}"
                )
            self._place(np.asarray(data, dtype=np.float64), stamped)

    def release(self) -> None:
        """Let go what the clock holds back: nothing more comes for now."""
        self._place(self._held[:0], self._clock.feed(np.empty(0), last=True))

    def interrupted(self) -> None:
        """Note that the source is gone; what comes next is a gap away at best."""
        self.stats.state = "lost"
        self.stats.disconnections += 1

    def account(self) -> StreamStats:
        """Copy the counters."""
        clock, needed = self._clock, self.chain.needed.names
        measured = clock.measured_hz
        return replace(
            self.stats,
            gaps=list(self.stats.gaps),
            bad_stamps=clock.bad_stamps,
            steps_back=clock.steps_back,
            restarts=self.chain.restarts,
            declared_hz=self._declared or None,
            measured_hz=measured and round(measured, 4),
            drift_ppm=measured and round((measured / self._declared - 1) * 1e6, 1),
            bad_channels=tuple(needed[i] for i in np.flatnonzero(self._bad.stays_bad)),
            flat_channels=tuple(needed[i] for i in np.flatnonzero(self._bad.flat)),
        )

    def problems(self) -> dict[str, str]:
        """Return the present problems of the stream, a line by key."""
        lines = self._troubles.lines(self.account(), self.chain.mended)
        meter = self._clock.meter
        if meter and meter.suspect is not None:
            lines["rate"] = (
                f"{figure(meter.suspect)} samples a second come, not {self._declared:g}: they are lost on the way, or "
                f"the rate is another one ({self._setting}); windows are flagged"
            )
        if self._clock.blind > (BLIND if self._declared else BLIND_IRREGULAR):
            lines["stamps"] = (
                "timestamps stand still or are no numbers, so no window can be cut: look at what sends them"
            )
        return lines

    def levels(self) -> list[float]:
        """Return each channel's root mean square over the newest second; nothing before the first sample.

        May be called from another thread than the writer's.
        """
        squares = self.ring.mean_square(max(1, round(self.sfreq)))
        return [] if squares is None else np.sqrt(squares).tolist()

    def spreads(self) -> list[float]:
        """Return what `levels` does, about the mean; nothing where the writer has passed meanwhile."""
        stop = self.ring.stop
        start = max(self.ring.start, self.line, stop - max(1, round(self.sfreq)))
        segment = self.ring.read(start, stop) if start < stop else None
        return [] if segment is None else segment.data.std(axis=0, dtype=np.float64).tolist()

    def interpolated(self, start: int, stop: int) -> tuple[str, ...]:
        """Return the channels that were interpolated anywhere in the rows start..stop."""
        since = self._interpolated
        while len(since) > 1 and since[1][0] <= self.ring.start:
            del since[0]
        ends = [begin for begin, _ in since[1:]] + [stop]
        names = {
            name
            for (begin, some), end in zip(since, ends, strict=True)
            if begin < stop and end > start
            for name in some
        }
        return tuple(name for name in self.channels.names if name in names)

    def against(
        self, start: int, stop: int, present: NDArray[np.bool_], prefix: str = ""
    ) -> tuple[int, int, list[str]]:
        """Find what is known against the rows start..stop.

        Parameters
        ----------
        start, stop : int
        present : ndarray, shape (stop - start,), bool
            As the ring has it.
        prefix : str
            Of the channels' names.

        Returns
        -------
        unusable, lost : int
            The source's samples that are of no use there, and those of them that did not come at all.
        reasons : list of str
            What else is wrong.
        """
        unusable = round(int((~present).sum()) / self.chain.factor)
        marks = self.marks.within(start, stop)
        spoilt = {mark.channel for mark in marks}
        channels = [prefix + name for name in self.channels.names if name in spoilt] if spoilt else []
        unexplained = ~present
        for mark in marks:
            if mark.channel:
                unexplained[max(0, mark.start - start) : mark.stop - start] = False
        lost = round(int(unexplained.sum()) / self.chain.factor)
        reasons = sorted({mark.reason for mark in marks if not mark.channel})
        if channels:
            more = f" and {len(channels) - 4} more" if len(channels) > 4 else ""
            reasons = [f"{', '.join(channels[:4])}{more}: not finite, or beyond what the unit allows", *reasons]
        return unusable, lost, reasons

    def _place(self, data: NDArray[np.float64], stamped: StampedChunk) -> None:
        """Write what the clock has placed of these samples and those before them."""
        if len(self._held) or len(stamped.times) < len(data):
            joined = np.concatenate([self._held, data])
            data, self._held = joined[: len(stamped.times)], joined[len(stamped.times) :]
        if not len(data):
            return
        edges = [0, *(at for at, _ in stamped.gaps), len(data)]
        gaps: list[Gap | None] = [None, *(gap for _, gap in stamped.gaps)]
        for gap, start, stop in zip(gaps, edges[:-1], edges[1:], strict=True):
            if gap:
                self._hole(gap, float(stamped.times[start]), int(stamped.index[start]))
            self._write(data[start:stop], stamped, start, stop)
        self.marks.forget(self.ring.start)

    def _write(self, data: NDArray[np.float64], stamped: StampedChunk, start: int, stop: int) -> None:
        """Write samples without a hole between them."""
        if stop == start:
            return
        data, states = self._bad.feed(self.chain.pick(data))
        recovered = self._bad.recovered
        if states is None and not recovered:
            self._pass(data, None, stamped, start, stop)
            return
        if states is None:
            states = np.zeros(data.shape, np.int8)
        bad = states == BAD
        self.stats.bad += int(bad.any(axis=1).sum())
        lost = np.asarray(bad.all(axis=1))
        edges = sorted({0, len(data), *(np.flatnonzero(np.diff(lost)) + 1).tolist(), *(at for at, _ in recovered)})
        for first, last in itertools.pairwise(edges):
            if lost[first]:
                self._absent(stamped, start + first, start + last)
                continue
            for at, channel in recovered:
                if at == first:
                    self.chain.begin_anew(channel, float(data[at, channel]))
            self._pass(data[first:last], states[first:last], stamped, start + first, start + last)

    def _pass(
        self, data: NDArray[np.float64], states: States | None, stamped: StampedChunk, start: int, stop: int
    ) -> None:  # fmt: skip
        """Filter samples and write what comes out, with what is known against it."""
        filtered = self.chain.feed_needed(data, int(stamped.index[start]), states)
        rows, row = filtered.data, self.ring.stop
        times = stamped.times[start:stop][filtered.newest] + filtered.ahead / self._speed
        self._interpolated += [(row + at, names) for at, names in filtered.interpolated]
        if filtered.states is None:
            self.ring.write(rows, times)
        else:
            self._write_marked(rows, times, filtered.states)
        for first, last, reason in stamped.doubts:
            if first < stop and last > start:
                places = np.arange(start, stop)[filtered.newest]
                begin, end = (row + int(np.searchsorted(places, at)) for at in (first, last))
                self.marks.add(begin, max(end, begin + 1) + self._lag, reason)

    def _write_marked(self, rows: NDArray[np.float32], times: NDArray[np.float64], states: States) -> None:
        """Write rows of which some are of no use, and mark what spoils them; one write a run of equal presence."""
        row = self.ring.stop
        for channel in np.flatnonzero((states == BAD).any(axis=0)):
            turns = np.flatnonzero(np.diff(states[:, channel] == BAD, prepend=False, append=False))
            for first, last in turns.reshape(-1, 2).tolist():
                self.marks.add(row + first, row + last, channel=self.channels.names[channel])
        present = np.asarray((states < BAD).all(axis=1))
        edges = [0, *(np.flatnonzero(np.diff(present)) + 1).tolist(), len(rows)]
        for first, last in itertools.pairwise(edges):
            if last > first:
                self.ring.write(rows[first:last], times[first:last], present=bool(present[first]))

    def _absent(self, stamped: StampedChunk, start: int, stop: int) -> None:
        """Write samples that say nothing on any channel as lost ones, and start the filters anew."""
        step = 1 / (self._declared * self._speed) if self._declared else 0.0
        index, times = int(stamped.index[start]), stamped.times[start:stop]
        self._fill(index, index + stop - start, float(times[0]) - step, float(times[-1]) + step)
        self.chain.reset()

    def _hole(self, gap: Gap, resumed: float, index: int) -> None:
        """Fill the places of lost samples, and start the filters anew."""
        self.stats.lost += gap.lost
        self.stats.gap_count += 1
        self.stats.gaps = [*self.stats.gaps[-99:], gap]
        self.chain.reset()
        leaps = not gap.lost and gap.length * self._speed * self._declared > 2
        if gap.length < 0 or leaps:  # what came before lies on another time line
            self.line = self.ring.stop
        if self.ring.stop:
            self._fill(index - gap.lost, index, gap.start, resumed)

    def _fill(self, first: int, stop: int, before: float, after: float) -> None:
        """Write rows for the grid places first..stop, between two times, with the last value and marked as absent."""
        factor, delay = self.chain.factor, self.chain.delay / self._speed
        # A third of the ring is a window at least; with it and a chunk's quarter, no window is written over uncut.
        places = min(math.ceil(stop * factor) - math.ceil(first * factor), self.ring.capacity // 3)
        if places <= 0 and stop > first:
            # Decimation keeps none of them, but what comes next begins anew.
            self.marks.add(self.ring.stop, self.ring.stop + 1, f"{stop - first} samples lost")
        elif places > 0:
            last = self.ring.row(self.ring.stop - 1) if self.ring.stop else np.zeros(len(self.channels), np.float32)
            times = np.linspace(before, after, places + 2)[1:-1] - delay
            self.ring.write(np.repeat(last[None], places, axis=0), times, present=False)
