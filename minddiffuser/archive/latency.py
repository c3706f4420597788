"""How long each step took, from the last sample of a window to the published picture."""

import bisect
from collections import deque
from collections.abc import Mapping

import numpy as np

STEPS: Mapping[str, tuple[str, str]] = {
    "window_ready": ("acquired", "ready"),
    "waited": ("ready", "taken"),
    "decoded": ("ready", "decoded"),
    "stage1": ("decoded", "stage1"),
    "stage2": ("stage1", "stage2"),
    "published": ("stage2", "published"),
    "broker": ("published", "acknowledged"),
    "preview": ("ready", "preview_published"),
    "picture": ("ready", "published"),
    "total": ("acquired", "published"),
}
"""Name of a latency -> the two times it lies between.

window_ready, decoded (of which `waited` in the queue), stage1, stage2 (the preview's way out among it) and published
add up to the total; `broker` comes on top: from the hand-over to the publisher until the broker has the picture.
"""

EDGES_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Upper edges of the histogram's bins; one more bin is open above."""


class Latencies:
    """Latencies of a session's pictures, by step.

    Parameters
    ----------
    length : int
        How many pictures back the percentiles look; the histograms hold all.
    """

    def __init__(self, length: int = 1000) -> None:
        self._seconds: dict[str, deque[float]] = {step: deque(maxlen=length) for step in STEPS}
        self._counts = {step: [0] * (len(EDGES_MS) + 1) for step in STEPS}

    def add(self, times: Mapping[str, float]) -> None:
        """Add one picture's times (LSL clock, seconds); steps whose times are missing are left out."""
        for step, (start, end) in STEPS.items():
            if start in times and end in times:
                seconds = times[end] - times[start]
                self._seconds[step].append(seconds)
                self._counts[step][bisect.bisect_left(EDGES_MS, seconds * 1e3)] += 1

    def percentiles(self) -> dict[str, dict[str, float | None]]:
        """Return p50 and p99 in milliseconds for each step (None before the first picture)."""
        return {step: _percentiles(values) for step, values in self._seconds.items()}

    def histograms(self) -> dict[str, list[int]]:
        """Return for each step how many latencies lie in each bin of `EDGES_MS`, since the start."""
        return {step: list(counts) for step, counts in self._counts.items()}


class Steps:
    """Durations of each step of the engine for a session's pictures, and how many were made together.

    Parameters
    ----------
    length : int
        How many pictures back the percentiles look.
    """

    def __init__(self, length: int = 1000) -> None:
        self._length = length
        self._seconds: dict[str, deque[float]] = {}
        self._batches: deque[float] = deque(maxlen=length)

    def add(self, timings: Mapping[str, float], batch: int) -> None:
        """Add a picture's steps, in seconds, and the size of its batch."""
        self._batches.append(batch / 1e3)
        for step, seconds in timings.items():
            self._seconds.setdefault(step, deque(maxlen=self._length)).append(seconds)

    def percentiles(self) -> dict[str, dict[str, float | None]]:
        """Return p50 and p99 of each step in milliseconds; `batch` is no time but a number of windows."""
        steps = {step: _percentiles(seconds) for step, seconds in self._seconds.copy().items()}
        return steps | ({"batch": _percentiles(self._batches)} if self._batches else {})


def _percentiles(seconds: deque[float]) -> dict[str, float | None]:
    if not seconds:
        return {"p50": None, "p99": None}
    # Copied in one go: another thread adds while this one reads.
    p50, p99 = np.percentile(np.array(list(seconds)) * 1e3, [50, 99])
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}
