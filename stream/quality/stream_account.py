"""What became of the samples of one stream, and what is wrong with it."""

from collections.abc import Collection
from dataclasses import dataclass, field

from stream.signal.clock import Gap

LISTED = 8
"""Names in one line."""


@dataclass(slots=True)
class StreamStats:
    """The account of one stream since its start.

    Attributes
    ----------
    samples, lost, bad : int
        Samples received; missing by the timestamps; received with a needed channel that is not finite or absurd.
    bad_stamps, steps_back : int
        Timestamps that were not finite or that no other bore out; steps of the source's clock.
    restarts : int
        How often a channel's filters began anew because it leapt, or came back after a second without usable samples.
    gaps : list of Gap
        The newest 100. `gap_count` counts them all.
    disconnections : int
    state : str
        'waiting' (no sample yet), 'streaming' or 'lost'.
    declared_hz : float or None
        Samples a second by the stream's own description, None where it is irregular.
    measured_hz, drift_ppm : float or None
        Samples a second by the timestamps, and how far that is from the rate that counts; None while it is not known.
    bad_channels, flat_channels : tuple of str
        Needed channels that have said nothing of use, or have not moved, for the last second.
    """

    samples: int = 0
    lost: int = 0
    bad: int = 0
    gap_count: int = 0
    gaps: list[Gap] = field(default_factory=list)
    disconnections: int = 0
    state: str = "waiting"
    bad_stamps: int = 0
    steps_back: int = 0
    restarts: int = 0
    declared_hz: float | None = None
    measured_hz: float | None = None
    drift_ppm: float | None = None
    bad_channels: tuple[str, ...] = ()
    flat_channels: tuple[str, ...] = ()


class StreamTroubles:
    """Problems of a stream at present, from its account.

    Parameters
    ----------
    recent : float
        Samples after which what has happened is no longer wrong at present.
    """

    def __init__(self, recent: float) -> None:
        self._recent = recent
        self._risen: dict[str, tuple[int, int]] = {}  # counters, and at which sample they last rose

    def lines(self, stats: StreamStats, interpolated: Collection[str]) -> dict[str, str]:
        """Return the present problems, a line by key.

        Parameters
        ----------
        stats : StreamStats
        interpolated : collection of str
            Channels of which nothing is said: they are replaced.
        """
        lines = {}
        for counter, what in (
            (
                "bad_stamps",
                "timestamps were no numbers or out of all order; their samples were placed where they were due",
            ),
            (
                "steps_back",
                "times the timestamps stepped back or leapt: was a clock set, or do two programs send as one?",
            ),
            ("restarts", "times filters began anew: a channel leapt, or had said nothing of use for a second"),
        ):
            count = getattr(stats, counter)
            if count > self._risen.get(counter, (0, 0))[0]:
                self._risen[counter] = (count, stats.samples)
            if count and stats.samples - self._risen[counter][1] < self._recent:
                lines[counter] = f"{count} {what}"
        for key, names, what in (
            ("bad", stats.bad_channels, "no usable number (not finite, or beyond what the unit allows)"),
            ("flat", stats.flat_channels, "flat"),
        ):
            if names := tuple(name for name in names if name not in interpolated):
                more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
                lines[key] = (
                    f"channels {', '.join(names[:LISTED])}{more}: {what}; is an electrode off? Leave them out by "
                    "filters.channels, or set filters.interpolate"
                )
        return lines
