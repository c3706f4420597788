"""The whole loop through the command line: LSL in, MQTT out."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from decoder.models.bundle import Bundle
from minddiffuser.archive import latency
from minddiffuser.workflows.demo import prepare
from tests.conftest import Cli

pytestmark = pytest.mark.slow

STEPS = set(latency.STEPS)


def children_of(pid: int) -> set[int]:
    """Give the processes that `pid` started, itself not."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.add(int(folder.name))
    return found


@pytest.fixture(scope="module")
def report(
    cli: Cli, small_config: Path, small_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """Run the demo headless for a while."""
    path = tmp_path_factory.mktemp("demo") / "report.json"
    run = cli("demo", "--config", str(small_config), "--headless", "--seconds", "12", "--report", str(path))
    assert run.returncode == 0, run.stderr
    return dict(json.loads(path.read_text("utf-8")))


def test_an_independent_subscriber_gets_every_published_picture(report: dict[str, object]) -> None:
    """Published and received are equal, and there are some."""
    assert isinstance(report["published"], int)
    assert report["published"] >= 2
    assert report["received"] == report["published"]
    assert report["lost"] == 0


def test_every_window_is_accounted_for(report: dict[str, object]) -> None:
    """Windows in = published + dropped + rejected + abstained + failed."""
    account = report["account"]
    assert isinstance(account, dict)
    ends = ("published", "dropped", "rejected", "abstained", "failed")
    assert account["windows"] == sum(account[end] for end in ends)
    assert account["failed"] == 0


def test_the_report_has_the_keys_that_later_checks_read(report: dict[str, object]) -> None:
    """Latency by step, quality beside chance and the mean image, versions, config and what the data is."""
    by_step, quality = report["latency_ms"], report["quality"]
    assert isinstance(by_step, dict)
    assert isinstance(quality, dict)
    assert set(by_step) == STEPS
    assert all(set(step) == {"p50", "p99"} for step in by_step.values())
    assert by_step["preview"]["p50"] < by_step["picture"]["p50"]
    for row in ("stage1", "stage2", "mean_image", "chance"):
        assert {"pixcorr", "ssim", "two_way"} <= set(quality[row])
    assert quality["mean_image"]["two_way"] == 0.5
    assert report["config"] == "small"
    assert report["data"] == "simulated EEG"
    assert "torch" in report["versions"]  # type: ignore[operator]


def test_live_pictures_are_the_offline_pictures(cli: Cli, small_bundle: Path, tmp_path: Path) -> None:
    """The same windows give the same scores through LSL and MQTT (as PNG, so bit by bit); a page shows them.

    They are made here, whatever pool the config names, and a line says so.
    """
    bundle = Bundle.load(small_bundle)
    publish = {**bundle.meta["config"].get("publish", {}), "format": "png"}
    engine = {**bundle.meta["config"].get("engine", {}), "remote": "http://127.0.0.1:1"}
    bundle.meta["config"] = bundle.meta["config"] | {"publish": publish, "engine": engine}
    folder, page = tmp_path / "lossless", tmp_path / "report.html"
    bundle.save(folder)
    run = cli("evaluate", str(folder), "--limit", "9", "--report", str(page), "--json")
    assert run.returncode == 0, run.stderr
    assert "engine.remote is for live sessions" in " ".join(run.stderr.split())
    answer = json.loads(run.stdout)
    assert answer["live_equals_offline"]["equal"], answer["live_equals_offline"]
    assert answer["live"]["n"] == answer["offline"]["n"] == 9
    assert answer["live"]["account"]["lost"] == 0
    for stage in ("stage1", "stage2"):
        assert answer["live"][stage] == answer["offline"][stage]
    assert {"two_way_clip", "retrieval_top1", "concept_top1"} <= set(answer["offline"]["stage2"])
    assert {"hard_two_way", "collapse", "overlap", "concepts_seen"} <= set(answer["checks"])
    text = page.read_text("utf-8")
    assert "Live equals offline: yes" in text
    assert "simulated EEG" in text
    assert str(folder) in text
    assert text.count("<img") == 3 * 9  # shown, preview and final picture, of every window once
    assert f"{answer['offline']['stage2']['pixcorr']:.3f}" in text


def test_fewer_windows_live_than_offline(cli: Cli, small_bundle: Path) -> None:
    """`--live-limit` replays the first windows only; those are compared (as JPEG), and no other counts as missing."""
    run = cli("evaluate", str(small_bundle), "--limit", "5", "--live-limit", "3", "--json")
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    assert (answer["offline"]["n"], answer["live"]["n"]) == (5, 3)
    assert answer["live_equals_offline"]["windows"] == 3
    assert answer["live_equals_offline"]["missing"] == []
    assert answer["live_equals_offline"]["equal"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_the_demo_stops_cleanly_and_leaves_no_child(
    cli: Cli, small_config: Path, small_bundle: Path, number: int
) -> None:
    """Asked to stop in the middle, it ends with exit code 0, and with it the replay and the subscriber."""
    process = cli.start("demo", "--config", str(small_config), "--headless", "--seconds", "120")
    deadline = time.monotonic() + 120
    while len(children := children_of(process.pid)) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert len(children) == 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def changed(config: Path, folder: Path, **sections: object) -> Path:
    """Write a config with some sections changed."""
    raw = yaml.safe_load(config.read_text("utf-8"))
    for name, section in sections.items():
        raw[name] = {**raw.get(name, {}), **section} if isinstance(section, dict) else section
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(raw), "utf-8")
    return path


@pytest.mark.usefixtures("small_bundle")
def test_what_was_prepared_before_has_the_engine_of_now(
    small_config: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder stays trained when only the engine's settings change, and its bundle goes by the new ones."""
    shutil.copytree(own_cache / "simulated", tmp_path / "cache" / "simulated")
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path / "cache"))
    quick = {"data": {"image_bank": None}, "decoder": {"features": ["c"], "structure_prior": None}}
    made = []
    for strength in (0.3, 0.5):
        engine = {"strength": strength, "structure": {"mode": "none"}}
        prepared = prepare(changed(small_config, tmp_path, engine=engine, **quick))
        prepared.bundle.save(tmp_path / f"{strength}")
        made.append((prepared.recording, Bundle.load(tmp_path / f"{strength}").meta["config"]["engine"]["strength"]))
    assert made == [(made[0][0], 0.3), (made[0][0], 0.5)]


