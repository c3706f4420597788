"""Markers and pictures of one's own are matched by one rule in training, evaluation and live."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from decoder.data.usable import usable
from decoder.errors import TrainingError
from minddiffuser.archive.archive import Received
from minddiffuser.config.spec import Config, load_config
from minddiffuser.errors import AppError, ConfigError
from minddiffuser.training.data import matcher_of, own_recording, shown_pictures
from minddiffuser.training.training import cut
from minddiffuser.workflows.evaluate import category_figures, require_pictures, usable_windows
from stream.errors import StreamError
from stream.files.formats.npz import write_npz
from stream.files.registry import read
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording, with_original_labels
from stream.types.windows import Channels
from tests.conftest import ROOT

N = 40


def record(path: Path, labels: list[str]) -> None:
    """Write a recording with a marker every half second."""
    data = np.random.default_rng(0).normal(0, 1e-5, (50 * len(labels) + 200, 2)).astype(np.float32)
    channels = Channels(("Fz", "Cz"), ("eeg", "eeg"), ("V", "V"))
    stream = RecordedStream("own", "EEG", "own", channels, 100.0, np.arange(len(data)) / 100, data)
    events = tuple(Event(1 + 0.5 * place, label) for place, label in enumerate(labels))
    write_npz(Recording("own", "EEG", (stream,), events), path)


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Write a folder of 40 pictures, a recording with some labels, and a config."""
    folder = tmp_path / "pictures"
    (folder / "images").mkdir(parents=True)
    rows = ["id;file"]
    for place in range(N):
        Image.new("RGB", (4, 4), (place, 0, 0)).save(folder / "images" / f"pic-{place}.png")
        rows.append(f"{place:03d};images\\pic-{place}.png")
    (folder / "stimuli.csv").write_text("\n".join(rows), "utf-8")

    def write(sent: list[str], **more: Any) -> Config:
        record(tmp_path / "run.npz", sent)
        raw = yaml.safe_load((ROOT / "configs" / "own-eeg.yaml").read_text("utf-8")) | more
        raw["data"] = {"dataset": "recording", "train": str(tmp_path / "run.npz"), "stimuli": str(folder)}
        raw |= {"window": {"tmin": 0.0, "tmax": 0.2, **more.get("window", {})}, "filters": {}}
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(raw), "utf-8")
        return load_config(path)

    return write


@pytest.mark.parametrize(
    "label",
    ["{0:03d}", "{0}", " {0} ", "S{0:3d}", "Stimulus/S{0:3d}", "{0}.0", "C:\\x\\images\\PIC-{0}.png", "pic-{0}.PNG"],
)
def test_training_finds_the_pictures_of_its_markers(make: Any, label: str, caplog: pytest.LogCaptureFixture) -> None:
    """Markers that spell a picture's id otherwise, or name its file, are learned from, each with its own picture."""
    config = make([label.format(place) for place in range(N)])
    dataset = own_recording(config.data, None, config.labels)
    used, left_out = usable(cut(dataset.train, config, lambda *_: None), dataset.stimuli.ids)
    assert [name for _, name in used] == [f"{place:03d}" for place in range(N)]
    assert not any(left_out.values())
    assert "name no picture" not in caplog.text
    assert [window.id for window, _ in used][:2] == ["00000-000", "00001-001"]
    rows = dataset.stimuli.rows(name for _, name in used)
    assert dataset.stimuli.images[rows, 0, 0, 0].tolist() == list(range(N))
    assert [event.label for event in with_original_labels(dataset.live).events] == [
        label.format(place) for place in range(N)
    ]


def test_windows_are_chosen_by_what_was_sent(make: Any) -> None:
    """`window.events` is held against the marker as it came, whatever picture it names."""
    config = make([f"S {place}" for place in range(N)] + ["R 1", "fix"], window={"events": "S .*"})
    dataset = own_recording(config.data)
    assert len(usable_windows(dataset.live, config)) == N


@pytest.mark.parametrize("file", [True, False])
def test_codes_stand_for_pictures(make: Any, tmp_path: Path, file: bool) -> None:
    """A table of codes, in the config or in a file, is read by training and survives in a bundle's config."""
    codes = {100 + place: f"pic-{place}.png" for place in range(N)}
    labels: Any = codes
    if file:
        labels = str(tmp_path / "codes.csv")
        lines = ["Trigger;Image", *(f"{code};{picture}" for code, picture in codes.items())]
        (tmp_path / "codes.csv").write_text("\n".join(lines), "utf-16")
    config = make([f"S{code}" for code in codes], labels=labels)
    for each in (config, Config.model_validate(config.own())):
        dataset = own_recording(each.data, None, each.labels)
        assert [event.label for event in dataset.train[0].events] == [f"{place:03d}" for place in range(N)]
        matcher = matcher_of(shown_pictures(each.data), each.labels)
        assert matcher.match("Stimulus/S139") == "039"


