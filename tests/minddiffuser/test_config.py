"""Configs."""

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.config import load_config, parse_config
from minddiffuser.errors import ConfigError
from minddiffuser.evaluate import LIVE_SPEED
from stream.ingest import WindowSpec

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))
DEMO = CONFIGS[0].with_name("demo.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_that_comes_with_the_project_is_valid(path: Path) -> None:
    """What ships loads, and is named like its file."""
    assert load_config(path).name == path.stem


def test_every_kind_of_window_can_be_evaluated_live() -> None:
    """The live half of `evaluate` knows how fast to replay for each mode that a config may name."""
    assert set(LIVE_SPEED) == set(get_args(WindowSpec.model_fields["mode"].annotation))


def changed(tmp_path: Path, **values: object) -> Path:
    """Write the demo's config with some top-level keys changed."""
    raw = yaml.safe_load(CONFIGS[0].read_text("utf-8")) | values
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(raw), "utf-8")
    return path


def test_an_unknown_key_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    """A typing error gives one line with the key and the closest known one."""
    with pytest.raises(ConfigError, match=r"queu: unknown key; did you mean 'queue'\?") as caught:
        load_config(changed(tmp_path, queu={"policy": "latest"}))
    assert "\n" not in str(caught.value)


def test_an_unknown_key_deep_down_is_named_with_its_path(tmp_path: Path) -> None:
    """Keys of parts are checked too."""
    with pytest.raises(ConfigError, match=r"queue\.polcy: unknown key; did you mean 'policy'\?"):
        load_config(changed(tmp_path, queue={"polcy": "latest"}))


def test_an_unknown_key_of_an_extra_stream_is_named(tmp_path: Path) -> None:
    """Keys of list entries are checked too."""
    with pytest.raises(ConfigError, match=r"extra\.0\.longest_silense: unknown key; did you mean 'longest_silence'\?"):
        load_config(changed(tmp_path, extra=[{"type": "MEG", "longest_silense": 1}]))


def test_a_value_out_of_range_is_named(tmp_path: Path) -> None:
    """A wrong value says which key and what is allowed."""
    with pytest.raises(ConfigError, match=r"publish\.quality: .*100"):
        load_config(changed(tmp_path, publish={"quality": 101}))


def test_a_prior_of_structure_needs_pictures(tmp_path: Path) -> None:
    """Without a bank of pictures that nobody was shown, the config is refused in one line that says what to set."""
    data = {"dataset": "recording"}
    with pytest.raises(ConfigError, match=r"s_prior .* set data\.bank") as caught:
        load_config(changed(tmp_path, data=data, decoder={"s_prior": {}}))
    assert "\n" not in str(caught.value)
    assert load_config(changed(tmp_path, data=data | {"bank": 500}, decoder={"s_prior": {}})).data.bank == 500


def test_a_missing_file_says_where_configs_are(tmp_path: Path) -> None:
    """A path that does not exist is one line."""
    with pytest.raises(ConfigError, match=r"nowhere.yaml: no such config"):
        load_config(tmp_path / "nowhere.yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=10,
)


@given(
    part=st.sampled_from(
        ["name", "data", "source", "window", "filters", "decoder", "engine", "broker", "publish", "x"]
    ),
    value=VALUES,
)
def test_any_values_give_a_config_or_one_line(part: str, value: object) -> None:
    """A good config with anything in the place of a part is valid or told in one line."""
    raw = yaml.safe_load(CONFIGS[0].read_text("utf-8")) | {part: value}
    message = ""
    try:
        parse_config(raw, "file")
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 2000


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(
            [
                "a: &a [x,x,x,x,x,x,x,x,x]",
                *(f"{n}: &{n} [{','.join(['*' + p] * 9)}]" for p, n in zip("abcdefg", "bcdefgh", strict=True)),
            ]
        ),
        "{" * 5000,
        "a: &a [*a]",
        "name: !!python/object/apply:os.system [id]",
        '"x\\ny": 1',
    ],
    ids=["bomb", "deep", "endless", "code", "newline"],
)
def test_hostile_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    """Files that grow when they are read, never end, or ask for code are refused in one line."""
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("key", ["labels", "data.stimuli", "archive.folder", "engine.models.folder", "display.host"])
def test_a_null_character_is_told_with_its_line(tmp_path: Path, key: str) -> None:
    """No path, name or address holds one: what would open it later raises an error of its own."""
    raw = yaml.safe_load(DEMO.read_text("utf-8"))
    *sections, name = key.split(".")
    inner = raw
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[name] = "a\0b"
    text = yaml.safe_dump(raw)
    (tmp_path / "x.yaml").write_text(text)
    line = text[: text.index("a\\0b")].count("\n") + 1
    with pytest.raises(ConfigError, match=rf"x\.yaml, line {line}, column \d+: a null character"):
        load_config(tmp_path / "x.yaml")


