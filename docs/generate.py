"""Write the pages of the reference that follow from the code: command line, configuration, MQTT messages, Python API.

python -m docs.generate            writes them
python -m docs.generate --check    names those that differ; exit code 1 if any do
"""

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
PACKAGES = ("stream", "decoder", "engine", "minddiffuser")
API = {
    "stream.types.windows": "What is cut from a stream, and what is known against it.",
    "stream.types.events": "What happened when.",
    "stream.lsl.live": "A live source: samples and markers in, windows out.",
    "stream.mqtt.publisher": "The sending end of the wire.",
    "stream.mqtt.subscriber": "The receiving end of the wire.",
    "decoder.features": "What a decoder gives for a window.",
    "decoder.models.bundle": "A trained decoder: load, check, decode, save.",
    "engine.picture": "What the engine gives for a window.",
    "engine.reconstructor": "From decoded features to pictures.",
    "minddiffuser.config.spec": "A config, read and checked.",
}
"""Modules that programs of one's own build on, and what each is for: their docstrings are shown whole."""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
LARGEST = 1e15
"""Bounds from here on are those of the format, and say nothing to people."""
SCALARS = ["yes or no", "whole number", "number", "text"]
Schema = Mapping[str, Any]


def pages() -> dict[Path, str]:
    """Return the content of every generated file by its path."""
    from stream.mqtt.topics import TOPICS

    schemas = {kind: model.model_json_schema() for kind, topic in TOPICS.items() if (model := topic.model)}
    mqtt = REFERENCE / "mqtt.md"
    page = with_part(mqtt.read_text("utf-8"), "topics", topics())
    links = ", ".join(f"[{kind}](schemas/{kind}.json)" for kind in schemas)
    page = with_part(page, "schemas", f"JSON Schema for programs: {links}.")
    page = with_part(page, "fields", "\n\n".join(messages(kind, one) for kind, one in schemas.items()))
    formats, glossary = REFERENCE / "formats.md", REFERENCE / "glossary.md"
    return {
        REFERENCE / "command-line.md": command_line(),
        formats: with_part(formats.read_text("utf-8"), "formats", file_formats()),
        glossary: with_part(glossary.read_text("utf-8"), "metrics", picture_metrics()),
        REFERENCE / "configuration.md": configuration(),
        REFERENCE / "python.md": python_api(),
        mqtt: page,
        **{REFERENCE / "schemas" / f"{kind}.json": json.dumps(one, indent=1) + "\n" for kind, one in schemas.items()},
    }


def command_line() -> str:
    """Return the page of the command line, as typer describes it."""
    import typer
    from typer.cli import get_docs_for_click

    from minddiffuser.cli.commands import app

    command = typer.main.get_group(app)
    context: Any = command.make_context("minddiffuser", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="minddiffuser", title="Command line")
    text = re.sub(r"```console\n\$ (.*?)\n```", r"```text\n\1\n```", text)  # forms, not commands to try
    for name, one in command.commands.items():  # typer cuts their descriptions short
        text = text.replace(f"* `{name}`: {one.get_short_help_str()}", f"* `{name}`: {one.get_short_help_str(200)}")
    exits = (
        "Exit codes of every command: 0 done, also when Ctrl-C, SIGTERM or a hang-up ended it; 1 something is wrong, "
        "in one line on stderr; 2 wrong usage; 3 something was lost; 130 stopped before it was done. However a command "
        "ends, the processes it started end with it."
    )
    head, rest = text.split("\n", 1)
    return f"{head}\n\n{GENERATED}\n{rest.rstrip()}\n".replace("**Usage**", f"{exits}\n\n**Usage**", 1)


GENERATED = "<!-- Written by `python -m docs.generate`; change the code instead. -->"


def with_part(page: str, name: str, part: str) -> str:
    """Return a page with a generated part between its markers.

    Raises
    ------
    ValueError
        The page lacks the markers, so nobody knows where the part goes.
    """
    begin, end = f"<!-- generated: {name}, by `python -m docs.generate` -->", f"<!-- generated: end of {name} -->"
    before, _, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not closed:
        raise ValueError(f"a page lacks {begin!r} or {end!r}")
    return f"{before}{begin}\n\n{part}\n\n{end}{after}"


