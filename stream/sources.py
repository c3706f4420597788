"""Streams of the Lab Streaming Layer: which one is meant, and what its metadata say."""

import logging
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from stream.errors import SourceError, StreamError
from stream.montage import montage_of
from stream.units import channel_kind, number_name, si_unit
from stream.windows import Channels

LOG = logging.getLogger(__name__)
LOOK_S = 1.0  # how long every look-around collects answers; shorter ones miss streams

_MARKER_TYPE = re.compile(r"(string|text)?(marker|event|trigger|trg|stim|stimulus|stimuli|annotation)s?(stream)?")

_configured = threading.Lock()
_peers: tuple[str, ...] | None = None


class StreamSelector(BaseModel):
    """Which LSL stream: everything that is set must match."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str | None = None
    """Stream name."""
    type: str | None = None
    """Stream type ('EEG', 'MEG', 'fMRI', 'Markers')."""
    source_id: str | None = None
    """Source id."""
    properties: dict[str, str] = Field(default_factory=dict)
    """Any other metadata by its path ('desc/manufacturer')."""

    def __str__(self) -> str:
        parts = {"name": self.name, "type": self.type, "source_id": self.source_id, **self.properties}
        return ", ".join(f"{key} {value!r}" for key, value in parts.items() if value is not None) or "any stream"


class SourceSpec(StreamSelector):
    """The live source of a session."""

    markers: StreamSelector | tuple[StreamSelector, ...] | None = None
    """The marker stream, or several; left out, '<name>-markers', else the only stream of type 'Markers'."""
    unit: str | None = None
    """The unit of all channels, where the metadata do not state one that is known."""
    timeout_s: float = Field(10.0, gt=0)
    """How long to look for the streams."""
    buffer_s: float = Field(30.0, gt=0, le=600)
    """Seconds kept: how late a marker may come."""
    reconnect: bool = True
    """Look for the source again when it is lost (same source id)."""
    peers: tuple[str, ...] = ("127.0.0.1",)
    """Machines asked directly, where multicast does not reach."""

    @property
    def marker_selectors(self) -> list[StreamSelector]:
        """The marker streams that are named."""
        named = self.markers or ()
        return [named] if isinstance(named, StreamSelector) else list(named)


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
        Of the source: what a replay declares in desc/replay/sfreq, else the nominal rate.
    speed : float
        Source seconds per second of the LSL clock.
    samples : int or None
        After how many the stream ends by itself, where a replay says so.
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
            own = [Path("lsl_api.cfg"), Path.home() / "lsl_api" / "lsl_api.cfg"]
            if "LSLAPICFG" not in os.environ and not any(path.is_file() for path in own):
                pylsl.set_config_content(f"[lab]\nKnownPeers = {{{', '.join(peers)}}}\n[log]\nlevel = -3\n")
        elif set(peers) - set(_peers):
            LOG.warning("known peers %s come too late: liblsl already runs with %s", peers, _peers)
    return pylsl


def find(selector: StreamSelector, timeout_s: float, *, lsl: Any, stop: threading.Event | None = None) -> Any:
    """Resolve exactly one stream; see `find_among`."""
    return find_among(None, selector, timeout_s, lsl=lsl, stop=stop)[0]


def find_among(
    seen: list[Any] | None,
    selector: StreamSelector,
    timeout_s: float,
    *,
    lsl: Any,
    stop: threading.Event | None = None,
) -> tuple[Any, list[Any]]:
    """Resolve exactly one stream.

    Parameters
    ----------
    seen : list of pylsl.StreamInfo, optional
        What a look-around just now found; without a match in it there is another one.
    selector : StreamSelector
    timeout_s : float
    lsl : module
    stop : threading.Event, optional

    Returns
    -------
    info : pylsl.StreamInfo
    found : list of pylsl.StreamInfo
        Of the last look-around.

    Raises
    ------
    SourceError
        None or several match, or two streams carry the same source id; says what was found.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found, seen = lsl.resolve_streams(LOOK_S) if seen is None else seen, None
        chosen = chosen_among(found, selector, lsl=lsl)
        if chosen or time.monotonic() > deadline or (stop and stop.is_set()):
            break
    listed = "; ".join(sorted(_described(info) for info in found)) or "no stream at all"
    if not chosen:
        raise SourceError(f"no stream with {selector} within {timeout_s:g} s; found: {listed}")
    if len(chosen) > 1:
        raise SourceError(f"{len(chosen)} streams with {selector}; say which by name or source_id; found: {listed}")
    source_id = chosen[0].source_id()
    twins = [info for info in found if source_id and info.source_id() == source_id]
    if len(twins) > 1:
        raise SourceError(
            f"{len(twins)} streams carry source_id {source_id!r}, their samples would mix; stop one; found: {listed}"
        )
    return chosen[0], found


