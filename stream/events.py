"""An event on the time line of a stream."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """A marker: something that happened at a moment of the LSL clock.

    Attributes
    ----------
    time : float
        Seconds in the LSL clock of the reading machine.
    label : str
        The marker's text; a numeric marker's decimal digits.
    code : int or None
        The marker's number, where it has one (64-bit: codes exceed int16).
    """

    time: float
    label: str
    code: int | None = None
