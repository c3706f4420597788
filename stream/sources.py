"""Streams of the Lab Streaming Layer: which one is meant, and what its metadata say."""

import difflib
import logging
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from stream.errors import SourceError, StreamError
from stream.metadata import NO_TYPE, read_channels
from stream.units import si_unit
from stream.windows import Channels

LOG = logging.getLogger(__name__)
LOOK_S = 1.0  # how long every look-around collects answers; shorter ones miss streams

TEXT = 3  # pylsl.cf_string, known here without liblsl
SAMPLED = {"eeg", "mag", "grad", "ref_meg", "seeg", "ecog", "dbs"}  # kinds that are nothing without a rate
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


class ReadingSpec(StreamSelector):
    """A stream, and how to read it where it does not tell the truth about itself."""

    unit: str | None = None
    """The unit of all channels, where the metadata do not state one that is known."""
    sfreq: float | None = Field(None, gt=0, le=1e6)
    """The true rate in Hz, where the stream declares none or a wrong one."""
    stamps: Literal["source", "arrival"] = "source"
    """Whose time stamps: the stream's own, or, where these are of another clock than LSL's, the time of arrival here.
    On arrival all samples are late by the way from the device, and a loss on the way is seen as a delay only."""

    @field_validator("unit")
    @classmethod
    def _known_unit(cls, unit: str | None) -> str | None:
        if unit is not None:
            try:
                si_unit(unit, "eeg")
            except StreamError as error:
                raise ValueError(str(error)) from None
        return unit


class MarkerSelector(StreamSelector):
    """Which marker stream; with nothing set that names one, the source's own, else the only one."""

    channel: str | None = None
    """A trigger channel of the source itself, instead of a marker stream."""
    column: int | str | None = Field(None, union_mode="left_to_right")
    """Of a stream of several columns the one that names the events, by its name or its number from 1; left out, all
    columns that are not empty and no times, joined by '/'."""
    stamps: Literal["source", "arrival"] = "source"
    """Whose time stamps: the stream's own, or the time of arrival here."""

    @model_validator(mode="before")
    @classmethod
    def _of_any_selector(cls, value: object) -> object:
        return value.model_dump() if isinstance(value, StreamSelector) else value

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if (
            self.channel is not None
            and self.model_fields_set - {"channel"}
            and self != MarkerSelector(channel=self.channel)
        ):
            raise ValueError("channel names a trigger channel of the source: leave the other keys out")
        return self

    @property
    def names_stream(self) -> bool:
        """Whether it says which stream."""
        return bool(self.name or self.type or self.source_id or self.properties)


def _listed_selectors(value: object) -> object:
    """Take one marker stream for a list of one, and a text for the name of one."""
    values = () if value is None else value if isinstance(value, list | tuple) else (value,)
    return [{"name": each} if isinstance(each, str) else each for each in values]


class SourceSpec(ReadingSpec):
    """The live source of a session."""

    markers: Annotated[tuple[MarkerSelector, ...], BeforeValidator(_listed_selectors)] = ()
    """The marker stream, or several, or {channel: NAME} for a trigger channel of the source; live and in files. Left
    out, '<name>-markers', else the only marker stream, else the source's trigger channel."""
    timeout_s: float = Field(10.0, gt=0)
    """How long to look for the streams."""
    buffer_s: float = Field(30.0, gt=0, le=600)
    """Seconds kept: how late a marker may come."""
    reconnect: bool = True
    """Look for a stream again when it is lost (same source id)."""
    peers: tuple[str, ...] = ("127.0.0.1",)
    """Machines asked directly, where multicast does not reach."""


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
        over = time.monotonic() > deadline or (stop and stop.is_set())
        if chosen := only(found, selector, lsl=lsl) or (_typeless(found, selector) if over else None):
            return chosen, found
        if over:
            raise SourceError(
                f"no stream with {selector} within {timeout_s:g} s{_near(found, selector)}; found: {listed(found)}"
            )


def only(found: list[Any], selector: StreamSelector, *, lsl: Any) -> Any | None:
    """Pick the one resolved stream that a selector means; None where there is none.

    Raises
    ------
    SourceError
        Several match, or two streams carry its source id; says what was found.
    """
    chosen = chosen_among(found, selector, lsl=lsl)
    if not chosen:
        return None
    if len(chosen) > 1:
        raise SourceError(
            f"{len(chosen)} streams with {selector}; say which by name or source_id; found: {listed(found)}"
        )
    if len(twins := twins_of(chosen[0], found)) > 1:
        raise SourceError(
            f"{len(twins)} streams carry source_id {chosen[0].source_id()!r}, their samples would mix; stop one; "
            f"found: {listed(found)}"
        )
    return chosen[0]


