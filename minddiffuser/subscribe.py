"""Watch a session without a browser: save its pictures, count them, time them, and look at them in a terminal."""

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minddiffuser.archive import file_stem, save
from stream.broker import BrokerSpec
from stream.frames import Assembler, Frame
from stream.subscriber import Subscriber


@dataclass(slots=True)
class Summary:
    """What came in.

    Attributes
    ----------
    session : str
    seconds : float
        How long was listened.
    pictures, previews, originals, abstained : int
        Frames that were published while we listened, each with the bytes its meta names.
    retained : int
        Frames that the broker had kept from before; not counted above.
    lost : int
        Holes in the running numbers of pictures and previews: they were published, and never came.
    out_of_order, duplicates, unpaired, bad : int
        `unpaired`: bytes without a meta or the reverse; `bad`: metas that are none.
    dropped, refused, reconnects : int
        Of our own subscriber.
    data : str
        What the pictures were made from, in the publisher's words.
    latency_ms : dict
        Published -> complete here, by stage: p50, p99, max, n. Both ends read the LSL clock, so it means something on
        one machine only.
    """

    session: str
    seconds: float = 0.0
    pictures: int = 0
    previews: int = 0
    originals: int = 0
    abstained: int = 0
    retained: int = 0
    lost: int = 0
    out_of_order: int = 0
    duplicates: int = 0
    unpaired: int = 0
    bad: int = 0
    dropped: int = 0
    refused: int = 0
    reconnects: int = 0
    data: str = ""
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON-able values."""
        return asdict(self)


class Numbers:
    """Finds holes and swaps in the running numbers of one stage.

    Attributes
    ----------
    out_of_order : int
    """

    def __init__(self) -> None:
        self.out_of_order = 0
        self._earlier = 0
        self._highest: int | None = None
        self._missing: set[int] = set()

    @property
    def lost(self) -> int:
        """Numbers that were skipped and never came."""
        return self._earlier + len(self._missing)

    def add(self, number: int) -> None:
        """Take the next number in; 1 after something higher means that the publisher started anew."""
        if self._highest is None or (number == 1 and 1 not in self._missing):
            self._earlier += len(self._missing)
            self._missing, self._highest = set(), number
        elif number > self._highest:
            self._missing.update(range(self._highest + 1, number))
            self._highest = number
        elif number in self._missing:
            self._missing.discard(number)
            self.out_of_order += 1


async def subscribe(
    broker: BrokerSpec,
    session: str,
    *,
    keep: Callable[[Frame], object] | None = None,
    seconds: float | None = None,
    count: int | None = None,
    on_picture: Callable[[Frame], None] | None = None,
    on_ready: Callable[[], None] | None = None,
    stop: asyncio.Event | None = None,
) -> Summary:
    """Receive a session's pictures until `seconds` are over, `count` final pictures are in, or `stop` is set.

    Parameters
    ----------
    broker : BrokerSpec
    session : str
    keep : callable, optional
        Called with every frame in a thread, to write it somewhere: `saver(...)`, or an archive's `add`.
    seconds, count : optional
    on_picture : callable, optional
        Called with every frame, of whatever stage.
    on_ready : callable, optional
        Called once when the broker has let us in: what is published from then on is counted.
    stop : asyncio.Event, optional

    Returns
    -------
    Summary

    Raises
    ------
    PublishError
        The broker cannot be reached or refuses.
    AppError
        A picture cannot be saved.
    """
    began = time.monotonic()
    watch = _Watch(session, keep, count, on_picture)
    async with Subscriber(broker, session) as messages:
        if on_ready:
            on_ready()
        reading = asyncio.create_task(watch.read(messages))
        stopping = asyncio.create_task(stop.wait() if stop else asyncio.Event().wait())
        try:
            await asyncio.wait({reading, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            for task in (reading, stopping):
                task.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)
        summary = watch.finish()
        summary.dropped, summary.refused = messages.dropped, messages.refused
        summary.reconnects = messages.reconnects
    summary.seconds = round(time.monotonic() - began, 3)
    return summary


class _Watch:
    """The state of one `subscribe`."""

    def __init__(
        self,
        session: str,
        keep: Callable[[Frame], object] | None,
        count: int | None,
        on_frame: Callable[[Frame], None] | None,
    ) -> None:
        self._summary = Summary(session)
        self._keep, self._count, self._on_frame = keep, count, on_frame
        self._assembler = Assembler()
        self._numbers: defaultdict[tuple[str, str], Numbers] = defaultdict(Numbers)
        self._latencies: dict[str, list[float]] = {"preview": [], "picture": []}
        self._stages: Counter[str] = Counter()

    async def read(self, messages: Subscriber) -> None:
        async for message in messages:
            frame = self._assembler.add(message)
            if frame is None:
                continue
            self._account(frame)
            if self._keep is not None:
                await asyncio.to_thread(self._keep, frame)
            if self._on_frame:
                self._on_frame(frame)
            if self._count is not None and self._stages["picture"] >= self._count:
                return

    def _account(self, frame: Frame) -> None:
        self._summary.data = str(frame.meta.get("data", "")) or self._summary.data
        if frame.retained:
            self._summary.retained += 1
            return
        self._stages[frame.stage] += 1
        number, published = frame.meta.get("n"), _mapping(frame.meta.get("times")).get("published")
        if frame.stage not in self._latencies:
            return
        if isinstance(number, int):
            self._numbers[frame.session, frame.stage].add(number)
        if isinstance(published, (int, float)):
            self._latencies[frame.stage].append((frame.received - published) * 1e3)

    def finish(self) -> Summary:
        summary, assembler = self._summary, self._assembler
        summary.pictures, summary.previews = self._stages["picture"], self._stages["preview"]
        summary.originals, summary.abstained = self._stages["original"], self._stages["abstained"]
        summary.duplicates, summary.unpaired, summary.bad = assembler.duplicates, assembler.unpaired, assembler.bad
        summary.lost = sum(numbers.lost for numbers in self._numbers.values())
        summary.out_of_order = sum(numbers.out_of_order for numbers in self._numbers.values())
        summary.latency_ms = {stage: percentiles(values) for stage, values in self._latencies.items() if values}
        return summary


def saver(folder: Path, session: str) -> Callable[[Frame], list[Path]]:
    """Give what writes frames to a folder: `<window>.<stage>.jpg` beside `<window>.<stage>.json`.

    With session '+', each session gets a folder of its own in it.
    """

    def write(frame: Frame) -> list[Path]:
        return save(frame, folder / file_stem(frame.session) if session == "+" else folder)

    return write


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p99 (nearest rank), max and n of some values."""
    ordered = sorted(values)
    rank = {name: ordered[max(0, math.ceil(q * len(ordered)) - 1)] for name, q in (("p50", 0.5), ("p99", 0.99))}
    return {**{name: round(value, 3) for name, value in rank.items()}, "max": round(ordered[-1], 3), "n": len(ordered)}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
