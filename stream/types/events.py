"""An event on the time line of a stream, and the one rule by which every source names it."""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Event:
    """A marker: something that happened at a moment of the LSL clock.

    Attributes
    ----------
    time : float
        Seconds in the LSL clock of the reading machine.
    label : str
        The marker's text; a numeric marker's decimal digits. The picture's id, once it is known which the marker names.
    code : int or None
        The marker's number, where it has one (64-bit: codes exceed int16).
    stream : str
        Name of the marker stream or trigger channel that it came from; empty where there is only one, or none is known.
        Left out of comparisons.
    columns : tuple of (str, str)
        Name and text of each column, where the marker stream has several: the label is made of them, see
        `stream.markers.markers`. Left out of comparisons.
    original_label : str
        What the marker said, where the label is another spelling of it; see `stream.types.labels`. Left out of
        comparisons.
    """

    time: float
    label: str
    code: int | None = None
    stream: str = field(default="", compare=False)
    columns: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    original_label: str = field(default="", compare=False)


def event_of(time: float, value: str | bytes | float, stream: str = "") -> Event | None:
    """Make an event of what a marker stream, trigger channel or table carries.

    Whole numbers become their decimal digits, other numbers the shortest text that gives the same number in the
    stream's own precision. Bytes that are not UTF-8 are read as Latin-1; halves of a character become '?'.

    Parameters
    ----------
    time : float
        Seconds.
    value : str, bytes or float
    stream : str
        Where it came from.

    Returns
    -------
    Event or None
        None where the time or the number is not finite: there is nothing to cut, or no label.
    """
    if not math.isfinite(time):
        return None
    if isinstance(value, bytes):
        label = text_of(value)
    elif isinstance(value, str):
        label = value.encode(errors="replace").decode()  # half a surrogate pair can neither be sent nor written
    elif math.isfinite(value):
        label = _digits(value)
    else:
        return None
    digits = label.strip().removeprefix("-")
    code = int(label.strip()) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else None
    return Event(float(time), label, code, stream)


def text_of(value: bytes) -> str:
    """Read a text in UTF-8, or else in Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _digits(value: float) -> str:
    if value == int(value):
        return str(int(value))
    single = np.float32(value)
    return str(single) if float(single) == float(value) else repr(float(value))