@given(content=st.binary(max_size=400))
def test_any_bytes_give_a_config_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever the file holds, the answer is a ConfigError in one line and never another exception."""
    path = tmp_path_factory.mktemp("fuzz") / "any.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def refusal(tmp_path: Path, content: str | bytes) -> str:
    """Return the one line with which a file is refused, without its path."""
    path = tmp_path / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    line = str(caught.value)
    assert "\n" not in line
    assert "pydantic" not in line
    assert line.startswith(str(path))
    return line.removeprefix(str(path))


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("name: x\ndata:\n\tdataset: haxby\n", 3, "a tab; indent with spaces"),
        ("data:\n  dataset: haxby\n seed: 1\n", 3, "indented otherwise"),
        ("name: x\n  data: y\n", 2, "a ':' where none can be"),
        ("name: x\nqueue\nextra: []\n", 3, "':'"),
        ("name: 'x\nextra: []\n", 3, "ends within a quoted text"),
        ("name: [a, b\nextra: []\n", 2, "brackets that does not end"),
        ("name: x\n\nextra: @y\n", 3, "put it in quotes"),
        ("name: x\nextra: *nowhere\n", 2, "an alias (*name) of no anchor"),
        ("name: !!python/name:os.system x\n", 1, "a tag (!...) that configs do not have"),
        ("name: 2024-13-45\n", 1, "put a text in quotes"),
        ("name: x\n---\nname: y\n", 2, "a second document"),
        ("name: x\nname: y\n", 2, "'name' is set already, in line 1"),
        ("name: x\ndata:\n  seed: 1\n  pictures: 60\n  seed: 2\n", 5, "'seed' is set already, in line 3"),
        ("name: &n\n  deeper: *n\n", 1, "contains itself"),
        ("name: x\nextra: \x07\n", 2, "a character that is no text"),
        ("name: café\n".encode("latin-1"), 1, "not UTF-8 (byte 0xe9); save the file as UTF-8"),
        ("name: x\n? [a, b]\n: 1\n", 2, "a list or a mapping as a key"),
    ],
    ids=lambda value: value.strip().replace("\n", "|") if isinstance(value, str) else None,
)
def test_a_file_that_is_no_yaml_is_told_with_its_line(
    tmp_path: Path, content: str | bytes, line: int, words: str
) -> None:
    """What is wrong is said in plain words, with the line that an editor shows."""
    said = refusal(tmp_path, content)
    assert said.startswith(f", line {line}")
    assert words in said


@pytest.mark.parametrize(
    ("content", "words"), [("", "empty"), ("# nothing\n", "empty"), ("- a\n", "keys and values"), ("a\n", "keys")]
)
def test_a_file_without_keys_says_what_is_expected(tmp_path: Path, content: str, words: str) -> None:
    """An empty file, a list and a bare word are told apart from a mapping."""
    assert words in refusal(tmp_path, content)
    assert "name: ..." in refusal(tmp_path, content)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_does_no_harm(tmp_path: Path, encoding: str) -> None:
    """Files of Windows' editors are read."""
    (tmp_path / "c.yaml").write_bytes(DEMO.read_text("utf-8").encode(encoding))
    assert load_config(tmp_path / "c.yaml") == load_config(DEMO)


