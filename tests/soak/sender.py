"""A source that is meant to be killed and stopped: it numbers what it sends and writes each number down first.

Its markers are sent by a process of their own, see `tests.soak.markers`.

`python -m tests.soak.sender PLAN BEGIN INCARNATION`; BEGIN is the LSL time of place 0. The first incarnation starts
when it reads a line on stdin, later ones at once, where the grid has got to.
"""

import sys
import threading
import time
from pathlib import Path

import numpy as np

from minddiffuser.stopping import end_with_parent
from stream.lsl.discovery import load_lsl
from tests.soak.plan import COUNTER, Plan

TICK_S = 0.004
BEHIND_S = 0.5  # after a stall: this late, a driver either catches up or leaves the rest out
HOLE_EVERY_S = 7.0
SETTLED_S = 2.0  # no holes before: a stream's own jitter is not known to the ingest in its first second
JITTER = 0.1  # of a sample


class Sender:
    """Pushes what is due."""

    def __init__(self, plan: Plan, incarnation: int) -> None:
        self._plan, self._lsl = plan, load_lsl()
        self._rng = np.random.default_rng((plan.seed, incarnation))
        self._period = 1 / (plan.rate * plan.drift)
        self._sent = plan.ledger("sent")
        info = self._lsl.StreamInfo(plan.name, "EEG", len(plan.channels) + 1, plan.rate, "float32", plan.name)
        listed = info.desc().append_child("channels")
        for label in (*plan.channels, COUNTER):
            channel = listed.append_child("channel")
            kind, unit = ("misc", "count") if label == COUNTER else (plan.kind, plan.unit)
            for key, value in (("label", label), ("type", kind), ("unit", unit)):
                channel.append_child_value(key, value)
        self._outlet = self._lsl.StreamOutlet(info)
        self._next = 0
        self._hole = self._hole_due(int(SETTLED_S * plan.rate))

    def run(self, begin: float, incarnation: int) -> None:
        """Send to the end of the plan."""
        if incarnation:
            self._next = self._due(begin)
        while self._next < self._plan.places:
            due = min(self._due(begin), self._plan.places)
            if due - self._next > BEHIND_S * self._plan.rate and self._rng.random() < 0.5:
                self._skip_to(due)
            self._push(due, begin)
            time.sleep(TICK_S)

    def _due(self, begin: float) -> int:
        return max(0, int((self._lsl.local_clock() - begin) / self._period))

    def _skip_to(self, place: int) -> None:
        """Leave out samples, the very last one never: what a stream lacks at its end, no receiver can know."""
        self._next = min(place, self._plan.places - 1)

    def _hole_due(self, after: int) -> int:
        return after + int(self._rng.exponential(HOLE_EVERY_S) * self._plan.rate)

    def _push(self, due: int, begin: float) -> None:
        if due > self._hole >= self._next:
            self._push_run(self._hole, begin)
            self._skip_to(self._next + int(self._rng.choice([1, 2, 5, 40, 400])))
            self._hole = self._hole_due(self._next)
        elif self._next > self._hole:
            self._hole = self._hole_due(self._next)
        self._push_run(due, begin)

    def _push_run(self, stop: int, begin: float) -> None:
        places = np.arange(self._next, min(stop, self._plan.places))
        if not len(places):
            return
        data = self._rng.normal(0, 1e-5, (len(places), len(self._plan.channels) + 1)).astype(np.float32)
        data[:, -1] = places
        stamps = begin + (places + self._rng.uniform(-JITTER, JITTER, len(places))) * self._period
        self._sent[places] += 1
        self._outlet.push_chunk(data, stamps.tolist())
        self._next = int(places[-1]) + 1


def main() -> None:
    """Send, then keep the outlet until somebody ends us."""
    plan, begin, incarnation = Plan.read(Path(sys.argv[1])), float(sys.argv[2]), int(sys.argv[3])
    sender = Sender(plan, incarnation)
    if not incarnation:
        line = sys.stdin.readline()
        if not line:
            return
        begin = float(line)
    end_with_parent()
    sender.run(begin, incarnation)
    threading.Event().wait()


if __name__ == "__main__":
    main()
