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
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pylsl import local_clock

from decoder.bundle import Bundle
from decoder.realign import Realigner
from engine.picture import Picture
from engine.reconstructor import Reconstructor
from minddiffuser.config import Config
from minddiffuser.latency import EDGES_MS, Latencies
from minddiffuser.pictures import encode
from minddiffuser.queue import WindowQueue
from stream.errors import StreamError
from stream.labels import LabelMatcher
from stream.lsl import IngestStats, LiveIngest
from stream.mqtt import Publisher
from stream.windows import Channels, Window

log = logging.getLogger(__name__)

METRICS_PERIOD = 1.0
"""Seconds between two messages on the metrics topic."""

QUIET = 1.0
"""Seconds without a sample after which a replay is taken to be over."""

SOURCE_STATES = {"waiting": "waiting", "streaming": "running", "lost": "source-lost"}
"""State of the ingest -> state of the session as displays know it."""


@dataclass(slots=True)
class Account:
    """Where every window went: windows = published + dropped + rejected + abstained + failed.

    `ingest` holds the counts of `stream.ingest.IngestStats`: what became of every sample and marker before.
    """

    windows: int = 0
    published: int = 0
    dropped: int = 0
    rejected: int = 0
    abstained: int = 0
    failed: int = 0
    ingest: dict[str, int] = field(default_factory=dict)
    seconds_to_first_picture: float | None = None
    latency_ms: dict[str, dict[str, float | None]] = field(default_factory=dict)


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
        self._config = config
        self._bundle = bundle
        self._realigner = Realigner(bundle, config.realign) if config.realign is not None else None
        self._reconstructor = reconstructor
        self._publisher = publisher
        self._originals = originals or {}
        models = reconstructor.models
        self._models = {
            "folder": models.spec.folder,
            "unet": models.parts["unet"].name,
            "feature_space": models.feature_space,
        }
        self._queue = WindowQueue(config.queue.length if config.queue.policy == "every" else 1)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="reconstruct")
        self._latencies = Latencies()
        self._started = time.monotonic() if started is None else started
        self._state = "starting"
        self._first = asyncio.Event()
        self._ingest: LiveIngest | None = None
        self.account = Account()
        publisher.on_taken = self._taken

    async def run(self, stop: asyncio.Event) -> Account:
        """Run until `stop` is set; the window in work is finished then, those that wait are dropped and counted.

        Every thread has ended on return.

        Raises
        ------
        stream.errors.SourceError, decoder.errors.BundleError
            No such stream, or one that does not fit the bundle.
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
        try:
            if (channels := await started(ingest, stop)) is not None:
                self._bundle.check(channels, ingest.sfreq)
                self._say("running")
                await self._work(ingest, stop)
        finally:
            await asyncio.to_thread(ingest.stop)
            await asyncio.to_thread(self._worker.shutdown)
            self.account.dropped = self._queue.dropped
            self.account.ingest = counts(ingest.stats())
            self.account.latency_ms = self._latencies.percentiles()
        self._publisher.metrics(self._metrics(ingest.stats()))
        self._say("ended")
        return self.account

    async def _work(self, ingest: LiveIngest, stop: asyncio.Event) -> None:
        """Reconstruct and watch until `stop`, then finish the window in work."""
        reconstruct = asyncio.create_task(self._reconstruct_all())
        watch = asyncio.create_task(self._watch(ingest))
        stopped = asyncio.create_task(stop.wait())
        tasks = {reconstruct, watch, stopped}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await asyncio.to_thread(ingest.stop)
            self._queue.clear()
            self._queue.close()
            await reconstruct
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def first_window(self) -> None:
        """Wait for the first window."""
        await self._first.wait()

    async def idle(self) -> None:
        """Wait until no samples have come for `QUIET` seconds and every window has been dealt with."""
        samples, since = -1, local_clock()
        while local_clock() - since < QUIET or self._unfinished():
            now = self._ingest.stats().samples if self._ingest else 0
            if now != samples:
                samples, since = now, local_clock()
            await asyncio.sleep(0.05)

    def _unfinished(self) -> int:
        done = self.account
        return done.windows - (done.published + done.rejected + done.abstained + done.failed + self._queue.dropped)

    def _take(self, window: Window) -> None:
        self._first.set()
        self.account.windows += 1
        if window.quality.rejected:
            self.account.rejected += 1
            log.warning("window %s left out: %s", window.id, window.quality.rejected)
            self._publisher.abstained({**self._meta(window), "reason": window.quality.rejected})
        elif gone := self._queue.put(window):
            say = log.warning if self._queue.dropped == 1 else log.info
            say("window %s dropped: windows come faster than pictures", gone.id)

    async def _reconstruct_all(self) -> None:
        loop = asyncio.get_running_loop()
        while (window := await self._queue.get()) is not None:
            dropped = self._queue.dropped
            if (original := self._original(window)) is not None:
                self._publisher.original(encode(original, self._config.publish), self._meta(window))
            try:
                await loop.run_in_executor(self._worker, self._reconstruct, window, dropped)
                if self._realigner is not None:
                    await loop.run_in_executor(self._worker, self._realigner.follow)
            except ArithmeticError as error:  # numbers that went wrong cost their own window, not the session
                self.account.failed += 1
                log.error("window %s failed: %s", window.id, error)
                self._publisher.abstained({**self._meta(window), "reason": str(error)})

    def _reconstruct(self, window: Window, dropped: int) -> None:
        """Decode and reconstruct one window, and publish what comes of it; runs in the worker thread."""
        times = {"acquired": window.acquired, "ready": window.ready, "taken": local_clock()}
        features = (self._realigner or self._bundle).decode([window])[0]
        times["decoded"] = local_clock()
        scored = {"confidence": round(features.confidence, 4), "categories": features.categories}
        meta = {**self._meta(window), "dropped": dropped, **scored}
        if features.confidence < self._config.publish.abstain_below:
            self.account.abstained += 1
            self._publisher.abstained({**meta, "times": times, "reason": "confidence too low"})
            return

        def send_preview(pictures: list[Picture]) -> None:
            times["stage1"] = local_clock()
            payload, description = self._encoded(pictures[0], meta, times)
            self._publisher.preview(payload, description)
            times["preview_published"] = local_clock()

        picture = self._reconstructor.reconstruct([features], on_preview=send_preview)[0]
        times["stage2"] = local_clock()
        payload, description = self._encoded(picture, meta, times)
        self._publisher.picture(payload, description)
        times["published"] = local_clock()
        self._latencies.add(times)
        self.account.published += 1
        if self.account.seconds_to_first_picture is None:
            self.account.seconds_to_first_picture = round(time.monotonic() - self._started, 3)

    def _taken(self, kind: str, handed_over: float, now: float) -> None:
        if kind == "picture":
            self._latencies.add({"published": handed_over, "acknowledged": now})

    def _encoded(
        self, picture: Picture, meta: Mapping[str, Any], times: Mapping[str, float]
    ) -> tuple[bytes, dict[str, Any]]:
        steps = {step: round(seconds * 1e3, 2) for step, seconds in picture.timings.items()}
        about = {
            "seed": str(picture.seed),  # 63 bits: more than a number in a browser holds
            "backend": picture.backend,
            "note": picture.note,
            "reused": picture.reused,
            "steps_ms": steps,
            "times": dict(times),
        }
        return encode(picture.pixels, self._config.publish), {**meta, **about}

    def _original(self, window: Window) -> NDArray[np.uint8] | None:
        return self._originals.get(window.event.label) if window.event else None

    def _meta(self, window: Window) -> dict[str, Any]:
        event = window.event
        return {
            "window_id": window.id,
            "event": {"label": event.label, "code": event.code, "time": event.time} if event else None,
            "repeats": window.repeats,
            "samples_lost": window.quality.samples_lost,
            "interpolated": list(window.quality.interpolated),
            "config": self._config.name,
            "models": self._models,
        }

    def _say(self, state: str) -> None:
        self._state = state
        backend = {"name": self._reconstructor.backend.name, "left": self._reconstructor.left}
        self._publisher.status({"state": state, "config": self._config.name, "backend": backend})

    async def _watch(self, ingest: LiveIngest) -> None:
        """Publish metrics once a second, and the state of the source when it changes."""
        while True:
            if ingest.error is not None:
                raise ingest.error
            stats = ingest.stats()
            if (state := SOURCE_STATES[stats.state]) != self._state:
                self._say(state)
            self._publisher.metrics(self._metrics(stats))
            await asyncio.sleep(METRICS_PERIOD)

    def _metrics(self, stats: IngestStats) -> dict[str, Any]:
        account = self.account
        return {
            "ingest": stats,
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
            "realignment": asdict(self._realigner.state) if self._realigner else None,
            "latency_ms": self._latencies.percentiles(),
            "latency_histogram": {"edges_ms": EDGES_MS, "counts": self._latencies.histograms()},
        }

    def _rate(self) -> float:
        """Pictures a second since the first one."""
        elapsed = time.monotonic() - self._started - (self.account.seconds_to_first_picture or 0.0)
        return round((self.account.published - 1) / elapsed, 3) if self.account.published > 1 and elapsed > 0 else 0.0
