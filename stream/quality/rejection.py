"""What became of the windows of a recording or session by their samples, in one line and in counts."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from stream.types.units import FOR_PEOPLE, for_people
from stream.types.windows import Window

NAMED = 4
"""Channels that the line names, those over their limit most often."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Counts of windows that are used and rejected, and why.

    Attributes
    ----------
    text : str
        One line for people: '120 markers, 94 used; 25 over 150-180 uV (Oz 9, TP9 6, ...); 1 with a gap'.
    markers : int
        Windows cut, each at a marker.
    used : int
        Of these, neither rejected nor without a picture.
    rejected : dict of str to int
        By `stream.types.windows.Cause`; causes that did not occur are left out.
    unmatched : int
        Windows that are not rejected, but whose label names no picture.
    interpolated : int
        Of the used, those in which a channel was replaced by its neighbours.
    channels : dict of str to int
        Channels over their limit, and in how many windows; the most frequent first.
    limits : dict of str to dict
        By channel kind, the `lowest` and `highest` of the channels' limits (peak-to-peak) and their `unit`: 'uV' for
        EEG, 'fT' for magnetometers.
    """

    text: str
    markers: int
    used: int
    rejected: dict[str, int] = field(default_factory=dict)
    unmatched: int = 0
    interpolated: int = 0
    channels: dict[str, int] = field(default_factory=dict)
    limits: dict[str, dict[str, Any]] = field(default_factory=dict)


class RejectionCount:
    """Count windows as they come.

    Parameters
    ----------
    pictures : collection of str, optional
        Labels that name a picture; left out, every label counts as one.
    limits : dict of str to list of (unit, peak-to-peak limit), by channel kind, optional
        As `stream.quality.limits.Limits.by_kind` has them.
    """

    def __init__(
        self,
        pictures: Collection[str] | None = None,
        limits: dict[str, tuple[str, list[float]]] | None = None,
    ) -> None:
        self._pictures = None if pictures is None else frozenset(pictures)
        self._limits = limits or {}
        self._markers = self._used = self._unmatched = self._interpolated = 0
        self._causes: Counter[str] = Counter()
        self._channels: Counter[str] = Counter()

    def add(self, window: Window) -> None:
        """Count one window."""
        self._markers += 1
        quality = window.quality
        if quality.rejected:
            self._causes[quality.cause or "samples"] += 1
            if quality.cause == "limit":
                self._channels.update(quality.channels)
        elif self._pictures is not None and (window.event is None or window.event.label not in self._pictures):
            self._unmatched += 1
        else:
            self._used += 1
            self._interpolated += bool(quality.interpolated)

    def result(self) -> Rejection:
        """Return the counts so far, and the line that says them."""
        limits: dict[str, dict[str, Any]] = {}
        for kind, (unit, each) in self._limits.items():
            factor, name = FOR_PEOPLE.get(unit, (1.0, unit))
            limits[kind] = {
                "unit": name,
                "lowest": _rounded(min(each) * factor),
                "highest": _rounded(max(each) * factor),
            }
        return Rejection(
            text="; ".join(self._parts()),
            markers=self._markers,
            used=self._used,
            rejected=dict(self._causes),
            unmatched=self._unmatched,
            interpolated=self._interpolated,
            channels=dict(self._channels.most_common()),
            limits=limits,
        )

    def _parts(self) -> Iterable[str]:
        yield f"{self._markers} marker{'s' * (self._markers != 1)}, {self._used} used"
        if over := self._causes["limit"]:
            ranges = " / ".join(_range(min(each), max(each), unit) for unit, each in self._limits.values())
            named = ", ".join(f"{name} {count}" for name, count in self._channels.most_common(NAMED))
            more = ", ..." if len(self._channels) > NAMED else ""
            yield f"{over} over {ranges or 'a limit'} ({named}{more})"
        for cause, words in (
            ("flat", "with a flat channel"),
            ("level", "at levels unlike the calibration's"),
            ("gap", "with samples missing"),
            ("samples", "with bad samples"),
        ):
            if count := self._causes[cause]:
                yield f"{count} {words}"
        if self._unmatched:
            yield f"{self._unmatched} named no picture"
        if self._interpolated:
            yield f"{self._interpolated} of the used with a channel interpolated"


def rejection_of(
    windows: Iterable[Window],
    pictures: Collection[str] | None = None,
    limits: dict[str, tuple[str, list[float]]] | None = None,
) -> Rejection:
    """Count the windows of a recording; parameters as `RejectionCount` has them."""
    count = RejectionCount(pictures, limits)
    for window in windows:
        count.add(window)
    return count.result()


def _range(low: float, high: float, unit: str) -> str:
    first, last = for_people(low, unit), for_people(high, unit)
    number, own = first.split(" ", 1)
    return first if first == last else f"{number}-{last}" if last.endswith(f" {own}") else f"{first} to {last}"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
