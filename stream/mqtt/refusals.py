"""What was refused, counted, and named in the log without filling it."""

import logging
import time
from collections import Counter

from stream.errors import PublishError, WireError

logger = logging.getLogger(__name__)

EVERY_S = 10.0
"""Seconds between two lines on things of which the log has an example already."""


class Refusals:
    """Counts what was refused by kind and reason; each pair's first is logged, then one line in `EVERY_S` at most.

    Attributes
    ----------
    counts : Counter of (str, str)
        By kind and reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._untold = 0
        self._next = 0.0

    @property
    def total(self) -> int:
        """Number of things refused."""
        return self.counts.total()

    def add(self, kind: str, error: PublishError, level: int = logging.WARNING) -> None:
        """Count one, by the reason that the error gives; what is logged has that level."""
        key = (kind, error.reason if isinstance(error, WireError) else "refused")
        self.counts[key] += 1
        now = time.monotonic()
        if self.counts[key] > 1 and now < self._next:
            self._untold += 1
            return
        more = f"; {self._untold} more since the last line" if self._untold else ""
        logger.log(level, "refused: %s%s", error, more)
        self._untold, self._next = 0, now + EVERY_S

    def as_dict(self) -> dict[str, int]:
        """Return the counts as plain JSON-able values, 'kind: reason' -> count."""
        return {f"{kind}: {reason}": count for (kind, reason), count in sorted(self.counts.items())}
