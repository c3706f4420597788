"""Configs."""

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.config.spec import load_config, parse_config
from minddiffuser.errors import ConfigError
from minddiffuser.workflows.evaluate import LIVE_SPEED
from stream.epochs.ingest import WindowSpec

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


@pytest.mark.parametrize(("name", "learner"), [("structure_prior", {}), ("nearest_caption", True)])
def test_what_learns_from_pictures_needs_them(tmp_path: Path, name: str, learner: object) -> None:
    """Without a bank of pictures that nobody was shown, the config is refused in one line that says what to set."""
    data: dict[str, Any] = {"dataset": "recording", "image_bank": None}
    decoder = {"structure_prior": None, name: learner}
    with pytest.raises(ConfigError, match=rf"{name} .* set data\.image_bank") as caught:
        load_config(changed(tmp_path, data=data, decoder=decoder))
    assert "\n" not in str(caught.value)
    assert load_config(changed(tmp_path, data=data | {"image_bank": 500}, decoder=decoder)).data.image_bank == 500


def test_an_unknown_family_of_decoders_is_named(tmp_path: Path) -> None:
    """Also the name of a module that cannot be trained by its name."""
    for family in ("farthest", "linear", "bundle", "../linear"):
        with pytest.raises(ConfigError, match=f"decoder.family '{family}' is unknown; known are auto, ridge, conv, b"):
            load_config(changed(tmp_path, decoder={"family": family}))


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


@pytest.mark.parametrize(
    "key", ["labels", "data.stimuli", "archive.folder", "engine.models.loading.folder", "display.host"]
)
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
        ("data.image_bank", -5, "data.image_bank: must be at least 1, is -5"),
        ("data.image_bank", [1], "data.image_bank: expected a whole number or a path, got a list ([1])"),
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


def resolved(name: str) -> dict[str, Any]:
    """Give a config that comes with the project, with all that is laid under it."""
    return load_config(DEMO.with_name(f"{name}.yaml")).model_dump(mode="json")


def test_a_user_s_template_starts_from_the_demo_s_settings() -> None:
    """Engine, decoder, window and band are the demo's; only what belongs to the amplifier differs."""
    own, demo = resolved("own-eeg"), resolved("demo")
    assert own["engine"] == demo["engine"]
    assert own["window"] == demo["window"]
    assert (own["data"]["image_bank"], own["queue"]) == (demo["data"]["image_bank"], demo["queue"])
    bins = own["decoder"]["preprocess"].pop("decimate"), demo["decoder"]["preprocess"].pop("decimate")
    assert bins == ("auto", 2)
    assert own["decoder"] == demo["decoder"]
    differs = {key for key, value in own["filters"].items() if value != demo["filters"][key]}
    assert differs == {"channels", "reference", "notch", "decimate"}


def test_the_demo_s_settings_are_what_its_figures_are_of() -> None:
    """What a default changes without a word, the committed figures would no longer be of."""
    demo, scan = resolved("demo"), resolved("demo-fmri")
    fast = {
        "mode": "fast",
        "iterations": 5,
        "learning_rate": 0.25,
        "guidance": 1.5,
        "refinement_rounds": 2,
    }
    for each, own in (
        (demo, {"candidates": 2, "renoise_strength": 0.55}),
        (scan, {"candidates": 4, "renoise_strength": 0.6}),
    ):
        assert each["engine"]["structure"].items() >= (fast | own).items()
        assert each["engine"]["structure"]["weights"]["latent_prior"] == 0
        assert each["decoder"].items() >= {"blocks": [1, 2, 3], "c_gain": 1, "z_gain": 0.5, "s_gain": 2}.items()
        assert each["decoder"]["structure_prior"]["epochs"] == 8
        assert each["data"]["image_bank"] == 6000
    assert (demo["engine"]["steps"], demo["engine"]["strength"], scan["engine"]["strength"]) == (1, 0.6, 0.75)
    assert demo["filters"].items() >= {"highpass": 0.5, "lowpass": 40, "decimate": 2}.items()
    assert demo["window"].items() >= {"tmin": 0, "tmax": 0.5, "baseline": [-0.1, 0]}.items()
    prepared = {"tmin": 0.04, "decimate": 2, "whiten": True, "components": 400}
    assert demo["decoder"]["preprocess"].items() >= prepared.items()
    assert resolved("demo-meg") == demo | {
        key: resolved("demo-meg")[key] for key in ("name", "data", "source", "publish")
    }
    assert scan["window"].items() >= {"mode": "mean", "tmin": 4, "tmax": 8}.items()
    assert scan["decoder"]["preprocess"].items() >= {"components": None, "kernel": "rbf", "whiten": False}.items()
    for name in ("things-eeg2", "things-meg", "nsd-fmri"):
        plain = {
            "learning_rate": 0.08,
            "renoise_strength": 0,
            "refinement_rounds": 1,
            "candidates": 1,
            "guidance": None,
        }
        assert resolved(name)["engine"]["structure"].items() >= plain.items()
        assert resolved(name)["engine"]["structure"]["weights"]["latent_prior"] == 1
        assert resolved(name)["decoder"]["s_gain"] == 0


