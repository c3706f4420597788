"""Beginners' mistakes get the answer they need: one line with the file, the line or key, the value and the way out."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel

from minddiffuser.config.explain import NAMES, _models
from minddiffuser.config.mistakes import number
from minddiffuser.config.spec import Config, load_config, parse_config
from minddiffuser.errors import AppError, ConfigError
from minddiffuser.training.data import own_recording, shown_pictures
from stream.errors import StreamError
from stream.files.xdf_writer import XdfWriter
from stream.signal.filters import FilterChain, FilterSpec
from stream.types.windows import Channels

CONFIG = """name: own
data:
  dataset: recording
  train: calibration.xdf
  stimuli: pictures
source:
  type: EEG
window:
  tmin: 0.0
  tmax: 0.6
filters:
  channels: [eeg]
"""
LEAKS = re.compile(
    r"pydantic|Input should|type=|input_value|https?://(?!127|gpu)|validation error|Value error|\n", re.IGNORECASE
)
"""Words of the validator's own, which tell a beginner nothing; the addresses of our examples are ours."""


def refused(folder: Path, content: str | bytes, name: str = "own.yaml") -> str:
    """Load a config that must be refused, and return the line that says why, from the file's name on."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert not LEAKS.search(said)
    return said.removeprefix(f"{folder}/")


FILTERS = "  channels: [eeg]\n"
MISTAKES = [
    # what stands in CONFIG, what a beginner writes there, and the sentence
    (
        "tmax: 0.6",
        "tmax: 600",
        "own.yaml, line 10: window.tmax: is 600 s: seconds, not milliseconds; did you mean 0.6?",
    ),
    (
        "tmin: 0.0",
        "tmin: -200",
        "own.yaml, line 9: window.tmin: is -200 s: seconds, not milliseconds; did you mean -0.2?",
    ),
    (
        "tmax: 0.6",
        "tmax: 0.6\n  baseline: [-200, 0]",
        "own.yaml, line 11: window.baseline: is -200 s: seconds, not milliseconds; did you mean -0.2?",
    ),
    (
        "tmax: 0.6",
        "tmax: 600 ms",
        "own.yaml, line 10: window.tmax: is '600 ms': seconds, without a unit; did you mean 0.6?",
    ),
    (
        FILTERS,
        FILTERS + "  reject_peak_to_peak: 200\n",
        "own.yaml, line 13: filters.reject_peak_to_peak: is 200: volts, by kind of channel; "
        "did you mean {eeg: 200e-6}?",
    ),
    (
        FILTERS,
        FILTERS + "  reject_peak_to_peak: {eeg: 200}\n",
        "own.yaml, line 13: filters.reject_peak_to_peak.eeg: is 200: volts; did you mean 200e-6?",
    ),
    (
        FILTERS,
        FILTERS + "  reject_peak_to_peak: {eeg: 0.2}\n",
        "own.yaml, line 13: filters.reject_peak_to_peak.eeg: is 0.2: volts; did you mean 200e-6?",
    ),
    (
        FILTERS,
        FILTERS + "  reject_peak_to_peak: {mag: 4000}\n",
        "own.yaml, line 13: filters.reject_peak_to_peak.mag: is 4000: tesla; did you mean 4e-12?",
    ),
    (
        FILTERS,
        FILTERS + "  reject_peak_to_peak:\n    eeg: 200 µV\n",
        "own.yaml, line 14: filters.reject_peak_to_peak.eeg: is '200 µV': volts, without a unit; did you mean 200e-6?",
    ),
    (
        FILTERS,
        FILTERS + "  flat: {eegs: 1.0e-6}\n",
        "own.yaml, line 13: filters.flat.eegs: is no kind of channel; did you mean 'eeg'?",
    ),
    (
        FILTERS,
        FILTERS + "  highpass: 0\n",
        "own.yaml, line 13: filters.highpass: is 0; for no highpass take the line out, or write null",
    ),
    (
        FILTERS,
        FILTERS + "  reference: none\n",
        "own.yaml, line 13: filters.reference: is 'none'; for no reference take the line out, or write null",
    ),
    (
        FILTERS,
        FILTERS + "  lowpass: 40 Hz\n",
        "own.yaml, line 13: filters.lowpass: is '40 Hz': hertz, without a unit; did you mean 40?",
    ),
    (
        "  type: EEG\n",
        "  type: EEG\ncandidates:\n- filters: {highpass: 0}\n",
        "own.yaml, line 9: candidates.0.filters.highpass: is 0; for no highpass",
    ),
    (
        "  type: EEG\nwindow:\n  tmin: 0.0\n  tmax: 0.6\nfilters:\n",
        "  type: EEG\n  sfreq: 250\nwindow:\n  tmin: 0.0\n  tmax: 0.6\nfilters:\n  lowpass: 500\n",
        "own.yaml, line 13: filters.lowpass: is 500: at 250 Hz (source.sfreq) it must be below 125 Hz",
    ),
    (
        FILTERS,
        FILTERS + "  reference: averge\n",
        "own.yaml, line 13: filters.reference: must be 'average', is 'averge'; did you mean 'average'?",
    ),
    (
        "name: own",
        "name: own\nengine: {remote: ''}",
        "own.yaml, line 2: engine.remote: is ''; wanted an address such as http://127.0.0.1:8000",
    ),
    (
        "name: own",
        "name: own\npublish: {session: +}",
        "own.yaml, line 2: publish.session: session name '+': use 1 to 64 letters, digits",
    ),
    (
        "name: own",
        "name: own\nparticipant: Jane Doe",
        "own.yaml, line 2: participant: 'Jane Doe' does not do: letters and digits, with one '-' between them at most",
    ),
    (
        "name: own",
        "name: own\nengine: {backend: ONX}",
        "own.yaml, line 2: engine.backend: is 'ONX', must be one of auto, torch, torch-compile, torch-graphs, onnx, "
        "onnx-tensorrt, onnx-tensorrt-rtx, openvino, tensorrt; did you mean 'onnx'?",
    ),
    (
        "window:\n  tmin: 0.0\n  tmax: 0.6",
        "window: {tmin: 0,0, tmax: 0,6}",
        "own.yaml, line 8: window.0: a key that is no text; put it in quotes, and write decimals with a point",
    ),
    (
        "name: own",
        "name: own\nbroker: localhost:1883",
        "own.yaml, line 2: broker: expected keys and values, got 'localhost:1883'; its keys are host, port, ",
    ),
    (
        "name: own",
        "name: own\nrealign: true",
        "own.yaml, line 2: realign: expected keys and values, got true (yes or no); its keys are every, memory; {} "
        "takes the defaults",
    ),
    ("name: own", "name: own\nqueu: {}", "own.yaml, line 2: queu: unknown key; did you mean 'queue'?"),
    ("  type: EEG", "  stream: EEG", "own.yaml, line 7: source.stream: unknown key; did you mean 'name'?"),
    (
        "name: own",
        "name: own\nhighpass: 1",
        "own.yaml, line 2: highpass: unknown key here; it belongs to 'filters'",
    ),
    ("  type: EEG", "\ttype: EEG", "own.yaml, line 7, column 1: a tab; indent with spaces"),
    (
        "  type: EEG",
        "  type: EEG\n  type: MEG",
        "own.yaml, line 8, column 3: 'type' is set already, in line 7; take one out",
    ),
    (
        "train: calibration.xdf",
        'train: "C:\\Users\\me\\a.xdf"',
        "own.yaml, line 4, column 15: a backslash in double quotes; write the path with / or in single quotes",
    ),
    (
        "train: calibration.xdf",
        'train: "C:\\new\\table.xdf"',
        "own.yaml, line 4: data.train: holds a control character (C:\\new\\table.xdf): write the path with / or in "
        "single quotes",
    ),
]


@pytest.mark.parametrize(("right", "wrong", "words"), MISTAKES, ids=[each[2].split(": ", 1)[1] for each in MISTAKES])
def test_a_beginners_mistake_is_told_with_what_was_meant(tmp_path: Path, right: str, wrong: str, words: str) -> None:
    """Each mistake that can be made in a config is one line with its place, its value and what to write."""
    assert right in CONFIG
    said = refused(tmp_path, CONFIG.replace(right, wrong))
    assert said.startswith(words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "own.yaml: empty; expected keys and values (name: ..., data: ..., source: ...)"),
        (b"XDF:\x12" + bytes(range(256)), "own.yaml: is an XDF recording, not a config; name it in a config as data."),
        (b"XDF:" + b"\0" * 2_000_000, "own.yaml: is an XDF recording, not a config; name it in a config as data."),
        (b"\x89PNG\r\n", "own.yaml: is a PNG picture, not a config"),
    ],
    ids=["empty", "xdf", "long xdf", "png"],
)  # fmt: skip
def test_a_file_that_is_no_config_is_called_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    """An empty file and a recording in the place of a config are told by what they are."""
    assert refused(tmp_path, content).startswith(words)


def test_a_bundle_in_the_place_of_a_config_is_called_so(tmp_path: Path) -> None:
    """The folder of a trained decoder is no config, nor is any other folder."""
    for words in ("a folder", "a bundle"):
        with pytest.raises(ConfigError, match=f"{tmp_path.name}: is {words}.*; name a config's YAML file"):
            load_config(tmp_path)
        (tmp_path / "bundle.json").touch()


def test_a_config_that_is_not_there_names_its_like(tmp_path: Path) -> None:
    """A mistyped name finds the config beside it."""
    (tmp_path / "own-eeg.yaml").write_text(CONFIG)
    with pytest.raises(ConfigError, match=r"own-eg\.yaml: no such config.*\(did you mean .*own-eeg\.yaml\?\)"):
        load_config(tmp_path / "own-eg.yaml")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("channels: [EEG, Cz]", {"channels": ("eeg", "Cz")}),
        ("channels: EEG", {"channels": ("eeg",)}),
        ("channels: '[EEG, eog]'", {"channels": ("eeg", "eog")}),
        ("reference: CAR", {"reference": "average"}),
        ("reference: Cz", {"reference": ("Cz",)}),
        ("reference: M1, M2", {"reference": ("M1", "M2")}),
        ("notch: 50", {"notch": (50.0,)}),
        ("reject_peak_to_peak: {EEG: 200e-6}", {"reject_peak_to_peak": {"eeg": 200e-6}}),
        ("highpass: null", {"highpass": None}),
    ],
)
def test_what_can_mean_one_thing_only_is_taken_so(tmp_path: Path, written: str, meant: dict[str, Any]) -> None:
    """Capitals, one thing in the place of a list of one, and other names of the average reference are understood."""
    path = tmp_path / "own.yaml"
    path.write_text(CONFIG.replace("channels: [eeg]", written))
    filters = load_config(path).filters
    assert {key: getattr(filters, key) for key in meant} == meant


def keys_of(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """List the paths of all keys of a config, those of its parts too."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        for part in _models(field.annotation):
            yield from keys_of(part, (*above, name))


