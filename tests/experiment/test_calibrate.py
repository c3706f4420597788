"""`minddiffuser calibrate` where something is in the way, or ends it; the whole of it is in `test_whole`."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from minddiffuser.archive.trials import EventLog, read_rows
from minddiffuser.config.spec import load_config
from minddiffuser.errors import AppError
from minddiffuser.experiment.calibrate import check_markers, discard_empty, recorded, write_config
from minddiffuser.experiment.present import prepare
from stream.files.registry import read
from tests.conftest import Cli
from tests.experiment.conftest import PATCH
from tests.experiment.test_present import METER, refusal
from tests.experiment.virtual_screen import light_meter
from tests.stream.amp import Amp, outlet

pytestmark = pytest.mark.slow

AMPLIFIER, MARKERS = f"calibrated-{os.getpid()}", f"calibrated-{os.getpid()}-markers"


def own(config_of: Callable[..., Path], **experiment: object) -> Path:
    """Write a config of this module's own amplifier."""
    source = {"name": AMPLIFIER, "markers": {"name": MARKERS}, "timeout_s": 3, "unit": "uV"}
    return config_of({"source": source}, **experiment)


def test_ctrl_c_keeps_what_was_recorded_and_says_how_to_go_on(
    on_screen: Cli, screen: tuple[str, Path], config_of: Callable[..., Path], tmp_path: Path
) -> None:
    """In the middle of the pictures: trials, samples and light so far are kept, with a config to train on them."""
    photodiode = {"stream": {"name": METER}, "channel": "Photo"}
    config, out = own(config_of, repeats=9, task=None, photodiode=photodiode), tmp_path / "session"
    with Amp(outlet(AMPLIFIER)), light_meter(screen[1], METER, PATCH, late_s=0.03):
        process = on_screen.start("calibrate", str(config), "--out", str(out), "--json")
        table, deadline = out / "calibration_events.tsv", time.monotonic() + 90
        while not table.exists() or table.read_bytes().count(b"\n") < 5:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        answer, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "Traceback" not in errors
    found = json.loads(answer)
    assert found["next"] == f"minddiffuser calibrate {config} --subject 01 --session 01 --out {out}"
    rows, _ = read_rows(table)
    calibration = found["sets"][0]
    assert calibration["shown"] == len(rows) < calibration["planned"] == 16 * 9
    recording = read(out / "calibration-01.xdf")
    assert [event.label for event in recording.events] == [row.marker for row in rows]
    assert len(recording.streams[0].times) > 250
    kept = load_config(Path(found["config"]))
    assert kept.data.train == (out / "calibration-01.xdf",)
    assert {stream.name for stream in recording.streams} == {AMPLIFIER, METER}
    assert "the timing is" in " ".join(errors.split())
    if "timing is steady" in errors:  # on a machine that is busy it is not
        assert kept.window.delay == load_config(config).window.delay == pytest.approx(0.03, abs=3e-3)
    assert f"stream {MARKERS} is lost" not in errors


def test_what_is_in_the_way_is_one_line_before_anything_is_shown(
    on_screen: Cli, cli: Cli, screen: tuple[str, Path], config_of: Callable[..., Path], tmp_path: Path
) -> None:
    """No screen, no amplifier, one of another rate than it declares, a photodiode beside the patch, other data."""
    out = tmp_path / "session"
    without = Cli({name: value for name, value in cli.environment.items() if name != "DISPLAY"})
    assert "no screen" in refusal(without("calibrate", str(own(config_of)), "--out", str(out)))
    calibrate = ("calibrate", "--out", str(out))
    assert AMPLIFIER in refusal(on_screen(*calibrate, str(own(config_of))))
    with Amp(outlet(AMPLIFIER), rate=200.0):
        assert "declares 250 Hz and sends" in refusal(on_screen(*calibrate, str(own(config_of))))
    elsewhere = own(config_of, photodiode={"stream": {"name": METER}, "channel": "Photo"})
    with Amp(outlet(AMPLIFIER)), light_meter(screen[1], METER, (160, 10)):
        assert "photodiode: 0 of 40 flashes" in refusal(on_screen(*calibrate, str(elsewhere)))
    assert load_config(elsewhere).window.delay == 0
    assert "simulated-eeg" in refusal(on_screen(*calibrate, "configs/demo.yaml"))
    assert not list(out.rglob("*.*"))


@pytest.mark.parametrize(
    ("markers", "chosen"),
    [
        ({"channel": "TRG"}, "the channel 'TRG'"),
        ([{"name": "keys"}, {"name": "screen"}], "a stream with name 'screen'"),
        ({"source_id": "x"}, "a stream with source_id 'x'"),
        ({"type": "Markers"}, None),
        ([], None),
    ],
)
def test_markers_that_are_not_the_presenters_are_refused_first(
    config_of: Callable[..., Path], markers: object, chosen: str | None
) -> None:
    """A whole session would be recorded, of which no window could be cut."""
    config = load_config(config_of({"source": {"name": AMPLIFIER, "markers": markers}}))
    if chosen is None:
        check_markers(config, prepare(config))
        return
    with pytest.raises(AppError, match=re.escape(f"source.markers goes by {chosen}")):
        check_markers(config, prepare(config))


def test_a_recording_during_which_nothing_was_shown_is_not_kept(config_of: Callable[..., Path], tmp_path: Path) -> None:
    """Ctrl-C at a break leaves no recording without a marker, which training would refuse; what was shown stays."""
    trials = prepare(load_config(own(config_of))).trials["calibration"]
    file, table = tmp_path / "calibration-01.xdf", tmp_path / "calibration_events.tsv"
    for shown, left in ((0, set()), (1, {file, table})):
        file.touch()
        with EventLog(table, trials, resume=False) as log:
            for trial in trials[:shown]:
                log.begin(trial, file="p.png", marker=trial.picture, time=1.0, duration=0.1, error=0.0)
        assert discard_empty(file, table, 0) == (not shown)
        assert {each for each in (file, table) if each.exists()} == left
    assert discard_empty(file, table, 1)
    assert (file.exists(), table.exists()) == (False, True)


def test_a_session_goes_on_by_what_its_folder_holds(config_of: Callable[..., Path], tmp_path: Path) -> None:
    """Recordings of all runs are trained on; the test set is what is evaluated; settings and comments of no other."""
    config = own(config_of, task=None)
    for name in ("calibration-01.xdf", "calibration-02.xdf", "test-01.xdf", "other.xdf"):
        (tmp_path / name).touch()
    sets = recorded(tmp_path, prepare(load_config(config)))
    assert [(each.which, each.shown, each.left, len(each.files)) for each in sets] == [
        ("calibration", 0, 16, 2),
        ("test", 0, 8, 1),
    ]
    before = yaml.safe_load(config.read_text("utf-8"))
    after = yaml.safe_load(write_config(config, tmp_path, sets).read_text("utf-8"))
    assert after["data"].pop("train") == [str(tmp_path / f"calibration-0{n}.xdf") for n in (1, 2)]
    assert after["data"].pop("live") == str(tmp_path / "test-01.xdf")
    before["data"].pop("train")
    assert after == before
