"""YAML files of people: what is wrong with one is told in plain words, with the line it is in."""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from minddiffuser.errors import ConfigError
from minddiffuser.shipped import CONFIGS, config_file
from stream.files.signatures import known_form

SIZE_LIMIT = 1_000_000
"""Bytes; a config is a page or two, anything larger is the wrong file."""
VALUES_LIMIT = 100_000
"""Values in all, those that aliases repeat among them: a few lines of aliases can stand for billions."""

MERGE = "tag:yaml.org,2002:merge"
"""Of the key '<<', whose values the others may set anew."""

Place = tuple[str | int, ...]
"""Keys and positions in lists that lead to a value."""

BACKSLASH = "a backslash in double quotes; write the path with / or in single quotes ('C:\\data\\a.xdf')"
PLAIN = {
    "found character '\\t'": "a tab; indent with spaces",
    "mapping values are not allowed": "a ':' where none can be; is the line indented as those around it, or is a "
    "text with ': ' to be put in quotes?",
    "could not find expected ':'": "a key without ':'",
    "expected <block end>": "indented otherwise than the lines it belongs to",
    "found duplicate anchor": "an anchor (&name) that is there already",
    "found undefined alias": "an alias (*name) of no anchor",
    "found unknown escape character": BACKSLASH,
    "expected escape sequence": BACKSLASH,
    "found unexpected end of stream": "the file ends within a quoted text",
    "while scanning a quoted scalar": "a quoted text that does not end",
    "could not determine a constructor": "a tag (!...) that configs do not have",
    "found unhashable key": "a list or a mapping as a key; a text with {, [ or ? at its beginning goes in quotes",
    "expected ',' or": "a list or mapping in brackets that does not end, or lacks a comma",
    "expected the node content": "nothing where a value should be; a text that begins with a sign goes in quotes",
    "cannot start any token": "a text that begins with a sign of YAML (such as @, ` or %); put it in quotes",
    "expected a single document": "a second document (---); a config is one",
}
"""What the parser says, and what that means."""


@dataclass(frozen=True, slots=True)
class YamlFile:
    """What a file holds.

    Attributes
    ----------
    values : dict
    lines : dict of Place to int
        Line of each key and list entry, counted from 1.
    """

    values: dict[str, Any]
    lines: dict[Place, int]

    def line_of(self, place: Place) -> int | None:
        """Return the line of a value, or of the nearest one around it that the file has."""
        return next((self.lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self.lines), None)


def read_yaml(path: Path) -> YamlFile:
    """Read a file of keys and values.

    Raises
    ------
    ConfigError
        In one line: the file, the line, what is wrong there and the way out.
    """
    text = _text(path)
    try:
        loader = _Loader(text)
        try:
            if (node := loader.get_single_node()) is None:
                raise ConfigError(f"{path}: empty; expected keys and values (name: ..., data: ..., source: ...)")
            if not isinstance(node, yaml.MappingNode):
                raise ConfigError(f"{path}: expected keys and values (name: ..., data: ..., source: ...)")
            _check(node, loader, {})
            lines = {place: mark.line + 1 for place, mark in _marks(node, ())}
            values: dict[str, Any] = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path}{_where(error)}: {_plain(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}, line {line}: a character that is no text ({error.character!r})") from None
    except RecursionError:
        raise ConfigError(
            f"{path}: not a YAML file of ours (lists or mappings within each other without end)"
        ) from None
    return YamlFile(values, lines)


def _text(path: Path) -> str:
    try:
        with config_file(path).open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such config; the ones that come with the project are in configs/{_near(path)}, and "
            "`minddiffuser new` writes one"
        ) from None
    except IsADirectoryError:
        what = "a bundle (a trained decoder)" if (path / "bundle.json").is_file() else "a folder"
        raise ConfigError(f"{path}: is {what}; name a config's YAML file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if what := known_form(content):
        raise ConfigError(
            f"{path}: is {what}, not a config; name it in a config as data.train (`minddiffuser new` writes one)"
        )
    if len(content) > SIZE_LIMIT:
        raise ConfigError(f"{path}: larger than {SIZE_LIMIT} bytes; this is not a config file")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); save the file as UTF-8"
        ) from None


def _near(path: Path) -> str:
    """Name the config beside a path that is not there, or of the project, whose name is most like it."""
    folders = dict.fromkeys((path.parent, Path("configs"), Path("configs/headsets")))
    places = {folder: folder if folder.is_dir() else CONFIGS.parent / folder for folder in folders}
    known = [folder / file.name for folder, place in places.items() for file in place.glob("*.y*ml")]
    near = difflib.get_close_matches(path.stem, [file.stem for file in known], 1)
    return f" (did you mean {next(file for file in known if file.stem == near[0])}?)" if near else ""


class _Loader(yaml.SafeLoader):
    """A safe loader that says where a value is that cannot be read."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise _Fault(
                f"{str(node.value)[:80]!r} cannot be read ({error}); put a text in quotes", node.start_mark
            ) from None


class _Fault(yaml.MarkedYAMLError):
    """What we find wrong ourselves."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(None, None, problem, mark)


def _check(node: yaml.Node, loader: _Loader, known: dict[int, int]) -> int:
    """Count the values that a node stands for, aliases written out, and refuse a key that is there twice.

    Raises
    ------
    MarkedYAMLError
        Too many values, one that contains itself, a key set twice, or a null character.
    """
    if isinstance(node, yaml.ScalarNode):
        if "\0" in node.value:
            raise _Fault("a null character (\\0), which no name, path or address can hold", node.start_mark)
        return 1
    count = known.get(id(node))
    if count is None:
        known[id(node)] = 0
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, loader)
        children = [child for pair in node.value for child in (pair if isinstance(pair, tuple) else (pair,))]
        count = known[id(node)] = 1 + sum(_check(child, loader, known) for child in children)
    if not count:
        raise _Fault("a value that contains itself (&, *)", node.start_mark)
    if count > VALUES_LIMIT:
        raise _Fault(f"aliases (*) that stand for more than {VALUES_LIMIT} values", node.start_mark)
    return count


def _check_keys(node: yaml.MappingNode, loader: _Loader) -> None:
    lines: dict[Hashable, int] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == MERGE:
            continue
        key = loader.construct_object(key_node)
        if key in lines:
            raise _Fault(f"{key!r} is set already, in line {lines[key]}; take one out", key_node.start_mark)
        lines[key] = key_node.start_mark.line + 1


def _marks(node: yaml.Node, place: Place) -> Iterator[tuple[Place, yaml.Mark]]:
    """Find where every key and list entry is."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag == MERGE:
                yield from _marks(value, place)
                continue
            here = (*place, str(key.value))
            yield here, key.start_mark
            yield from _marks(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*place, number), value.start_mark
            yield from _marks(value, (*place, number))


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _plain(error: yaml.MarkedYAMLError) -> str:
    said = f"{error.problem or ''} {error.context or ''}"
    for part, meaning in PLAIN.items():
        if part in said:
            return meaning
    return " ".join((error.problem or "not a YAML file").split())
