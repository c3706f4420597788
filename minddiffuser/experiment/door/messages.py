"""What pages may say to the door, checked: whatever comes from a browser is anybody's."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from stream.errors import WireError

MOST_BYTES = 4096
"""Of a message."""
MOST_LABEL = 200
"""Characters of a marker."""
MOST_ID = 64
MOST_ROUNDS = 32
AHEAD_S = 1.0
"""How far in the future a flip may lie: that of the next frame is told before it comes."""
KEPT_IDS = 50_000
"""Of markers that were sent, for resent ones."""
A_SECOND = 200.0
"""Markers of a page a second, in the long run."""
AT_ONCE = 400.0


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker as a page sends it: its id, its label, and the page's seconds of the flip."""

    id: str
    label: str
    time: float


def read(text: str | bytes) -> dict[str, Any]:
    """Read a message.

    Raises
    ------
    WireError
        It is too long, or no JSON object.
    """
    if len(text) > MOST_BYTES:
        raise WireError("size", f"a message of {len(text)} bytes: {MOST_BYTES} are the most")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError("json", "a message that is no JSON") from None
    if not isinstance(message, dict):
        raise WireError("json", "a message that is no JSON object")
    return message


def text_in(message: dict[str, Any], key: str, most: int) -> str:
    """Return a text of a message.

    Raises
    ------
    WireError
        It is none, too long, or holds what cannot be printed.
    """
    text = message.get(key)
    if not isinstance(text, str) or not 0 < len(text) <= most or not text.isprintable():
        raise WireError(key, f"{key} must be a text of 1 to {most} characters that can be printed")
    return text


def number_in(message: dict[str, Any], key: str) -> float:
    """Return a number of a message.

    Raises
    ------
    WireError
        It is none, or not finite.
    """
    value = message.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WireError(key, f"{key} must be a finite number")
    return float(value)


def marker_in(message: dict[str, Any]) -> Marker:
    """Return the marker of a message: `id`, `label`, and `time` in milliseconds of the page's clock.

    Raises
    ------
    WireError
        It is none.
    """
    return Marker(
        text_in(message, "id", MOST_ID), text_in(message, "label", MOST_LABEL), number_in(message, "time") / 1000
    )


class Rate:
    """So many a second in the long run, and some more at once (token bucket)."""

    def __init__(self, now: float) -> None:
        self._left, self._at = AT_ONCE, now

    def take(self, now: float) -> bool:
        """Return whether one more is in order."""
        self._left = min(AT_ONCE, self._left + A_SECOND * (now - self._at))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class SentIds:
    """Which markers were sent, and with which stamp: a marker that comes again is none."""

    def __init__(self) -> None:
        self._stamps: OrderedDict[tuple[str, str], float] = OrderedDict()

    def stamp(self, page: str, marker: str) -> float | None:
        """Return the stamp of a marker that was sent; None of a new one."""
        return self._stamps.get((page, marker))

    def add(self, page: str, marker: str, stamp: float) -> None:
        """Take note of one that was sent."""
        self._stamps[page, marker] = stamp
        while len(self._stamps) > KEPT_IDS:
            self._stamps.popitem(last=False)
