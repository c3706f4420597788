"""The live loop: windows in, pictures out.

One asyncio program. Ingest runs in its own threads, decoding and reconstruction in one worker thread (they
share the same cores or GPU, so running them side by side would gain nothing); the event loop only hands
over, publishes and watches.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pylsl import local_clock

from decoder.bundle import Bundle
from decoder.errors import DecoderError
from engine.errors import EngineError
from minddiffuser.config import Config
from minddiffuser.errors import AppError
from minddiffuser.latency import EDGES_MS, Latencies
from minddiffuser.pipeline import Pipeline
from minddiffuser.queue import WindowQueue
from stream.errors import StreamError
from stream.labels import LabelMatcher
from stream.lsl import IngestStats, LiveIngest
from stream.mqtt import Publisher
from stream.tasks import one_line
from stream.windows import Channels, Window

if TYPE_CHECKING:
    from engine.reconstructor import Reconstructor

log = logging.getLogger(__name__)

METRICS_PERIOD = 1.0
"""Seconds between two messages on the metrics topic."""

STREAK = 5
"""Windows that fail one after the other, after which it is said that none comes through; then after each so many."""

QUIET = 1.0
"""Seconds without a sample after which a replay is taken to be over."""

SOURCE_STATES = {"waiting": "running", "streaming": "running", "lost": "source-lost"}
"""State of the ingest -> state of the session as displays know it: a source that was found is waited for no more."""


@dataclass(slots=True)
class Account:
    """Where every window went: windows = published + dropped + rejected + abstained + failed.

    `ingest` holds the counts of `stream.ingest.IngestStats`: what became of every sample and marker before. `stream` is
    the source's name, once it was found; `problems` is what was wrong with it at the end.
    """

    windows: int = 0
    published: int = 0
    dropped: int = 0
    rejected: int = 0
    abstained: int = 0
    failed: int = 0
    stream: str | None = None
    problems: list[str] = field(default_factory=list)
    ingest: dict[str, int] = field(default_factory=dict)
    seconds_to_first_picture: float | None = None
    latency_ms: dict[str, dict[str, float | None]] = field(default_factory=dict)

    @property
    def unfinished(self) -> int:
        """Windows of which nothing has become yet."""
        return self.windows - (self.published + self.dropped + self.rejected + self.abstained + self.failed)


def reason_of(error: Exception) -> str:
    """Return why a window failed, in one line; an error that nobody expected with its type and place."""
    ours = (AppError, DecoderError, EngineError, StreamError)
    return " ".join(str(error).split()) if isinstance(error, ours) else one_line(error)


def counts(stats: IngestStats) -> dict[str, int]:
    """Give the whole numbers of an ingest's account."""
    return {name: value for name, value in asdict(stats).items() if isinstance(value, int)}


async def started(ingest: LiveIngest, stop: asyncio.Event) -> Channels | None:
    """Find the source and begin to read; None if `stop` is set before it is found."""
    starting = asyncio.create_task(asyncio.to_thread(ingest.start))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if starting.done():
        return starting.result()
    await asyncio.to_thread(ingest.stop)  # ends the search
    with contextlib.suppress(StreamError):
        await starting
    return None


