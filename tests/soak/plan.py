"""What a soak sends, and the files in which sender and receiver write down what they did, a byte a sample."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

OUTAGES = "marker-outages.json"
COUNTER = "count"  # name of the channel that numbers the samples


@dataclass(frozen=True, slots=True)
class Plan:
    """One stream of a soak and its markers.

    Samples lie on a grid that goes on while the sender is dead, as an amplifier's does: place n has the time
    `begin + n / (rate * drift)`. What was not sent of it is known, because the sender writes each place down first.

    Attributes
    ----------
    name, unit : str
    channels : tuple of str
        Before the counter, which comes last.
    kind : str
        Of these channels.
    rate : float
        Nominal, Hz.
    drift : float
        The source's true rate over the nominal one.
    places : int
        Samples in all, if none is left out.
    window : int
        Samples of a sliding window; divides `places`.
    marker_every : int
        Places from one marker to the next.
    marker_window : int
        Samples of a marker's window.
    seed : int
    folder : str
        Of the ledgers.
    """

    name: str
    unit: str
    channels: tuple[str, ...]
    kind: str
    rate: float
    drift: float
    places: int
    window: int
    marker_every: int
    marker_window: int
    seed: int
    folder: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote."""
        raw = json.loads(path.read_text("utf-8"))
        return cls(**{**raw, "channels": tuple(raw["channels"])})

    def write(self) -> Path:
        """Write the plan and empty ledgers."""
        path = Path(self.folder) / "plan.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(asdict(self)), "utf-8")
        for name, length in (("sent", self.places), ("used", self.places), ("flagged", self.places)):
            (path.parent / name).write_bytes(bytes(length))
        for name in ("markers-sent", "markers-used", "markers-flagged"):
            (path.parent / name).write_bytes(bytes(self.markers))
        return path

    @property
    def markers(self) -> int:
        """Markers in all; the last window of one ends before the stream."""
        return (self.places - self.marker_window) // self.marker_every

    def marker_place(self, number: int) -> int:
        """Place of a marker on the grid; none on the first sample, whose time has no neighbour before it."""
        return (number + 1) * self.marker_every - self.marker_every // 2

    @property
    def marker_outages(self) -> list[tuple[float, float]]:
        """When nobody sent markers, from a kill to the next start, in LSL time."""
        path = Path(self.folder) / OUTAGES
        return [tuple(each) for each in json.loads(path.read_text("utf-8"))] if path.exists() else []

    def add_marker_outage(self, killed: float, started: float) -> None:
        """Write down when nobody sent markers."""
        outages = [*self.marker_outages, (killed, started)]
        (Path(self.folder) / OUTAGES).write_text(json.dumps(outages), "utf-8")

    def ledger(self, name: str) -> np.memmap:
        """Open a ledger: what is written survives the process's death."""
        return np.memmap(Path(self.folder) / name, dtype=np.uint8, mode="r+")
