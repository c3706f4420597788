"""Time stamps: checks that they are of this machine's LSL clock, and of one clock at all."""

import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FAR_S = 10.0
"""Seconds; samples are not under way so long."""
AFTER_S = 2.0
"""Seconds that it must last: what was held up while this process stood still is late for a moment."""
STANDING = 32
"""Samples of one stamp in a row, over `AFTER_S`, that are a problem."""


class StampWatch:
    """Hold the newest time stamps of a stream against the clock.

    Parameters
    ----------
    far_s : float
        Seconds from now above which a stamp must be of another clock.
    after_s : float
        Seconds that this must last.

    Attributes
    ----------
    ahead : float or None
        Seconds that the newest stamp is ahead of the clock, as it was when it was first found so; None before any.
    standing : float or None
        The stamp that the stream keeps repeating.
    """

    def __init__(self, far_s: float = FAR_S, after_s: float = AFTER_S) -> None:
        self._limit, self._after = far_s, after_s
        self.ahead: float | None = None
        self.standing: float | None = None
        self._far_since: float | None = None
        self._last, self._repeats, self._since = math.nan, 0, 0.0

    @property
    def far(self) -> bool:
        """True if the stamps are of another clock."""
        return self._far_since is not None and time.monotonic() - self._far_since >= self._after

    def note(self, times: NDArray[np.float64], now: float) -> None:
        """Count the samples that have just come.

        Parameters
        ----------
        times : ndarray, shape (n,)
            In our clock.
        now : float
            By it.
        """
        last = float(times[-1]) if len(times) else math.nan
        if not math.isfinite(last):
            return
        self._repeated(last, float(times[0]), len(times))
        ahead = last - now
        # The distance is told as it was: a text that changes with every chunk would be news each time.
        if self.ahead is None or abs(ahead - self.ahead) > max(1.0, 0.01 * abs(ahead)):
            self.ahead = ahead
        if abs(ahead) <= self._limit:
            self._far_since = None
        elif self._far_since is None:
            self._far_since = time.monotonic()

    def _repeated(self, last: float, first: float, n: int) -> None:
        if first == last == self._last:
            self._repeats += n
            lasting = self._repeats >= STANDING and time.monotonic() - self._since >= AFTER_S
            self.standing = last if lasting else None
        else:
            self._last, self._repeats, self._since, self.standing = last, 0, time.monotonic(), None


def stamp_problems(
    source: tuple[str, StampWatch], others: Sequence[tuple[str, str, StampWatch]], apart_s: float
) -> list[str]:
    """Return the problems of the time stamps of streams that belong together.

    Parameters
    ----------
    source : (str, StampWatch)
        Name and stamps of the stream that decides the windows.
    others : sequence of (str, str, StampWatch)
        Of marker streams and further streams: what comes in them, with their name ("markers of 'keys'"), the config's
        key for their remedy ('source.markers.stamps'), their stamps.
    apart_s : float
        Seconds between the source's stamps and another stream's above which they are of different clocks.

    Returns
    -------
    list of str
        A line each, with the way out.
    """
    name, own = source
    lines = [
        f"{what} all carry the time stamp {watch.standing:g}: no time can be told; {_remedy(key)}"
        for what, key, watch in [(f"samples of {name!r}", "source.stamps", own), *others]
        if watch.standing is not None
    ]
    if own.standing is not None or own.ahead is None:
        return lines
    apart = [
        (what, key, watch.ahead, watch.far)
        for what, key, watch in others
        if watch.ahead is not None and watch.standing is None and abs(watch.ahead - own.ahead) > apart_s
    ]
    if own.far and (apart or not any(watch.far for _, _, watch in others)):
        effect = "latencies are wrong, and markers of another clock get no window"
        if apart:
            effect = f"{', '.join(what for what, *_ in apart)} are not, so no window can be cut"
        lines.append(f"samples of {name!r} are stamped {_distance(own.ahead)}: {effect}; {_remedy('source.stamps')}")
    elif own.far:
        lines.append(
            f"samples of {name!r} and what belongs to them are stamped {_distance(own.ahead)}: windows are right, "
            f"latencies are not; restart the apps with LSL time stamps"
        )
    else:
        lines += [
            f"{what} are stamped {_distance(ahead)}, samples are not, so no window can be cut; {_remedy(key)}"
            for what, key, ahead, far in apart
            if far
        ]
    return lines


def _distance(ahead: float) -> str:
    return f"{abs(ahead):.3g} s {'ahead of' if ahead > 0 else 'behind'} this machine's LSL clock"


def _remedy(key: str) -> str:
    return f"set {key}: arrival (the time of arrival here), or restart its app with LSL time stamps"
