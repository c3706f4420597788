"""`minddiffuser new`: a config from what streams, or from a headset's recipe, that loads and is used as it stands."""

import json
import logging
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from minddiffuser.cli.commands import app
from minddiffuser.config.spec import load_config, parse_config
from minddiffuser.errors import AppError
from minddiffuser.setup.recipes import from_headset, headsets
from minddiffuser.setup.starter import complete, from_stream, text_of
from minddiffuser.setup.starter_streams import _running, hum, likely_unit
from minddiffuser.training.data import own_recording
from minddiffuser.training.training import cut
from stream.files.formats.npz import write_npz
from stream.files.registry import read
from stream.lsl.discovery import load_lsl
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels
from tests.conftest import ROOT
from tests.stream.amp import markers

SFREQ = 250.0
NAMES = ("Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2", "AccX")
COMMAND = [sys.executable, "-m", "minddiffuser"]


def recording() -> Recording:
    """Make ten seconds of eight electrodes with a hum of 60 Hz, an accelerometer, and a marker a second."""
    rng, times = np.random.default_rng(0), np.arange(2500) / SFREQ
    data = 2e-5 * rng.normal(size=(2500, len(NAMES))) + 2e-5 * np.sin(2 * np.pi * 60 * times)[:, None]
    data[:, -1] = rng.normal(size=2500)
    channels = Channels(NAMES, ("eeg",) * 8 + ("misc",), ("V",) * 8 + ("count",))
    stream = RecordedStream("amp", "EEG", "amp1", channels, SFREQ, times, data.astype(np.float32))
    events = tuple(Event(float(second), f"pic-{second}") for second in range(1, 9))
    return Recording("own", "human EEG", (stream,), events)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """Give a folder with pictures and a calibration, and the environment of a session in which it is replayed."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "pictures").mkdir()
    rows = ["file"]
    for second in range(1, 9):
        Image.new("RGB", (8, 8)).save(folder / "pictures" / f"pic-{second}.png")
        rows.append(f"pic-{second}.png")
    (folder / "pictures" / "stimuli.csv").write_text("\n".join(rows))
    write_npz(recording(), folder / "calibration.npz")
    session = "[lab]\nKnownPeers = {127.0.0.1}\nSessionID = new\n[log]\nlevel = -3\n"
    (folder / "lsl_api.cfg").write_text(session)
    environment = os.environ | {"LSLAPICFG": str(folder / "lsl_api.cfg"), "PYTHONPATH": str(ROOT)}
    replay = [*COMMAND, "replay", str(folder / "calibration.npz"), "--loop", "--no-wait"]
    process = subprocess.Popen(replay, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield folder, environment
    finally:
        process.terminate()
        process.wait()


def new(lab: tuple[Path, dict[str, str]], *words: str, answers: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in the lab's folder."""
    folder, environment = lab
    return subprocess.run(
        [*COMMAND, "new", *words], cwd=folder, env=environment, input=answers, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def test_what_streams_becomes_a_config_that_is_used(lab: tuple[Path, dict[str, str]]) -> None:
    """Without a question: stream, electrodes and hum are found; the config trains, and the command it names runs."""
    folder, _ = lab
    done: Any = None
    for _ in range(5):  # the replay may still be starting
        done = new(lab, "mine.yaml", "--yes", "--calibration", "calibration.npz", "--json", "--seconds", "1.3")
        if "no amplifier's stream" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"config": "mine.yaml", "next": "minddiffuser train mine.yaml"}
    written = yaml.safe_load((folder / "mine.yaml").read_text("utf-8"))
    assert written["source"] == {"name": "amp"}
    assert written["data"] == {"dataset": "recording", "train": "calibration.npz", "stimuli": "pictures"}
    config = load_config(folder / "mine.yaml")
    assert (config.name, config.publish.session) == ("mine", "mine")
    assert set(written) <= {"name", "data", "source", "window", "filters", "publish"}
    assert (config.filters.channels, config.filters.notch, config.filters.reference) == (("eeg",), (60.0,), "average")
    assert "# its hum was seen in the signal" in (folder / "mine.yaml").read_text("utf-8")
    data = config.data.model_copy(update={"train": (folder / "calibration.npz",), "stimuli": folder / "pictures"})
    windows = cut(own_recording(data, config.source).train, config, lambda *_: None)
    assert [window.event.label for window in windows if window.event] == [f"pic-{second}" for second in range(1, 9)]
    assert windows[0].channels.names == NAMES[:8]
    again = new(lab, "mine.yaml", "--yes")
    assert again.returncode == 1
    assert again.stderr == "minddiffuser: mine.yaml: is there already; another name, or --force to write over it\n"