KEYS = sorted(set(keys_of(Config)))
ODD = [None, True, 0, -1, 600, 1e9, 0.5, "", "none", "600 ms", "yes please", [], ["x"], [1, "x"], {}, {"x": 1}, b"x"]


def test_a_path_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """'~/' is the user's folder in a config, as in a shell."""
    monkeypatch.setenv("HOME", "/home/sam")
    path = tmp_path / "own.yaml"
    path.write_text(CONFIG.replace("calibration.xdf", "[~/a.xdf, {bids: ~/ds}]").replace(": pictures", ": ~/pictures"))
    data = load_config(path).data
    assert [str(data.train[0]), str(data.train[1].bids), str(data.stimuli)] == [  # type: ignore[union-attr]
        str(Path("/home/sam", name)) for name in ("a.xdf", "ds", "pictures")
    ]


def test_every_pattern_of_a_config_is_told_in_words() -> None:
    """No regular expression is shown to somebody whose text does not match it."""
    text = json.dumps(Config.model_json_schema())
    for pattern in set(re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', text)):
        assert any(f"[{letters}]" in json.loads(pattern) for letters in NAMES), pattern


@given(key=st.sampled_from(KEYS), value=st.sampled_from(ODD))
def test_no_key_leaks_the_validators_words(key: tuple[str, ...], value: object) -> None:
    """Whatever stands at whatever key, it is a config, or one line of plain words."""
    raw: dict[str, Any] = {"name": "x", "data": {"dataset": "recording"}, "source": {}, "window": {}}
    inner = raw
    for part in key[:-1]:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            return
    inner[key[-1]] = value
    said = ""
    try:
        parse_config(raw, "own.yaml")
    except ConfigError as error:
        said = str(error)
    assert not LEAKS.search(said)


@given(st.floats(1e-17, 1e4))
def test_a_number_is_written_so_that_it_reads_back(value: float) -> None:
    """What a message proposes is the number that it means, to six digits."""
    assert float(number(value)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"lowpass": 500.0}, "filters.lowpass: 500 Hz cannot be filtered at 250 Hz; stay below 125 Hz"),
        ({"notch": (50.0, 150.0)}, "filters.notch: 150 Hz cannot be filtered at 250 Hz"),
        (
            {"channels": ("Fp1", "EGG")},
            r"filters: no channel or kind EGG \(did you mean eeg\?\); the stream has Fp1,",
        ),
    ],
)
def test_filters_that_do_not_fit_the_stream_name_their_key(spec: dict[str, Any], words: str) -> None:
    """An edge above half the rate and a channel that is not there are told by key, value and what would do."""
    with pytest.raises(StreamError, match=words):
        FilterChain(FilterSpec(**spec), Channels(("Fp1", "Cz"), ("eeg", "eeg"), ("V", "V")), 250.0)