def topics() -> str:
    """Return the table of the topics of a session."""
    from stream.mqtt.topics import TOPICS, topic_of

    rows = []
    for topic in TOPICS.values():
        place = topic_of("+", topic.name).replace("+", "<session>")
        payload = "file bytes" if topic.carries == "picture" else f"[JSON](#{topic.name})" if topic.model else "JSON"
        expiry = f"{topic.expiry_s} s" if topic.expiry_s is not None else "never"
        rows.append((f"`{place}`", _prose(topic.description), payload, "yes" if topic.retained else "no", expiry))
    return _table(("topic", "what", "payload", "retained", "out of date after (MQTT 5)"), rows)


def file_formats() -> str:
    """Return the table of the formats that recordings are read from."""
    from stream.files.file_format import Description
    from stream.files.formats import FORMATS

    suffixes: dict[Description, list[str]] = {}
    for each in FORMATS.values():
        if each.description is not None:
            suffixes.setdefault(each.description, []).append(f"`{each.suffix}`")
    rows = [(f"{what.title} ({', '.join(names)})", what.events, what.units) for what, names in suffixes.items()]
    return _table(("format", "events from", "units from"), rows)


def picture_metrics() -> str:
    """Return the metrics of pictures that say by themselves what they are, as lines of the glossary."""
    from decoder.evaluation.metric_registry import PICTURE_METRICS

    return "\n".join(
        f"- **{each.label}** (`{each.key}`{'' if each.higher_is_better else '; lower is better'}): {_prose(each.note)}"
        for each in PICTURE_METRICS.values()
        if each.note
    )


def configuration() -> str:
    """Return the page of the configuration, a section for each part of a config."""
    from minddiffuser.config.spec import Config

    schema = Config.model_json_schema()
    sections = _sections("", schema, schema["$defs"], {})
    return (
        "\n\n".join(
            [
                "# Configuration",
                GENERATED,
                "One YAML file a setup. Unknown keys are errors that say what may have been meant. A config says only "
                "what differs: under it lie these defaults and, over them, the settings that go with its kind of data "
                "(`minddiffuser/config/defaults.py`).",
                *sections,
            ]
        )
        + "\n"
    )


def _sections(path: str, schema: Schema, defs: Schema, seen: dict[str, str]) -> Iterator[str]:
    """Yield a part of a config as Markdown, and the parts inside it; one that stands in two places is shown once."""
    inner: list[tuple[str, str]] = []
    rows = []
    for name, field in schema["properties"].items():
        place = f"{path}.{name}" if path else name
        parts = [ref for ref in _references(field) if "properties" in defs[ref]]
        for ref in parts:
            if ref not in seen:
                seen[ref] = place
                inner.append((place, ref))
        default = "required" if name in schema.get("required", ()) else _value(field.get("default"), parts)
        rows.append((f"`{name}`", _kind(field, seen), default, _prose(field.get("description", ""))))
    yield _described(f"## {path}" if path else "## A config", schema)
    yield _table(("key", "takes", "default", "meaning"), rows)
    for place, ref in inner:
        yield from _sections(place, defs[ref], defs, seen)


def messages(kind: str, schema: Schema) -> str:
    """Return the fields of a JSON message as Markdown."""
    named = {name: name for name in schema.get("$defs", {})}
    parts = [(f"### {kind}", schema), *((f"#### {name}", one) for name, one in schema.get("$defs", {}).items())]
    return "\n\n".join(
        f"{_described(heading, one)}\n\n{_table(('field', 'holds', 'meaning'), list(_fields(one, named)))}"
        for heading, one in parts
    )


