"""Which streams are meant, and how they are read where they do not tell the truth about themselves."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from stream.errors import StreamError
from stream.types.units import si_unit

NOTES = "minddiffuser-notes"
"""Name of the marker stream of the experimenter's notes; it is chosen only by name, and marks no picture."""


_MARKER_TYPE = re.compile(r"(string|text)?(marker|event|trigger|trg|stim|stimulus|stimuli|annotation)s?(stream)?")


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
    channel_names: tuple[str, ...] = ()
    """Names of all columns in their order, where the metadata give none ('Fz', 'Cz', 'Counter'): electrodes of the
    10-05 system are EEG."""
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
        """True if it states which stream."""
        return bool(self.name or self.type or self.source_id or self.properties)


def _listed_selectors(value: object) -> object:
    """Convert one marker stream to a list of one, and a text to the name of one."""
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


def is_marker_type(type_text: str) -> bool:
    """Return whether a stream type names markers: 'Markers', 'marker', 'Events', 'StringMarker', 'Trigger', 'Stim' ...

    Live and in files. A stream of texts is a marker stream whatever its type.
    """
    return _MARKER_TYPE.fullmatch(re.sub(r"[^a-z]", "", type_text.casefold())) is not None