def chosen_among(found: list[Any], selector: StreamSelector, *, lsl: Any) -> list[Any]:
    """Pick the resolved streams that a selector means."""
    chosen = [info for info in found if matches(selector, info)]
    if chosen and selector.properties:
        predicate = " and ".join(f"{key}={_quoted(value)}" for key, value in selector.properties.items())
        uids = {info.uid() for info in lsl.resolve_bypred(predicate, 1, LOOK_S)}
        chosen = [info for info in chosen if info.uid() in uids]
    return chosen


def selector(text: str) -> StreamSelector:
    """Read a selector from a command line: a name, or 'type=EEG,source_id=x' (other keys are metadata paths).

    Raises
    ------
    SourceError
        A part has no '='.
    """
    if "=" not in text:
        return StreamSelector(name=text)
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    if not all(key and value for key, value in pairs):
        raise SourceError(f"stream {text!r}: wanted a name, or key=value pairs such as type=EEG,source_id=amp1")
    known = {key: value for key, value in pairs if key in {"name", "type", "source_id"}}
    return StreamSelector(**known, properties={key: value for key, value in pairs if key not in known})


def matches(selector: StreamSelector, info: Any) -> bool:
    """Hold a resolved stream against name, type and source id (properties are liblsl's to judge)."""
    pairs = ((selector.name, info.name()), (selector.type, info.type()), (selector.source_id, info.source_id()))
    # Whoever asks for 'any stream' wants data.
    wants_data = not (selector.name or selector.type or selector.source_id)
    return all(wanted is None or wanted == had for wanted, had in pairs) and not (
        wants_data and info.type() == "Markers"
    )


def is_marker_type(type_text: str) -> bool:
    """Return whether a stream type names markers: 'Markers', 'marker', 'Events', 'StringMarker', 'Trigger', 'Stim' ...

    Live and in files. A stream of texts is a marker stream whatever its type.
    """
    return _MARKER_TYPE.fullmatch(re.sub(r"[^a-z]", "", type_text.casefold())) is not None


def _quoted(value: str) -> str:
    return f"'{value}'" if "'" not in value else f'"{value}"'


def _described(info: Any) -> str:
    rate = f"{info.nominal_srate():g} Hz" if info.nominal_srate() else "irregular"
    return (
        f"{info.name()} (type {info.type()}, {info.channel_count()} channels, {rate}, source_id {info.source_id()!r})"
    )


def describe(info: Any, unit: str | None) -> Source:
    """Read a full stream description.

    Parameters
    ----------
    info : pylsl.StreamInfo
        As an inlet's `info()` gives it (a resolved one has no metadata).
    unit : str, optional
        Unit of all channels, where the metadata do not say.

    Raises
    ------
    SourceError
        A data channel's unit is not known and `unit` is not given, or channel names are doubled.
    """
    desc = info.desc()
    kind = channel_kind(info.type())
    names, kinds, units, factors, nodes = [], [], [], [], []
    node = desc.child("channels").child("channel")
    for i in range(info.channel_count()):
        names.append(node.child_value("label") or number_name(info.type(), i))
        kinds.append(channel_kind(node.child_value("type")) if node.child_value("type") else kind)
        try:
            si, factor = _unit(node.child_value("unit"), unit, kinds[-1])
        except StreamError as error:
            raise SourceError(f"stream {info.name()!r}, channel {names[-1]}: {error} as source.unit") from None
        units.append(si)
        factors.append(factor)
        nodes.append(node)
        node = node.next_sibling("channel")
    if len(set(names)) < len(names):
        raise SourceError(f"stream {info.name()!r} has channels of the same name: {', '.join(sorted(names))}")
    montage = montage_of(
        names,
        lambda i, key: str(nodes[i].child_value(key)),
        lambda i, axis: str(nodes[i].child("location").child_value(axis)),
        str(desc.child("reference").child_value("label")),
    )
    replay = desc.child("replay")
    return Source(
        name=info.name(),
        type=info.type(),
        source_id=info.source_id(),
        description=desc.child_value("description"),
        hostname=info.hostname(),
        channels=Channels(tuple(names), tuple(kinds), tuple(units), montage),
        factors=np.array(factors),
        sfreq=float(replay.child_value("sfreq") or info.nominal_srate()),
        speed=float(replay.child_value("speed") or 1.0),
        samples=int(replay.child_value("samples") or 0) or None,
    )


def _unit(text: str, stated: str | None, kind: str) -> tuple[str, float]:
    """Take the stream's own unit if it is known, else the config's; trigger and auxiliary channels may have none."""
    try:
        return si_unit(text, kind)
    except StreamError:
        if stated is None and kind in {"misc", "stim"}:
            return "count", 1.0
        return si_unit(stated or text, kind)
