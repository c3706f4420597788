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
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pylsl import local_clock

from decoder.errors import DecoderError
from decoder.models.bundle import Bundle
from engine.errors import EngineError
from minddiffuser.archive.latency import EDGES_MS, Latencies
from minddiffuser.config.spec import Config
from minddiffuser.errors import AppError
from minddiffuser.live.headmap import HeadMap
from minddiffuser.live.pipeline import Pipeline
from minddiffuser.live.queue import WindowQueue
from minddiffuser.training.profile import counting
from minddiffuser.versions import versions_of
from stream.errors import StreamError
from stream.lsl.live import IngestStats, LiveIngest
from stream.mqtt.publisher import Publisher
from stream.mqtt.wire_models import FORMER_NAMES
from stream.quality.signal_profile import profile_of
from stream.tasks import one_line
from stream.types.labels import LabelMatcher
from stream.types.windows import Channels, Window

if TYPE_CHECKING:
    from minddiffuser.display.local import Local
    from minddiffuser.live.beside import Beside
    from minddiffuser.remote.engine import Engine

logger = logging.getLogger(__name__)

METRICS_PERIOD = 1.0
"""Seconds between two messages on the metrics topic."""

STREAK = 5
"""Windows that fail one after the other, after which it is said that none comes through; then after each so many."""

LOOK = 0.2
"""Seconds between two looks at what the ingest still misses."""

QUIET = 1.0
"""Seconds without a sample after which a replay is taken to be over."""

SOURCE_STATES = {"waiting": "running", "streaming": "running", "lost": "source-lost"}
"""State of the ingest -> state of the session as displays know it: a source that was found is waited for no more."""


@dataclass(slots=True)
class Account:
    """Where every window went: windows = published + dropped + rejected + abstained + failed.

    `ingest` holds the counts of `stream.epochs.ingest.IngestStats`: what became of every sample and marker before.
    `stream` is the source's name, once it was found; `problems` is what was wrong with it at the end, `ended` why the
    session ended. `rejection` is a `stream.quality.rejection.Rejection`: which windows were rejected and why.
    """

    windows: int = 0
    published: int = 0
    dropped: int = 0
    rejected: int = 0
    abstained: int = 0
    failed: int = 0
    stream: str | None = None
    ended: str = ""
    problems: list[str] = field(default_factory=list)
    rejection: dict[str, Any] = field(default_factory=dict)
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
    """Return the whole numbers of an ingest's account, those with a former name under that too."""
    found = {name: value for name, value in asdict(stats).items() if isinstance(value, int)}
    return found | {former: found[name] for name, former in FORMER_NAMES.items()}


