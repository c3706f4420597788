"""Which marker streams of those that run mark a source's samples."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from stream.errors import SourceError, StreamError
from stream.lsl.discovery import LOOK_S, Source, find_among, is_markers, only
from stream.markers.choice import default_marker_stream, trigger_channel
from stream.markers.markers import channel_place
from stream.types.source_spec import NOTES, MarkerSelector, StreamSelector

logger = logging.getLogger(__name__)
TRIGGERED_S = 10.0
"""How long a marker stream is looked for at most where the source has a trigger channel, which does as well."""


def find_markers(
    lsl: Any, selectors: Sequence[MarkerSelector], source: Source, around: list[Any], timeout_s: float,
    stop: threading.Event, on_missing: Callable[[str], None] | None = None,
) -> tuple[list[tuple[Any, MarkerSelector]], list[str]]:  # fmt: skip
    """Find the marker streams of a source: the config's, else its own, else the only one, else its trigger channel.

    Parameters
    ----------
    lsl : module
    selectors : sequence of MarkerSelector
    source : Source
    around : list of pylsl.StreamInfo
        What a look-around just now found.
    timeout_s : float
    stop : threading.Event
    on_missing : callable, optional
        Called with what is missing as long as it is.

    Returns
    -------
    streams : list of (pylsl.StreamInfo, MarkerSelector)
    channels : list of str
        Trigger channels of the source.

    Raises
    ------
    SourceError
        One is missing, ambiguous, duplicated, or named twice.
    """
    streams: list[tuple[Any, MarkerSelector]] = []
    channels: list[str] = []
    told = False

    def missing(what: str) -> None:
        nonlocal told
        line = f"markers of {source.name!r}: {what}; start the program that sends them"
        if on_missing:
            on_missing(line)
        if not told:
            patience = "until they come" if timeout_s == math.inf else f"for {timeout_s:g} s"
            logger.warning("%s; looking for them %s", line, patience)
            told = True

    for selector in selectors or [MarkerSelector()]:
        try:
            if selector.channel is not None:
                channel_place(source.channels, selector.channel, source.name)
                channels.append(selector.channel)
            elif selector.names_stream:
                info, around = find_among(around, selector, timeout_s, lsl=lsl, stop=stop, on_missing=missing)
                streams.append((info, selector))
            elif info := _own(lsl, source, around, timeout_s, stop, missing):
                streams.append((info, selector))
            else:
                channels.append(_trigger(source, timeout_s))
        except StreamError as error:
            raise SourceError(f"markers of {source.name!r}: {error}; without markers: window.mode sliding") from None
    if len({info.uid() for info, _ in streams}) < len(streams):
        raise SourceError(f"two of the markers are one stream: {', '.join(info.name() for info, _ in streams)}")
    return streams, channels


def _own(
    lsl: Any, source: Source, around: list[Any], timeout_s: float, stop: threading.Event, missing: Callable[[str], None]
) -> Any | None:
    """Find the marker stream of a source that names none."""
    triggered = trigger_channel(source.channels) is not None
    deadline = time.monotonic() + (min(timeout_s, TRIGGERED_S) if triggered else timeout_s)
    own = f"{source.name}-markers".casefold()
    looked = False
    while True:
        names = [info.name() for info in around if is_markers(info) and info.name() != NOTES]
        # The source's own may be announced a moment after the data: look once more before taking another one.
        if any(name.casefold() == own for name in names) or (looked and names):
            return only(around, StreamSelector(name=default_marker_stream(names, source.name), type="Markers"), lsl=lsl)
        if looked and (time.monotonic() > deadline or stop.is_set()):
            return None
        if looked and not triggered:
            missing("no marker stream and no trigger channel yet")
        around, looked = lsl.resolve_streams(LOOK_S), True


def _trigger(source: Source, timeout_s: float) -> str:
    """Choose the trigger channel of a source that has no marker stream."""
    channel = trigger_channel(source.channels)
    if channel is None:
        raise SourceError(
            f"no marker stream and no trigger channel within {timeout_s:g} s: start the program that sends markers, or "
            "name its stream as source.markers"
        )
    logger.warning("no marker stream: the onsets in channel %s of stream %s are the markers", channel, source.name)
    return channel
