"""What beginners write in a config: what can mean one thing only is taken so, the rest is told with what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minddiffuser.config.yamlfile import Place
from stream.types.units import KINDS, UNIT_OF_KIND

FACTORS = {
    "s": {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "milliseconds": 1e-3},
    "Hz": {"hz": 1.0, "khz": 1e3},
    "V": {"v": 1.0, "mv": 1e-3, "uv": 1e-6, "microvolt": 1e-6, "microvolts": 1e-6},
}
"""What a number is multiplied by to get the unit of its key, by how people write it."""
NAMES = {"s": "seconds", "Hz": "hertz", "V": "volts"}
UNIT_OF_KEY = {
    ("window", "tmin"): "s", ("window", "tmax"): "s", ("window", "step"): "s", ("window", "baseline"): "s",
    ("window", "delay"): "s",
       ("data", "soa"): "s", ("source", "timeout_s"): "s", ("source", "buffer_s"): "s", ("source", "sfreq"): "Hz",
    ("filters", "highpass"): "Hz", ("filters", "lowpass"): "Hz", ("filters", "notch"): "Hz",
    ("filters", "resample"): "Hz", ("filters", "reject_peak_to_peak"): "V", ("filters", "flat"): "V",
}  # fmt: skip
LIMITS = ("reject_peak_to_peak", "flat")
LARGEST = {"V": 0.02, "T": 1e-8, "T/m": 1e-6}
"""A peak-to-peak limit above it is in another unit: electrodes saturate before, magnetometers too."""
SCALES = {"V": (1e-6, 1e-3), "T": (1e-15, 1e-12), "T/m": (1e-13, 1e-12)}
"""What people write such limits in, the likeliest first, in the SI unit."""
STEPS = ("highpass", "lowpass", "notch", "reference", "resample", "drift", "percent_signal")
NOTHING = {"none", "off", "no", "null", "false", ""}
AVERAGE = {"average", "avg", "car", "common average", "common average reference"}
PATHS = {("data", "train"), ("data", "live"), ("data", "stimuli"), ("data", "image_bank"), ("archive", "folder"),
         ("labels",), ("engine", "models")}  # fmt: skip

_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zµμ]+)\s*")


def as_meant(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a config with what can mean one thing only in the form that the schema has.

    Kinds of channels in capitals ('EEG'), one channel, frequency or reference that is not in a list, other names of the
    average reference, and '~/' for the user's folder.
    """
    out = {key: _at_home(value) for key, value in raw.items()}
    if isinstance(filters := out.get("filters"), dict):
        out["filters"] = _filters(filters)
    if isinstance(candidates := out.get("candidates"), list):
        out["candidates"] = [as_meant(each) if isinstance(each, dict) else each for each in candidates]
    return out