def test_a_billion_laughs_in_a_good_place_are_refused_at_once(tmp_path: Path) -> None:
    """Aliases that stand for more values than any config has cost no memory, wherever they stand."""
    anchors = ["base: &a [x, x, x, x, x, x, x, x, x, x]"]
    anchors += [
        f"{new}: &{new} [{', '.join(['*' + old] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    bomb = "\n".join([*anchors, "candidates:", "- window: {mode: *i}"])
    assert "stand for more than 100000 values" in refusal(tmp_path, bomb)


def test_aliases_and_merges_are_no_doubled_keys(tmp_path: Path) -> None:
    """What is merged in may be set anew, however the anchors are nested."""
    text = DEMO.read_text("utf-8") + "\ncandidates:\n- &a\n  window: &w {tmax: 0.4}\n- window: {<<: *w, tmax: 0.6}\n"
    (tmp_path / "c.yaml").write_text(text, "utf-8")
    assert [one.window for one in load_config(tmp_path / "c.yaml").candidates] == [{"tmax": 0.4}, {"tmax": 0.6}]


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("window.tmax", "soon", "window.tmax: expected a number, got 'soon'"),
        ("window.tmax", "0,8", "window.tmax: expected a number, got '0,8'; decimals have a point"),
        ("window.tmax", None, "window.tmax: expected a number, got nothing"),
        ("window.tmax", True, "window.tmax: expected a number, got yes or no"),
        ("window.baseline", [0], "window.baseline.1: is missing"),
        (
            "window.mode",
            "slidng",
            "window.mode: must be 'event', 'sliding', 'sample' or 'mean', is 'slidng'; did you mean ",
        ),
        ("data.seed", True, "data.seed: expected a number, got yes or no"),
        ("data.seed", -1, "data.seed: must be at least 0, is -1"),
        ("data.pictures", 1.5, "data.pictures: expected a whole number, got 1.5"),
        ("data.bank", -5, "data.bank: must be at least 1, is -5"),
        ("data.bank", [1], "data.bank: expected a whole number or a path, got a list ([1])"),
        ("name", False, "name: expected text, got false (yes or no); put it in quotes"),
        ("name", 12, "name: expected text, got 12; put it in quotes"),
        ("name", "..", "name: '..' does not do: letters, digits"),
        ("publish.session", "a/b", "publish.session: "),
        ("filters", None, "filters: expected keys and values, got nothing"),
        ("filters", [], "filters: expected keys and values, got a list ([])"),
        ("extra", {"name": "x"}, "extra: expected a list, got keys and values"),
        ("decoder.alphas", [], "decoder.alphas: must have at least 1 entries"),
        ("decoder.blocks", [1, 0], "decoder.blocks.1: must be at least 1, is 0"),
        ("decoder.hold_out", "nne", "decoder.hold_out: must be 'none' or 'groups', is 'nne'; did you mean 'none'?"),
        ("source.markers", [{"nam": "x"}], "source.markers.0.nam: unknown key; did you mean 'name'?"),
        ("engine.structur", {}, "engine.structur: unknown key; did you mean 'structure'?"),
        ("candidates", [{}, {"window": {"tmx": 1}}], "candidates.1.window.tmx: unknown key; did you mean 'tmax'?"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(tmp_path: Path, part: str, value: object, words: str) -> None:
    """The message has the key's whole path, the value and what is allowed; no word of the validator's own."""
    raw = yaml.safe_load(DEMO.read_text("utf-8"))
    *above, last = part.split(".")
    inner = raw
    for key in above:
        inner = inner.setdefault(key, {})
    inner[last] = value
    said = refusal(tmp_path, yaml.safe_dump(raw))
    assert words in said
    assert "Input should" not in said


def test_a_wrong_value_is_told_with_its_line(tmp_path: Path) -> None:
    """The line is that of the key, also in a list, and where the key is missing that of the part it belongs to."""
    text = DEMO.read_text("utf-8")
    lines = text.count("\n")
    assert f", line {lines + 4}: extra.1.longest_silence: must be more than 0" in refusal(
        tmp_path, text + "extra:\n- name: a\n- name: b\n  longest_silence: -1\n"
    )
    assert f", line {lines + 1}: archive: " in refusal(tmp_path, text + "archive: 5\n")
    number = text.splitlines().index("data:") + 1
    without = text.replace("  dataset: simulated-eeg\n", "", 1)
    assert f", line {number}: data.dataset: is missing" in refusal(tmp_path, without)


def places(values: object, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """List where numbers with decimals are."""
    if isinstance(values, float):
        return [place]
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [found for key, value in inner for found in places(value, (*place, key))]


WHOLE = load_config(DEMO).model_dump(mode="json")


@given(
    place=st.sampled_from([place for place in places(WHOLE) if place[0] != "candidates"]),
    value=st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    as_text=st.booleans(),
)
def test_no_number_of_a_config_may_be_without_end(place: tuple[str | int, ...], value: float, *, as_text: bool) -> None:
    """NaN and infinity are refused wherever a number can be, written as a number or as text."""
    raw = copy.deepcopy(WHOLE)
    inner: Any = raw
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = str(value) if as_text else value
    with pytest.raises(ConfigError) as caught:
        parse_config(raw, "file")
    assert as_text or f"{'.'.join(map(str, place))}: must be a finite number" in str(caught.value)
