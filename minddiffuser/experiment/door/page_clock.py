"""The clock of a web page against LSL's, measured as NTP does (Mills 1991): by the round trip that took least."""

import math
from collections import deque
from dataclasses import dataclass

LEAST_ROUNDS = 5
"""Before a time of the page is believed."""
KEPT = 64
DRIFT = 50e-6
"""How far two clocks may run apart, in seconds a second: older rounds count for less."""
JUMP_S = 1e-3
"""Browsers round their clock; beyond this, offsets that no round trip explains are a jump."""
LONGEST_S = 5.0
"""A round trip that took longer measures nothing."""


@dataclass(frozen=True, slots=True)
class Round:
    """A message to a page and back.

    Attributes
    ----------
    at : float
        LSL time in its middle.
    offset : float
        What added to the page's seconds gives LSL's.
    delay : float
        How long it was under way (s): the offset is wrong by half of it at most.
    """

    at: float
    offset: float
    delay: float


def round_of(sent: float, page: float, received: float) -> Round | None:
    """Return what a round trip says; None where it says nothing.

    Parameters
    ----------
    sent, received : float
        LSL seconds when the message left and the answer came.
    page : float
        The page's seconds in between.
    """
    delay = received - sent
    if not all(map(math.isfinite, (sent, page, received))) or not 0 <= delay <= LONGEST_S:
        return None
    middle = (sent + received) / 2
    return Round(middle, middle - page, delay)


class PageClock:
    """Turns a page's times into LSL's."""

    def __init__(self) -> None:
        self._rounds: deque[Round] = deque(maxlen=KEPT)

    def add(self, measured: Round | None) -> None:
        """Take a round trip; those before a jump of the page's clock, as by a computer that slept, are forgotten."""
        if measured is None:
            return
        if self._rounds:
            best = self._best()
            possible = (measured.delay + best.delay) / 2 + DRIFT * abs(measured.at - best.at) + JUMP_S
            if abs(measured.offset - best.offset) > possible:
                self._rounds.clear()
        self._rounds.append(measured)

    @property
    def ready(self) -> bool:
        """Check that enough round trips were made."""
        return len(self._rounds) >= LEAST_ROUNDS

    @property
    def error_s(self) -> float:
        """Bound how far times are wrong: half of the best round trip, and what the clocks drift since."""
        best = self._best()
        return best.delay / 2 + DRIFT * (self._rounds[-1].at - best.at)

    def lsl(self, page: float) -> float:
        """Return the LSL time of a page's time, both in seconds; some round trip was added."""
        return page + self._best().offset

    def _best(self) -> Round:
        newest = self._rounds[-1].at
        return min(self._rounds, key=lambda each: each.delay / 2 + DRIFT * (newest - each.at))
