"""Watch a session without a browser: save its pictures, count them, time them, and look at them in a terminal."""

import asyncio
import logging
import math
import time
from bisect import bisect_right
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minddiffuser.archive.framefiles import file_stem, save
from minddiffuser.archive.pictures import check
from minddiffuser.archive.windowtable import state_of
from minddiffuser.errors import AppError
from stream.errors import WireError
from stream.mqtt.broker import BrokerSpec
from stream.mqtt.frames import Assemblers, Frame
from stream.mqtt.messages import Message
from stream.mqtt.subscriber import Subscriber
from stream.mqtt.wire_models import printable
from stream.tasks import one_line

MAX_HOLES = 1000
"""Holes of one stage into which late numbers may still fall."""
MAX_STAGES = 1000
"""Stages of sessions whose numbers are followed at a time."""
LATENCIES = 100_000
"""Newest latencies of each stage that the percentiles are of."""
DRAIN_S = 10.0
"""Seconds after which a session that does not fall silent is left all the same."""


@dataclass(slots=True)
class Summary:
    """What came in.

    Attributes
    ----------
    session : str
    seconds : float
        How long was listened.
    pictures, previews, originals, retrieved : int
        Frames that were published while we listened, each with the bytes its meta names.
    rejected, abstained, windows_dropped, windows_failed : int
        Windows without a picture, by what became of them: bad samples, decoded and not shown, later ones were waiting,
        an error of the session.
    retained : int
        Frames that the broker had kept from before; not counted above.
    lost : int
        Holes in the running numbers of pictures and previews: they were published, and never came.
    out_of_order, duplicates, unpaired, bad : int
        `unpaired`: bytes without a meta or the reverse; `bad`: metas that are none.
    dropped, refused, reconnects : int
        Of our own subscriber.
    failed : int
        Messages that an error of our own has cost; each is in the log.
    refusals : dict of str to int
        All messages that did not fit, by kind and reason.
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
    retrieved: int = 0
    abstained: int = 0
    rejected: int = 0
    windows_dropped: int = 0
    windows_failed: int = 0
    retained: int = 0
    lost: int = 0
    out_of_order: int = 0
    duplicates: int = 0
    unpaired: int = 0
    bad: int = 0
    dropped: int = 0
    refused: int = 0
    reconnects: int = 0
    failed: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    data: str = ""
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON-able values."""
        return asdict(self)


class Numbers:
    """Finds holes and swaps in the running numbers of one stage, in memory that does not depend on the numbers.

    Attributes
    ----------
    out_of_order : int
    lost : int
        Numbers that were skipped and never came.
    """

    def __init__(self) -> None:
        self.out_of_order = self.lost = 0
        self._highest: int | None = None
        self._holes: list[tuple[int, int]] = []  # first number missing, first that is not; in order

    def add(self, number: int) -> None:
        """Count the next number; 1 after something higher means that the publisher started anew."""
        place = bisect_right(self._holes, number, key=lambda hole: hole[0]) - 1
        first, stop = self._holes[place] if place >= 0 else (0, 0)
        missing = first <= number < stop
        if self._highest is None or (number == 1 and not missing):
            self._holes, self._highest = [], number
        elif number > self._highest:
            if number > self._highest + 1:
                self._holes.append((self._highest + 1, number))
                self.lost += number - self._highest - 1
            self._highest = number
        elif missing:
            rest = ((first, number), (number + 1, stop))
            self._holes[place : place + 1] = [hole for hole in rest if hole[0] < hole[1]]
            self.lost -= 1
            self.out_of_order += 1
        del self._holes[:-MAX_HOLES]


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
    quiet_s: float = 0.0,
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
    quiet_s : float
        Once `stop` is set, wait until nothing has come for so long: what is under way is still taken in.

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
    async with Subscriber(broker, session) as messages:
        watch = _Watch(session, keep, count, on_picture, Assemblers(check, messages.refusals))
        if on_ready:
            on_ready()
        reading = asyncio.create_task(watch.read(messages))
        stopping = asyncio.create_task(_stopped(watch, stop or asyncio.Event(), quiet_s))
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
        summary.reconnects, summary.refusals = messages.reconnects, messages.refusals.as_dict()
    summary.seconds = round(time.monotonic() - began, 3)
    return summary


