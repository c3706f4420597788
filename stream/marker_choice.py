"""Which markers belong to a source, live and in files by one rule."""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from stream.errors import SourceError, StreamError
from stream.events import Event, event_of
from stream.markers import channel_place, in_column, triggers_of
from stream.metadata import trigger_channel
from stream.sources import LOOK_S, MarkerSelector, Source, StreamSelector, find_among, is_markers, only

if TYPE_CHECKING:
    from stream.recordings import RecordedStream

LOG = logging.getLogger(__name__)


def own_markers(names: Iterable[str], source: str) -> str | None:
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
    known = sorted(set(names))
    own = [name for name in known if name.casefold() == f"{source}-markers".casefold()]
    if own:
        return own[0]
    if len(known) > 1:
        raise StreamError(
            f"{len(known)} marker streams ({', '.join(known)}): say which is meant, or that all are, as source.markers "
            f"({{name: {known[0]}}}, or a list of such)"
        )
    return known[0] if known else None


def selected(events: Sequence[Event], selectors: Sequence[MarkerSelector], source: "RecordedStream") -> list[Event]:
    """Choose the events of a recording that a live session on its streams would get.

    Parameters
    ----------
    events : sequence of Event
        One that bears no stream's name always counts.
    selectors : sequence of MarkerSelector
        The config's; without any, see `own_markers`, else the onsets of the source's trigger channel.
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
    chosen: list[Event] = [event for event in events if not event.stream]
    if not selectors and not events:
        channel = trigger_channel(source.channels)
        chosen += _onsets(source, channel) if channel else []
    for selector in selectors or [MarkerSelector()]:
        if selector.channel is not None and selector.channel not in names:
            chosen += _onsets(source, selector.channel)
            continue
        name = selector.channel or _named(names, selector, source, anonymous=bool(chosen))
        of_stream = [event for event in events if name and event.stream == name]
        chosen += [one for event in of_stream if (one := in_column(event, selector.column))]
    return sorted(chosen, key=lambda event: event.time)


def _named(names: Sequence[str], selector: MarkerSelector, source: "RecordedStream", *, anonymous: bool) -> str | None:
    """Name the one marker stream that a selector means; None where the events bear no names."""
    if not selector.names_stream:
        # Live, too, a trigger channel counts only where there is no marker stream.
        streams = [name for name in names if name not in source.channels.names]
        if not streams and len(names) > 1:
            return trigger_channel(source.channels)
        return own_markers(streams or names, source.name)
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


def find_markers(
    lsl: Any, selectors: Sequence[MarkerSelector], source: Source, found: list[Any], timeout_s: float,
    stop: threading.Event,
) -> tuple[list[tuple[Any, MarkerSelector]], list[str]]:  # fmt: skip
    """Find the marker streams of a source: the config's, else its own, else the only one, else its trigger channel.

    Parameters
    ----------
    lsl : module
    selectors : sequence of MarkerSelector
    source : Source
    found : list of pylsl.StreamInfo
        What a look-around just now found.
    timeout_s : float
    stop : threading.Event

    Returns
    -------
    streams : list of (pylsl.StreamInfo, MarkerSelector)
    channels : list of str
        Trigger channels of the source.

    Raises
    ------
    SourceError
        One is missing, ambiguous, doubled, or named twice.
    """
    streams: list[tuple[Any, MarkerSelector]] = []
    channels: list[str] = []
    for selector in selectors or [MarkerSelector()]:
        try:
            if selector.channel is not None:
                channel_place(source.channels, selector.channel, source.name)
                channels.append(selector.channel)
            elif selector.names_stream:
                info, found = find_among(found, selector, timeout_s, lsl=lsl, stop=stop)
                streams.append((info, selector))
            elif info := _own(lsl, source, found, timeout_s, stop):
                streams.append((info, selector))
            else:
                channels.append(_trigger(source, timeout_s))
        except StreamError as error:
            raise SourceError(f"markers of {source.name!r}: {error}; without markers: window.mode sliding") from None
    if len({info.uid() for info, _ in streams}) < len(streams):
        raise SourceError(f"two of the markers are one stream: {', '.join(info.name() for info, _ in streams)}")
    return streams, channels


def _own(lsl: Any, source: Source, found: list[Any], timeout_s: float, stop: threading.Event) -> Any | None:
    """Find the marker stream of a source that names none."""
    deadline = time.monotonic() + timeout_s
    own = f"{source.name}-markers".casefold()
    looked = False
    while True:
        names = [info.name() for info in found if is_markers(info)]
        # The source's own may be announced a moment after the data: look once more before taking another one.
        if any(name.casefold() == own for name in names) or (looked and names):
            return only(found, StreamSelector(name=own_markers(names, source.name), type="Markers"), lsl=lsl)
        if looked and (time.monotonic() > deadline or stop.is_set()):
            return None
        found, looked = lsl.resolve_streams(LOOK_S), True


def _trigger(source: Source, timeout_s: float) -> str:
    """Take the trigger channel of a source that has no marker stream."""
    channel = trigger_channel(source.channels)
    if channel is None:
        raise SourceError(
            f"no marker stream and no trigger channel within {timeout_s:g} s: start the program that sends markers, or "
            "name its stream as source.markers"
        )
    LOG.warning("no marker stream: the onsets in channel %s of stream %s are the markers", channel, source.name)
    return channel
