"""Markers of any shape, live and in files: rows of a marker stream, steps of a trigger column."""

import difflib
import math
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import StreamError
from stream.markers.triggers import Triggers
from stream.signal.clock import SampleClock
from stream.types.events import Event, event_of
from stream.types.windows import Channels

JOINT = "/"
"""Between the texts of a row's columns: what comes before it is a type, as in BrainVision's 'Stimulus/S  7'."""
STATUS_BITS = 0xFFFF
"""The trigger in BioSemi's Status word; the bits above are flags of the device."""
_TIME = re.compile(
    r"[a-z _-]*(time|timestamp|onset|latency|duration)s?([ _]?\(?(ms|us|s|sec|seconds)\)?)?", re.IGNORECASE
)


class MarkerColumns:
    """Make events of the rows of a marker stream, one event a row.

    A row of one column is named by it, as `event_of` does. Of several columns those that tell a time by
    their name are left out; the others that are not empty are joined by '/': ('stim', 'cat-01.png') becomes
    'stim/cat-01.png'. `in_column` takes one of them instead.

    A regular stream of numbers repeats its value from sample to sample: there the onsets are the events, see
    `stream.markers.triggers`.

    Parameters
    ----------
    stream : str
        Name of the stream.
    names : sequence of str
        Of its columns, '' where it does not say.
    sfreq : float
        Nominal rate; 0 for an irregular stream.

    Attributes
    ----------
    names : tuple of str
        Of the columns; their numbers from 1 where the stream does not say.
    bad : int
        Rows that are no event: without a finite time, without a text, or with a number that is not finite.
    """

    def __init__(self, stream: str, names: Sequence[str], sfreq: float = 0.0) -> None:
        self.stream = stream
        self.names = tuple(name.strip() or str(i + 1) for i, name in enumerate(names))
        self.bad = 0
        telling = [i for i, name in enumerate(self.names) if not _TIME.fullmatch(name)]
        self._telling = telling or list(range(len(self.names)))
        self._onsets = [Triggers() for _ in self.names] if sfreq else None
        self._begun = False

    def feed(self, rows: Sequence[Sequence[Any]] | NDArray[Any], times: Sequence[float] | NDArray[Any]) -> list[Event]:
        """Make the events of the next rows.

        Parameters
        ----------
        rows : sequence of rows, or ndarray of shape (n, n_columns)
            Texts, bytes or numbers.
        times : ndarray, shape (n,)

        Returns
        -------
        list of Event
            In the order of the rows.
        """
        if self._onsets and len(rows) and not isinstance(rows[0][0], str | bytes):
            return self._steps(np.asarray(rows, dtype=np.float64), self._onsets, times)
        events = [self._event(row, float(time)) for row, time in zip(rows, times, strict=True)]
        self.bad += events.count(None)
        return [event for event in events if event]

    def _event(self, row: Sequence[Any], time: float) -> Event | None:
        made = [event_of(time, value, self.stream) for value in row]
        texts = [event.label.strip() if event else "" for event in made]
        telling = [i for i in self._telling if texts[i]]
        if not telling:
            return None
        if len(texts) == 1:
            return made[0]
        first = made[telling[0]]
        if len(telling) > 1:
            first = event_of(time, JOINT.join(texts[i] for i in telling), self.stream)
        return replace(first, columns=tuple(zip(self.names, texts, strict=True))) if first else None

    def _steps(
        self, rows: NDArray[np.float64], onsets: Sequence[Triggers], times: Sequence[float] | NDArray[Any]
    ) -> list[Event]:
        """Make events of the steps of a regular stream's columns."""
        codes: dict[int, dict[int, int]] = {}
        for column, triggers in enumerate(onsets):
            for place, code in triggers.feed(rows[:, column]):
                # A level that was there before the first sample began at no time that is known.
                if self._begun or place:
                    codes.setdefault(place, {})[column] = code
        self._begun = True
        events: list[Event] = []
        for place in sorted(codes):
            row = [codes[place].get(column, "") for column in range(len(self.names))]
            if event := self._event(row, float(times[place])):
                events.append(event)
            else:
                self.bad += not math.isfinite(times[place])
        return events


def in_column(event: Event, column: int | str | None) -> Event | None:
    """Return an event named by one of its columns.

    Parameters
    ----------
    event : Event
    column : int, str or None
        Its name, or its number from 1; None leaves the event as it is.

    Returns
    -------
    Event or None
        None where that column is empty.

    Raises
    ------
    StreamError
        There is no such column.
    """
    if column is None:
        return event
    names = [name for name, _ in event.columns]
    place = column_place(names or ["1"], column, event.stream)
    if not names:
        return event
    made = event_of(event.time, event.columns[place][1], event.stream)
    return replace(made, columns=event.columns) if made and made.label else None


def column_place(names: Sequence[str], column: int | str, stream: str) -> int:
    """Find a column by its name, or its number from 1.

    Raises
    ------
    StreamError
        There is no such column, or there are several.
    """
    if isinstance(column, int):
        matching = [column - 1] if 1 <= column <= len(names) else []
    else:
        matching = [i for i, name in enumerate(names) if name.casefold() == column.strip().casefold()]
    if len(matching) != 1:
        raise StreamError(
            f"marker stream {stream!r} has {'several columns' if matching else 'no column'} {column!r}; "
            f"source.markers.column takes a name or a number from 1 of: {', '.join(names)}"
        )
    return matching[0]


class TriggerColumn:
    """Make events of the onsets in a column of a live data stream, at the times that its samples get.

    Parameters
    ----------
    stream : str
        Name of the column.
    place : int
        Which column.
    sfreq, speed : float
        As for `stream.signal.clock.SampleClock`: the samples' own clock, so that an onset lies on its sample.
    """

    def __init__(self, stream: str, place: int, sfreq: float, speed: float) -> None:
        self._stream, self._place = stream, place
        self._triggers = triggers_of(stream)
        self._clock = SampleClock(sfreq, speed)
        self._waiting: deque[tuple[int, int]] = deque()  # (number of the sample, code)
        self._fed = self._placed = 0

    def feed(self, data: NDArray[Any], times: NDArray[np.float64]) -> list[Event]:
        """Add the next samples, shape (n, n_columns), and their times, shape (n,); one without a time is left out."""
        known = np.isfinite(times)
        onsets = self._triggers.feed(data[known, self._place])
        # As in `MarkerColumns`: what was there before the first sample is no onset.
        self._waiting.extend((self._fed + at, code) for at, code in onsets if self._fed + at)
        self._fed += int(known.sum())
        placed = self._clock.feed(times[known]).times
        events: list[Event] = []
        while self._waiting and self._waiting[0][0] < self._placed + len(placed):
            number, code = self._waiting.popleft()
            if event := event_of(float(placed[number - self._placed]), code, self._stream):
                events.append(event)
        self._placed += len(placed)
        return events


def triggers_of(channel: str) -> Triggers:
    """Return what finds the onsets in a trigger channel: of BioSemi's Status word the low 16 bits, else all."""
    return Triggers(STATUS_BITS if channel.strip().casefold() == "status" else None)


def channel_place(channels: Channels, channel: str, stream: str) -> int:
    """Find a trigger channel by its name.

    Raises
    ------
    StreamError
        There is no such channel.
    """
    if channel not in channels.names:
        near = difflib.get_close_matches(channel, channels.names, 1)
        raise StreamError(
            f"source.markers: stream {stream!r} has no channel {channel!r}"
            + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(channels.names[:40])}")
        )
    return channels.names.index(channel)
