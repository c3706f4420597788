"""The stimulus script of a soak: markers on their own, so that they can be killed while the data go on.

`python -m tests.soak.markers PLAN BEGIN INCARNATION`; see `tests.soak.sender`. A marker is written down before it is
sent; one that was due while nobody ran is never sent.
"""

import sys
import threading
import time
from pathlib import Path

import numpy as np

from minddiffuser.stopping import end_with_parent
from stream.lsl.discovery import load_lsl
from tests.soak.plan import Plan

TICK_S = 0.004
TWICE = 0.05
"""Share of markers that are sent twice, as button boxes do."""


def send(plan: Plan, begin: float, incarnation: int) -> None:
    """Send markers to the end of the plan; the first incarnation waits for a line that says when it begins."""
    lsl = load_lsl()
    name = f"{plan.name}-markers"
    outlet = lsl.StreamOutlet(lsl.StreamInfo(name, "Markers", 1, 0.0, "string", name))
    if not incarnation:
        line = sys.stdin.readline()
        if not line:
            return
        begin = float(line)
    end_with_parent()
    period, sent = 1 / (plan.rate * plan.drift), plan.ledger("markers-sent")
    times = [begin + plan.marker_place(k) * period for k in range(plan.markers)]
    rng = np.random.default_rng((plan.seed, incarnation, 1))
    first = int(np.searchsorted(times, lsl.local_clock())) if incarnation else 0
    for k in range(first, plan.markers):
        while lsl.local_clock() < times[k]:
            time.sleep(TICK_S)
        for _ in range(1 + (rng.random() < TWICE)):
            sent[k] += 1
            outlet.push_sample([f"m-{k}"], times[k])
    threading.Event().wait()  # keeps the outlet until somebody ends us


if __name__ == "__main__":
    send(Plan.read(Path(sys.argv[1])), float(sys.argv[2]), int(sys.argv[3]))
