"""Which markers belong to a source, live and in files by one rule."""

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from stream.errors import SourceError, StreamError
from stream.markers.markers import channel_place, in_column, triggers_of
from stream.types.events import Event, event_of
from stream.types.source_spec import MarkerSelector
from stream.types.windows import Channels

if TYPE_CHECKING:
    from stream.types.recording import RecordedStream

logger = logging.getLogger(__name__)


def default_marker_stream(names: Iterable[str], source: str) -> str | None:
    """Choose the marker stream of a source where the config names none.

    Parameters
    ----------
    names : iterable of str
        Of all marker streams there are.
    source : str
        Name of the stream that decides the windows.

    Returns
    -------
    str or None
        '<source>-markers' in any case of its letters, else the only one; None where there is none.

    Raises
    ------
    StreamError
        There are several; lists them.
    """
    streams = sorted(set(names))
    matching = [name for name in streams if name.casefold() == f"{source}-markers".casefold()]
    if matching:
        return matching[0]
    if len(streams) > 1:
        raise StreamError(
            f"{len(streams)} marker streams ({', '.join(streams)}): say which is meant, or that all are, "
            f"as source.markers ({{name: {streams[0]}}}, or a list of such)"
        )
    return streams[0] if streams else None


def select_events(
    events: Sequence[Event], selectors: Sequence[MarkerSelector], source: "RecordedStream"
) -> list[Event]:
    """Choose the events of a recording that a live session on its streams would get.

    Parameters
    ----------
    events : sequence of Event
        One that bears no stream's name always counts.
    selectors : sequence of MarkerSelector
        The config's; without any, see `default_marker_stream`, else the onsets of the source's trigger channel.
    source : RecordedStream
        The stream that decides the windows.

    Returns
    -------
    list of Event
        In order.

    Raises
    ------
    StreamError
        A selector names no marker stream or channel, or several; or there are several and none is named.
    """
    names = sorted({event.stream for event in events if event.stream})
    picks: list[Event] = [event for event in events if not event.stream]
    if not selectors and not events:
        channel = trigger_channel(source.channels)
        picks += _onsets(source, channel) if channel else []
    for selector in selectors or [MarkerSelector()]:
        if selector.channel is not None and selector.channel not in names:
            picks += _onsets(source, selector.channel)
            continue
        name = selector.channel or _named(names, selector, source, anonymous=bool(picks))
        of_stream = [event for event in events if name and event.stream == name]
        picks += [one for event in of_stream if (one := in_column(event, selector.column))]
    return sorted(picks, key=lambda event: event.time)


def _named(names: Sequence[str], selector: MarkerSelector, source: "RecordedStream", *, anonymous: bool) -> str | None:
    """Return the one marker stream that a selector means; None where the events bear no names."""
    if not selector.names_stream:
        # Live, too, a trigger channel counts only where there is no marker stream.
        streams = [name for name in names if name not in source.channels.names]
        if not streams and len(names) > 1:
            return trigger_channel(source.channels)
        return default_marker_stream(streams or names, source.name)
    # A file keeps the names of its marker streams, not their types and ids.
    matching = [name for name in names if selector.name in {None, name}]
    if len(matching) == 1 or (not matching and anonymous):
        return matching[0] if matching else None
    raise StreamError(
        f"{len(matching) or 'no'} marker streams with {selector}; say which by name as source.markers; "
        f"there are: {', '.join(names) or 'none'}"
    )


def _onsets(source: "RecordedStream", channel: str) -> list[Event]:
    """Make events of the onsets in a channel of a recorded stream."""
    place = channel_place(source.channels, channel, source.name)
    onsets = triggers_of(channel).feed(source.data[:, place])
    return [event for at, code in onsets if at and (event := event_of(float(source.times[at]), code, channel))]


def trigger_channel(channels: Channels) -> str | None:
    """Choose the trigger channel of a stream, as MNE does: STI101, else STI014, else the only one; None without any.

    Raises
    ------
    SourceError
        There are several; lists them.
    """
    names = [name for name, kind in zip(channels.names, channels.kinds, strict=True) if kind == "stim"]
    first = [name for selection in ("STI101", "STI014") for name in names if name.replace(" ", "").upper() == selection]
    if first:
        return first[0]
    if len(names) > 1:
        raise SourceError(
            f"several trigger channels ({', '.join(names)}): name one as source.markers: {{channel: {names[0]}}}"
        )
    return names[0] if names else None
