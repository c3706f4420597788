"""`inspect` shows what is understood of a recording, and of the streams that run, by the program's own readers."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from minddiffuser.cli.commands import app
from minddiffuser.setup.inspection import Inspection, inspect, inspect_recording, next_step, show
from stream.files.formats.npz import write_npz
from stream.types.events import Event
from stream.types.recording import BadSegment, RecordedStream, Recording
from stream.types.windows import Channels
from tests.stream.edf_files import write_edf

SFREQ = 250.0


def recording(**changes: Any) -> Recording:
    """Make four seconds of five channels, with a hole, a bad segment, a flat channel and one in the wrong unit."""
    rng = np.random.default_rng(0)
    times = np.arange(1000) / SFREQ
    times[500:] += 1.0
    data = (2e-5 * rng.normal(size=(1000, 5))).astype(np.float32)
    data[:, 1] = 0.0
    data[:, 2] *= 1e6
    data[100:110, 3] = np.nan
    data[:, 4] = np.nan
    channels = Channels(("Cz", "Pz", "Oz", "Fz", "AccX"), ("eeg",) * 4 + ("misc",), ("V",) * 4 + ("count",))
    stream = RecordedStream(
        "amp", "EEG", "amp1", channels, SFREQ, times, data,
        bad=(BadSegment(1.0, 0.5, "BAD_blink"),), units_given=("uV", "uV", "V", "uV", ""),
    )  # fmt: skip
    events = (Event(0.5, "images/cat-01.png"), Event(1.5, "S  7", 7), Event(3.5, "dog"))
    return Recording("own", "human EEG", (stream,), events)


def pictures(folder: Path, *names: str) -> Path:
    """Write a folder of pictures."""
    folder.mkdir()
    lines = ["file"]
    for i, name in enumerate(names):
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(folder / f"{name}.png")
        lines.append(f"{name}.png")
    (folder / "stimuli.csv").write_text("\n".join(lines))
    return folder


def test_a_recording_is_shown_as_it_is_understood(tmp_path: Path) -> None:
    """Rates, gaps, bad segments, channels with their units and levels, events: each with its right value."""
    write_npz(recording(), tmp_path / "own.npz")
    shown = json.loads(json.dumps(inspect_recording(tmp_path / "own.npz").to_dict(), allow_nan=False))
    (stream,) = shown["streams"]
    assert (stream["name"], stream["type"], stream["samples"]) == ("amp", "EEG", 1000)
    assert stream["declared_hz"] == SFREQ
    assert stream["measured_hz"] == pytest.approx(SFREQ, rel=1e-3)
    (gap,) = stream["gaps"]
    assert (gap["start"], gap["length"], gap["lost"]) == (pytest.approx(1.996), pytest.approx(1.004), 250)
    assert stream["bad"] == [{"start": 1.0, "length": 0.5, "label": "BAD_blink"}]
    channels = {channel["name"]: channel for channel in stream["channels"]}
    assert [channel["kind"] for channel in stream["channels"]] == ["eeg"] * 4 + ["misc"]
    assert channels["Cz"]["unit"] == "V"
    assert channels["Cz"]["unit_given"] == "uV"
    assert channels["Cz"]["level"] == pytest.approx(2e-5, rel=0.1)
    assert [channels[name]["scale_ok"] for name in ("Cz", "Pz", "Oz", "Fz")] == [True, True, False, True]
    assert (channels["Pz"]["state"], channels["AccX"]["state"]) == ("flat", "no numbers")
    assert channels["AccX"]["level"] is None
    assert channels["Fz"]["missing"] == pytest.approx(0.01)
    assert [(event["time"], event["label"], event["code"]) for event in shown["events"]] == [
        (0.5, "images/cat-01.png", None), (1.5, "S  7", 7), (3.5, "dog", None),
    ]  # fmt: skip
    warnings = " | ".join(shown["warnings"])
    for words in ("250 samples lost", "flat: Pz", "without any number: AccX", "no numbers: Fz"):
        assert words in warnings


def test_labels_are_held_against_pictures(tmp_path: Path) -> None:
    """Each label's picture is shown, whatever its spelling; labels that name none are warned of with examples."""
    folder = pictures(tmp_path / "pictures", "cat-01", "7", "bird")
    shown = inspect(recording(), "own", None, folder).to_dict()
    assert [event["picture"] for event in shown["events"]] == ["cat-01", "7", None]
    assert any("1 of 3 markers name no picture: 'dog'" in line and "'bird'" in line for line in shown["warnings"])