def _at_home(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _at_home(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_at_home(inner) for inner in value]
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~/") else value


def _filters(filters: dict[str, Any]) -> dict[str, Any]:
    out = dict(filters)
    if isinstance(channels := filters.get("channels"), str):
        channels = [part.strip() for part in channels.strip("[] ").split(",")]
    if isinstance(channels, list):
        out["channels"] = [_kind(each) for each in channels]
    for key in LIMITS:
        if isinstance(limits := filters.get(key), dict):
            out[key] = {_kind(kind): limit for kind, limit in limits.items()}
    if isinstance(mains := filters.get("notch"), int | float) and not isinstance(mains, bool) and mains:
        out["notch"] = [mains]
    if isinstance(reference := filters.get("reference"), str) and reference.casefold() not in NOTHING:
        if reference.casefold() in AVERAGE:
            out["reference"] = "average"
        elif not difflib.get_close_matches(reference.casefold(), ["average"]):
            out["reference"] = [part.strip() for part in reference.split(",")]
    return out


def _kind(name: object) -> object:
    return name.casefold() if isinstance(name, str) and name.casefold() in KINDS else name


def mistake(raw: dict[str, Any]) -> tuple[Place, str] | None:
    """Find the first value that was meant otherwise than it stands there; where it is, and what to write."""
    parts: list[tuple[Place, object]] = [((), raw)]
    if isinstance(candidates := raw.get("candidates"), list):
        parts += [(("candidates", number), each) for number, each in enumerate(candidates)]
    found = (
        ((*above, *place), words)
        for above, part in parts
        if isinstance(part, dict)
        for check in (_switched_off, _units, _rates, _paths)
        for place, words in check(part)
    )
    return next(found, None)


def _switched_off(raw: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Find steps that are switched off by a value instead of being left out."""
    filters = _section(raw, "filters")
    for key in STEPS:
        value = filters.get(key, 1)
        off = value is False or (isinstance(value, int | float) and value == 0)
        if off or (isinstance(value, str) and value.casefold().strip() in NOTHING):
            shown = repr(value).casefold() if isinstance(value, bool) else repr(value)
            yield ("filters", key), f"is {shown}; for no {key} take the line out, or write null"


def _units(raw: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Find numbers with a unit behind them, and amplitude limits in another unit than SI's."""
    for (part, key), unit in UNIT_OF_KEY.items():
        for place, value in _leaves(_section(raw, part).get(key), (part, key)):
            if (meant := _quantity(value, unit)) is not None:
                yield place, f"is {value!r}: {NAMES[unit]}, without a unit; did you mean {number(meant)}?"
    filters = _section(raw, "filters")
    for key in LIMITS:
        yield from _limits(filters.get(key), ("filters", key))


def _limits(limits: object, place: Place) -> Iterator[tuple[Place, str]]:
    if (value := _float(limits)) is not None and not isinstance(limits, bool):
        meant = _in_si(value, "V") if value > LARGEST["V"] else value
        yield place, f"is {limits}: volts, by kind of channel; did you mean {{eeg: {number(meant)}}}?"
    for kind, limit in limits.items() if isinstance(limits, dict) else ():
        unit = UNIT_OF_KIND.get(str(kind))
        if str(kind) not in KINDS:
            near = difflib.get_close_matches(str(kind).casefold(), sorted(KINDS), 1)
            hint = f"did you mean '{near[0]}'?" if near else "kinds are eeg, eog, ecg, emg, mag, grad and others"
            yield (*place, str(kind)), f"is no kind of channel; {hint}"
        elif unit and (value := _float(limit)) is not None and value > LARGEST[unit]:
            name = {"V": "volts", "T": "tesla"}.get(unit, unit)
            yield (*place, str(kind)), f"is {limit}: {name}; did you mean {number(_in_si(value, unit))}?"


def _in_si(value: float, unit: str) -> float:
    return next((v for scale in SCALES[unit] if (v := value * scale) >= SCALES[unit][0]), value * SCALES[unit][-1])


def _rates(raw: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Find filter edges that a stated rate cannot hold."""
    filters, rate = _section(raw, "filters"), _float(_section(raw, "source").get("sfreq"))
    if not rate or rate <= 0:
        return
    for key in ("highpass", "lowpass", "notch"):
        for place, value in _leaves(filters.get(key), ("filters", key)):
            if (edge := _float(value)) is not None and edge >= rate / 2:
                yield place, f"is {edge:g}: at {rate:g} Hz (source.sfreq) it must be below {rate / 2:g} Hz"


def _paths(raw: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    r"""Find Windows paths whose backslashes were read as something else: 'C:\new' in double quotes has a line break."""
    for place, value in _leaves({key: raw[key] for key in raw if key != "candidates"}, ()):
        inside = any(place[: len(path)] == path for path in PATHS)
        if inside and isinstance(value, str) and any(ord(letter) < 32 and letter != "\0" for letter in value):
            shown = value.encode("unicode_escape").decode()
            yield place, f"holds a control character ({shown}): write the path with / or in single quotes ('C:\\...')"


def _section(raw: dict[str, Any], name: str) -> dict[str, Any]:
    return found if isinstance(found := raw.get(name), dict) else {}


def _leaves(value: object, place: Place) -> Iterator[tuple[Place, object]]:
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _leaves(inner, (*place, key if isinstance(key, int) else str(key)))
    else:
        yield place, value


def _quantity(value: object, unit: str) -> float | None:
    """Return what a text such as '600 ms' is in the unit of its key; None where it is none."""
    if not isinstance(value, str) or not (found := _QUANTITY.fullmatch(value)):
        return None
    factor = FACTORS[unit].get(found[2].casefold().replace("µ", "u").replace("μ", "u"))
    return None if factor is None else float(found[1]) * factor


def _float(value: object) -> float | None:
    """Return a number, also one that YAML takes for a text ('200e-6')."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def number(value: float) -> str:
    """Write a number as people do in a config: 0.6, 200e-6."""
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:g}"
    power = next((p for p in (6, 9, 12, 15, 18) if abs(value) * 10**p >= 1), 18)
    return f"{float(f'{value * 10**power:.6g}'):g}e-{power}"
