"""One value set in a config file of a person's, all else as it stands there: comments, order and spelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from minddiffuser.config.yamlfile import read_yaml
from minddiffuser.errors import ConfigError
from stream.atomic import write_whole


def set_value(path: Path, section: str, key: str, value: float, comment: str) -> None:
    """Set `section.key` of a config file, in place of an earlier value or as a new line.

    Parameters
    ----------
    path : Path
    section, key : str
    value : float
    comment : str
        Behind the value, where a comment can stand.

    Raises
    ------
    ConfigError
        The file is written in a way that leaves no place for it; names the line to add by hand. Nothing is changed.
    """
    before = read_yaml(path).values
    if not path.is_file():
        raise ConfigError(f"{path}: is a config that is shipped, and stays as it is; take a copy of your own")
    text = path.read_text("utf-8-sig")
    changed = _changed(text, section, key, f"{value:g}", comment)
    wanted = {**before, section: {**(before.get(section) or {}), key: value}}
    if changed is None or _values(changed) != wanted:
        raise ConfigError(
            f"{path}: cannot be changed without retouching it; add by hand {section}: {{{key}: {value:g}}}"
        )
    write_whole(path, changed)


def _values(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _changed(text: str, section: str, key: str, value: str, comment: str) -> str | None:
    """Return the text with the value in it; None where there is no place for it."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return None
    parts = {str(name.value): part for name, part in root.value}
    if section not in parts:
        end = "" if text.endswith("\n") else "\n"
        return f"{text}{end}{section}:\n  {key}: {value}  # {comment}\n"
    part = parts[section]
    if not isinstance(part, yaml.MappingNode) or part.start_mark.index < root.start_mark.index:
        return None
    old = next((node for name, node in part.value if name.value == key), None)
    if old is not None:
        return text[: old.start_mark.index] + value + text[old.end_mark.index :]
    start = part.start_mark.index
    if part.flow_style:
        rest = ", " if part.value else ""
        return f"{text[: start + 1]}{key}: {value}{rest}{text[start + 1 :]}"
    return f"{text[:start]}{key}: {value}  # {comment}\n{' ' * part.start_mark.column}{text[start:]}"
