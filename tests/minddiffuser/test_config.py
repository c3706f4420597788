"""Configs."""

from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.config import load_config, parse_config
from minddiffuser.errors import ConfigError
from minddiffuser.evaluate import LIVE_SPEED
from stream.ingest import WindowSpec

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


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


@given(content=st.binary(max_size=400))
def test_any_bytes_give_a_config_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever the file holds, the answer is a ConfigError in one line and never another exception."""
    path = tmp_path_factory.mktemp("fuzz") / "any.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
