"""What became of markers, and why some led to no window."""

import math
import time
from collections import Counter
from dataclasses import dataclass, field

from stream.events import Event

GRACE_S = 2.0  # a marker may be ignored for so long before that is said: the next one may match
PATIENCE_S = 5.0  # a marker's window may be late by so long before that is said
RECENT_S = 30.0  # what happened longer ago is no longer wrong at present
FAR_S = 120.0  # markers farther from the samples are on another clock
CLOCKS_S = 1e8  # LSL counts from the start of a machine, Unix from 1970
EXAMPLES = 2


@dataclass(slots=True)
class MarkerAccount:
    """Counts of markers by what became of them; see `stream.ingest.IngestStats`.

    Attributes
    ----------
    pattern : str
        What labels must match.
    span : float
        Seconds of the LSL clock from a marker to the end of its window.
    """

    pattern: str
    span: float
    events: int = 0
    doubled: int = 0
    ignored: int = 0
    unmade: int = 0
    bad_events: int = 0
    windows: int = 0
    _labels: Counter[str] = field(default_factory=Counter)
    _when: dict[str, float] = field(default_factory=dict)
    _since: int = 0  # markers without a window since the last window
    _reason: str = ""

    def ignore(self, event: Event) -> None:
        """Count a marker that does not match."""
        self.ignored += 1
        self._when.setdefault("first ignored", time.monotonic())
        if len(self._labels) < EXAMPLES:
            self._labels[event.label] += 1

    def refuse(self) -> None:
        """Count a marker without a time."""
        self.bad_events += 1
        self._when["bad"] = time.monotonic()

    def double(self) -> None:
        """Count a marker that came twice."""
        self.doubled += 1
        self._when["doubled"] = time.monotonic()

    def fail(self, event: Event | None, oldest: float, newest: float) -> None:
        """Count a marker whose window cannot be made, the streams holding what lies between two times."""
        self.unmade += 1
        self._since += 1
        self._when["unmade"] = time.monotonic()
        far = _distance(event.time, oldest, newest) if event else 0.0
        if abs(far) > FAR_S:
            self._reason = _clocks(far)
        elif event and event.time < oldest:
            self._reason = "they are older than the stream, or than what is kept of it (source.buffer_s)"
        else:
            self._reason = "their windows are not all there"

    def make(self) -> None:
        """Note that a marker has led to a window."""
        self.windows += 1
        self._since = 0

    def problems(self, pending: list[Event], oldest: float, newest: float, *, over: bool = False) -> dict[str, str]:
        """Say what is wrong with the markers at present, by a key each.

        Parameters
        ----------
        pending : list of Event
            Whose windows are not complete, by time.
        oldest, newest : float
            Times of the samples that are held; nan where there are none.
        over : bool
            Nothing more comes: a recording has been read to its end.
        """
        now = time.monotonic()
        age = {key: now - when for key, when in self._when.items()}
        lines = {}
        none = self.events == 0 and self.windows == 0
        if none and self.ignored and (over or age["first ignored"] > GRACE_S):
            examples = ", ".join(repr(_short(label)) for label in self._labels)
            more = ", ..." if self.ignored > sum(self._labels.values()) else ""
            lines["ignored"] = (
                f"{_markers(self.ignored)}, no window: none matches window.events {self.pattern!r}; "
                f"labels are {examples}{more}"
            )
        if self._since and age["unmade"] < RECENT_S:
            lines["unmade"] = f"{_markers(self._since)} in a row without a window: {self._reason}"
        if "pending" not in age and pending:
            self._when["pending"] = now
        elif not pending:
            self._when.pop("pending", None)
        if pending and (line := self._waiting(pending, oldest, newest, age.get("pending", 0.0), over=over)):
            lines["pending"] = line
        if self.doubled and age["doubled"] < RECENT_S:
            lines["doubled"] = (
                f"{_markers(self.doubled)} came twice and count once: do two marker streams tell of one thing?"
            )
        if self.bad_events and age["bad"] < RECENT_S:
            lines["bad events"] = f"{_markers(self.bad_events)} left out: their timestamps are not finite"
        return lines

    def _waiting(
        self, pending: list[Event], oldest: float, newest: float, waited: float, *, over: bool
    ) -> str | None:  # fmt: skip
        """Say why markers have been waiting for too long, if they have."""
        if over:
            return f"{_markers(len(pending))}, no window: the recording ends before" if not self.windows else None
        far = _distance(pending[-1].time, oldest, newest)
        if waited < PATIENCE_S + (0.0 if abs(far) > FAR_S else self.span):
            return None
        if abs(far) > FAR_S:
            return f"{_markers(len(pending))} waiting for a window: {_clocks(far)}"
        late = newest - pending[0].time
        if late > self.span + PATIENCE_S:
            return None  # samples have gone on; what waits is not the oldest
        return f"{_markers(len(pending))} waiting for samples after the marker: none has come for {waited:.0f} s"


def _distance(at: float, oldest: float, newest: float) -> float:
    """How far a time lies after (positive) or before the samples that are held."""
    if math.isnan(newest):
        return 0.0
    return at - newest if at > newest else min(0.0, at - oldest)


def _clocks(far: float) -> str:
    """Say that two clocks differ."""
    side = "after" if far > 0 else "before"
    which = "Unix time" if abs(far) > CLOCKS_S else "another clock"
    whose = "markers" if far > 0 else "samples"
    return (
        f"they lie {abs(far):.3g} s {side} the samples, so clocks differ: the {whose} seem to be stamped in {which}; "
        "stamp both in the LSL clock (pylsl.local_clock)"
    )


def _markers(n: int) -> str:
    return f"{n} marker{'s' * (n != 1)}"


def _short(label: str) -> str:
    return label if len(label) <= 40 else label[:37] + "..."
