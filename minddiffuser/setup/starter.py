"""A new config from what streams, or from the recipe of a headset: a draft with its reasons, written as YAML."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from minddiffuser.config.spec import parse_config
from minddiffuser.errors import ConfigError
from minddiffuser.setup.recipes import Draft, from_headset, recipe_of
from stream.atomic import write_whole

if TYPE_CHECKING:
    from minddiffuser.setup.starter_streams import Running

LEAST_FOR_AVERAGE = 6
"""Electrodes below which their average is too much of each of them to be a reference."""


def from_stream(stream: Running, markers: list[str]) -> Draft:
    """Draft a config from a running stream, and from the recipe of its app where there is one."""
    source = stream.source
    recipe = recipe_of(source.name, len(source.channels))
    draft = from_headset(recipe) if recipe else Draft({"data": {"dataset": "recording"}, "source": {}, "filters": {}})
    kept = draft.values.get("source", {})
    draft.values["source"] = {}
    draft.set("source", "name", source.name, f"as it ran: {stream}")
    if stream.twin_names:
        draft.set("source", "type", source.type, "other streams bear the same name")
    if stream.unit:
        draft.set("source", "unit", stream.unit, "the stream states none; in another one, such numbers are no EEG")
    if stream.names:
        draft.set(
            "source",
            "channel_names",
            list(stream.names),
            "the stream names none: say where your electrodes are, in order",
        )
    if "channels" not in draft.values["filters"]:
        others = [n for n, k in zip(source.channels.names, source.channels.kinds, strict=True) if k not in stream.kinds]
        reason = f"without {', '.join(others[:8])}{' ...' if len(others) > 8 else ''}" if others else ""
        draft.set("filters", "channels", list(stream.kinds), reason)
    own = [name for name in markers if name.casefold() == f"{source.name}-markers".casefold()]
    if "markers" in kept or (len(markers) > 1 and not own):
        # One stream, or the source's own, is found without being named.
        named = kept.get("markers") if not markers else {"name": markers[0]}
        draft.set("source", "markers", named, f"ran beside it: {', '.join(markers)}" if markers else "")
    draft.set("filters", "notch", None)
    draft.mains, draft.markers = stream.mains, tuple(markers)
    if len(markers) == 1 or own:
        draft.about.append(f"Its markers are the stream {(own or markers)[0]!r}, which is found without being named.")
    draft.electrodes = sum(kind == "eeg" for kind in source.channels.kinds)
    return draft


def complete(
    draft: Draft, *, name: str, mains: int | None, measured: bool, reference: str, train: str, stimuli: str
) -> None:
    """Enter the answers into a draft.

    Parameters
    ----------
    draft : Draft
    name : str
        Of the config, the bundle and the session.
    mains : int or None
        Mains frequency to take out in Hz; None: none.
    measured : bool
        Whether its hum was seen.
    reference : str
        'average', 'none' for as it was recorded, or names of channels with a comma between.
    train, stimuli : str
        Calibration recording and folder of pictures.
    """
    draft.values = {"name": name, **{key: value for key, value in draft.values.items() if key != "name"}}
    draft.values["publish"] = {"session": name}
    draft.set("data", "train", train, "recorded while the pictures were shown, with a marker each")
    draft.set("data", "stimuli", stimuli, "folder with stimuli.csv (columns file, caption) and the pictures")
    why = "its hum was seen in the signal" if measured else "50 in most of the world, 60 in the Americas"
    draft.set("filters", "notch", [mains] if mains else [], why if mains else "")
    names = [part.strip() for part in reference.split(",")]
    draft.set("filters", "reference", "average" if reference == "average" else names)
    if reference == "none":
        draft.values["filters"]["reference"] = None


def text_of(draft: Draft, origin: str) -> str:
    """Return a draft as YAML that loads: only what differs from the defaults, with its reasons.

    Raises
    ------
    minddiffuser.errors.ConfigError
        It would be no valid config.
    """
    values = _without_defaults(draft.values, origin)
    lines = [line for paragraph in draft.about for line in _comment(paragraph, "")]
    lines += _comment("Only what differs from the defaults stands here; docs/README.md says what else there is.", "")
    for part, value in values.items():
        if not isinstance(value, dict) or not value:
            lines.append(f"{part}: {_flow(value)}")
            continue
        lines.append(f"{part}:")
        for key, inner in value.items():
            lines += _comment(draft.reasons.get((part, key), ""), "  ")
            lines.append(f"  {key}: {_flow(inner)}")
    text = "\n".join(lines) + "\n"
    parse_config(yaml.safe_load(text), origin)
    return text


def write(draft: Draft, path: Path) -> None:
    """Write a draft, whole or not at all.

    Raises
    ------
    minddiffuser.errors.ConfigError
        It would be no valid config.
    """
    write_whole(path, text_of(draft, str(path)))


def _without_defaults(values: dict[str, Any], origin: str) -> dict[str, Any]:
    """Leave out of a config whatever it is the same config without.

    Raises
    ------
    minddiffuser.errors.ConfigError
        It is no valid config.
    """
    config, out = parse_config(values, origin), dict(values)
    places = [(part, key) for part, section in values.items() if isinstance(section, dict) for key in section]
    for part, key in [*places, *((part, None) for part in values)]:
        less = {name: section for name, section in out.items() if key or name != part}
        if key:
            less[part] = {name: value for name, value in out[part].items() if name != key}
        with suppress(ConfigError):  # it cannot do without
            out = less if parse_config(less, origin) == config else out
    return out


def _comment(text: str, indent: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 118, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()


def name_from(path: Path) -> str:
    """Return a name for a config, its bundle and its session from the name of its file."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-.")[:64] or "own"