async def started(ingest: LiveIngest, stop: asyncio.Event, on_missing: Callable[[str], None]) -> Channels | None:
    """Find the source and begin to read; None if `stop` is set before it is found.

    `on_missing` is called with what is looked for and not there yet, each time that changes.
    """
    starting = asyncio.create_task(asyncio.to_thread(ingest.start))
    stopped = asyncio.create_task(stop.wait())
    missing, done = "", set[asyncio.Task[Any]]()
    while not done:
        done, _ = await asyncio.wait({starting, stopped}, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
        if not done and ingest.missing != missing:
            on_missing(missing := ingest.missing)
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
    reconstructor : Engine
        Warmed up before `run`, so that the first picture is as fast as the rest.
    publisher : Publisher
        Connected.
    originals : mapping of str to ndarray, optional
        The pictures shown, by event label, (height, width, 3) uint8.
    started : float, optional
        `time.monotonic()` from which the time to the first picture counts; now by default.
    labels : LabelMatcher, optional
        Finds the picture that a marker names; by default among those of `originals`.
    wait_s : float, optional
        How long to look for the source; by default `source.timeout_s`.
    on_source : callable, optional
        Called with the ingest once its source is found.
    beside : Beside, optional
        Names the final pictures, and retrieves others.
    local : Local, optional
        Gives raw traces to pages of this machine, and keeps notes and problems.
    total : int, optional
        How many windows there are in all, where that is known.

    Attributes
    ----------
    account : Account
    ending : str
        Why `stop` is set, for whoever sees the session end; whoever sets it says so here.
    """

    def __init__(
        self,
        config: Config,
        bundle: Bundle,
        reconstructor: Engine,
        publisher: Publisher,
        originals: Mapping[str, NDArray[np.uint8]] | None = None,
        started: float | None = None,
        labels: LabelMatcher | None = None,
        *,
        wait_s: float | None = None,
        on_source: Callable[[LiveIngest], None] | None = None,
        beside: Beside | None = None,
        local: Local | None = None,
        total: int | None = None,
    ) -> None:
        self._local = local
        self._labels = labels or LabelMatcher(tuple(originals or ()))
        self._wait_s, self._on_source = wait_s, on_source
        self._config, self._bundle, self._reconstructor, self._publisher = config, bundle, reconstructor, publisher
        self._latencies = Latencies()
        self._pipeline = Pipeline(
            config, bundle, reconstructor, publisher, self._latencies, originals or {}, beside, total
        )
        self._about = {
            "participant": config.participant,
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": versions_of(bundle),
        }
        self._queue = WindowQueue(config.queue.length if config.queue.policy == "every" else 1)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="reconstruct")
        self._started = time.monotonic() if started is None else started
        self._state = "starting"
        self._streak, self._last_failure = 0, ""
        self._without, self._last_reason = 0, ""
        self._profile = profile_of(bundle.meta)
        self._rejection = counting(config, self._profile, self._labels.ids)
        self._first = asyncio.Event()
        self._ingest: LiveIngest | None = None
        self._head: HeadMap | None = None
        self._signal: dict[str, Any] | None = None
        self.account = Account()
        self.ending = "it was stopped"
        publisher.on_published = self._taken

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
            self._labels, self._wait_s, self._profile,
        )  # fmt: skip
        self._ingest = ingest
        publisher_ended = asyncio.create_task(self._publisher.ended(), name="publisher ended")
        publisher_ended.add_done_callback(lambda _: stop.set())
        detail = ""
        try:
            if (channels := await started(ingest, stop, partial(self._say, "waiting"))) is not None:
                if self._on_source:
                    self._on_source(ingest)
                self._bundle.check(channels, ingest.sfreq)
                self._pipeline.total = self._pipeline.total or ingest.total
                self._head = await asyncio.to_thread(self._head_of, ingest)
                if self._local is not None:
                    self._local.watch(ingest, self._bundle.channels.names, self._config.filters.notch)
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

    async def _close(self, ingest: LiveIngest, error: str) -> None:
        """End the threads, close the account, and say that the session has ended and why."""
        lost = ingest.stats().state == "lost"
        await asyncio.to_thread(ingest.stop)
        self._drop_waiting()
        await asyncio.to_thread(self._worker.shutdown)
        stats = ingest.stats()
        self.account.dropped = self._queue.dropped
        self.account.ingest, self.account.problems = counts(stats), list(stats.problems)
        self.account.rejection = asdict(self._rejection.result())
        self.account.stream = ingest.source.name if ingest.source else None
        self.account.latency_ms = self._latencies.percentiles()
        self._publisher.metrics(self._metrics(stats))
        while_lost = f" while stream {self.account.stream} was lost" if lost else ""
        before = " before its stream was found" if ingest.source is None else ""
        self.account.ended = error or f"{self.ending}{before or while_lost}"
        self._say("ended", self.account.ended)
        if self._local is not None:
            await asyncio.to_thread(self._local.finish, asdict(self.account))

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
            self._drop_waiting()
            self._queue.close()
            await reconstruct

    def _drop_waiting(self) -> None:
        for window in self._queue.clear():
            self._pipeline.leave_out(window, "the session ended before it was processed", state="dropped")

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
        self._rejection.add(window)
        if window.quality.rejected:
            self.account.rejected += 1
            self._without_picture(window.quality.rejected)
            logger.warning("window %s rejected: %s", window.id, window.quality.rejected)
            self._pipeline.leave_out(window, window.quality.rejected, state="rejected")
        elif gone := self._queue.put(window):
            say = logger.warning if self._queue.dropped == 1 else logger.info
            say("window %s dropped: windows come faster than pictures", gone.id)
            self._pipeline.leave_out(gone, "later windows were waiting", state="dropped")

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
                self._without_picture(reason)
                logger.info("window %s abstained: %s", window.id, reason)
            else:
                self.account.published += 1
                self._without = 0
                if self.account.seconds_to_first_picture is None:
                    self.account.seconds_to_first_picture = round(time.monotonic() - self._started, 3)
        self._pipeline.follow()

    def _failed(self, window: Window, reason: str) -> None:
        logger.error("window %s failed: %s", window.id, reason)
        self._pipeline.leave_out(window, reason, state="failed")
        self._streak, self._last_failure = self._streak + 1, reason
        if self._streak % STREAK == 0:
            logger.error("%s", self._failing())

    def _came_through(self) -> None:
        if self._streak >= STREAK:
            logger.warning("windows come through again, after %d that failed", self._streak)
        self._streak = 0

    def _without_picture(self, reason: str) -> None:
        """Count a window that was rejected or abstained since the last picture; say when it is one of many."""
        self._without, self._last_reason = self._without + 1, reason
        if self._without == STREAK:
            logger.warning("%s", self._why_without())

    def _why_without(self) -> str:
        return f"the last {self._without} windows gave no picture: {self._last_reason}"

    def _failing(self) -> str:
        return f"the last {self._streak} windows all failed, so no picture comes: {self._last_failure}"

    def _taken(self, kind: str, handed_over: float, now: float) -> None:
        if kind == "picture":
            self._latencies.add({"published": handed_over, "acknowledged": now})

    def _say(self, state: str, detail: str = "") -> None:
        self._state = state
        backend = {"name": self._reconstructor.backend_name, "left": self._reconstructor.left}
        status = {"state": state, "config": self._config.name, "backend": backend, **self._about}
        self._publisher.status(status | ({"detail": detail} if detail else {}))

    async def _watch(self, ingest: LiveIngest) -> None:
        """Publish metrics once a second, and the state of the source when it changes."""
        while True:
            if ingest.error is not None:
                raise ingest.error
            stats = await asyncio.to_thread(ingest.stats)
            if self._head is not None:
                self._signal = self._head.update(await asyncio.to_thread(ingest.spreads), stats)
            state, lost = SOURCE_STATES[stats.state], self._reconstructor.lost
            if state == "running" and lost:
                state = "engine-lost"
            if state != self._state:
                self._say(state, lost)
            self._publisher.metrics(metrics := self._metrics(stats))
            if self._local is not None:
                await asyncio.to_thread(self._local.problems, metrics["ingest"].problems)
            await asyncio.sleep(METRICS_PERIOD)

    def _head_of(self, ingest: LiveIngest) -> HeadMap:
        """Place the decoder's channels on a head; of several streams, the first one says where its own are."""
        assert ingest.channels is not None
        names = ingest.channels.names
        return HeadMap(self._bundle.channels, ingest.channels.montage, names, self._profile)

    def _problems(self) -> list[str]:
        """Return what is wrong with publishing at present."""
        problems = [self._failing()] if self._streak >= STREAK else []
        problems += [self._why_without()] if self._without >= STREAK else []
        problems += [f"engine lost: {lost}"] if (lost := self._reconstructor.lost) else []
        return problems + ([self._publisher.error] if self._publisher.error else [])

    def _metrics(self, stats: IngestStats) -> dict[str, Any]:
        account = self.account
        return {
            "ingest": replace(stats, problems=[*stats.problems, *self._problems()]),
            "abstain_below": self._pipeline.abstain_below,
            "signal": self._signal,
            "notes": self._local.metrics() if self._local else None,
            "windows": account.windows,
            "published": account.published,
            "rejection": asdict(self._rejection.result()),
            "queues": {"windows": len(self._queue)},
            "drops": {
                "dropped": self._queue.dropped,
                "rejected": account.rejected,
                "abstained": account.abstained,
                "failed": account.failed,
                **{f"{kind} unsent": one.dropped + one.denied for kind, one in self._publisher.counts.items()},
            },
            "rates": {"pictures": self._rate()},
            "realignment": asdict(realigner.state) if (realigner := self._pipeline.realigner) else None,
            "latency_ms": self._latencies.percentiles(),
            "steps_ms": self._pipeline.steps.percentiles(),
            "latency_histogram": {"edges_ms": EDGES_MS, "counts": self._latencies.histograms()},
        }

    def _rate(self) -> float:
        """Pictures a second since the first one."""
        elapsed = time.monotonic() - self._started - (self.account.seconds_to_first_picture or 0.0)
        return round((self.account.published - 1) / elapsed, 3) if self.account.published > 1 and elapsed > 0 else 0.0