def test_two_clocks_and_no_events_are_named() -> None:
    """Markers that all lie outside the samples, and a recording without any, are warned of."""
    own = recording()
    far = Recording(own.name, own.description, own.streams, tuple(Event(1.7e9 + i, "a") for i in range(3)))
    (words,) = (line for line in inspect(far, "own", None, None).warnings if "outside" in line)
    assert "3 of 3 events" in words
    assert "two clocks" in words
    none = Recording(own.name, own.description, own.streams, ())
    assert any("no events" in line for line in inspect(none, "own", None, None).warnings)


def test_the_command_answers_people_and_programs(tmp_path: Path) -> None:
    """An EDF in 'uv' comes as volts, with its level; the table is for people, --json holds the stated keys."""
    rng = np.random.default_rng(0)
    digital = (20 * rng.normal(size=(2, 1000))).astype(np.int16)
    path = write_edf(
        tmp_path / "a.edf", ["EEG Fp1-REF", "EEG O1-REF"], ["uv", "uv"], digital, 250, annotations=[(1.0, 0.0, "face")]
    )
    command = [sys.executable, "-m", "minddiffuser", "inspect", str(path)]
    shown = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    (stream,) = shown["streams"]
    assert [(one["name"], one["unit"], one["unit_given"], one["scale_ok"]) for one in stream["channels"]] == [
        ("Fp1", "V", "uv", True), ("O1", "V", "uv", True),
    ]  # fmt: skip
    assert stream["channels"][0]["level"] == pytest.approx(2e-5, rel=0.1)
    assert [(event["time"], event["label"]) for event in shown["events"]] == [(1.0, "face")]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for words in ("Fp1", "eeg", "uv", "250 Hz declared", "face"):
        assert words in table


def test_brackets_in_names_and_labels_are_shown_as_they_are(tmp_path: Path) -> None:
    """Labels and names that look like markup of the terminal are neither obeyed nor an error."""
    own = recording()
    stream = replace(own.streams[0], name="amp [/]", units_given=("[uV]", "[/b]", "V", "uV", ""))
    labels = ("[/]", "[red]x[/red]", "[bold]")
    told = inspect(replace(own, streams=(stream,), events=tuple(Event(1.0, each) for each in labels)),
                   "own[0].npz", None, pictures(tmp_path / "pictures", "cat"))  # fmt: skip
    out = io.StringIO()
    show(told, Console(file=out, width=200))
    for words in ("own[0].npz", "amp [/] (type EEG)", "[uV]", "[/b]", *map(repr, labels), "1.000 s '[red]x[/red]'"):
        assert words in out.getvalue()
    assert "name no picture: '[/]', '[red]x[/red]'" in out.getvalue()


