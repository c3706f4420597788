"""Streams that appear beside those in use under the same source id."""

import logging
import time
from collections.abc import Sequence
from typing import Any

from stream.lsl.discovery import describe_streams, duplicates_of, xpath_quote

logger = logging.getLogger(__name__)
REST_S, LOOK_S = 3.0, 0.8
"""Seconds between two look-arounds, and how long each collects answers."""


class DuplicateSourceWatch:
    """Look, every few seconds, for further streams of the source ids in use.

    liblsl looks in a thread of its own; whoever asks for `problems` hardly waits.

    Parameters
    ----------
    lsl : module
    source_ids : sequence of str
        Empty ones are left out: such a stream is told by its name, and cannot be duplicated.
    """

    def __init__(self, lsl: Any, source_ids: Sequence[str]) -> None:
        self._lsl = lsl
        self._predicate = " or ".join(f"source_id={xpath_quote(each)}" for each in sorted({*source_ids} - {""}))
        self._resolver: Any = None
        self._turn = time.monotonic()
        self._lines: dict[tuple[str, str], str] = {}
        self._seen: set[tuple[str, str]] = set()

    def problems(self, gone: set[str]) -> list[str]:
        """Return the source ids that several streams carry now; log when one appears, and when it is gone.

        Parameters
        ----------
        gone : set of str
            Unique ids of outlets that were lost: they are announced for a moment after their end.
        """
        now = time.monotonic()
        if self._resolver is not None and now >= self._turn:
            self._look(self._resolver.results(), gone)
            self._resolver, self._turn = None, now + REST_S
        elif self._predicate and self._resolver is None and now >= self._turn:
            self._resolver = self._lsl.ContinuousResolver(pred=self._predicate, forget_after=REST_S)
            self._turn = now + LOOK_S
        return list(self._lines.values())

    def close(self) -> None:
        """Stop looking."""
        self._resolver, self._predicate = None, ""

    def _look(self, infos: Sequence[Any], gone: set[str]) -> None:
        around = [info for info in infos if info.uid() not in gone]
        lines = {}
        for info in around:
            key, twins = (info.source_id(), info.type()), duplicates_of(info, around)
            if len({each.uid() for each in twins}) > 1:
                lines[key] = self._lines.get(key) or (
                    f"{len(twins)} streams carry source_id {key[0]!r}: the one in use is kept, but after a loss it "
                    f"cannot be told which is meant; stop one: {describe_streams(twins)}"
                )
        # One look may miss an answer; two do not.
        keys = set(lines)
        lines |= {key: self._lines[key] for key in self._seen - keys}
        self._seen = keys
        for key in lines.keys() - self._lines.keys():
            logger.warning("%s", lines[key])
        for key in self._lines.keys() - lines.keys():
            logger.info("source_id %r is carried by one stream again", key[0])
        self._lines = lines
