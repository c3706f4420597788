"""`minddiffuser live` before a picture comes: another config than in training, no data, no patience."""

import json
import re
import signal
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pylsl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from decoder.models.bundle import Bundle
from engine.models.loading import Models
from minddiffuser.config.spec import parse_config
from minddiffuser.errors import AppError
from minddiffuser.live.live import description_of
from minddiffuser.training.preprocessing import check_preprocessing
from tests.conftest import Cli
from tests.minddiffuser.tinybundle import CHANNELS, SFREQ, config_of, write_tiny_bundle

SOON_S = 30.0
REFUSED: dict[str, list[Any]] = {
    "window.tmin": [-0.1, 0.05],
    "window.tmax": [0.3, 0.5],
    "window.baseline": [None, [0, 0.2]],
    "window.detrend": [True],
    "window.mode": ["sample", "mean"],
    "filters.highpass": [None, 0.1],
    "filters.lowpass": [30.0],
    "filters.order": [2],
    "filters.notch": [[50.0]],
    "filters.reference": [None, ["A1"]],
    "filters.drift": [10.0],
    "filters.percent_signal": [60.0],
}
"""Settings that make other numbers of the same brain, and other values than in training."""
HARMLESS: dict[str, list[Any]] = {
    "window.events": ["stim.*"],
    "window.repeats": [4],
    "window.step": [1.0],
    "window.rejected": ["drop"],
    "filters.reject_peak_to_peak": [{"eeg": 1e-4}],
    "filters.flat": [{"eeg": 1e-7}],
    "filters.decimate": [2],
    "filters.interpolate": [{"channels": ["A1"]}],
}
SILENT: dict[str, list[Any]] = {
    "filters.channels": [["A1", "A2"], ["eeg"]],
    "queue.length": [3],
    "publish.quality": [50],
    "source.name": ["another"],
}