async def _stopped(watch: "_Watch", stop: asyncio.Event, quiet_s: float) -> None:
    await stop.wait()
    began = watch.heard = time.monotonic()
    while (now := time.monotonic()) < min(watch.heard + quiet_s, began + DRAIN_S):  # noqa: ASYNC110  silence is no event
        await asyncio.sleep(min(0.05, watch.heard + quiet_s - now))


class _Watch:
    """The state of one `subscribe`; `heard` is when the last frame came (`time.monotonic()`)."""

    def __init__(
        self,
        session: str,
        keep: Callable[[Frame], object] | None,
        count: int | None,
        on_frame: Callable[[Frame], None] | None,
        assemblers: Assemblers,
    ) -> None:
        self.heard = time.monotonic()
        self._summary = Summary(session)
        self._keep, self._count, self._on_frame = keep, count, on_frame
        self._assemblers = assemblers
        self._numbers: OrderedDict[tuple[str, str], Numbers] = OrderedDict()
        self._latencies: dict[str, deque[float]] = {stage: deque(maxlen=LATENCIES) for stage in ("preview", "picture")}
        self._stages: Counter[str] = Counter()

    async def read(self, messages: Subscriber) -> None:
        async for message in messages:
            try:
                await self._take(message)
            except AppError:  # it cannot be kept
                raise
            except Exception as error:  # one message must not end it, whatever it is
                self._summary.failed += 1
                words = f"{message.kind} of session {message.session}: {one_line(error)}"
                messages.refusals.add(message.kind, WireError("our own error", words), logging.ERROR)
            if self._count is not None and self._stages["picture"] >= self._count:
                return

    async def _take(self, message: Message) -> None:
        if (frame := self._assemblers.add(message)) is None:
            return
        self.heard = time.monotonic()
        self._account(frame)
        if self._keep is not None:
            await asyncio.to_thread(self._keep, frame)
        if self._on_frame:
            self._on_frame(frame)

    def _account(self, frame: Frame) -> None:
        self._summary.data = printable(frame.meta.get("data") or "") or self._summary.data
        if frame.retained:
            self._summary.retained += 1
            return
        self._stages[frame.stage if frame.stage != "abstained" else state_of(frame)] += 1
        if frame.stage not in self._latencies:
            return
        if (number := frame.meta.get("n")) is not None:
            self._numbers_of(frame.session, frame.stage).add(number)
        if (published := (frame.meta.get("times") or {}).get("published")) is not None:
            self._latencies[frame.stage].append((frame.received - published) * 1e3)

    def _numbers_of(self, session: str, stage: str) -> Numbers:
        key = (session, stage)
        if key not in self._numbers and len(self._numbers) >= MAX_STAGES:
            self._close(self._numbers.popitem(last=False)[1])
        numbers = self._numbers.setdefault(key, Numbers())
        self._numbers.move_to_end(key)
        return numbers

    def _close(self, numbers: Numbers) -> None:
        self._summary.lost += numbers.lost
        self._summary.out_of_order += numbers.out_of_order

    def finish(self) -> Summary:
        summary = self._summary
        summary.pictures, summary.previews = self._stages["picture"], self._stages["preview"]
        summary.originals, summary.retrieved = self._stages["original"], self._stages["retrieved"]
        summary.abstained = self._stages["abstained"]
        summary.rejected, summary.windows_dropped = self._stages["rejected"], self._stages["dropped"]
        summary.windows_failed = self._stages["failed"]
        for name in ("duplicates", "unpaired", "bad"):
            setattr(summary, name, self._assemblers.count(name))
        while self._numbers:
            self._close(self._numbers.popitem()[1])
        summary.latency_ms = {stage: percentiles(values) for stage, values in self._latencies.items() if values}
        return summary


def saver(folder: Path, session: str) -> Callable[[Frame], list[Path]]:
    """Return what writes frames to a folder: `<window>.<stage>.jpg` beside `<window>.<stage>.json`.

    With session '+', each session gets a folder of its own in it.
    """

    def write(frame: Frame) -> list[Path]:
        return save(frame, folder / file_stem(frame.session) if session == "+" else folder)

    return write


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p99 (nearest rank), max and n of some values."""
    ordered = sorted(values)
    rank = {name: ordered[max(0, math.ceil(q * len(ordered)) - 1)] for name, q in (("p50", 0.5), ("p99", 0.99))}
    return {**{name: round(value, 3) for name, value in rank.items()}, "max": round(ordered[-1], 3), "n": len(ordered)}