@pytest.mark.parametrize("words", [[], ["missing.edf"], ["--live", "a.edf"]])
def test_what_cannot_be_inspected_is_one_line(words: list[str]) -> None:
    """Without a recording, with one that is not there, and with both: one line, no traceback."""
    command = [sys.executable, "-m", "minddiffuser", "inspect", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("minddiffuser: ")
    assert done.stderr.count("\n") == 1


def test_running_streams_are_understood_as_files_are(tmp_path: Path) -> None:
    """A replay of a recording is shown as the recording itself: channels, kinds, units, rate and labels."""
    own = recording()
    (stream,) = own.streams
    whole = RecordedStream("amp", "EEG", "amp1", stream.channels, SFREQ, np.arange(1000) / SFREQ, stream.data)
    write_npz(Recording("own", "human EEG", (whole,), own.events), tmp_path / "own.npz")
    # A session of its own: streams of other tests on this machine stay out.
    (tmp_path / "lsl_api.cfg").write_text("[lab]\nKnownPeers = {127.0.0.1}\nSessionID = inspect\n[log]\nlevel = -3\n")
    environment = {**os.environ, "LSLAPICFG": str(tmp_path / "lsl_api.cfg")}
    command = [sys.executable, "-m", "minddiffuser"]
    replay = subprocess.Popen(
        [*command, "replay", str(tmp_path / "own.npz"), "--loop", "--no-wait"],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        listen = [*command, "inspect", "--live", "--seconds", "5", "--json"]
        done = subprocess.run(listen, env=environment, capture_output=True, text=True, check=True, timeout=120)
    finally:
        replay.terminate()
        replay.wait()
    shown = json.loads(done.stdout)
    (live,) = shown["streams"]
    offline = inspect(Recording("own", "human EEG", (whole,), own.events), "own", None, None).to_dict()["streams"][0]
    for key in ("name", "kind", "unit", "scale_ok"):
        assert [channel[key] for channel in live["channels"]] == [channel[key] for channel in offline["channels"]]
    assert live["declared_hz"] == SFREQ
    assert live["measured_hz"] == pytest.approx(SFREQ, rel=0.02)
    assert live["gaps"] == []
    assert set(shown["labels"]) <= {event.label for event in own.events}
    assert shown["labels"]


def following(report: Inspection, config: str | None = "own.yaml", **changes: object) -> str:
    """Return what comes next after a recording whose levels are all plausible, changed."""
    streams = tuple(
        replace(stream, channels=tuple(replace(channel, scale_ok=True) for channel in stream.channels))
        for stream in report.streams
    )
    return next_step(replace(report, **{"streams": streams, **changes}), Path(config) if config else None)


def test_inspect_ends_with_what_comes_next(tmp_path: Path) -> None:
    """What is missing is to be mended first; then a config is written, a calibration recorded, a decoder trained."""
    file = tmp_path / "own.npz"
    write_npz(recording(), file)
    report = inspect_recording(file, None, pictures(tmp_path / "pictures", "cat-01", "7", "dog"))
    live = {"source": "live"}
    n = len(report.events)
    assert following(report).startswith("record more: training takes 20 markers that name a picture at least")
    assert following(report).endswith(f"here {n} do; then: minddiffuser train own.yaml")
    assert following(report, events=20 * report.events) == "train: minddiffuser train own.yaml"
    assert following(report, None).endswith(f"minddiffuser inspect {file} --config CONFIG")
    assert following(report, None, **live) == "write a config: minddiffuser new own.yaml"
    assert following(report, **live) == "record: minddiffuser record calibration.xdf"
    assert following(report, events=()).startswith("start the program that shows the pictures")
    unmarked = following(report, events=(), **live)
    assert unmarked.startswith("have the pictures shown, with markers: minddiffuser calibrate own.yaml")
    assert unmarked.endswith("minddiffuser inspect --live --config own.yaml")
    assert "minddiffuser new own.yaml" in following(report, None, events=(), **live)
    assert following(report, streams=()).startswith("start the amplifier's program")
    assert following(report, pictures={}).startswith("tell which picture each marker names")
    assert next_step(report, None).startswith("state the true unit as source.unit in the config (Oz: ")
    sliding = replace(report, events=(), streams=report.streams)
    assert not next_step(sliding, Path("own.yaml"), marked=False).startswith("start")
    shown = CliRunner().invoke(app, ["inspect", str(file)])
    assert shown.stdout.splitlines()[-1].startswith("Next: state the true unit")
    assert json.loads(CliRunner().invoke(app, ["inspect", str(file), "--json"]).stdout)["next_step"].startswith("state")
