"""The real ingest, twice on one source: windows that tile the stream, and windows locked to its markers.

`python -m tests.soak.receiver PLAN`: every sample and marker that a window hands over is written into a ledger.
Prints a line when it is connected; ends on SIGTERM with its account in account.json.
"""

import json
import logging
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np

from minddiffuser.stopping import end_with_parent
from stream.epochs.ingest import FilterSpec, WindowSpec
from stream.lsl.live import LiveIngest, SourceSpec
from stream.types.windows import Window
from tests.soak.plan import Plan

LOOK_EVERY_S = 0.5


class Tiled:
    """Ledger of the samples; each lies in exactly one window."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._used, self._flagged = plan.ledger("used"), plan.ledger("flagged")
        self._last = -1
        self.wrong: list[str] = []

    def take(self, window: Window) -> None:
        """Write down the samples of a window; places of lost ones repeat a number and are told by that."""
        numbers = np.rint(window.data[-1]).astype(np.int64)
        highest = np.maximum.accumulate(np.concatenate([[self._last], numbers]))
        present = numbers[numbers > highest[:-1]]
        self._last = int(highest[-1])
        missing = len(numbers) - len(present)
        if missing != window.quality.samples_lost and len(self.wrong) < 20:
            self.wrong.append(f"{window.id}: {missing} samples missing, {window.quality.samples_lost} reported")
        if (missing > 0) != (window.quality.rejected is not None) and len(self.wrong) < 20:
            self.wrong.append(f"{window.id}: {missing} samples missing, flag {window.quality.rejected!r}")
        (self._flagged if window.quality.rejected else self._used)[present] += 1


class Marked:
    """Ledger of the markers; each names itself by the number in its label."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._used, self._flagged = plan.ledger("markers-used"), plan.ledger("markers-flagged")
        self.wrong: list[str] = []

    def take(self, window: Window) -> None:
        """Write down a marker's window; an unflagged one must begin on the marker's own sample."""
        assert window.event is not None
        k = int(window.event.label.rpartition("-")[2])
        first = int(np.rint(window.data[-1, 0]))
        if not window.quality.rejected and first != self._plan.marker_place(k) and len(self.wrong) < 20:
            self.wrong.append(f"marker {k} lies at {self._plan.marker_place(k)}, its window begins at {first}")
        (self._flagged if window.quality.rejected else self._used)[k] += 1


def main() -> None:
    """Receive until told to stop."""
    logging.basicConfig(level=logging.ERROR)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    end_with_parent()
    plan = Plan.read(Path(sys.argv[1]))
    source = SourceSpec(name=plan.name, timeout_s=60)
    tiled, marked = Tiled(plan), Marked(plan)
    length = plan.window / plan.rate
    sliding = WindowSpec(mode="sliding", tmin=0, tmax=length, step=length)
    locked = WindowSpec(mode="event", tmin=0, tmax=plan.marker_window / plan.rate)
    ingests = {
        "samples": LiveIngest(source, sliding, FilterSpec(), tiled.take),
        "markers": LiveIngest(source, locked, FilterSpec(), marked.take),
    }
    for ingest in ingests.values():
        ingest.start()
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    gaps: dict[str, dict[float, float]] = {name: {} for name in ingests}
    folder = Path(plan.folder)
    while True:
        over = stop.wait(LOOK_EVERY_S)
        if over:
            for ingest in ingests.values():
                ingest.stop()
        stats = {name: ingest.stats() for name, ingest in ingests.items()}
        for name, each in stats.items():
            gaps[name] |= {gap.start: gap.length for gap in each.gaps}
        answer = {name: {**asdict(each), "gaps": sorted(gaps[name].items())} for name, each in stats.items()}
        errors = [str(ingest.error) for ingest in ingests.values() if ingest.error]
        new = folder / "account.new"
        new.write_text(json.dumps({**answer, "wrong": tiled.wrong + marked.wrong + errors}), "utf-8")
        new.rename(folder / "account.json")
        if over:
            break


if __name__ == "__main__":
    main()
