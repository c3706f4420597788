"""How far a source's clock is from ours, and how much of that to believe."""

import ctypes
import socket
import threading
from typing import Any

TIMEOUT_S = 5.0
SAME_CLOCK_S = 0.005
"""Seconds; a difference below this between streams of one host is measurement noise."""
ROUGH_S = 0.01
"""Seconds; a round trip above this is a stalled machine or a poor network."""
WRITTEN_FOR = "1.18"
"""pylsl's version (major and minor) whose inner names `time_correction` uses; a test fails with another one."""


def time_correction(lsl: Any, inlet: Any) -> tuple[float, float]:
    """Return an inlet's clock offset and the round trip of its measurement, in seconds.

    pylsl leaves out liblsl's variant that returns the round trip, so this calls the library that pylsl has loaded.

    Raises
    ------
    pylsl.util.TimeoutError, pylsl.util.LostError
    """
    call = lsl.inlet.lib.lsl_time_correction_ex
    call.restype = ctypes.c_double
    remote, round_trip, failure = ctypes.c_double(), ctypes.c_double(), ctypes.c_int()
    offset: float = call(
        inlet.obj,
        ctypes.byref(remote),
        ctypes.byref(round_trip),
        ctypes.c_double(TIMEOUT_S),
        ctypes.byref(failure),
    )
    lsl.util.handle_error(failure)
    return offset, round_trip.value


def choose_offset(offset: float, round_trip: float, current: float | None, *, one_machine: bool) -> float:
    """Choose between a new measurement and what is known.

    The truth lies within half a round trip of a measurement. A process that was stopped for a moment answers late:
    a false step of the clock would be taken for lost samples, or tear a window apart.

    Parameters
    ----------
    offset, round_trip : float
        As measured, in seconds.
    current : float or None
        The offset in use.
    one_machine : bool
        The source bears our own host's name; LSL clocks of different machines differ by far more than a round trip.
    """
    if one_machine and abs(offset) <= max(SAME_CLOCK_S, round_trip):
        return 0.0
    if current is not None and round_trip > ROUGH_S and abs(offset - current) <= round_trip:
        return current
    return offset


class ClockOffset:
    """The offset to add to the timestamps of a host's streams: one for all of them, or markers slip against samples.

    One inlet measures it, in its reader's thread, until it leaves; another one takes over then.

    Parameters
    ----------
    lsl : module
    hostname : str
        Of the source.

    Attributes
    ----------
    seconds : float
    """

    def __init__(self, lsl: Any, hostname: str) -> None:
        self._lsl = lsl
        self._one_machine = hostname == socket.gethostname()
        self._known: float | None = None
        self._measurer: Any = None
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """The offset in use; 0 before the first measurement."""
        return self._known or 0.0

    def measure(self, inlet: Any, *, claim: bool = False) -> None:
        """Ask liblsl, which measures every few seconds in a thread of its own; nothing if another inlet is asked.

        Parameters
        ----------
        inlet : pylsl.StreamInlet
        claim : bool
            Ask this inlet from now on: a machine that was started again has another clock.

        Raises
        ------
        pylsl.util.TimeoutError, pylsl.util.LostError
        """
        with self._lock:
            if claim or self._measurer is None:
                self._measurer = inlet
            if self._measurer is not inlet:
                return
        offset, round_trip = time_correction(self._lsl, inlet)
        self._known = choose_offset(offset, round_trip, self._known, one_machine=self._one_machine)

    def leave(self, inlet: Any) -> None:
        """Ask another inlet from now on, if this one was asked."""
        with self._lock:
            if self._measurer is inlet:
                self._measurer = None


class HostClocks:
    """The clock offset of each host that streams come from."""

    def __init__(self, lsl: Any) -> None:
        self._lsl = lsl
        self._offsets: dict[str, ClockOffset] = {}

    def of(self, hostname: str) -> ClockOffset:
        """Return a host's offset, the same object for all its streams."""
        return self._offsets.setdefault(hostname, ClockOffset(self._lsl, hostname))
