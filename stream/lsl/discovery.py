"""Streams of the Lab Streaming Layer: which one is meant, and what its metadata say."""

import difflib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError
from stream.lsl.metadata import NO_TYPE, read_channels
from stream.types.source_spec import NOTES, StreamSelector, is_marker_type
from stream.types.windows import Channels

logger = logging.getLogger(__name__)
LOOK_S = 1.0
"""Seconds that every look-around collects answers; shorter ones miss streams."""
WORD_S = 15.0
"""Seconds after which, and again, the log says what is looked for and what is there."""
TYPELESS_S = 10.0
"""Seconds for a stream of the type that was asked for to come, before one whose type says nothing is taken."""

TEXT = 3
"""pylsl.cf_string, repeated here so that liblsl need not be loaded."""
SAMPLED = {"eeg", "mag", "grad", "ref_meg", "seeg", "ecog", "dbs"}
"""Kinds of channels that are nothing without a rate."""

_configured = threading.Lock()
_peers: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A stream that was found, with its metadata read.

    Attributes
    ----------
    name, type, source_id, description, hostname : str
        `description` is desc/description ('macaque V4 spikes'), or empty.
    channels : Channels
        SI units.
    factors : ndarray, shape (n_channels,)
        Multiply the stream's numbers by these to get SI units.
    sfreq : float
        Of the source: the config's, else what a replay declares in desc/replay/sfreq, else the nominal rate.
    speed : float
        Source seconds per second of the LSL clock.
    samples : int or None
        After how many the stream ends by itself, where a replay says so.
    declared : float
        The nominal rate.
    units_given : tuple of str
        Each channel's unit as the stream writes it.
    warnings : tuple of str
        What whoever uses it should know of how it was read, in plain words.
    """

    name: str
    type: str
    source_id: str
    description: str
    hostname: str
    channels: Channels
    factors: NDArray[np.float64]
    sfreq: float
    speed: float
    samples: int | None = None
    declared: float = 0.0
    units_given: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def load_lsl(peers: tuple[str, ...] = ("127.0.0.1",)) -> Any:
    """Import pylsl, told of known peers before its first call (later ones change nothing in this process).

    A configuration of the user's own (LSLAPICFG, ./lsl_api.cfg, ~/lsl_api/lsl_api.cfg) is left to rule.

    Raises
    ------
    SourceError
        liblsl is not installed.
    """
    global _peers  # noqa: PLW0603 (liblsl's own configuration is one a process)
    try:
        import pylsl
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(
            f"liblsl is missing ({reason}): conda install -c conda-forge liblsl, or set PYLSL_LIB to it"
        ) from error
    with _configured:
        if _peers is None:
            _peers = peers
            user_config = [Path("lsl_api.cfg"), Path.home() / "lsl_api" / "lsl_api.cfg"]
            if "LSLAPICFG" not in os.environ and not any(path.is_file() for path in user_config):
                pylsl.set_config_content(f"[lab]\nKnownPeers = {{{', '.join(peers)}}}\n[log]\nlevel = -3\n")
        elif set(peers) - set(_peers):
            logger.warning("known peers %s come too late: liblsl already runs with %s", peers, _peers)
    return pylsl


def find(selector: StreamSelector, timeout_s: float, *, lsl: Any, stop: threading.Event | None = None) -> Any:
    """Find exactly one stream; see `find_among`."""
    return find_among(None, selector, timeout_s, lsl=lsl, stop=stop)[0]


def find_among(
    streams: list[Any] | None,
    selector: StreamSelector,
    timeout_s: float,
    *,
    lsl: Any,
    stop: threading.Event | None = None,
    on_missing: Callable[[str], None] | None = None,
) -> tuple[Any, list[Any]]:
    """Find exactly one stream.

    Parameters
    ----------
    streams : list of pylsl.StreamInfo, optional
        Of a look-around just now; without a match in it there is another one.
    selector : StreamSelector
    timeout_s : float
    lsl : module
    stop : threading.Event, optional
    on_missing : callable, optional
        Called with what is missing after each look-around without a match.

    Returns
    -------
    info : pylsl.StreamInfo
    streams : list of pylsl.StreamInfo
        Of the last look-around.

    Raises
    ------
    SourceError
        None or several match, or two streams carry the same source id; says what was found.
    """
    began = time.monotonic()
    deadline, word_at = began + timeout_s, began + WORD_S
    while True:
        around, streams = lsl.resolve_streams(LOOK_S) if streams is None else streams, None
        now = time.monotonic()
        over = now > deadline or (stop and stop.is_set())
        late = over or now > began + TYPELESS_S
        if match := only(around, selector, lsl=lsl) or (_typeless(around, selector) if late else None):
            return match, around
        there = f"{_near(around, selector)}; found: {describe_streams(around)}"
        if over:
            raise SourceError(f"no stream with {selector} within {timeout_s:g} s{there}")
        if on_missing:
            on_missing(f"no stream with {selector} yet{there}")
        if now > word_at:
            logger.warning("still looking for a stream with %s%s", selector, there)
            word_at = now + WORD_S


def only(streams: list[Any], selector: StreamSelector, *, lsl: Any) -> Any | None:
    """Return the one resolved stream that a selector means; None where there is none.

    Raises
    ------
    SourceError
        Several match, or two streams carry its source id; says what was found.
    """
    matching = matching_streams(streams, selector, lsl=lsl)
    if not matching:
        return None
    if len(matching) > 1:
        raise SourceError(
            f"{len(matching)} streams with {selector}; say which by name or source_id; "
            f"found: {describe_streams(streams)}"
        )
    if len(twins := duplicates_of(matching[0], streams)) > 1:
        raise SourceError(
            f"{len(twins)} streams carry source_id {matching[0].source_id()!r}, their samples would mix; stop one; "
            f"found: {describe_streams(streams)}"
        )
    return matching[0]


def duplicates_of(one: Any, streams: list[Any]) -> list[Any]:
    """Return the resolved streams that cannot be told from one after a loss: of its source id and type.

    Devices give one source id to all of their streams (EEG, PPG, ACC): those differ in type.
    """
    key = (one.source_id(), one.type().casefold())
    return [info for info in streams if key[0] and (info.source_id(), info.type().casefold()) == key]


def matching_streams(streams: list[Any], selector: StreamSelector, *, lsl: Any) -> list[Any]:
    """Return the resolved streams that a selector means; those of exactly its type before those of one much like it."""
    matching = [info for info in streams if matches(selector, info)]
    if not selector.name and not selector.source_id:
        matching = [info for info in matching if info.name() != NOTES]
    matching = [info for info in matching if info.type() == selector.type] or matching
    if matching and selector.properties:
        predicate = " and ".join(f"{key}={xpath_quote(value)}" for key, value in selector.properties.items())
        uids = {info.uid() for info in lsl.resolve_bypred(predicate, 1, LOOK_S)}
        matching = [info for info in matching if info.uid() in uids]
    return matching


def _typeless(streams: list[Any], selector: StreamSelector) -> Any | None:
    """Return the only data stream for the one of a type, where its own type says nothing, such as 'signal'."""
    data = [info for info in streams if not is_markers(info)]
    if selector.name or selector.source_id or selector.properties or not selector.type or len(data) != 1:
        return None
    if is_marker_type(selector.type) or data[0].type().strip().casefold() not in NO_TYPE:
        return None
    logger.warning(
        "no stream of type %r; the only data stream is taken for it: %s", selector.type, describe_streams(data)
    )
    return data[0]


def _near(streams: list[Any], selector: StreamSelector) -> str:
    """Return what a mistyped selector may have meant, for an error."""
    for key in ("name", "type", "source_id"):
        names = {getattr(info, key)().casefold(): getattr(info, key)() for info in streams}
        text = (getattr(selector, key) or "").casefold()
        if text and (near := difflib.get_close_matches(text, names, 1)) and names[near[0]] != getattr(selector, key):
            return f"; did you mean {key} {names[near[0]]!r}?"
    return ""


def matches(selector: StreamSelector, info: Any) -> bool:
    """Hold a resolved stream against name, type and source id (properties are liblsl's to judge).

    Types are compared in any case; every type that names markers means any marker stream.
    """
    pairs = ((selector.name, info.name()), (selector.source_id, info.source_id()))
    if any(value is not None and value != actual for value, actual in pairs):
        return False
    if selector.type is None:
        # Whoever asks for 'any stream' wants data.
        return bool(selector.name or selector.source_id) or not is_markers(info)
    same: bool = selector.type.strip().casefold() == info.type().strip().casefold()
    return same or (is_marker_type(selector.type) and is_markers(info))


def is_markers(info: Any) -> bool:
    """Return whether a resolved stream carries markers: by its type, or because it is of texts."""
    return is_marker_type(info.type()) or info.channel_format() == TEXT


def xpath_quote(value: str) -> str:
    """Return a text quoted for an XPath predicate."""
    return f"'{value}'" if "'" not in value else f'"{value}"'


def describe_streams(streams: list[Any]) -> str:
    """Return the names of resolved streams with what tells them apart, sessions' own notes left out."""
    return "; ".join(sorted(_described(info) for info in streams if info.name() != NOTES)) or "no stream at all"


def _described(info: Any) -> str:
    rate = f"{info.nominal_srate():g} Hz" if info.nominal_srate() else "irregular"
    return (
        f"{info.name()} (type {info.type()}, {info.channel_count()} channels, {rate}, source_id {info.source_id()!r}, "
        f"on {info.hostname()})"
    )


def describe(
    info: Any,
    unit: str | None = None,
    *,
    sfreq: float | None = None,
    kind: str | None = None,
    needed: Sequence[str] | None = None,
    names: Sequence[str] = (),
) -> Source:
    """Read a full stream description.

    Parameters
    ----------
    info : pylsl.StreamInfo
        As an inlet's `info()` gives it (a resolved one has no metadata).
    unit : str, optional
        Unit of all channels, where the metadata do not say.
    sfreq : float, optional
        The true rate, which then rules.
    kind : str, optional
        Of channels that do not say it, where the stream's type does not either.
    needed : sequence of str, optional
        Names or kinds of the channels that are used, so must have a known unit; all when left out.
    names : sequence of str
        Of all columns, where the metadata do not name them.

    Raises
    ------
    SourceError
        The stream is of texts; `names` are not as many as its columns; a needed channel's unit is not known and `unit`
        is not given, or is no unit; EEG or MEG without a rate.
    """
    name = info.name()
    if info.channel_format() == TEXT:
        raise SourceError(
            f"stream {name!r} carries texts, no samples: it can be a marker stream only; name the amplifier's as source"
        )
    desc = info.desc()
    table = read_channels(info, unit, kind, needed, names)
    replay = desc.child("replay")
    declared = float(info.nominal_srate())
    rate = sfreq or float(replay.child_value("sfreq") or declared)
    if not rate and (sampled := sorted(SAMPLED.intersection(table.channels.kinds))):
        raise SourceError(
            f"stream {name!r} holds {', '.join(sampled)} but declares no rate (0 Hz): state the true one in Hz as "
            "source.sfreq"
        )
    return Source(
        name=name,
        type=info.type(),
        source_id=info.source_id(),
        description=desc.child_value("description"),
        hostname=info.hostname(),
        channels=table.channels,
        factors=table.factors,
        sfreq=rate,
        speed=float(replay.child_value("speed") or 1.0),
        samples=int(replay.child_value("samples") or 0) or None,
        declared=declared,
        units_given=table.units_given,
        warnings=table.warnings,
    )