BARE = {"name": "own", "data": {"dataset": "recording"}, "source": {"type": "EEG"}}


@given(
    kind=st.sampled_from(["EEG", "eeg", "MEG", "fMRI"]),
    parts=st.fixed_dictionaries(
        {},
        optional={
            "filters": st.fixed_dictionaries({}, optional={"highpass": st.sampled_from([None, 0.1, 2.0])}),
            "decoder": st.fixed_dictionaries(
                {}, optional={"s_gain": st.floats(0, 2), "preprocess": st.just({"components": None})}
            ),
            "engine": st.fixed_dictionaries(
                {}, optional={"steps": st.integers(1, 9), "structure": st.just({"candidates": 7})}
            ),
            "window": st.fixed_dictionaries({}, optional={"tmax": st.sampled_from([9.0, 12.0])}),
        },
    ),
)
def test_what_a_config_says_is_never_overruled(kind: str, parts: dict[str, Any]) -> None:
    """Every key of the file is in the config as it stands there; what a bundle keeps of it gives the same config."""
    config = parse_config(BARE | {"source": {"type": kind}} | parts, "own.yaml")
    read = config.model_dump()
    for part, values in parts.items():
        for key, value in values.items():
            if isinstance(value, dict):
                assert read[part][key].items() >= value.items()
            else:
                assert read[part][key] == value
    assert parse_config(config.own(), "bundle", whole=True) == config


@pytest.mark.parametrize(
    ("changes", "image_bank"),
    [
        ({}, 6000),
        ({"data": {"dataset": "recording", "image_bank": 100}}, 100),
        ({"data": {"dataset": "recording", "image_bank": None}}, None),
        ({"decoder": {"structure_prior": None}}, None),
        ({"decoder": {"features": ["c", "z"]}}, None),
        ({"decoder": {"features": ["c"], "category": {}}}, None),
        ({"engine": {"models": {"folder": "stabilityai/sd-turbo"}}}, None),
    ],
)
def test_structure_is_put_right_where_there_are_pictures_to_learn_from(
    changes: dict[str, Any], image_bank: int | None
) -> None:
    """The desk models' own kind of pictures by default; none for other models, or where no structure is decoded."""
    config = parse_config(BARE | changes, "own.yaml")
    assert config.data.image_bank == image_bank
    assert (config.decoder.structure_prior is not None) == (image_bank is not None)


@pytest.mark.parametrize(
    ("posterior", "own", "bank", "prior"),
    [
        (["z"], {}, 6000, True),
        (["z", "s"], {}, 6000, False),
        (["s"], {"data": {"dataset": "recording", "image_bank": 100}}, 100, False),
        (["z"], {"data": {"dataset": "recording", "image_bank": 100}}, 100, True),
    ],
)
def test_what_is_decoded_through_an_encoding_model_has_pictures_to_learn_from(
    posterior: list[str], own: dict[str, Any], bank: int, prior: bool
) -> None:
    """The same pictures as of the prior of structure, whose place it takes where it decodes s; none is refused."""
    changes = {"decoder": {"encoding": {"posterior": posterior}}}
    config = parse_config(BARE | changes | own, "own.yaml")
    assert config.data.image_bank == bank
    assert (config.decoder.structure_prior is not None) == prior
    with pytest.raises(
        ConfigError, match=r"posterior learns from pictures that nobody was shown: set data\.image_bank"
    ):
        parse_config(BARE | changes | {"data": {"dataset": "recording", "image_bank": None}}, "own.yaml")


def test_published_data_and_other_windows_keep_their_own_settings() -> None:
    """Nothing is laid under data sets that others prepared; a window of another kind takes no times from here."""
    data = {"data": {"dataset": "things-eeg2"}, "window": {}}
    assert parse_config(BARE | data, "x").filters.highpass is None
    sliding = parse_config(BARE | {"window": {"mode": "sliding"}}, "x")
    assert (sliding.window.tmax, sliding.window.baseline) == (0.8, None)
    assert sliding.filters.lowpass == 40


def test_windows_that_slide_live_are_trained_at_the_pictures() -> None:
    """A sliding config is trained and tested on windows at events; smoothing needs windows that follow one another."""
    sliding = load_config(DEMO.with_name("demo-sliding.yaml"))
    trained = sliding.of_events()
    assert (trained.window.mode, trained.smooth) == ("event", None)
    assert (trained.window.tmax, trained.window.baseline) == (sliding.window.tmax, sliding.window.baseline)
    assert trained.of_events() is trained
    with pytest.raises(ConfigError, match=r"set window\.mode to sliding"):
        parse_config(BARE | {"smooth": 1.0}, "x")
