"""`minddiffuser inspect`: what is understood of a recording, or of the streams that run."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decoder.data.usable import LEAST_WINDOWS
from minddiffuser.errors import AppError

if TYPE_CHECKING:
    from rich.console import Console

    from minddiffuser.config.spec import Config
    from stream.files.bids import BidsRun
    from stream.signal.clock import Gap
    from stream.types.events import Event
    from stream.types.recording import BadSegment, RecordedStream, Recording

EXAMPLES = 10
"""Events and labels that are printed for people; JSON has them all."""


@dataclass(frozen=True, slots=True)
class ChannelReport:
    """What is understood of a channel.

    Attributes
    ----------
    name, kind : str
        The kind as MNE names it.
    unit : str
        As read: an SI unit, or the name of a pure number.
    unit_given : str
        As the file or stream writes it; empty where it does not.
    level : float or None
        In `unit`, without the offset; None where no sample is a number.
    missing : float
        Share of samples that are not finite.
    scale_ok : bool
        Whether such a level can be what the kind and unit say.
    state : str
        'ok', 'flat', 'no numbers', or what makes the level implausible.
    """

    name: str
    kind: str
    unit: str
    unit_given: str
    level: float | None
    missing: float
    scale_ok: bool
    state: str


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What is understood of a stream.

    Attributes
    ----------
    name, type : str
    declared_hz, measured_hz : float or None
        Samples a second, as declared and by the timestamps between gaps; None for an irregular or too short stream.
    samples : int
    seconds : float
        From the first sample to the last.
    gaps : tuple of Gap
        Holes in the timestamps; times in seconds from the recording's start.
    bad : tuple of BadSegment
    channels : tuple of ChannelReport
    """

    name: str
    type: str
    declared_hz: float
    measured_hz: float | None
    samples: int
    seconds: float
    gaps: tuple[Gap, ...]
    bad: tuple[BadSegment, ...]
    channels: tuple[ChannelReport, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is understood of a recording.

    Attributes
    ----------
    source : str
        File, or 'live'.
    description : str
    streams : tuple of StreamReport
    events : tuple of Event
        Times in seconds from the recording's start.
    pictures : dict of str to str, or None
        Label -> picture that it names, for labels that name one; None where no pictures are known.
    warnings : tuple of str
    """

    source: str
    description: str
    streams: tuple[StreamReport, ...]
    events: tuple[Event, ...]
    pictures: dict[str, str] | None
    warnings: tuple[str, ...]

    @property
    def labels(self) -> dict[str, int]:
        """Count each label, in the order of first appearance."""
        return dict(Counter(event.label for event in self.events))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        events = [asdict(event) for event in self.events]
        if self.pictures is not None:
            for event in events:
                event["picture"] = self.pictures.get(event["label"])
        return {
            "source": self.source,
            "description": self.description,
            "streams": [asdict(stream) for stream in self.streams],
            "events": events,
            "labels": self.labels,
            "pictures": self.pictures,
            "warnings": list(self.warnings),
        }


def inspect_recording(where: Path | BidsRun, config: Config | None = None, stimuli: Path | None = None) -> Inspection:
    """Read a recording and report what is understood of it.

    Parameters
    ----------
    where : Path or BidsRun
    config : Config, optional
        Its `source.unit` is taken where the file states none, its pictures and `labels` where events are named.
    stimuli : Path, optional
        Folder of pictures; instead of the config's.

    Raises
    ------
    StreamError, StimulusError
        The recording or the pictures cannot be read.
    """
    from stream.files.formats.mne_files import apply_reading_spec
    from stream.files.registry import read

    recording = read(where)
    return inspect(apply_reading_spec(recording, config.source) if config else recording, str(where), config, stimuli)


def inspect_live(
    seconds: float, stop: threading.Event, config: Config | None = None, stimuli: Path | None = None
) -> Inspection:
    """Listen to all streams that run and report what is understood of them.

    They are recorded to a scratch file by the program's own recorder and read back by its own reader, so that live
    streams and files are understood by one rule.

    Raises
    ------
    AppError, SourceError
        There is no stream, or none that sends.
    """
    from stream.recording.record import record
    from stream.types.source_spec import SourceSpec

    peers = (config.source if config else SourceSpec()).peers
    left_out: list[str] = []
    with tempfile.TemporaryDirectory(prefix="minddiffuser-inspect-") as folder:
        path = Path(folder) / "live.xdf"
        account = record(path, seconds=seconds, stop=stop, peers=peers, left_out=left_out.append)
        if not any(stream.samples for stream in account.streams):
            names = ", ".join(repr(stream.name) for stream in account.streams) or "; ".join(left_out)
            raise AppError(f"no stream sent a sample within {seconds:g} s; there are: {names}")
        report = inspect_recording(path, config, stimuli)
    warnings = (*left_out, *report.warnings)
    return replace(report, source="live", description="the streams that run", warnings=warnings)


def inspect(recording: Recording, source: str, config: Config | None, stimuli: Path | None) -> Inspection:
    """Report what is understood of a recording that is read.

    Parameters
    ----------
    recording : Recording
    source : str
        What it is called in the report.
    config : Config, optional
    stimuli : Path, optional
        See `inspect_recording`.
    """
    pictures, unmatched = _pictures(recording.events, config, stimuli)
    streams = tuple(_stream(stream) for stream in recording.streams)
    warnings = [
        *recording.warnings,
        *(warning for stream in streams for warning in _doubts(stream)),
        *_event_doubts(recording),
        *unmatched,
    ]
    events = tuple(recording.events)
    return Inspection(source, recording.description, streams, events, pictures, tuple(dict.fromkeys(warnings)))


def _stream(stream: RecordedStream) -> StreamReport:
    from stream.files.registry import RATE_OFF
    from stream.signal.clock import SampleClock
    from stream.types.recording import measured_rate

    times = stream.times[np.isfinite(stream.times)]
    measured = measured_rate(times) or None
    # Against a rate that is not the sent one, every sample would lie beside its place.
    off = measured and stream.sfreq and abs(measured / stream.sfreq - 1) > RATE_OFF
    rate = measured if measured and off else stream.sfreq
    return StreamReport(
        name=stream.name,
        type=stream.type,
        declared_hz=stream.sfreq,
        measured_hz=measured,
        samples=len(stream.times),
        seconds=float(times.max() - times.min()) if len(times) else 0.0,
        gaps=tuple(gap for _, gap in SampleClock(rate).feed(stream.times, last=True).gaps),
        bad=stream.bad,
        channels=_channels(stream),
    )


def _channels(stream: RecordedStream) -> tuple[ChannelReport, ...]:
    from stream.types.levels import implausible, levels

    channels = stream.channels
    given = stream.units_given or ("",) * len(channels)
    missing = 1.0 - np.isfinite(stream.data).mean(axis=0) if len(stream.data) else np.ones(len(channels))
    reports = []
    for i, level in enumerate(levels(stream.data, stream.sfreq).tolist()):
        kind, unit = channels.kinds[i], channels.units[i]
        doubt = implausible(kind, unit, level)
        state = doubt or ("no numbers" if missing[i] == 1.0 else "flat" if level == 0 else "ok")
        known = level if np.isfinite(level) else None
        share = round(float(missing[i]), 6)
        reports.append(ChannelReport(channels.names[i], kind, unit, given[i], known, share, doubt is None, state))
    return tuple(reports)


def _doubts(stream: StreamReport) -> list[str]:
    """Return warnings about a stream."""
    from stream.types.units import listing

    doubts = []
    if stream.gaps:
        lost = sum(gap.lost for gap in stream.gaps)
        doubts.append(
            f"{stream.name}: {len(stream.gaps)} gaps, {lost} samples lost; the first at {stream.gaps[0].start:.3f} s"
        )
    for state, words in (("flat", "flat"), ("no numbers", "without any number")):
        if names := [channel.name for channel in stream.channels if channel.state == state]:
            doubts.append(f"{stream.name}: {words}: {listing(names)}")
    if names := [channel.name for channel in stream.channels if 0 < channel.missing < 1]:
        doubts.append(f"{stream.name}: with samples that are no numbers: {listing(names)}")
    return doubts


def _pictures(
    events: Sequence[Event], config: Config | None, folder: Path | None
) -> tuple[dict[str, str] | None, list[str]]:
    """Return the picture that each label names, and the labels that name none; None where no pictures are known."""
    from minddiffuser.config.spec import DataSpec
    from minddiffuser.training.data import matcher_of, shown_pictures
    from stream.types.labels import mismatch

    spec = config.data if config else DataSpec(dataset="recording")
    if folder is not None:
        spec = spec.model_copy(update={"stimuli": folder})
    labels = config.labels if config else None
    if spec.stimuli is None and labels is None:
        return None, []
    stimuli = shown_pictures(spec)
    matcher = matcher_of(stimuli, labels)
    pictures = {
        event.label: named.label for event in events if matcher.knows((named := matcher.name_event(event)).label)
    }
    strangers = (
        mismatch((pictures.get(event.label, event.label) for event in events), stimuli.ids) if stimuli.ids else None
    )
    return pictures, [strangers] if strangers else []


def _event_doubts(recording: Recording) -> list[str]:
    """Return what keeps events from becoming windows."""
    if not recording.events:
        return ["no events: windows need markers, or window.mode: sliding"]
    regular = [stream for stream in recording.streams if len(stream.times)]
    if not regular:
        return ["no data stream: nothing to cut windows from"]
    first = min(float(np.nanmin(stream.times)) for stream in regular)
    last = max(float(np.nanmax(stream.times)) for stream in regular)
    outside = [event for event in recording.events if not first <= event.time <= last]
    if not outside:
        return []
    distance = max(first - outside[0].time, outside[0].time - last)
    return [
        f"{len(outside)} of {len(recording.events)} events lie outside the samples, the first by {distance:.6g} s"
        + ("; samples and markers seem to be stamped by two clocks" if len(outside) == len(recording.events) else "")
    ]


def next_step(report: Inspection, config: Path | None, *, marked: bool = True) -> str:
    """Return what to do next, the command to type at its end.

    Parameters
    ----------
    report : Inspection
    config : Path, optional
        That it was made with.
    marked : bool
        Whether its windows need markers.
    """
    live = report.source == "live"
    again = f"minddiffuser inspect {'--live' if live else report.source}{f' --config {config}' if config else ''}"
    if not any(stream.samples for stream in report.streams):
        return f"start the amplifier's program, then again: {again}"
    if odd := [channel for stream in report.streams for channel in stream.channels if not channel.scale_ok]:
        return f"state the true unit as source.unit in the config ({odd[0].name}: {odd[0].state}), then again: {again}"
    if marked and not report.events:
        ours = f"minddiffuser calibrate {config}" if config else "minddiffuser new own.yaml, then calibrate"
        begin = f"have the pictures shown, with markers: {ours}; or " if live else ""
        return f"{begin}start the program that shows the pictures and sends markers, then again: {again}"
    if config is None:
        where = "minddiffuser new own.yaml" if live else f"{again} --config CONFIG"
        return f"{'write a config' if live else 'hold it against a config'}: {where}"
    if report.pictures is not None and not report.pictures:
        return f"tell which picture each marker names (data.stimuli, labels), then again: {again}"
    return "record: minddiffuser record calibration.xdf" if live else _train(report, config, marked=marked)


def _train(report: Inspection, config: Path, *, marked: bool) -> str:
    """Return the command that trains, where there are enough markers of pictures for it."""
    named = sum(report.pictures is None or event.label in report.pictures for event in report.events)
    if marked and named < LEAST_WINDOWS:
        return (
            f"record more: training takes {LEAST_WINDOWS} markers that name a picture at least, all recordings "
            f"together, and here {named} {'does' if named == 1 else 'do'}; then: minddiffuser train {config}"
        )
    return f"train: minddiffuser train {config}"


def show(report: Inspection, console: Console, following: str = "") -> None:
    """Print what is understood, for people, and what to do next."""
    from rich.markup import escape  # names and labels are a file's own, and may hold brackets
    from rich.table import Table

    from stream.types.units import for_people

    console.print(f"[bold]{escape(report.source)}[/bold]: {escape(report.description)}", soft_wrap=True)
    for stream in report.streams:
        measured = "irregular" if not stream.declared_hz else f"{stream.declared_hz:g} Hz declared"
        if stream.measured_hz is not None:
            measured += f", {stream.measured_hz:.6g} Hz measured"
        lost = sum(gap.lost for gap in stream.gaps)
        console.print(
            f"\n[bold]{escape(stream.name)}[/bold] (type {escape(stream.type or 'not stated')}): "
            f"{len(stream.channels)} channels, "
            f"{measured}, {stream.samples} samples in {stream.seconds:.1f} s; {len(stream.gaps)} gaps ({lost} samples "
            f"lost), {len(stream.bad)} segments marked bad",
            soft_wrap=True,
        )
        table = Table("channel", "kind", "unit given", "read as", "level (rms)", "state")
        for channel in stream.channels:
            level = "" if channel.level is None else for_people(channel.level, channel.unit)
            cells = (channel.name, channel.kind, channel.unit_given or "-", channel.unit, level, channel.state)
            table.add_row(*map(escape, cells))
        console.print(table)
    _show_events(report, console)
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    if not report.warnings:
        console.print("nothing to warn of")
    if following:
        console.print(f"Next: {following}", soft_wrap=True, markup=False, highlight=False)


def _show_events(report: Inspection, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    labels = report.labels
    console.print(f"\n{len(report.events)} events, {len(labels)} labels")
    if not labels:
        return
    counts = Table("label", "count", *(["picture"] if report.pictures is not None else []))
    for label, count in list(labels.items())[:EXAMPLES]:
        pictures = [report.pictures.get(label, "-")] if report.pictures is not None else []
        counts.add_row(*map(escape, (repr(label), str(count), *pictures)))
    console.print(counts)
    if len(labels) > EXAMPLES:
        console.print(f"... and {len(labels) - EXAMPLES} labels more (all of them with --json)")
    first = ", ".join(f"{event.time:.3f} s {event.label!r}" for event in report.events[:EXAMPLES])
    console.print(f"first events: {escape(first)}", soft_wrap=True)