def test_codes_without_pictures_are_refused(make: Any, tmp_path: Path) -> None:
    """A code of no picture, two pictures, or an unquoted word: one line that names it."""
    config = make(["1"], labels={7: "dog.png", 8: "pic-1.png"})
    with pytest.raises(StreamError, match=r"labels: 1 of 2 codes stand for no picture.*'7': 'dog\.png'.*'000', '001'"):
        own_recording(config.data, None, config.labels)
    for labels, said in (({7: "a", "7.0": "b"}, "code '7.0' stands for two pictures"), ({True: "a"}, "in quotes")):
        with pytest.raises(ConfigError, match=said) as error:
            make(["1"], labels=labels)
        assert "\n" not in str(error.value)


def test_markers_without_a_picture_are_a_warning(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Where six of ten markers name no picture, training and evaluation say so with examples of both sides."""
    config = make([f"{place:03d}" if place % 5 < 3 else f"foo_{place}.png" for place in range(N)])
    dataset = own_recording(config.data)
    windows = cut(dataset.train, config, lambda *_: None)
    said = (
        "16 of 40 markers name no picture: 'foo_3.png', 'foo_4.png', ...; pictures without a marker: '003', '004', ..."
    )
    used, left_out = usable(windows, dataset.stimuli.ids)
    assert (len(used), left_out["not a stimulus"]) == (24, 16)
    assert sum(record.levelno == logging.WARNING and said in record.message for record in caplog.records) == 1
    caplog.clear()
    require_pictures(windows, dataset.stimuli)
    assert said in caplog.text


def test_no_marker_with_a_picture_is_an_error(make: Any) -> None:
    """Where no marker names a picture, training and evaluation end with one line that shows both sides."""
    config = make([f"foo_{place}.png" for place in range(N)])
    dataset = own_recording(config.data)
    windows = cut(dataset.train, config, lambda *_: None)
    for attempt, kind in (
        (lambda: usable(windows, dataset.stimuli.ids), TrainingError),
        (lambda: require_pictures(windows, dataset.stimuli), AppError),
    ):
        with pytest.raises(
            kind, match=r"40 of 40 markers name no picture: 'foo_0\.png', .*'000', '001', \.\.\."
        ) as error:
            attempt()
        assert "\n" not in str(error.value)


def test_windows_of_no_category_are_left_out_of_figures(caplog: pytest.LogCaptureFixture) -> None:
    """A window whose marker names none of the categories is said and left out; the others are scored."""
    windows = [
        Received({"window_id": str(place), "event": {"label": label}, "categories": {"a": 0.9 - 0.8 * (label == "b"),
                  "b": 0.1 + 0.8 * (label == "b")}}, {})
        for place, label in enumerate(["a", "b", "rest", "a", "b"])
    ]  # fmt: skip
    assert category_figures(windows)["accuracy"] == 1.0
    assert "1 of 5 windows name no picture: 'rest'" in caplog.text


def test_what_shows_through_is_a_colour(make: Any, tmp_path: Path) -> None:
    """The colour behind transparent pictures is the config's, for training and live alike; no colour is refused."""
    config = make(["1"])
    Image.new("RGBA", (4, 4), (1, 2, 3, 0)).save(tmp_path / "pictures" / "images" / "pic-0.png")
    assert shown_pictures(config.data).images[0, 0, 0].tolist() == [128] * 3
    white = config.data.model_copy(update={"background": "white"})
    assert shown_pictures(white).images[0, 0, 0].tolist() == [255] * 3
    assert own_recording(white).stimuli.images[0, 0, 0].tolist() == [255] * 3
    raw = config.own()
    raw["data"]["background"] = "whitish"
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError, match=r"data\.background: .*whitish"):
        load_config(tmp_path / "c.yaml")


def test_a_recording_is_read_as_it_was_sent(make: Any, tmp_path: Path) -> None:
    """What is written of a named recording names its events as they came."""
    config = make(["S  7", "foo"])
    named = own_recording(config.data).live
    assert named.events[0].label == "007"
    write_npz(with_original_labels(named), tmp_path / "again.npz")
    assert [event.label for event in read(tmp_path / "again.npz").events] == ["S  7", "foo"]


def test_a_column_that_is_chosen_names_pictures(make: Any, tmp_path: Path) -> None:
    """Where the config takes one column of the markers, that column's text names the picture, offline as live."""
    config = make(["1"] * N, source={"type": "EEG", "markers": {"column": "image"}}, window={"events": "pics/.*"})
    run = read(tmp_path / "run.npz")
    events = tuple(
        Event(
            event.time, f"{place}/pics/pic-7.png", None, "shown", (("trial", str(place)), ("image", "pics/pic-7.png"))
        )
        for place, event in enumerate(run.events)
    )
    write_npz(replace(run, events=events), tmp_path / "run.npz")
    windows = cut(own_recording(config.data).train, config, lambda *_: None)
    assert [window.event and (window.event.label, window.event.original_label) for window in windows] == [
        ("007", "pics/pic-7.png")
    ] * N
