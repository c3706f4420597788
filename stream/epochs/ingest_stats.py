"""The account of an ingest: what became of every sample and marker."""

from dataclasses import dataclass, field

from stream.quality.stream_account import StreamStats
from stream.signal.clock import Gap


@dataclass(slots=True)
class IngestStats:
    """The account of an ingest since its start.

    Attributes
    ----------
    samples, lost, bad, gap_count, disconnections, bad_stamps, steps_back, restarts : int
        As in `StreamStats`, of all streams together.
    gaps : list of Gap
        The newest 100 of each stream.
    state : str
        'lost' where any stream is, else 'waiting' where any is, else 'streaming'.
    streams : dict of str to StreamStats
        Each stream's own account, where there are several.
    events, duplicates, ignored, incomplete, pending, bad_events : int
        Markers received that match; of these the same marker again; markers that do not match; markers whose window
        lies (partly) outside what the streams still hold; markers whose window is not complete yet; markers left out:
        without a finite time or value, or without a text.
    unmatched : int
        Of `events`, those that name no picture, where the pictures are known.
    marker_disconnections : int
        How often a marker stream went away; what was marked meanwhile is lost.
    windows, rejected : int
        Windows cut, and how many of these were found unfit.
    overruns : int
        Windows lost because a ring had gone on.
    forgotten : int
        Labels whose presentations so far were let go (`window.repeats`), because there were too many.
    declared_hz, measured_hz, drift_ppm : float or None
        Of the source, as in `StreamStats`.
    bad_channels, flat_channels : tuple of str
        As in `StreamStats`, of all streams together.
    channel_rms : dict of str to float
        Of the newest second, after the filters.
    problems : list of str
        What is wrong at present, a line each, in plain words and with the way out; shown on the page and in the log.
    """

    samples: int = 0
    lost: int = 0
    bad: int = 0
    gap_count: int = 0
    gaps: list[Gap] = field(default_factory=list)
    events: int = 0
    duplicates: int = 0
    ignored: int = 0
    incomplete: int = 0
    pending: int = 0
    bad_events: int = 0
    unmatched: int = 0
    marker_disconnections: int = 0
    windows: int = 0
    rejected: int = 0
    overruns: int = 0
    disconnections: int = 0
    bad_stamps: int = 0
    steps_back: int = 0
    restarts: int = 0
    forgotten: int = 0
    declared_hz: float | None = None
    measured_hz: float | None = None
    drift_ppm: float | None = None
    state: str = "waiting"
    bad_channels: tuple[str, ...] = ()
    flat_channels: tuple[str, ...] = ()
    channel_rms: dict[str, float] = field(default_factory=dict)
    streams: dict[str, StreamStats] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