def test_questions_are_answered_and_the_next_command_records(lab: tuple[Path, dict[str, str]]) -> None:
    """Answers by stdin rule over what is proposed; the command that is named records that stream with its markers."""
    folder, environment = lab
    done = new(lab, "asked.yaml", "--stream", "amp", "--json", "--seconds", "1.3", answers="50\nO1, O2\n\nnew.xdf\n")
    assert done.returncode == 0, done.stderr
    assert "Mains frequency (a hum of 60 Hz is in the signal)" in done.stderr
    config = load_config(folder / "asked.yaml")
    assert (config.filters.notch, config.filters.reference) == ((50.0,), ("O1", "O2"))
    command = shlex.split(json.loads(done.stdout)["next"])
    assert command == ["minddiffuser", "record", "new.xdf", "--stream", "amp", "--stream", "type=Markers"]
    run = [*COMMAND, *command[1:], "--seconds", "1.5", "--json"]
    recorded = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert {one["name"] for one in json.loads(recorded.stdout)["streams"]} == {"amp", "amp-markers"}
    assert {stream.name for stream in read(folder / "new.xdf").streams} == {"amp"}


def test_a_terminal_is_asked(tmp_path: Path) -> None:
    """Questions come in a terminal, and an answer that is none of the choices is asked for again."""
    ours, theirs = pty.openpty()
    os.write(ours, b"55\n60\n\n\n\n")
    words = [*COMMAND, "new", "muse.yaml", "--headset", "muse"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, stdin=theirs, capture_output=True, text=True, timeout=60, check=False
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0, done.stderr
    assert "Please select one of the available options" in done.stderr
    assert load_config(tmp_path / "muse.yaml").filters.notch == (60.0,)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--headset", "muze", "--yes"], "--headset muze: no such recipe; did you mean muse?; there are biosemi, "),
        (["--headset", "muse"], "no answer to 'Mains frequency': --yes takes the proposed ones without asking"),
        (["--headset", "muse", "--mains", "55"], "--mains 55: mains have 50 or 60 Hz; 0 for no notch"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    """An unknown headset, nobody to answer, and a frequency that no mains have are told, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    for package in ("minddiffuser", "stream", "decoder", "engine"):  # the command sets levels, which outlive it here
        monkeypatch.setattr(logging.getLogger(package), "level", logging.getLogger(package).level)
    done = CliRunner().invoke(app, ["new", "x.yaml", *words], input="")
    assert isinstance(done.exception, AppError)
    assert str(done.exception).startswith(said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("headset", headsets())
def test_every_recipe_becomes_a_config_that_loads(headset: str, tmp_path: Path) -> None:
    """What a recipe sets is in the config that is written from it, with its words at the top."""
    draft = from_headset(headset)
    source = dict(draft.values["source"])
    complete(draft, name="own", mains=60, measured=False, reference="none", train="a b.xdf", stimuli="C:\\pictures")
    (tmp_path / "own.yaml").write_text(text_of(draft, "own.yaml"), "utf-8")
    config = load_config(tmp_path / "own.yaml")
    assert config.source.model_dump(exclude_unset=True, exclude={"markers"}) == {
        key: tuple(value) if isinstance(value, list) else value for key, value in source.items() if key != "markers"
    }
    assert (config.filters.notch, config.filters.reference) == ((60.0,), None)
    assert (str(config.data.train[0]), str(config.data.stimuli)) == ("a b.xdf", "C:\\pictures")
    assert (tmp_path / "own.yaml").read_text("utf-8").startswith("# ")


@given(
    mains=st.sampled_from([50, 60]),
    sfreq=st.sampled_from([200.0, 250.0, 256.0, 500.0]),
    seed=st.integers(0, 100),
    height=st.floats(1.0, 50.0),
)
def test_the_mains_frequency_is_seen_where_there_is_a_hum(mains: int, sfreq: float, seed: int, height: float) -> None:
    """A hum as strong as the rest of the signal is told from the other frequency; two seconds will do."""
    times = np.arange(round(2 * sfreq)) / sfreq
    signal = np.random.default_rng(seed).normal(size=(len(times), 4))
    hummed = signal + height * np.sin(2 * np.pi * mains * times + seed)[:, None]
    assert hum(hummed, sfreq) == mains


def test_no_hum_is_made_up() -> None:
    """Noise, a stream too slow to hold it, one that sent nothing, and a flat one have none."""
    rng = np.random.default_rng(0)
    noise = [hum(rng.normal(size=(500, 8)), 250.0) for _ in range(50)]
    assert noise == [None] * 50
    times = np.arange(256)[:, None] / 64
    assert hum(np.sin(2 * np.pi * 50 * times), 64.0) is None
    assert hum(np.empty((0, 4)), 250.0) is None
    assert hum(np.zeros((500, 4)), 250.0) is None


@given(factor=st.sampled_from(["V", "mV", "uV", "nV"]), level=st.floats(6e-6, 6e-5), seed=st.integers(0, 50))
def test_a_unit_that_is_not_stated_is_told_by_the_level(factor: str, level: float, seed: int) -> None:
    """Numbers of EEG's size in whatever unit are taken for that unit; without any, for microvolts."""
    rows = (
        level / {"V": 1, "mV": 1e-3, "uV": 1e-6, "nV": 1e-9}[factor] * np.random.default_rng(seed).normal(size=(500, 4))
    )
    assert likely_unit(rows, 250.0) == factor
    assert likely_unit(rows[:0], 250.0) == "uV"


def test_a_stream_without_metadata_is_told_by_its_apps_recipe() -> None:
    """A Unicorn's stream states nothing: names and unit are its recipe's, so that its electrodes and hum are found."""
    lsl = load_lsl()
    unnamed = markers("UN-2019.05.51", "Data", columns=17, fmt="float32", sfreq=250.0)
    shown = markers(f"shown-{os.getpid()}")
    found = [info for info in lsl.resolve_streams(1.0) if info.uid() == unnamed.get_info().uid()]
    inlet = lsl.StreamInlet(found[0], recover=False)
    rows = np.random.default_rng(0).normal(0, 20, (500, 17))
    rows += 20 * np.sin(2 * np.pi * 50 * np.arange(500) / 250)[:, None]
    running = _running(inlet.info(5.0), rows, twins=False)
    inlet.close_stream()
    assert (running.unit, running.mains, running.kinds) == ("uV", 50, ("eeg",))
    draft = from_stream(running, [shown.get_info().name()])
    assert (draft.mains, draft.electrodes) == (50, 8)
    complete(draft, name="own", mains=50, measured=True, reference="average", train="a.xdf", stimuli="pictures")
    config = parse_config(yaml.safe_load(text_of(draft, "own.yaml")), "own.yaml")
    assert (config.source.name, config.source.unit) == ("UN-2019.05.51", "uV")
    assert config.source.channel_names[:8] == ("Fz", "C3", "Cz", "C4", "Pz", "PO7", "Oz", "PO8")
    assert "its hum was seen in the signal" in text_of(draft, "own.yaml")
    assert f"Its markers are the stream 'shown-{os.getpid()}'" in text_of(draft, "own.yaml")
