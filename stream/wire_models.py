"""What a meta, a status and a metrics message may hold: one strict model for all who read them.

Checked twice. First as JSON: UTF-8, an object, no key twice, no NaN or infinity, integers of 64 bits, text that is
Unicode, `MAX_DEPTH` levels and `MAX_VALUES` values at most. Then, by kind, every field that a display, a subscriber, an
archive, the terminal or the page reads. Fields that are not named here pass: users add their own.
"""

import json
import math
from typing import Annotated, Any, Literal

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
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Scalar = bool | int | float | str | None
Numbers = dict[str, Number | None]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, frozen=True)


class Event(_Wire):
    """The event of a window."""

    label: Text | None = None
    code: Scalar = None
    time: Number | None = None


class Meta(_Wire):
    """What goes with a picture, or in place of one."""

    window_id: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    stage: Literal["original", "preview", "picture", "abstained"]
    sha256: dict[Literal["original", "preview", "picture"], Digest]
    n: Count | None = None
    times: Numbers | None = None
    event: Event | Text | None = None
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    categories: Numbers | None = None
    steps_ms: Numbers | None = None
    data: Line | None = None
    config: Line | None = None
    reason: Line | None = None
    backend: Line | None = None
    caption: Text | None = None
    seed: Scalar = None
    models: dict[str, Scalar] | None = None
    samples_lost: Number | None = None


class Status(_Wire):
    """What a session is doing."""

    state: Line | None = None
    detail: Line | None = None
    data: Line | None = None
    config: Line | None = None
    time: Number | None = None


class Gap(_Wire):
    """A hole in a stream."""

    start: Number | None = None
    length: Number | None = None
    lost: Number | None = None


class Account(_Wire):
    """The account of an ingest, or of one of its streams."""

    state: Line | None = None
    samples: Number | None = None
    lost: Number | None = None
    bad: Number | None = None
    gap_count: Number | None = None
    gaps: list[Gap] | None = None
    disconnections: Number | None = None
    declared_hz: Number | None = None
    measured_hz: Number | None = None
    drift_ppm: Number | None = None


class Ingest(Account):
    """What came of samples and markers."""

    events: Number | None = None
    doubled: Number | None = None
    ignored: Number | None = None
    unmade: Number | None = None
    pending: Number | None = None
    windows: Number | None = None
    rejected: Number | None = None
    overruns: Number | None = None
    channel_rms: dict[str, float | None] | None = None
    streams: dict[str, Account] | None = None
    problems: Annotated[list[Line], Field(max_length=1000)] | None = None


class Metrics(_Wire):
    """What was measured lately."""

    time: Number | None = None
    ingest: Ingest | None = None
    rates: Numbers | None = None
    queues: Numbers | None = None
    drops: Numbers | None = None
    latency_ms: dict[str, Numbers] | None = None


def printable(text: str, length: int = 200) -> str:
    """Return the start of a text from outside without what could move a cursor, ring a bell or break a line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:length])


MODELS: dict[str, type[_Wire]] = {"meta": Meta, "status": Status, "metrics": Metrics}


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


def read(kind: str, payload: bytes, what: str) -> dict[str, Any]:
    """Read a message of a kind and check it against that kind's model, if there is one.

    Returns
    -------
    dict
        As published, unknown fields included.

    Raises
    ------
    WireError
        It does not fit.
    """
    value = read_json(payload, what)
    if (model := MODELS.get(kind)) is not None:
        try:
            model.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            path = [str(part) for part in first["loc"]]
            where = printable(".".join(path), 100)
            words = f"{what}: {where} is {first['input']!r:.100}: {first['msg']}"
            raise WireError(path[0], words) from None
    return value


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