class Session:
    """One live session.

    Parameters
    ----------
    config : Config
    bundle : Bundle
        Trained decoder.
    reconstructor : Reconstructor
        Warmed up before `run`, so that the first picture is as fast as the rest.
    publisher : Publisher
        Connected.
    originals : mapping of str to ndarray, optional
        The pictures shown, by event label, (height, width, 3) uint8.
    started : float, optional
        `time.monotonic()` from which the time to the first picture counts; now by default.
    labels : LabelMatcher, optional
        Finds the picture that a marker names; by default among those of `originals`.
    """

    def __init__(
        self,
        config: Config,
        bundle: Bundle,
        reconstructor: Reconstructor,
        publisher: Publisher,
        originals: Mapping[str, NDArray[np.uint8]] | None = None,
        started: float | None = None,
        labels: LabelMatcher | None = None,
    ) -> None:
        self._labels = labels or LabelMatcher(tuple(originals or ()))
        self._config, self._bundle, self._reconstructor, self._publisher = config, bundle, reconstructor, publisher
        self._latencies = Latencies()
        self._pipeline = Pipeline(config, bundle, reconstructor, publisher, self._latencies, originals or {})
        self._queue = WindowQueue(config.queue.length if config.queue.policy == "every" else 1)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="reconstruct")
        self._started = time.monotonic() if started is None else started
        self._state = "starting"
        self._streak, self._last_failure = 0, ""
        self._first = asyncio.Event()
        self._ingest: LiveIngest | None = None
        self.account = Account()
        publisher.on_taken = self._taken

    async def run(self, stop: asyncio.Event) -> Account:
        """Run until `stop` is set; the window in work is finished then, those that wait are dropped and counted.

        A publisher that is beyond help sets it, too. Every thread has ended on return, and every window is accounted
        for, whatever is raised.

        Raises
        ------
        stream.errors.SourceError, decoder.errors.BundleError
            No such stream, or one that does not fit the bundle.
        stream.errors.PublishError
            The publisher has ended by itself.
        """
        loop = asyncio.get_running_loop()
        self._say("waiting")

        def hand_over(window: Window) -> None:
            loop.call_soon_threadsafe(self._take, window)

        ingest = LiveIngest(
            self._config.source, self._config.window, self._config.filters, hand_over, self._config.extra,
            self._labels,
        )  # fmt: skip
        self._ingest = ingest
        publisher_ended = asyncio.create_task(self._publisher.ended(), name="publisher ended")
        publisher_ended.add_done_callback(lambda _: stop.set())
        detail = ""
        try:
            if (channels := await started(ingest, stop)) is not None:
                self._bundle.check(channels, ingest.sfreq)
                self._say("running")
                await self._work(ingest, stop)
            if publisher_ended.done():
                publisher_ended.result()
        except Exception as error:
            detail = reason_of(error)
            raise
        finally:
            publisher_ended.cancel()
            await asyncio.gather(publisher_ended, return_exceptions=True)
            await self._close(ingest, detail)
        return self.account

    async def _close(self, ingest: LiveIngest, detail: str) -> None:
        """End the threads, close the account, and say that the session has ended."""
        await asyncio.to_thread(ingest.stop)
        self._queue.clear()
        await asyncio.to_thread(self._worker.shutdown)
        stats = ingest.stats()
        self.account.dropped = self._queue.dropped
        self.account.ingest, self.account.problems = counts(stats), list(stats.problems)
        self.account.stream = ingest.source.name if ingest.source else None
        self.account.latency_ms = self._latencies.percentiles()
        self._publisher.metrics(self._metrics(stats))
        self._say("ended", detail)

    async def _work(self, ingest: LiveIngest, stop: asyncio.Event) -> None:
        """Reconstruct and watch until `stop`, then finish the window in work."""
        reconstruct = asyncio.create_task(self._reconstruct_all(), name="reconstruct")
        watch = asyncio.create_task(self._watch(ingest), name="watch")
        stopped = asyncio.create_task(stop.wait(), name="stopped")
        try:
            done, _ = await asyncio.wait({reconstruct, watch, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (watch, stopped):
                task.cancel()
            await asyncio.gather(watch, stopped, return_exceptions=True)
            await asyncio.to_thread(ingest.stop)
            self._queue.clear()
            self._queue.close()
            await reconstruct

    async def first_window(self) -> None:
        """Wait for the first window."""
        await self._first.wait()

    async def idle(self) -> None:
        """Wait until no samples have come for `QUIET` seconds and every window has been dealt with."""
        samples, since = -1, local_clock()
        while local_clock() - since < QUIET or self._unfinished():
            now = self._ingest.samples if self._ingest else 0
            if now != samples:
                samples, since = now, local_clock()
            await asyncio.sleep(0.1)

    def _unfinished(self) -> int:
        return self.account.unfinished - self._queue.dropped

    def _take(self, window: Window) -> None:
        self._first.set()
        self.account.windows += 1
        if window.quality.rejected:
            self.account.rejected += 1
            log.warning("window %s left out: %s", window.id, window.quality.rejected)
            self._pipeline.leave_out(window, window.quality.rejected)
        elif gone := self._queue.put(window):
            say = log.warning if self._queue.dropped == 1 else log.info
            say("window %s dropped: windows come faster than pictures", gone.id)

    async def _reconstruct_all(self) -> None:
        loop = asyncio.get_running_loop()
        while (window := await self._queue.get()) is not None:
            await loop.run_in_executor(self._worker, self._settle, window, self._queue.dropped)

    def _settle(self, window: Window, dropped: int) -> None:
        """Process one window, and count what became of it, once; runs in the worker thread."""
        try:
            reason = self._pipeline.process(window, dropped)
        except Exception as error:  # whatever it is, it costs this window and no other
            self.account.failed += 1
            self._failed(window, reason_of(error))
        else:
            self._came_through()
            if reason is not None:
                self.account.abstained += 1
                log.info("window %s left out: %s", window.id, reason)
            else:
                self.account.published += 1
                if self.account.seconds_to_first_picture is None:
                    self.account.seconds_to_first_picture = round(time.monotonic() - self._started, 3)
        self._pipeline.follow()

    def _failed(self, window: Window, reason: str) -> None:
        log.error("window %s failed: %s", window.id, reason)
        self._pipeline.leave_out(window, reason)
        self._streak, self._last_failure = self._streak + 1, reason
        if self._streak % STREAK == 0:
            log.error("%s", self._failing())

    def _came_through(self) -> None:
        if self._streak >= STREAK:
            log.warning("windows come through again, after %d that failed", self._streak)
        self._streak = 0

    def _failing(self) -> str:
        return f"the last {self._streak} windows all failed, so no picture comes: {self._last_failure}"

    def _taken(self, kind: str, handed_over: float, now: float) -> None:
        if kind == "picture":
            self._latencies.add({"published": handed_over, "acknowledged": now})

    def _say(self, state: str, detail: str = "") -> None:
        self._state = state
        backend = {"name": self._reconstructor.backend.name, "left": self._reconstructor.left}
        status = {"state": state, "config": self._config.name, "backend": backend}
        self._publisher.status(status | ({"detail": detail} if detail else {}))

    async def _watch(self, ingest: LiveIngest) -> None:
        """Publish metrics once a second, and the state of the source when it changes."""
        while True:
            if ingest.error is not None:
                raise ingest.error
            stats = await asyncio.to_thread(ingest.stats)
            if (state := SOURCE_STATES[stats.state]) != self._state:
                self._say(state)
            self._publisher.metrics(self._metrics(stats))
            await asyncio.sleep(METRICS_PERIOD)

    def _problems(self) -> list[str]:
        """Say what is wrong on the way out at present."""
        problems = [self._failing()] if self._streak >= STREAK else []
        return problems + ([self._publisher.error] if self._publisher.error else [])

    def _metrics(self, stats: IngestStats) -> dict[str, Any]:
        account = self.account
        return {
            "ingest": replace(stats, problems=[*stats.problems, *self._problems()]),
            "windows": account.windows,
            "published": account.published,
            "queues": {"windows": len(self._queue)},
            "drops": {
                "windows": self._queue.dropped,
                "rejected": account.rejected,
                "abstained": account.abstained,
                "failed": account.failed,
                **{f"{kind} unsent": one.dropped + one.denied for kind, one in self._publisher.counts.items()},
            },
            "rates": {"pictures": self._rate()},
            "realignment": asdict(realigner.state) if (realigner := self._pipeline.realigner) else None,
            "latency_ms": self._latencies.percentiles(),
            "latency_histogram": {"edges_ms": EDGES_MS, "counts": self._latencies.histograms()},
        }

    def _rate(self) -> float:
        """Pictures a second since the first one."""
        elapsed = time.monotonic() - self._started - (self.account.seconds_to_first_picture or 0.0)
        return round((self.account.published - 1) / elapsed, 3) if self.account.published > 1 and elapsed > 0 else 0.0
