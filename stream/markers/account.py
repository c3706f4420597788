"""What became of markers, and why some led to no window."""

import math
import time
from collections import Counter
from dataclasses import dataclass, field

from stream.types.events import Event

GRACE_S = 2.0
"""Seconds that a marker may be ignored before this is reported: the next one may match."""
PATIENCE_S = 5.0
"""Seconds that a marker's window may be late before this is reported."""
RECENT_S = 30.0
"""Seconds after which a past problem is no longer reported as present."""
FAR_S = 120.0
"""Seconds; markers farther from the samples are on another clock."""
CLOCKS_S = 1e8
"""Seconds between LSL clocks, which count from the start of a machine, and Unix time, at least."""
EXAMPLES = 2


@dataclass(slots=True)
class MarkerAccount:
    """Counts of markers by what became of them; see `stream.epochs.ingest.IngestStats`.

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
    duplicates: int = 0
    ignored: int = 0
    incomplete: int = 0
    bad_events: int = 0
    windows: int = 0
    _labels: Counter[str] = field(default_factory=Counter)
    _when: dict[str, float] = field(default_factory=dict)
    _since: int = 0  # markers without a window since the last window
    _reason: str = ""
    _first: Event | None = None  # of those whose windows are not complete

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
        self.duplicates += 1
        self._when["duplicates"] = time.monotonic()

    def fail(self, event: Event | None, oldest: float, newest: float) -> None:
        """Count a marker whose window cannot be made, the streams holding what lies between two times."""
        self.incomplete += 1
        self._since += 1
        self._when["incomplete"] = time.monotonic()
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
        """Return the present problems of the markers, a line by key.

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
        if (first := pending[0] if pending else None) is not self._first:
            self._first, self._when["first pending"] = first, now
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
        if self._since and age["incomplete"] < RECENT_S:
            lines["incomplete"] = f"{_markers(self._since)} in a row without a window: {self._reason}"
        if "pending" not in age and pending:
            self._when["pending"] = now
        elif not pending:
            self._when.pop("pending", None)
        if pending and (line := self._waiting(pending, oldest, newest, age, over=over)):
            lines["pending"] = line
        if self.duplicates and age["duplicates"] < RECENT_S:
            lines["duplicates"] = (
                f"{_markers(self.duplicates)} came twice and count once: do two marker streams tell of one thing?"
            )
        if self.bad_events and age["bad"] < RECENT_S:
            lines["bad events"] = f"{_markers(self.bad_events)} left out: their timestamps are not finite"
        return lines

    def _waiting(
        self, pending: list[Event], oldest: float, newest: float, age: dict[str, float], *, over: bool
    ) -> str | None:  # fmt: skip
        """Return why markers have been waiting for too long, if they have."""
        if over:
            return f"{_markers(len(pending))}, no window: the recording ends before" if not self.windows else None
        far = _distance(pending[-1].time, oldest, newest)
        if abs(far) > FAR_S:
            if age.get("pending", 0.0) < PATIENCE_S:
                return None
            return f"{_markers(len(pending))} waiting for a window: {_clocks(far)}"
        # Some marker always waits where they come as fast as windows do: how long the first one does counts.
        if (delay := age.get("first pending", 0.0)) < PATIENCE_S + self.span:
            return None
        late = newest - pending[0].time
        if late > self.span + PATIENCE_S:
            return None  # samples have gone on; what waits is not the oldest
        return f"{_markers(len(pending))} waiting for samples after the marker: none has come for {delay:.0f} s"


def _distance(at: float, oldest: float, newest: float) -> float:
    """Return how far a time lies after (positive) or before the samples that are held."""
    if math.isnan(newest):
        return 0.0
    return at - newest if at > newest else min(0.0, at - oldest)


def _clocks(far: float) -> str:
    """Return the problem that two clocks differ."""
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