HEADER = (
    '<?xml version="1.0"?><info><name>{name}</name><type>{kind}</type><channel_count>1</channel_count>'
    "<nominal_srate>{rate}</nominal_srate><channel_format>{fmt}</channel_format><source_id>x</source_id></info>"
)


@contextmanager
def being_recorded(path: Path, *, markers: bool) -> Iterator[XdfWriter]:
    """Write an XDF recording of ten seconds, its footers still to come."""
    with XdfWriter(path) as file:
        amp = file.stream(HEADER.format(name="amp", kind="EEG", rate=100, fmt="float32"))
        file.samples(amp, np.arange(1000) / 100, np.zeros((1000, 1), np.float32))
        shown = file.stream(HEADER.format(name="pictures-shown", kind="Markers", rate=0, fmt="string"))
        if markers:
            file.samples(shown, np.array([1.0, 2.0]), np.array([[b"cat"], [b"dog"]], object))
        yield file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a config and two pictures."""
    (tmp_path / "pictures").mkdir()
    for name in ("cat", "dog"):
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / f"{name}.png")
    (tmp_path / "pictures" / "stimuli.csv").write_text("file\ncat.png\ndog.png\n")
    text = CONFIG.replace("calibration.xdf", str(tmp_path / "calibration.xdf"))
    (tmp_path / "own.yaml").write_text(text.replace("stimuli: pictures", f"stimuli: {tmp_path / 'pictures'}"))
    return tmp_path


def test_a_recording_without_markers_names_what_is_in_it(folder: Path) -> None:
    """The streams are named, the marker stream that stayed empty too, and what to do."""
    with being_recorded(folder / "calibration.xdf", markers=False) as file:
        file.footer(1, 0.0, 9.99, 1000, [])
    config = load_config(folder / "own.yaml")
    with pytest.raises(AppError) as caught:
        own_recording(config.data, config.source)
    said = str(caught.value)
    assert said.startswith(f"{folder / 'calibration.xdf'}: no markers, which name the pictures; in it are amp (EEG, 1 ")
    assert "100 Hz); no samples of pictures-shown; start the program" in said
    assert "source.markers: {channel: NAME}" in said


def test_a_recording_that_is_still_being_written_is_told_so(folder: Path) -> None:
    """A file that grows while it is read is refused with what to end; one that was cut short is read, with a word."""
    config, path, done = load_config(folder / "own.yaml"), folder / "calibration.xdf", threading.Event()
    with being_recorded(path, markers=True) as file:

        def go_on() -> None:
            while not done.wait(0.02):
                file.samples(1, 10 + np.arange(2) / 100, np.zeros((2, 1), np.float32))

        writer = threading.Thread(target=go_on)
        writer.start()
        try:
            with pytest.raises(AppError, match=r"calibration\.xdf: is still being written \(grew by \d+ bytes.*Ctrl-C"):
                own_recording(config.data, config.source)
        finally:
            done.set()
            writer.join()


def test_a_recording_that_was_cut_short_is_read_with_a_word(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without its end that does not grow is used; one that was closed is not waited for."""
    config, path = load_config(folder / "own.yaml"), folder / "calibration.xdf"
    monkeypatch.setattr("minddiffuser.training.recorded.WATCHED_S", 0.2)
    with being_recorded(path, markers=True):
        pass
    assert [event.label for event in own_recording(config.data, config.source).train[0].events] == ["cat", "dog"]
    assert "was not closed by its recorder: cut short?" in caplog.text
    caplog.clear()
    monkeypatch.setattr("minddiffuser.training.recorded.WATCHED_S", 1e6)
    path.unlink()
    with being_recorded(path, markers=True) as file:
        file.footer(1, 0.0, 9.99, 1000, [])
    begin = time.monotonic()
    own_recording(config.data, config.source)
    assert time.monotonic() - begin < 60
    assert "was not closed" not in caplog.text


def test_a_picture_of_another_size_is_named_and_can_be_fitted(folder: Path) -> None:
    """The message proposes the key that fits it; with the key it keeps its proportions on the background."""
    Image.new("RGB", (16, 8), (255, 0, 0)).save(folder / "pictures" / "wide.png")
    (folder / "pictures" / "stimuli.csv").write_text("file\ncat.png\ndog.png\nwide.png\n")
    data = load_config(folder / "own.yaml").data
    words = r"'wide' is 16 x 8; resize them to one, or set data\.picture_size: \[8, 8\] to have them fitted"
    with pytest.raises(Exception, match=words):
        shown_pictures(data)
    wide = shown_pictures(data.model_copy(update={"picture_size": (8, 8)})).images[2]
    assert wide.shape == (8, 8, 3)
    assert wide[[0, 1, 6, 7]].tolist() == [[[128] * 3] * 8] * 4
    assert wide[2:6].tolist() == [[[255, 0, 0]] * 8] * 4
