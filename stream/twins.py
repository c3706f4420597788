"""Streams that appear beside those in use under the same source id."""

import logging
import time
from collections.abc import Sequence
from typing import Any

from stream.sources import listed, quoted

LOG = logging.getLogger(__name__)
EVERY_S = 1.0
FORGET_S = 2.0


class TwinWatch:
    """Look, all the time, for further streams of the source ids in use.

    Parameters
    ----------
    lsl : module
    source_ids : sequence of str
        Empty ones are left out: such a stream is told by its name, and cannot be doubled.
    """

    def __init__(self, lsl: Any, source_ids: Sequence[str]) -> None:
        self._ids = sorted({each for each in source_ids if each})
        predicate = " or ".join(f"source_id={quoted(each)}" for each in self._ids)
        self._resolver = lsl.ContinuousResolver(pred=predicate, forget_after=FORGET_S) if self._ids else None
        self._looked = -EVERY_S
        self._lines: dict[str, str] = {}

    def problems(self, gone: set[str]) -> list[str]:
        """Name the source ids that several streams carry now; a log line when one appears, and when it is gone.

        Parameters
        ----------
        gone : set of str
            Unique ids of outlets that were lost: they are announced for a moment after their end.
        """
        now = time.monotonic()
        if self._resolver is None or now - self._looked < EVERY_S:
            return list(self._lines.values())
        self._looked = now
        found = self._resolver.results()
        lines = {}
        for source_id in self._ids:
            twins = [info for info in found if info.source_id() == source_id and info.uid() not in gone]
            if len({info.uid() for info in twins}) > 1:
                lines[source_id] = self._lines.get(source_id) or (
                    f"{len(twins)} streams carry source_id {source_id!r}: the one in use is kept, but after a loss it "
                    f"cannot be told which is meant; stop one: {listed(twins)}"
                )
        for source_id in lines.keys() - self._lines.keys():
            LOG.warning("%s", lines[source_id])
        for source_id in self._lines.keys() - lines.keys():
            LOG.info("source_id %r is carried by one stream again", source_id)
        self._lines = lines
        return list(lines.values())

    def close(self) -> None:
        """Stop looking."""
        self._resolver = None