@pytest.fixture(scope="session")
def tiny_bundle(tiny: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle trained on noise; its config lies beside it."""
    folder = tmp_path_factory.mktemp("tinybundle") / "bundle"
    write_tiny_bundle(tiny, folder)
    return folder


def changed(models: Models, changes: dict[str, Any]) -> dict[str, Any]:
    """Give the config of training with some keys changed."""
    raw = config_of(models)
    for key, value in changes.items():
        section, _, name = key.partition(".")
        raw[section] = {**raw.get(section, {}), name: value}
    return raw


def settings(table: dict[str, list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw some keys of a table, each with one of its values."""
    one = st.sampled_from([(key, value) for key, values in table.items() for value in values])
    return st.lists(one, max_size=3).map(dict)


@given(refused=settings(REFUSED), harmless=settings(HARMLESS), silent=settings(SILENT))
def test_what_makes_other_windows_is_refused_by_name(
    tiny: Models, tiny_bundle: Path, refused: dict[str, Any], harmless: dict[str, Any], silent: dict[str, Any]
) -> None:
    """Each key that matters is named with both values, in one line; what does no harm never stops a session."""
    config = parse_config(changed(tiny, silent | harmless | refused), "test")
    bundle = Bundle.load(tiny_bundle)
    if not refused:
        check_preprocessing(config, bundle)
        return
    with pytest.raises(AppError) as caught:
        check_preprocessing(config, bundle)
    said = str(caught.value)
    assert "\n" not in said
    assert all(f"{key} is " in said for key in refused)
    assert not any(key in said for key in (*harmless, *silent))
    assert "set this as in training, or train a bundle with this config" in said


@pytest.mark.parametrize("key", [*HARMLESS, *SILENT])
def test_what_does_no_harm_is_said_or_not_worth_a_word(
    tiny: Models, tiny_bundle: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    """Another pattern, other limits or repeats are one line in the log; what the bundle does not see is none."""
    value = (HARMLESS | SILENT)[key][0]
    check_preprocessing(parse_config(changed(tiny, {key: value}), "test"), Bundle.load(tiny_bundle))
    assert len(caplog.records) == (key in HARMLESS)
    assert (f"{key} is " in caplog.text) == (key in HARMLESS)


def test_channels_that_the_bundle_reads_may_not_be_left_out(tiny: Models, tiny_bundle: Path) -> None:
    """`filters.channels` that leaves out what the decoder reads is named at once, not blamed on the stream later."""
    bundle = Bundle.load(tiny_bundle)
    check_preprocessing(parse_config(changed(tiny, {"filters.channels": ["A2", "A1"]}), "test"), bundle)
    with pytest.raises(AppError, match=r"filters\.channels leaves out A1, which the bundle has: set it as in"):
        check_preprocessing(parse_config(changed(tiny, {"filters.channels": ["A2", "misc"]}), "test"), bundle)


@pytest.mark.parametrize(
    ("calibration", "live"),
    [("EEG recording", "EEG"), ("simulated EEG", "simulated EEG"), ("human EEG (Muse headband)",) * 2, ("",) * 2],
)
def test_a_live_amplifier_is_no_recording(calibration: str, live: str) -> None:
    """A bundle that was trained on a recording shows live pictures as what they are; all else stays as it is called."""
    assert description_of(calibration) == live


def test_windows_that_slide_need_only_their_length(tiny: Models, tiny_bundle: Path) -> None:
    """A decoder of windows from the event on may slide, and a sliding window lies wherever it likes."""
    bundle = Bundle.load(tiny_bundle)
    window = {"mode": "sliding", "tmin": 0, "tmax": 0.2, "baseline": [0, 0.1]}
    check_preprocessing(parse_config(config_of(tiny, window=window), "test"), bundle)
    bundle.meta["config"]["window"] = window
    check_preprocessing(parse_config(config_of(tiny, window={**window, "tmin": 0.5, "tmax": 0.7}), "test"), bundle)
    with pytest.raises(AppError, match=r"window\.tmax is 0\.3 and was 0\.2 in training"):
        check_preprocessing(parse_config(config_of(tiny, window={**window, "tmax": 0.3}), "test"), bundle)


def test_a_bundle_that_says_nothing_of_its_training_is_said(
    tiny: Models, tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the bundle holds no config, the log says that nobody can compare."""
    bundle = Bundle.load(tiny_bundle)
    del bundle.meta["config"]
    check_preprocessing(parse_config(config_of(tiny), "test"), bundle)
    assert "does not say with which filters and windows it was trained" in caplog.text


def run_live(cli: Cli, models: Models, bundle: Path, folder: Path, *options: str, **changes: Any) -> Any:
    """Run `live` with the bundle's config, changed."""
    config = folder / "live.yaml"
    config.write_text(yaml.safe_dump(changed(models, {key.replace("__", "."): v for key, v in changes.items()})))
    return cli("live", str(config), "--bundle", str(bundle), "--no-display", *options, timeout=120)


def test_live_refuses_other_filters_before_anything_loads(
    cli: Cli, tiny: Models, tiny_bundle: Path, tmp_path: Path
) -> None:
    """One line and exit code 1, and no broker was started for it."""
    run = run_live(cli, tiny, tiny_bundle, tmp_path, filters__highpass=0.1)
    assert run.returncode == 1
    assert "filters.highpass is 0.1 and was 1.0 in training" in run.stderr
    assert "Broker" not in run.stderr
    assert "Traceback" not in run.stderr


def test_live_without_a_stream_is_no_success(cli: Cli, tiny: Models, tiny_bundle: Path, tmp_path: Path) -> None:
    """When its time is over and the stream was never there, the exit code is 1, the line names what was sought.

    No archive is left of it, nor its folder.
    """
    changes = {"source__name": "no-such-amplifier", "archive__folder": str(tmp_path / "archive")}
    run = run_live(cli, tiny, tiny_bundle, tmp_path, "--seconds", "1", **changes)
    assert run.returncode == 1
    assert not (tmp_path / "archive").exists()
    assert "Looking for a stream with name 'no-such-amplifier' for 30 s" in run.stderr
    assert "Found" not in run.stderr
    assert "nothing was decoded: the stream was not there before the end" in run.stderr
    assert "no-such-amplifier" in run.stderr
    assert "Traceback" not in run.stderr


def volts_outlet(name: str) -> pylsl.StreamOutlet:
    """Open a stream like the one the bundle was trained on."""
    info = pylsl.StreamInfo(name, "EEG", len(CHANNELS), SFREQ, "float32", name)
    entries = info.desc().append_child("channels")
    for channel in CHANNELS.names:
        entries.append_child("channel").append_child_value("label", channel).append_child_value(
            "type", "EEG"
        ).append_child_value("unit", "volts")
    return pylsl.StreamOutlet(info)


def test_live_on_a_stream_that_sends_nothing_is_no_success(
    cli: Cli, tiny: Models, tiny_bundle: Path, tmp_path: Path
) -> None:
    """A stream that is there and silent is told from one that is not."""
    name = f"silent-{uuid.uuid4().hex[:8]}"
    outlet = volts_outlet(name)
    window = {"window__mode": "sliding", "window__tmin": 0, "window__tmax": 0.2}
    run = run_live(cli, tiny, tiny_bundle, tmp_path, "--seconds", "6", source__name=name, **window)
    del outlet
    assert run.returncode == 1, run.stderr
    assert f"nothing was decoded: stream {name!r} was there and sent no sample" in run.stderr


def until(process: subprocess.Popen[str], words: str) -> str:
    """Read what a process says on stderr up to a line with some words; return that line."""
    assert process.stderr
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"{words!r} was never said")


@pytest.mark.parametrize("comes", [True, False], ids=["which comes late", "which never comes"])
def test_live_waits_for_the_amplifier(cli: Cli, tiny: Models, tiny_bundle: Path, tmp_path: Path, comes: bool) -> None:
    """With --wait forever it outlasts source.timeout_s; Ctrl-C ends it with 0 if data came, with 1 if none ever did."""
    name = f"late-{uuid.uuid4().hex[:8]}"
    raw = changed(tiny, {"source.name": name, "source.timeout_s": 0.1})
    raw["window"] |= {"mode": "sliding", "step": 0.2}
    (tmp_path / "live.yaml").write_text(yaml.safe_dump(raw))
    config = str(tmp_path / "live.yaml")
    process = cli.start("live", config, "--bundle", str(tiny_bundle), "--no-display", "--wait", "forever")
    try:
        assert f"name {name!r} until it comes" in until(process, "Looking for")
        time.sleep(1.5)  # more than source.timeout_s and a look-around
        assert process.poll() is None
        if comes:
            amp = volts_outlet(name)
            assert f"Found {name!r} (type EEG): 2 channels at 100 Hz" in until(process, "Found")
            for _ in range(20):
                amp.push_chunk([[1e-5, -1e-5]] * 5)
                time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=SOON_S)
    finally:
        process.kill()
    assert process.returncode == (0 if comes else 1), errors
    if comes:
        assert f"{name}: " in out
        assert re.search(r"\n\d+ of \d+ windows gave a picture", out), out
    else:
        assert "nothing was decoded: the stream was not there before the end" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("later", [0.0, 0.5, 1.5])
def test_live_stops_while_its_models_load(
    cli: Cli, tiny_bundle: Path, tmp_path: Path, number: signal.Signals, later: float
) -> None:
    """Whenever it comes, a stop ends the program in a moment, with exit code 0, no traceback, nothing left behind."""
    cli.environment["TMPDIR"] = str(tmp_path)
    try:
        process = cli.start("live", str(tiny_bundle.with_suffix(".yaml")), "--bundle", str(tiny_bundle), "--no-display")
    finally:
        del cli.environment["TMPDIR"]
    assert process.stderr
    assert "Broker" in process.stderr.readline()  # from here on models load, for seconds
    time.sleep(later)
    process.send_signal(number)
    stopped = time.monotonic()
    try:
        _, errors = process.communicate(timeout=SOON_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert time.monotonic() - stopped < SOON_S
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails", [True, False], ids=["an archive that fails", "a whole archive"])
def test_live_minds_what_its_archive_lacks(
    cli: Cli, tiny: Models, tiny_bundle: Path, tmp_path: Path, fails: bool
) -> None:
    """Pictures that could not be archived make the exit code 3, and the answer counts them; without any it is 0."""
    name, root = f"amp-{uuid.uuid4().hex[:8]}", tmp_path / "archive"
    raw = changed(tiny, {"source.name": name, "archive.folder": str(root)})
    raw["window"] |= {"mode": "sliding", "step": 0.2}
    config = tmp_path / "live.yaml"
    config.write_text(yaml.safe_dump(raw))
    amp = volts_outlet(name)
    process = cli.start("live", str(config), "--bundle", str(tiny_bundle), "--no-display", "--json")
    try:
        rng, until = np.random.default_rng(0), time.monotonic() + 60
        while len(list(root.rglob("*-sliding.*.json"))) < 2 and time.monotonic() < until:
            amp.push_chunk(rng.normal(0, 1e-5, (5, len(CHANNELS))).tolist())
            time.sleep(0.05)
        if fails:
            while not root.is_file():  # the archive makes its folder again where it can
                root.rename(tmp_path / f"gone-{time.monotonic()}")
                with suppress(IsADirectoryError):
                    root.write_text("no folder")
        for _ in range(60):
            amp.push_chunk(rng.normal(0, 1e-5, (5, len(CHANNELS))).tolist())
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=SOON_S)
    finally:
        process.kill()
    assert out, errors
    archive = json.loads(out)["archive"]
    assert archive["kept"] >= 2, errors
    assert (archive["failed"] > 0, process.returncode) == ((True, 3) if fails else (False, 0)), errors
    assert ("frames that could not be written" in " ".join(errors.split())) == fails
