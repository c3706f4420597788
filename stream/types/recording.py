"""What a recording holds: streams in SI units and events, on one time line."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from stream.errors import RecordingError
from stream.types.events import Event
from stream.types.labels import LabelMatcher
from stream.types.source_spec import StreamSelector
from stream.types.windows import Channels

TYPE_OF_KIND = {"eeg": "EEG", "mag": "MEG", "grad": "MEG", "seeg": "iEEG", "ecog": "iEEG", "dbs": "iEEG"}
"""What a stream of channels of a kind is called."""


@dataclass(frozen=True, slots=True)
class BadSegment:
    """A segment of a recording that is not to be trusted: marked by whoever recorded it, or a joint of two parts.

    Attributes
    ----------
    start : float
        Seconds from the recording's start.
    length : float
        Seconds; 0 for a joint, after which the signal begins anew.
    label : str
        As the file has it ('BAD_blink', 'boundary', 'New Segment').
    """

    start: float
    length: float
    label: str


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """One stream of a recording.

    Attributes
    ----------
    name, type, source_id : str
        As LSL has them; type is 'EEG', 'MEG', 'fMRI', 'spikes', ...
    channels : Channels
    sfreq : float
        Samples a second; 0 for an irregular stream.
    times : ndarray, shape (n_samples,), float64
        Seconds from the recording's start.
    data : ndarray, shape (n_samples, n_channels), float32
        In the channels' units.
    bad : tuple of BadSegment
        In order; see `masked_data`.
    units_given : tuple of str
        Each channel's unit as the file writes it; empty where the file does not say of any.
    """

    name: str
    type: str
    source_id: str
    channels: Channels
    sfreq: float
    times: NDArray[np.float64]
    data: NDArray[np.float32]
    bad: tuple[BadSegment, ...] = ()
    units_given: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.data.shape != (len(self.times), len(self.channels)):
            raise RecordingError(
                f"stream {self.name!r}: data of shape {self.data.shape} do not fit {len(self.times)} times "
                f"and {len(self.channels)} channels"
            )

    @property
    def masked_data(self) -> NDArray[np.float32]:
        """The samples as a replay sends them and a window is cut from them: NaN in all channels where a segment is bad.

        A joint takes its first sample. Whoever reads a row without any number takes it for lost: filters begin anew
        after it, windows over it are flagged.
        """
        if not self.bad:
            return self.data
        out = self.data.copy()
        for segment in self.bad:
            after = self.times >= segment.start  # timestamps may step back
            inside = after & (self.times < segment.start + segment.length)
            out[inside if inside.any() else np.flatnonzero(after)[:1]] = np.nan
        return out

    def until(self, start: int, time: float) -> int:
        """Return the place of the first sample from `start` on later than `time`; real timestamps may step back."""
        late = np.flatnonzero(self.times[start:] > time)
        return start + int(late[0]) if len(late) else len(self.times)


def measured_rate(times: NDArray[np.float64]) -> float:
    """Measure the rate of samples by their times; holes are no part of it.

    Parameters
    ----------
    times : ndarray, shape (n,)
        In seconds.

    Returns
    -------
    float
        Samples a second; 0 where the times tell none.
    """
    steps = np.diff(times)
    # Stamps are often rounded, or of whole chunks: their middle step is not the period.
    middle = float(np.median(steps)) if len(steps) else 0.0
    if middle == 0 and (steps > 0).any():  # whole chunks: the last one's samples have no chunk behind them
        steps = steps[: np.flatnonzero(steps > 0)[-1] + 1]
    inside = steps[steps < 5 * middle] if middle > 0 else steps
    total = float(inside.sum())
    return len(inside) / total if total > 0 and np.isfinite(total) else 0.0


@dataclass(frozen=True, slots=True)
class Recording:
    """Streams and events of one session.

    Attributes
    ----------
    name : str
    description : str
        What it is ('simulated EEG', 'macaque V4 spikes'); shown wherever the data are shown.
    streams : tuple of RecordedStream
    events : tuple of Event
        Times in seconds from the recording's start, in order.
    begun : float or None
        When its time 0 was: POSIX time, where the file says.
    lsl_begun : float or None
        The same in the LSL clock of the machine that recorded (XDF).
    warnings : tuple of str
        What whoever uses it should know of how it was read, in plain words; `read` logs them, `inspect` shows them.
    other_events : tuple of Event
        Of trigger channels that were not chosen; they lead to windows only where a config names their channel.
    labels : LabelMatcher or None
        What finds the pictures that the events name, where somebody knows the pictures; left out of comparisons.
    """

    name: str
    description: str
    streams: tuple[RecordedStream, ...]
    events: tuple[Event, ...]
    begun: float | None = None
    lsl_begun: float | None = None
    warnings: tuple[str, ...] = ()
    other_events: tuple[Event, ...] = ()
    labels: LabelMatcher | None = field(default=None, compare=False, repr=False)

    def name_events(self, labels: LabelMatcher) -> "Recording":
        """Return a recording whose events are named by `labels`, also those chosen anew when it is cut into windows."""
        events, others = (tuple(map(labels.name_event, each)) for each in (self.events, self.other_events))
        return replace(self, events=events, other_events=others, labels=labels)


def choose_streams(
    recording: Recording, source: StreamSelector | None, extra: Sequence[StreamSelector] = ()
) -> list[RecordedStream]:
    """Find the streams of a recording that a live session would take, by name, type and source id.

    Parameters
    ----------
    recording : Recording
    source : StreamSelector, optional
        Where the recording holds one stream, that one is the source whatever it is called.
    extra : sequence of StreamSelector

    Returns
    -------
    list of RecordedStream
        The source, then the extras.

    Raises
    ------
    RecordingError
        A selector matches no stream, several, or one that is taken already.
    """
    streams = recording.streams
    first = streams[0] if len(streams) == 1 else _only(recording, source or StreamSelector())
    picks = [first, *(_only(recording, selector) for selector in extra)]
    if len({id(stream) for stream in picks}) < len(picks):
        raise RecordingError(
            f"recording {recording.name!r}: two of source and extra are one stream; it has {_listed(recording)}"
        )
    return picks


def _only(recording: Recording, selector: StreamSelector) -> RecordedStream:
    criteria = {key: value for key in ("name", "type", "source_id") if (value := getattr(selector, key)) is not None}
    matching = [stream for stream in recording.streams if all(_same(stream, *pair) for pair in criteria.items())]
    if len(matching) != 1:
        raise RecordingError(
            f"recording {recording.name!r} has {len(matching) or 'no'} streams with {selector}; say which by name or "
            f"type; it has {_listed(recording)}"
        )
    return matching[0]


def _same(stream: RecordedStream, key: str, value: str) -> bool:
    """Hold one property of a stream against what is asked for; types are compared in any case, as live."""
    actual = str(getattr(stream, key))
    return actual == value or (key == "type" and actual.strip().casefold() == value.strip().casefold())


def _listed(recording: Recording) -> str:
    return ", ".join(f"{stream.name} ({stream.type})" for stream in recording.streams) or "no stream"


def with_original_labels(recording: Recording) -> Recording:
    """Return a recording with the labels that its events had before `Recording.name_events`."""
    events, others = (
        tuple(
            replace(event, label=event.original_label, original_label="") if event.original_label else event
            for event in each
        )
        for each in (recording.events, recording.other_events)
    )
    return replace(recording, events=events, other_events=others, labels=None)
