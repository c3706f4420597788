"""What became of every window that came to a pool, and how long it took: as JSON, and as Prometheus reads it."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Fate = Literal["pictures", "failed", "abandoned"]
MOST_ROOMS = 1000
"""Rooms that are counted each on its own; of more, those that were heard first are forgotten."""
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


@dataclass(slots=True)
class RoomAccount:
    """Windows of one room: windows = pictures + failed + abandoned + those in work."""

    windows: int = 0
    pictures: int = 0
    failed: int = 0
    abandoned: int = 0


@dataclass(slots=True)
class PoolAccount:
    """Windows of all rooms: windows = pictures + failed + abandoned + in_work.

    Attributes
    ----------
    pictures : int
        Answered with a picture.
    failed : int
        Answered with the reason why there is none.
    abandoned : int
        Their room went away, or waited no more.
    refused : dict of str to int
        Requests that never became windows, by reason: token, version, feature space, size, body, content, full.
    resent : int
        Of the windows, those given to another replica because theirs died.
    """

    windows: int = 0
    pictures: int = 0
    failed: int = 0
    abandoned: int = 0
    resent: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    rooms: OrderedDict[str, RoomAccount] = field(default_factory=OrderedDict)

    @property
    def in_work(self) -> int:
        """Windows that wait or are being made."""
        return self.windows - self.pictures - self.failed - self.abandoned

    def begin(self, room: str) -> None:
        """Count a window that was let in."""
        self.windows += 1
        one = self.rooms.pop(room, None) or RoomAccount()
        self.rooms[room] = one
        one.windows += 1
        while len(self.rooms) > MOST_ROOMS:
            self.rooms.popitem(last=False)

    def end(self, room: str, fate: Fate) -> None:
        """Count what became of it, once."""
        setattr(self, fate, getattr(self, fate) + 1)
        if (one := self.rooms.get(room)) is not None:
            setattr(one, fate, getattr(one, fate) + 1)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self) | {"refused": dict(self.refused), "in_work": self.in_work}


class PoolMetrics(Collector):
    """A pool's figures for Prometheus."""

    def __init__(self, account: PoolAccount) -> None:
        self._account, self._registry = account, CollectorRegistry()
        self._registry.register(self)
        steps = "Seconds of each step of a picture: queue, stage1, decode1, stage2, ... and total in the pool"
        self._steps = Histogram("pool_step_seconds", steps, ["step"], buckets=SECONDS, registry=self._registry)
        batches = "Windows that a picture was made together with"
        self._batch = Histogram("pool_batch_windows", batches, buckets=(1, 2, 4, 8), registry=self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the account."""
        windows = CounterMetricFamily("pool_windows", "Windows by what became of them", labels=["fate"])
        for fate in ("pictures", "failed", "abandoned"):
            windows.add_metric([fate], getattr(self._account, fate))
        refused = CounterMetricFamily("pool_refused", "Requests refused, by reason", labels=["reason"])
        for reason, count in self._account.refused.items():
            refused.add_metric([reason], count)
        yield windows
        yield refused
        yield CounterMetricFamily("pool_resent", "Windows given to another replica", value=self._account.resent)
        yield GaugeMetricFamily("pool_in_work", "Windows that wait or are being made", value=self._account.in_work)

    def observe(self, timings: Mapping[str, float], batch: int) -> None:
        """Add a picture."""
        self._batch.observe(batch)
        for step, seconds in timings.items():
            self._steps.labels(step).observe(seconds)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)
