"""Sent = used + flagged + lost, held against the ledgers of sender and receiver, for samples and for markers."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.soak.plan import Plan

REPORTED = ("samples", "lost", "gap_count", "disconnections", "windows", "incomplete")
MARKER_SLACK_S = 1.0  # markers travel beside the samples: one at the edge of an outage may fall with it
MARKER_BACK_S = 15.0  # in which a stimulus script that was started again is found again


@dataclass(slots=True)
class Account:
    """What became of everything one source sent.

    Attributes
    ----------
    samples, markers : dict of str to int
    reported : dict of str to int
        The ingest's own words on the samples.
    wrong : list of str
        Each thing that does not add up.
    """

    samples: dict[str, int]
    markers: dict[str, int]
    reported: dict[str, int]
    wrong: list[str] = field(default_factory=list)


def account(plan: Plan, begin: float) -> Account:
    """Add up one source whose place 0 had the LSL time `begin`."""
    said: dict[str, Any] = json.loads((Path(plan.folder) / "account.json").read_text("utf-8"))
    wrong: list[str] = list(said["wrong"])
    samples = _samples(plan, said["samples"], wrong)
    markers = _markers(plan, said["markers"], begin, wrong)
    reported = {key: said["samples"][key] for key in REPORTED}
    return Account(samples, markers, reported, wrong)


def _samples(plan: Plan, stats: dict[str, Any], wrong: list[str]) -> dict[str, int]:
    sent, used, flagged = (plan.ledger(name) for name in ("sent", "used", "flagged"))
    handed = used.astype(np.int64) + flagged
    figures = {
        "sent": int(sent.sum()),
        "used": int(used.sum()),
        "flagged": int(flagged.sum()),
        "lost": int((sent.astype(bool) & (handed == 0)).sum()),
        "never sent": int((sent == 0).sum()),
        "holes": int((np.diff(sent == 0, prepend=False) & (sent == 0)).sum()),
    }
    _equal(wrong, "samples sent", figures["sent"], figures["used"] + figures["flagged"] + figures["lost"])
    _equal(wrong, "samples doubled, or handed over but never sent", int((handed > sent).sum()), 0)
    # After an outage longer than the buffer, windows that had begun before it cannot be made any more: the ingest
    # counts them, and what it had received of them is lost. Without one, everything received is handed over.
    incomplete = stats["samples"] - figures["used"] - figures["flagged"]
    if not 0 <= incomplete <= stats["incomplete"] * plan.window:
        wrong.append(
            f"{incomplete} samples received and not handed over, {stats['incomplete']} windows reported as incomplete"
        )
    # The ingest cannot tell what was lost from what the source left out: it reports the sum.
    missing = figures["lost"] + figures["never sent"] - incomplete
    _equal(wrong, "samples the ingest reports as lost", stats["lost"], missing)
    _equal(wrong, "windows, and those incomplete", stats["windows"] + stats["incomplete"], plan.places // plan.window)
    return figures


def _markers(plan: Plan, stats: dict[str, Any], begin: float, wrong: list[str]) -> dict[str, int]:
    sent, used, flagged = (plan.ledger(f"markers-{name}") for name in ("sent", "used", "flagged"))
    handed = used.astype(np.int64) + flagged
    pushed = int(sent.sum())
    figures = {
        "sent": int((sent > 0).sum()),
        "used": int(used.sum()),
        "flagged": int(flagged.sum()),
        "lost": int(((sent > 0) & (handed == 0)).sum()),
        "sent twice": pushed - int((sent > 0).sum()),
        "not sent": plan.markers - int((sent > 0).sum()),
    }
    _equal(wrong, "markers sent", figures["sent"], figures["used"] + figures["flagged"] + figures["lost"])
    _equal(wrong, "markers handed over twice", int((handed > 1).sum()), 0)
    _equal(wrong, "markers handed over but never sent", int(((handed > 0) & (sent == 0)).sum()), 0)
    _equal(wrong, "markers received", stats["events"], stats["windows"] + stats["incomplete"] + stats["duplicates"])
    _equal(wrong, "windows at markers", stats["windows"], figures["used"] + figures["flagged"])
    # Nobody but a stimulus script that was killed leaves markers out.
    missed = [k for k in np.flatnonzero(sent == 0).tolist() if not _in_an_outage(plan, begin, k)]
    if missed:
        wrong.append(f"markers not sent while their sender ran: {missed[:10]}")
    if stats["events"] > pushed:
        wrong.append(f"{stats['events']} markers received, {pushed} sent")
    unheard = np.flatnonzero((sent > 0) & (handed == 0)).tolist()
    silent = [k for k in unheard if not (_in_a_gap(plan, stats, begin, k) or _in_an_outage(plan, begin, k))]
    if silent:
        wrong.append(f"markers lost where the ingest reports no gap and their sender was not killed: {silent[:10]}")
    return figures


def _in_a_gap(plan: Plan, stats: dict[str, Any], begin: float, marker: int) -> bool:
    """Check if a marker's window touches a gap that the ingest reported."""
    period = 1 / (plan.rate * plan.drift)
    at = begin + plan.marker_place(marker) * period
    ends = at + plan.marker_window * period
    return any(
        start - MARKER_SLACK_S <= ends and at <= start + length + MARKER_SLACK_S for start, length in stats["gaps"]
    )


def _in_an_outage(plan: Plan, begin: float, marker: int) -> bool:
    """Check if a marker was due while its sender was dead, or had not been found again."""
    at = begin + plan.marker_place(marker) / (plan.rate * plan.drift)
    return any(killed - MARKER_SLACK_S <= at <= started + MARKER_BACK_S for killed, started in plan.marker_outages)


def _equal(wrong: list[str], what: str, got: int, expected: int) -> None:
    if got != expected:
        wrong.append(f"{what}: {got}, expected {expected}")