def twins_of(one: Any, found: list[Any]) -> list[Any]:
    """Pick the resolved streams that cannot be told from one after a loss: of its source id and type.

    Devices give one source id to all of their streams (EEG, PPG, ACC): those differ in type.
    """
    key = (one.source_id(), one.type().casefold())
    return [info for info in found if key[0] and (info.source_id(), info.type().casefold()) == key]


def chosen_among(found: list[Any], selector: StreamSelector, *, lsl: Any) -> list[Any]:
    """Pick the resolved streams that a selector means; those of exactly its type before those of one much like it."""
    chosen = [info for info in found if matches(selector, info)]
    chosen = [info for info in chosen if info.type() == selector.type] or chosen
    if chosen and selector.properties:
        predicate = " and ".join(f"{key}={quoted(value)}" for key, value in selector.properties.items())
        uids = {info.uid() for info in lsl.resolve_bypred(predicate, 1, LOOK_S)}
        chosen = [info for info in chosen if info.uid() in uids]
    return chosen


def _typeless(found: list[Any], selector: StreamSelector) -> Any | None:
    """Take the only data stream for the one of a type, where it bears a type that says nothing, such as 'signal'."""
    data = [info for info in found if not is_markers(info)]
    if selector.name or selector.source_id or selector.properties or not selector.type or len(data) != 1:
        return None
    if is_marker_type(selector.type) or data[0].type().strip().casefold() not in NO_TYPE:
        return None
    LOG.warning("no stream of type %r; the only data stream is taken for it: %s", selector.type, listed(data))
    return data[0]


def _near(found: list[Any], selector: StreamSelector) -> str:
    """Name what a mistyped selector may have meant."""
    for key in ("name", "type", "source_id"):
        known = {getattr(info, key)().casefold(): getattr(info, key)() for info in found}
        wanted = (getattr(selector, key) or "").casefold()
        if (
            wanted
            and (near := difflib.get_close_matches(wanted, known, 1))
            and known[near[0]] != getattr(selector, key)
        ):
            return f"; did you mean {key} {known[near[0]]!r}?"
    return ""


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
    """Hold a resolved stream against name, type and source id (properties are liblsl's to judge).

    Types are compared in any case; every type that names markers means any marker stream.
    """
    pairs = ((selector.name, info.name()), (selector.source_id, info.source_id()))
    if any(wanted is not None and wanted != had for wanted, had in pairs):
        return False
    if selector.type is None:
        # Whoever asks for 'any stream' wants data.
        return bool(selector.name or selector.source_id) or not is_markers(info)
    same: bool = selector.type.strip().casefold() == info.type().strip().casefold()
    return same or (is_marker_type(selector.type) and is_markers(info))


def is_markers(info: Any) -> bool:
    """Return whether a resolved stream carries markers: by its type, or because it is of texts."""
    return is_marker_type(info.type()) or info.channel_format() == TEXT


def is_marker_type(type_text: str) -> bool:
    """Return whether a stream type names markers: 'Markers', 'marker', 'Events', 'StringMarker', 'Trigger', 'Stim' ...

    Live and in files. A stream of texts is a marker stream whatever its type.
    """
    return _MARKER_TYPE.fullmatch(re.sub(r"[^a-z]", "", type_text.casefold())) is not None


def quoted(value: str) -> str:
    """Quote a text for an XPath predicate."""
    return f"'{value}'" if "'" not in value else f'"{value}"'


def listed(found: list[Any]) -> str:
    """Name resolved streams with what tells them apart."""
    return "; ".join(sorted(_described(info) for info in found)) or "no stream at all"


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

    Raises
    ------
    SourceError
        The stream is of texts; a needed channel's unit is not known and `unit` is not given, or is no unit; EEG or
        MEG without a rate.
    """
    name = info.name()
    if info.channel_format() == TEXT:
        raise SourceError(
            f"stream {name!r} carries texts, no samples: it can be a marker stream only; name the amplifier's as source"
        )
    desc = info.desc()
    table = read_channels(info, unit, kind, needed)
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
