"""A marker stream, read on its own: whatever becomes of it, the samples go on."""

import logging
import threading
from typing import Any

from stream.errors import SourceError, StreamError
from stream.lsl.inlets import MarkerInlet
from stream.lsl.metadata import channel_nodes
from stream.lsl.offset import HostClocks
from stream.lsl.reader import BATCH_S, StreamReader
from stream.lsl.stamps import FAR_S, StampWatch
from stream.markers.markers import MarkerColumns, column_place, in_column
from stream.types.source_spec import MarkerSelector

logger = logging.getLogger(__name__)


class MarkerReader(StreamReader):
    """Reads a marker stream.

    Parameters
    ----------
    lsl : module
    selector : MarkerSelector
        How to read it.
    stop : threading.Event
        Ends the thread.
    clocks : HostClocks
    buffer_s : float
        How late a marker may come.
    reconnect : bool
        Look for the stream again when it is lost.

    Attributes
    ----------
    bad : int
        Markers that are no event: without a finite time or value, or without a text.
    events : int
        How many there are in all, where a replay says so; else 0.
    """

    what = "marker stream"
    measures = False

    def __init__(
        self, lsl: Any, selector: MarkerSelector, stop: threading.Event, clocks: HostClocks, *,
        buffer_s: float, reconnect: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(lsl, stop, clocks, reconnect=reconnect)
        self._selector = selector
        self._columns = MarkerColumns("", [""])
        self._counted = self.events = 0
        self.stamps = StampWatch(far_s=buffer_s + FAR_S, after_s=0.0)

    @property
    def bad(self) -> int:
        """Markers that are no event."""
        return self._counted + self._columns.bad

    def _make(self, info: Any) -> MarkerInlet:
        return MarkerInlet(self._lsl, info, self._clocks, stamps=self._selector.stamps)

    def _learn(self, info: Any) -> None:
        labels = [str(node.child_value("label")) for node in channel_nodes(info)]
        count = info.channel_count()
        names = [*labels[:count], *[""] * (count - len(labels))]
        events = info.desc().child("replay").child_value("events")
        self.events = int(events) if events.isdecimal() and len(events) < 10 else 0
        columns = MarkerColumns(info.name(), names, info.nominal_srate())
        if self._selector.column is not None:
            try:
                column_place(columns.names, self._selector.column, info.name())
            except StreamError as error:
                raise SourceError(str(error)) from None
        self._counted, self._columns = self.bad, columns

    def _note(self, info: Any) -> None:
        super()._note(info)
        # Scripts make up a new source id at every start: what the config leaves open need not be what it was.
        if self._selector.source_id is None and not self._selector.properties:
            self.kin = self._again.model_copy(update={"source_id": None})

    def _ended(self) -> bool:
        return self._receiver.ended()

    def _pump(self) -> None:
        assert isinstance(self._inlet, MarkerInlet)
        rows, times = self._inlet.pull()
        if not len(times):
            return
        self.stamps.note(times, self._lsl.local_clock())
        before = self.bad
        events = [in_column(event, self._selector.column) for event in self._columns.feed(rows, times)]
        # The first one at once, then at each tenfold.
        if self.bad > before and (not before or len(str(self.bad)) > len(str(before))):
            logger.warning(
                "%s %s: %d markers without a finite time or value are left out", self.what, self.name, self.bad
            )
        self._receiver.mark([event for event in events if event])
        self._stop.wait(BATCH_S)