def _fields(schema: Schema, named: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    for name, field in schema["properties"].items():
        needed = " (always)" if name in schema.get("required", ()) else ""
        kind = _kind(field, named).replace(" or null", "")
        yield f"`{name}`{needed}", kind, _prose(field.get("description", ""))


def _references(schema: Any) -> Iterator[str]:
    """Yield the names of the parts that a field's schema speaks of."""
    if isinstance(schema, Mapping):
        if isinstance(ref := schema.get("$ref"), str):
            yield ref.rsplit("/", 1)[1]
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _kind(schema: Schema, places: Mapping[str, str]) -> str:
    """Return in words what a field takes."""
    if ref := schema.get("$ref"):
        place = places[ref.rsplit("/", 1)[1]]
        return f"[{place}](#{_anchor(place)})"
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{_scalar(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if several := next((schema[key] for key in ("anyOf", "oneOf", "allOf") if key in schema), None):
        kinds = list(dict.fromkeys(_kind(one, places) for one in several))
        return " or ".join(kinds).replace(" or ".join(SCALARS), "number, text, or yes or no")
    return _plain_kind(schema, places)


def _plain_kind(schema: Schema, places: Mapping[str, str]) -> str:
    """Return in words what a field of one JSON type takes."""
    inner = schema.get("items", schema.get("additionalProperties"))
    parts = [_kind(one, places) for one in schema.get("prefixItems", ())]
    bounds = [f"{sign} {schema[key]:g}" for key, sign in BOUNDS.items() if abs(schema.get(key, LARGEST)) < LARGEST]
    limits = f" ({', '.join(bounds)})" if bounds else ""
    kinds = {
        "array": "[" + ", ".join(parts) + "]" if parts else "list",
        "object": "mapping",
        "string": "path" if schema.get("format") == "path" else "text",
        "boolean": "yes or no",
        "null": "null",
        "integer": f"whole number{limits}",
        "number": f"number{limits}",
    }
    word = kinds.get(schema.get("type", ""), "anything")
    joint = {"list": "of", "mapping": "to"}.get(word)
    return f"{word} {joint} {_kind(inner, places)}" if joint and isinstance(inner, Mapping) else word


def _value(value: Any, parts: list[str]) -> str:
    return "" if parts and isinstance(value, dict) else f"`{_scalar(value)}`"


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _described(heading: str, schema: Schema) -> str:
    text = schema.get("description", "")
    own = "" if text == BaseModel.__doc__ else _prose(text, whole=True)
    return f"{heading}\n\n{own}".rstrip()


def _prose(text: str, *, whole: bool = False) -> str:
    """Return a docstring as Markdown: its paragraphs, or all of it in one line for a table."""
    lines = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    escaped = re.sub(r"<(?=\w)", "&lt;", ("\n\n" if whole else " ").join(lines))
    return escaped if whole else escaped.replace("|", "\\|")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def python_api() -> str:
    """Return the page of the Python API: what to build on, and a map of all modules."""
    parts = [
        "# Python API",
        GENERATED,
        "Data goes one way: `stream` to `decoder` to `engine` to `minddiffuser`. The modules of the first section are "
        "what programs of your own build on; they are described as they stand in the code.",
        "## What to build on",
    ]
    for name, meaning in API.items():
        if not _file(name).is_file():
            raise ValueError(f"docs/generate.py: there is no module {name}; name the one that took its place")
        parts.append(f"### {name}\n\n{meaning}\n\n<!-- ::: {name} -->")
    parts.append("## Every module")
    for package in PACKAGES:
        parts.append(f"### {package}\n\n{_first_line(ROOT / package / '__init__.py')}")
        rows = [
            (f"`{path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}`", _prose(_first_line(path)))
            for path in sorted((ROOT / package).rglob("*.py"))
            if path.name not in {"__init__.py", "__main__.py"}
        ]
        parts.append(_table(("module", "what is in it"), rows))
    return "\n\n".join(parts) + "\n"


def _file(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def main() -> int:
    """Write the pages, or name those that differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page differs")
    only_check = parser.parse_args().check
    different = False
    for path, text in pages().items():
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        different = True
        sys.stdout.write(f"{'differs' if only_check else 'written'}: {path.relative_to(ROOT)}\n")
        if not only_check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    return 1 if only_check and different else 0


if __name__ == "__main__":
    sys.exit(main())
