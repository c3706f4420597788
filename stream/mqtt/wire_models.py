"""What JSON messages may hold: the types of their fields, the strict models of most, and how any is read.

Checked twice. First as JSON: UTF-8, an object, no key twice, no NaN or infinity, integers of 64 bits, text that is
Unicode, `MAX_DEPTH` levels and `MAX_VALUES` values at most. Then, by the model of its topic (`stream.mqtt.topics`),
every field that a display, a subscriber, an archive, the terminal or the page reads. Fields that are not named here
pass: users add their own.
"""

import json
import math
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stream.errors import WireError

MAX_DEPTH = 8
"""Levels of objects and lists in a message, itself included."""
MAX_VALUES = 20_000
"""Values in a message, those inside others included."""
MAX_TEXT = 2**18
"""Characters of one text; a label may come from a marker of 100 kB."""
INT64 = 2**63

Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Count = Annotated[int, Field(ge=0, lt=2**53)]  # what a browser holds exactly
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Line = Annotated[str, Field(max_length=20_000)]
Name = Annotated[str, Field(max_length=200)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Scalar = bool | int | float | str | None
Numbers = dict[str, Number | None]


class Wire(BaseModel):
    """What every message, and every part of one, is: strict, and with fields of other people's beside its own."""

    model_config = ConfigDict(
        extra="allow", strict=True, allow_inf_nan=False, frozen=True, use_attribute_docstrings=True
    )


State = Literal["published", "rejected", "abstained", "dropped", "failed"]
STATES: tuple[State, ...] = get_args(State)
"""What may become of a window: its picture went out; its samples are bad, and it was not decoded; it was decoded, and
is not shown; later ones were waiting, and it was not processed; an error of the program cost it."""


class GuessCount(Wire):
    """Count of windows whose first name was the truth, of how many, and the share that chance alone gets right."""

    right: Count
    """Windows whose truth was the first name."""
    of: Count
    """Windows in all."""
    chance: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share that chance alone would tell right."""


class Likely(Wire):
    """A picture of a bank, and its probability given that the window is of one of them."""

    name: Line
    """Its name."""
    probability: Annotated[float, Field(ge=0, le=1)]
    """Given the window."""


class Retrieved(Wire):
    """Pictures of a bank that a window makes likely; nobody was shown them, and none is a reconstruction."""

    pictures: Count
    """Pictures of the bank: chance is one in so many."""
    likeliest: Annotated[list[Likely], Field(max_length=10)]
    """The likeliest first, of which the picture is published."""


class Event(Wire):
    """The event of a window."""

    label: Text | None = None
    """What the marker says: the picture's id, where it names one."""
    code: Scalar = None
    """The trigger's code."""
    time: Number | None = None
    """LSL seconds."""


class Status(Wire):
    """What a session is doing, and what it is: its participant, when it began (ISO 8601 with zone), its versions."""

    state: Line | None = None
    """starting, waiting, running, source-lost, engine-lost, ended or offline."""
    detail: Line | None = None
    """Why, for people."""
    data: Line | None = None
    """What the pictures are made from."""
    config: Line | None = None
    """Name of the config."""
    time: Number | None = None
    """LSL seconds."""
    participant: Name | None = None
    """Label of who is recorded."""
    started: Name | None = None
    """When the session began, ISO 8601 with the zone."""
    versions: dict[str, Scalar] | None = None
    """Of Python, minddiffuser, torch, models and bundle."""


FORMER_NAMES = {"unmatched": "unnamed", "incomplete": "unmade", "duplicates": "doubled"}
"""Counts of an `Ingest` and what they were called, which is still written and read for a release."""


class Gap(Wire):
    """A hole in a stream."""

    start: Number | None = None
    """LSL seconds."""
    length: Number | None = None
    """Seconds."""
    lost: Number | None = None
    """Samples."""


class Account(Wire):
    """The account of an ingest, or of one of its streams."""

    state: Line | None = None
    """waiting, streaming or lost."""
    samples: Number | None = None
    """That came."""
    lost: Number | None = None
    """That the device stamped and that never came."""
    bad: Number | None = None
    """Without a usable number."""
    gap_count: Number | None = None
    """Gaps so far."""
    gaps: list[Gap] | None = None
    """The latest gaps."""
    disconnections: Number | None = None
    """How often the stream went away."""
    declared_hz: Number | None = None
    """Rate that the stream declares."""
    measured_hz: Number | None = None
    """Rate by its time stamps."""
    drift_ppm: Number | None = None
    """Difference of the two, in parts per million."""


class Ingest(Account):
    """What came of samples and markers."""

    events: Number | None = None
    """Markers that are events."""
    duplicates: Number | None = None
    """Of `events`, the same marker again."""
    ignored: Number | None = None
    """Markers that are no events."""
    incomplete: Number | None = None
    """Events whose window lies outside what the streams still hold."""
    pending: Number | None = None
    """Events that wait for their samples."""
    unmatched: Number | None = None
    """Events whose label names no picture."""
    unnamed: Number | None = None
    """Former name of `unmatched`."""
    unmade: Number | None = None
    """Former name of `incomplete`."""
    doubled: Number | None = None
    """Former name of `duplicates`."""
    windows: Number | None = None
    """Windows cut."""
    rejected: Number | None = None
    """Of them not to be decoded."""
    overruns: Number | None = None
    """Windows lost because the buffer had gone on."""
    bad_channels: Annotated[list[Line], Field(max_length=5000)] | None = None
    """Channels that are interpolated or left out."""
    flat_channels: Annotated[list[Line], Field(max_length=5000)] | None = None
    """Channels without a signal."""
    channel_rms: dict[str, float | None] | None = None
    """Root mean square by channel, in its unit."""
    streams: dict[str, Account] | None = None
    """The account of each stream, where there are several."""
    problems: Annotated[list[Line], Field(max_length=1000)] | None = None
    """What is wrong at present, in plain words."""


class ChannelState(Wire):
    """A channel on the head: its level beside the calibration's, what is known against it, where it sits.

    `level` and `reference_level` are root mean squares in the channel's unit; `x` points to the right ear and `y` to
    the nose, 1 is the head's outline.
    """

    name: Line
    level: Number | None = None
    reference_level: Number | None = None
    unit: Name | None = None
    status: Literal["good", "bad", "unknown"] | None = None
    """True if the decoder can use it."""
    reason: Line | None = None
    """What is known against it."""
    x: Annotated[float, Field(ge=-2, le=2)] | None = None
    y: Annotated[float, Field(ge=-2, le=2)] | None = None


class Signal(Wire):
    """The signal by channel, those that the decoder takes."""

    channels: Annotated[list[ChannelState], Field(max_length=1024)] | None = None


class Notes(Wire):
    """What the experimenter noted: how many notes, and the last one (LSL time, text)."""

    count: Count
    """Notes so far."""
    time: Number | None = None
    """LSL seconds of the last one."""
    text: Line | None = None
    """Its text."""


class Rejection(Wire):
    """What became of the windows by their samples: a line, and counts by cause and channel."""

    text: Line | None = None
    """The account in one line."""
    markers: Count | None = None
    """Markers seen."""
    used: Count | None = None
    """Windows that were decoded."""
    unmatched: Count | None = None
    """Markers that name no picture."""
    interpolated: Count | None = None
    """Windows with a channel interpolated."""
    rejected: dict[str, Count] | None = None
    """Windows not decoded, by cause."""
    channels: dict[str, Count] | None = None
    """Windows not decoded, by channel."""


class Metrics(Wire):
    """What was measured lately."""

    time: Number | None = None
    """LSL seconds."""
    ingest: Ingest | None = None
    """What came in."""
    abstain_below: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least confidence that is shown."""
    signal: Signal | None = None
    """The signal by channel."""
    notes: Notes | None = None
    """The experimenter's notes."""
    rejection: Rejection | None = None
    """What became of the windows by their samples."""
    rates: Numbers | None = None
    """Pictures a second."""
    queues: Numbers | None = None
    """Windows that wait."""
    drops: Numbers | None = None
    """What was let go, by kind."""
    steps_ms: dict[str, Numbers] | None = None
    """Percentiles of each step of the engine, and of the size of batches."""
    latency_ms: dict[str, Numbers] | None = None
    """Percentiles of each step from the last sample to the broker."""


def printable(text: str, length: int = 200) -> str:
    """Return the start of a text from outside without what could move a cursor, ring a bell or break a line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:length])


def read_json(payload: bytes, what: str, *, depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Read a JSON object that somebody else wrote.

    Parameters
    ----------
    payload : bytes
    what : str
        The errors begin with it.
    depth : int
        Levels that are allowed.

    Raises
    ------
    WireError
        It is no JSON object, or beyond the bounds above.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            raise WireError("key twice", f"{what}: a key stands twice in one object")
        return value

    def forbid(token: str) -> None:
        raise WireError("number", f"{what}: {token} is no JSON number")

    try:
        value = json.loads(payload.decode(), object_pairs_hook=unique, parse_constant=forbid)
    except UnicodeDecodeError as error:
        raise WireError("not UTF-8", f"{what}: not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise WireError("depth", f"{what}: nested deeper than {depth} levels") from None
    except ValueError as error:
        raise WireError("not JSON", f"{what}: not JSON ({str(error).splitlines()[0][:200]})") from None
    if not isinstance(value, dict):
        raise WireError("not an object", f"{what}: a JSON object is expected")
    _check_bounds(value, what, depth)
    return value


def check_fields(model: type[Wire], value: dict[str, Any], what: str) -> None:
    """Check a message against a model; the errors begin with `what`.

    Raises
    ------
    WireError
        It does not fit.
    """
    try:
        model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        path = [str(part) for part in first["loc"]]
        where = printable(".".join(path), 100)
        words = f"{what}: {where} is {first['input']!r:.100}: {first['msg']}"
        raise WireError(path[0], words) from None


def _check_bounds(value: Any, what: str, depth: int) -> None:
    """Check every value inside a value, without recursion."""
    waiting, count = [(value, 1)], 0
    while waiting:
        inner, level = waiting.pop()
        count += 1
        if count + len(waiting) > MAX_VALUES:
            raise WireError("values", f"{what}: more than {MAX_VALUES} values")
        if isinstance(inner, dict | list):
            if level > depth:
                raise WireError("depth", f"{what}: nested deeper than {depth} levels")
            for item in inner.values() if isinstance(inner, dict) else inner:
                waiting.append((item, level + 1))  # noqa: PERF401  a comprehension would hold them all before the check
            if isinstance(inner, dict):
                for key in inner:
                    _check_text(key, what)
        elif isinstance(inner, str):
            _check_text(inner, what)
        elif isinstance(inner, float):
            if not math.isfinite(inner):
                raise WireError("number", f"{what}: a number beyond those of 64 bits")
        elif isinstance(inner, int) and not -INT64 <= inner < INT64:
            raise WireError("number", f"{what}: an integer beyond those of 64 bits")


def _check_text(text: str, what: str) -> None:
    if len(text) > MAX_TEXT:
        raise WireError("text", f"{what}: a text of {len(text)} characters; {MAX_TEXT} are the most")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise WireError("text", f"{what}: a text holds half of a surrogate pair, which is no character") from None
