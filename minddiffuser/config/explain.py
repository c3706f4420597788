"""What is wrong with values that a schema refused, in one line of plain words."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from minddiffuser.config.yamlfile import Place

TEXT_LIMIT = 80
"""Characters of a value that are repeated in a message."""

EXPECTED = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "keys and values",
    "mapping": "keys and values",
    "model": "keys and values",
    "path": "a path",
}
"""By how the type of an error begins."""

LIMITS = {
    "greater_than": ("gt", "must be more than {}"),
    "greater_than_equal": ("ge", "must be at least {}"),
    "less_than": ("lt", "must be less than {}"),
    "less_than_equal": ("le", "must be at most {}"),
    "multiple_of": ("multiple_of", "must be a multiple of {}"),
}
LENGTHS = {
    "too_short": ("min_length", "must have at least {} entries"),
    "too_long": ("max_length", "must have at most {} entries"),
    "string_too_short": ("min_length", "must have at least {} letters"),
    "string_too_long": ("max_length", "must have at most {} letters"),
}
OTHERS = {
    "missing": "is missing",
    "invalid_key": "a key that is no text; put it in quotes, and write decimals with a point",
}
MEANT = {"stream": "name", "rate": "sfreq", "fs": "sfreq", "units": "unit"}
"""Keys as others call them, and what they are called here, where there is such a key."""
NAMES = {
    "A-Za-z0-9._-": "letters, digits, '_', '-' and, within, '.'",
    "A-Za-z0-9_.-": "letters, digits, '_', '.', '-'",
    "A-Za-z0-9_-": "letters, digits, '_', '-'",
    "A-Za-z0-9_": "letters, digits, '_'",
    "A-Za-z0-9": "letters and digits, with one '-' between them at most",
}
"""Classes of characters in our patterns, in words."""


def explain(error: ValidationError, model: type[BaseModel], raw: object) -> str:
    """Return what is wrong in one line; `raw` is what was to be validated as a `model`."""
    return explained(error, model, raw)[0]


def explained(error: ValidationError, model: type[BaseModel], raw: object) -> tuple[str, Place]:
    """Return what is wrong in one line, and where the first fault is."""
    faults: dict[Place, list[ErrorDetails]] = {}
    for one in error.errors(include_url=False):
        faults.setdefault(place_of(one, raw), []).append(one)
    # Of several alternatives, the one is meant that finds its fault deepest inside the value.
    faults = {
        at: found for at, found in faults.items() if not any(len(at) < len(o) and o[: len(at)] == at for o in faults)
    }
    place, first = next(iter(faults.items()))
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    name = " ".join(".".join(str(part) for part in place).split())[:200]
    return f"{name}: {_words(first, model, place)}{more}" if name else _words(first, model, place) + more, place


def place_of(error: ErrorDetails, raw: object) -> Place:
    """Return the keys and positions that lead to a fault, without the names of alternatives in between."""
    return tuple(_followed(raw, list(error["loc"]), missing=error["type"] == "missing"))


def _followed(raw: Any, parts: list[str | int], *, missing: bool) -> list[str | int]:
    """Follow the parts of a place into what was given; an alternative may bear the name of a key."""
    if not parts or (missing and len(parts) == 1):
        return parts
    head, *rest = parts
    beside = _followed(raw, rest, missing=missing)
    try:
        inner = (raw if isinstance(raw, dict | list | tuple) else {})[head]  # type: ignore[index]
    except (TypeError, LookupError):
        return beside
    inside = [head, *_followed(inner, rest, missing=missing)]
    return beside if beside[-1:] == rest[-1:] and inside[-1:] != parts[-1:] else inside


def not_finite(values: object, place: Place = ()) -> Place | None:
    """Find a number that is NaN or infinite in what a file holds."""
    if isinstance(values, float):
        return None if math.isfinite(values) else place
    inner = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list | tuple) else ()
    )
    found = (not_finite(value, (*place, key)) for key, value in inner)
    return next((one for one in found if one is not None), None)


def taken_for_a_number(raw: object, read: object, place: Place = ()) -> Place | None:
    """Find a yes or no that was read as a number: YAML takes 'on', 'yes' and 'no' for those."""
    if isinstance(raw, bool):
        return place if isinstance(read, int | float) and not isinstance(read, bool) else None
    if isinstance(raw, dict) and isinstance(read, dict):
        found = (taken_for_a_number(value, read.get(key), (*place, key)) for key, value in raw.items())
    elif isinstance(raw, list | tuple) and isinstance(read, list | tuple):
        found = (taken_for_a_number(*pair, (*place, n)) for n, pair in enumerate(zip(raw, read, strict=False)))
    else:
        return None
    return next((one for one in found if one is not None), None)


def _words(errors: list[ErrorDetails], model: type[BaseModel], place: Place) -> str:
    """Return what is wrong with one value, which several alternatives may have refused."""
    if any(error["type"] == "extra_forbidden" for error in errors):
        return _unknown(model, place)
    words = list(dict.fromkeys(_expected(error) or _said(error) for error in errors))
    wanted = [word for word in words if word.startswith("expected ")]
    if len(wanted) == len(words):
        both = " or ".join(word.removeprefix("expected ") for word in wanted)
        return f"expected {both}, got {_shown(errors[0]['input'])}{_hint(errors, model, place)}"
    # Of several alternatives, the one is meant whose kind of value it is.
    return next(word for word in words if not word.startswith("expected "))


def _expected(error: ErrorDetails) -> str | None:
    kind = error["type"]
    if kind.endswith(("_type", "_parsing", "_from_float", "_attributes_type", "_unicode", "_parsing_size")):
        return next((f"expected {word}" for begin, word in EXPECTED.items() if kind.startswith(begin)), None)
    return None


def _said(error: ErrorDetails) -> str:
    kind, context, value = error["type"], error.get("ctx", {}), _shown(error["input"])
    if kind in LIMITS:
        key, words = LIMITS[kind]
        return f"{words.format(context[key])}, is {value}"
    if kind in LENGTHS:
        key, words = LENGTHS[kind]
        return f"{words.format(context[key])}, is {value}"
    if kind == "literal_error":
        names = str(context["expected"])
        close = difflib.get_close_matches(str(error["input"]), re.findall("'([^']*)'", names), n=1)
        return f"must be {names}, is {value}" + (f"; did you mean '{close[0]}'?" if close else "")
    if kind == "string_pattern_mismatch":
        pattern = str(context["pattern"])
        allowed = next(words for letters, words in NAMES.items() if f"[{letters}]" in pattern)
        return f"{value} does not do: {allowed}, 64 at most"
    return OTHERS.get(kind) or " ".join(error["msg"].removeprefix("Value error, ").split())


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"{str(value).lower()} (yes or no)"
    kind = "keys and values" if isinstance(value, dict) else "a list" if isinstance(value, list | tuple) else ""
    text = repr(value) if isinstance(value, str | int | float) else str(value)
    text = " ".join(text.split())
    if len(text) > TEXT_LIMIT:
        text = text[:TEXT_LIMIT] + " ..."
    return f"{kind} ({text})" if kind else text


def _hint(errors: list[ErrorDetails], model: type[BaseModel], place: Place) -> str:
    """Return how the value is to be written, where that is a common slip."""
    value = errors[0]["input"]
    kinds = {word for error in errors if (word := _expected(error))}
    if "expected text" in kinds and not isinstance(value, dict | list | tuple | str) and value is not None:
        return "; put it in quotes"
    if isinstance(value, str) and kinds & {"expected a number", "expected a whole number"}:
        return "; decimals have a point" if _number(value.replace(",", ".")) else ""
    if value is None:
        return "; fill it in, or take the line out"
    if "expected keys and values" in kinds and place and (keys := _known_keys(model, place)):
        return f"; its keys are {', '.join(keys[:4])}{' ...' * (len(keys) > 4)}" + "; {} takes the defaults" * (
            value is True
        )
    return ""


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _unknown(model: type[BaseModel], place: Place) -> str:
    known = _known_keys(model, place[:-1])
    key = str(place[-1])
    if close := [MEANT[key]] if MEANT.get(key) in known else difflib.get_close_matches(key.casefold(), known, 1, 0.7):
        return f"unknown key; did you mean '{close[0]}'?"
    if elsewhere := list(_places_of(key, model)):
        return f"unknown key here; it belongs to {' or '.join(elsewhere[:2])}"
    return f"unknown key; known keys here: {', '.join(known)}"


def _places_of(key: str, model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Find the parts of a config that have a key."""
    for name, field in model.model_fields.items():
        for part in _models(field.annotation):
            if key in part.model_fields:
                yield f"'{above}{name}'"
            yield from _places_of(key, part, f"{above}{name}.")


def _known_keys(model: type[BaseModel], place: Place) -> list[str]:
    for part in place:
        if (field := model.model_fields.get(str(part))) is not None:
            model = next(_models(field.annotation), model)
    return list(model.model_fields)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """Find the parts of a config in a type: in a union, a list, or alone."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