def one_line(run: subprocess.CompletedProcess[str]) -> str:
    """Check that a run failed with a single line of ours, and give the line."""
    assert run.returncode == 1, (run.returncode, run.stdout, run.stderr)
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("minddiffuser: ")]
    assert len(errors) == 1, run.stderr
    assert lines[-1] == errors[0], run.stderr
    assert "Traceback" not in run.stderr
    return errors[0]


def test_a_missing_recording_is_one_line(cli: Cli, tmp_path: Path) -> None:
    """A replay of a file that is not there names it."""
    assert "nowhere.fif" in one_line(cli("replay", str(tmp_path / "nowhere.fif")))


def test_a_wrong_config_key_is_one_line(cli: Cli, small_config: Path, tmp_path: Path) -> None:
    """A typing error in the config is named, and nothing is trained."""
    path = changed(small_config, tmp_path, decodr={})
    out = tmp_path / "bundle"
    assert "decodr" in one_line(cli("train", str(path), "--out", str(out)))
    assert not out.exists()


def test_a_missing_bundle_is_one_line(cli: Cli, small_config: Path, tmp_path: Path) -> None:
    """A live session without a trained decoder says to train one."""
    assert "train" in one_line(cli("live", str(small_config), "--bundle", str(tmp_path / "none")))


def test_no_broker_is_one_line(cli: Cli, small_config: Path, small_bundle: Path, tmp_path: Path) -> None:
    """A broker that does not answer is named with its port."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        path = changed(small_config, tmp_path, broker={"host": "127.0.0.1", "port": port})
        assert str(port) in one_line(cli("live", str(path), "--bundle", str(small_bundle)))


def test_no_stream_is_one_line(cli: Cli, small_config: Path, small_bundle: Path, tmp_path: Path) -> None:
    """A source that nobody sends is named, with what was found instead."""
    path = changed(small_config, tmp_path, source={"name": "no-such-amplifier", "timeout_s": 1})
    assert "no-such-amplifier" in one_line(cli("live", str(path), "--bundle", str(small_bundle), "--no-display"))


def test_a_taken_port_is_one_line(cli: Cli, small_config: Path, small_bundle: Path, tmp_path: Path) -> None:
    """A page port in use is named, and no archive is left of a session that never was."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        archive = tmp_path / "archive"
        path = changed(small_config, tmp_path, display={"port": port}, archive={"folder": str(archive)})
        assert str(port) in one_line(cli("live", str(path), "--bundle", str(small_bundle)))
        assert not archive.exists()


@pytest.fixture
def other_montage(cli: Cli, tmp_path: Path) -> Iterator[str]:
    """Replay a recording with other channels than the bundle's."""
    import numpy as np

    from stream.files.formats.npz import write_npz
    from stream.types.events import Event
    from stream.types.recording import RecordedStream, Recording
    from stream.types.windows import Channels

    times = np.arange(2500) / 250.0
    channels = Channels(("A1", "A2"), ("eeg", "eeg"), ("V", "V"))
    name = f"other-{os.getpid()}"
    stream = RecordedStream(name, "EEG", name, channels, 250.0, times, np.zeros((2500, 2), np.float32))
    path = tmp_path / "other.npz"
    write_npz(Recording("other", "zeros", (stream,), (Event(1.0, "picture"),)), path)
    process = cli.start("replay", str(path), "--name", name, "--loop")
    yield name
    process.terminate()
    process.wait(timeout=30)


def test_a_bundle_of_another_montage_is_one_line(
    cli: Cli, small_config: Path, small_bundle: Path, tmp_path: Path, other_montage: str
) -> None:
    """A stream without the bundle's channels is refused by their names."""
    path = changed(small_config, tmp_path, source={"name": other_montage, "timeout_s": 20})
    line = one_line(cli("live", str(path), "--bundle", str(small_bundle), "--no-display"))
    assert "Fp1" in line


def test_help_is_quick_to_import(cli: Cli) -> None:
    """The command line itself imports neither torch nor mne nor scipy."""
    run = cli("--help")
    assert run.returncode == 0
    code = (
        "import sys, minddiffuser.cli.entry; "
        "print(sorted({'torch', 'mne', 'scipy', 'diffusers', 'sklearn'} & set(sys.modules)))"
    )
    heavy = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert heavy.stdout.strip() == "[]"
