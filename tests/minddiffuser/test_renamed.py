"""Renamed keys of configs are read for a release, and named."""

import logging
from pathlib import Path
from typing import Any

import pytest

from minddiffuser.config import renamed
from minddiffuser.config.spec import Config, load_config, parse_config
from minddiffuser.errors import ConfigError

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"


def test_an_old_key_is_read_under_its_new_name_and_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The value moves to the new place, the old one is gone, and one line names both."""
    monkeypatch.setattr(renamed, "RENAMED", {("engine", "old"): ("engine", "structure", "new")})
    raw: dict[str, Any] = {"engine": {"old": 3, "steps": 2}, "candidates": [{"engine": {"old": 4}}]}
    with caplog.at_level(logging.WARNING):
        read = renamed.with_new_names(raw)
    assert read == {
        "engine": {"steps": 2, "structure": {"new": 3}},
        "candidates": [{"engine": {"structure": {"new": 4}}}],
    }
    assert raw["engine"] == {"old": 3, "steps": 2}
    assert "engine.old is now called engine.structure.new" in caplog.messages[0]


def test_the_new_key_wins_over_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A config that says both means the new one."""
    monkeypatch.setattr(renamed, "RENAMED", {("old",): ("new",)})
    assert renamed.with_new_names({"old": 1, "new": 2}) == {"new": 2}


def test_an_old_value_has_its_new_name(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Words that settings take may be renamed, too; the config of a bundle is read without a warning."""
    monkeypatch.setattr(renamed, "RENAMED_VALUES", {("decoder", "family"): {"conv": "network"}})
    with caplog.at_level(logging.WARNING):
        read = renamed.with_new_names({"decoder": {"family": "conv"}}, quiet=True)
    assert read == {"decoder": {"family": "network"}}
    assert not caplog.messages


@pytest.mark.parametrize("place", renamed.REMOVED)
def test_a_key_that_is_no_more_is_refused_in_a_file_and_left_out_of_a_bundle_s_config(place: renamed.Place) -> None:
    """One line names the key and what holds instead; the config of a bundle is read without it."""
    raw: dict[str, Any] = load_config(DEMO).own()
    section = raw
    for part in place[:-1]:
        section = section.setdefault(part, {})
    section[place[-1]] = "anything"
    with pytest.raises(ConfigError) as refused:
        parse_config(raw, "own.yaml")
    assert str(refused.value) == f"own.yaml: {'.'.join(place)}: is no more, take it out: {renamed.REMOVED[place]}"
    read = parse_config(raw, "own.bundle", whole=True)
    assert place[-1] not in read.own().get(place[0], {})


@pytest.mark.parametrize(("old", "new"), renamed.RENAMED.items())
def test_every_new_name_is_a_setting(old: renamed.Place, new: renamed.Place) -> None:
    """What an old key is renamed to exists, and the old one does not."""
    schema = Config.model_json_schema()

    def known(place: renamed.Place) -> bool:
        options = [schema]
        for part in place:
            options = [
                option["properties"][part]
                for schema_of in options
                for option in _objects(schema_of, schema["$defs"])
                if part in option.get("properties", {})
            ]
        return bool(options)

    assert known(new)
    assert not known(old)


def _objects(part: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects that a part of a JSON Schema may be."""
    if "$ref" in part:
        return [definitions[part["$ref"].rpartition("/")[2]]]
    return [found for each in part.get("anyOf", []) for found in _objects(each, definitions)] or [part]
