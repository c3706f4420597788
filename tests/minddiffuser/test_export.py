"""`minddiffuser export`: a BIDS data set of which our reader makes the same windows, bit for bit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mne_bids
import numpy as np
import pytest
import yaml

from decoder.data.stimuli import StimulusTable, write_stimuli
from minddiffuser.archive.trials import COLUMNS
from minddiffuser.config.spec import load_config
from minddiffuser.errors import AppError
from minddiffuser.experiment.export import run_export
from minddiffuser.training.data import matcher_of, shown_pictures
from stream.epochs.ingest import windows_of
from stream.errors import OutputError, RecordingError
from stream.files.bids import BidsRun
from stream.files.formats.npz import write_npz
from stream.files.registry import read
from stream.signal.filters import FilterSpec
from stream.tables.rows import read_rows
from stream.types.events import Event
from stream.types.montage import Montage
from stream.types.recording import BadSegment, RecordedStream, Recording
from stream.types.windows import Channels
from tests.conftest import Cli

IDS = ("cat", "dog", "hen")
BEGUN = 5000.0
"""LSL time of the recording's start."""


def recording(kind: str = "eeg", sfreq: float = 250.0, seconds: float = 40.0) -> Recording:
    """Make noise with jittered stamps, lost samples, a bad segment, markers between samples, and a second stream."""
    rng = np.random.default_rng(0)
    n = round(seconds * sfreq)
    times = 0.3 + np.arange(n) / sfreq + rng.normal(size=n) * 1e-4
    unit = "V" if kind == "eeg" else "T"
    data = (rng.normal(size=(n, 4)) * (2e-5 if kind == "eeg" else 2e-13)).astype(np.float32)
    if kind == "eeg":
        data[:, 3] = rng.normal(size=n) * 1000
    kept = np.ones(n, dtype=bool)
    kept[round(11.8 * sfreq) : round(11.8 * sfreq) + 31] = False
    places = ((0.01, 0.02, 0.09), None, (0.0, -0.05, 0.07), None)
    names = ("Oz", "Pz", "Cz", "Light") if kind == "eeg" else ("M1", "M2", "M3", "M4")
    kinds, units = ((kind,) * 4, (unit,) * 4) if kind != "eeg" else (("eeg",) * 3 + ("misc",), ("V",) * 3 + ("count",))
    channels = Channels(
        names, kinds, units, Montage(places, "Fz" if kind == "eeg" else "", ("Pz",) if kind == "eeg" else ())
    )
    bad = (BadSegment(20.05, 0.4, "BAD_move"),)
    main = RecordedStream(
        "amp", kind.upper().replace("MAG", "MEG"), "amp1", channels, sfreq, times[kept], data[kept], bad
    )
    gaze = RecordedStream(
        "gaze",
        "Gaze",
        "g",
        Channels(("x",), ("misc",), ("count",)),
        10.0,
        np.arange(9) / 10,
        np.ones((9, 1), np.float32),
    )
    onsets = 1.0 + 1.37 * np.arange(27) + rng.uniform(size=27) / sfreq
    events = tuple(Event(float(t), f"S  {k % 3 + 1}", k % 3 + 1) for k, t in enumerate(onsets))
    return Recording("calibration-01", f"simulated {main.type}", (main, gaze), events, 1.7e9, BEGUN)


def session(folder: Path, made: Recording) -> Path:
    """Write a session as `calibrate` does: recording, table of trials, config and pictures; return its folder."""
    own = folder / "sessions" / "sub-07" / "ses-02"
    own.mkdir(parents=True)
    write_npz(made, own / "calibration-01.npz")
    images = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    write_stimuli(StimulusTable(IDS, images, tuple((name,) for name in IDS)), folder / "pictures")
    config = {
        "name": "own",
        "data": {"dataset": "recording", "train": "x.xdf", "stimuli": str(folder / "pictures")},
        "source": {"name": "amp"},
        "labels": {1: "cat", 2: "dog", 3: "hen"},
    }
    (own / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    lines = ["\t".join(COLUMNS)]
    for number, event in enumerate(made.events, 1):
        picture = IDS[(number - 1) % 3]
        row = dict.fromkeys(COLUMNS, "n/a") | {
            "onset": "0", "duration": "0.2", "trial_type": "picture", "stim_id": picture, "trial": str(number),
            "block": "1", "lsl_time": f"{BEGUN + event.time + 0.001:.6f}",
            "dropped_frames": "2" if number == 5 else "0",
        }  # fmt: skip
        lines.append("\t".join(row.values()))
    (own / "calibration_events.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    return own


@pytest.mark.parametrize(("kind", "sfreq"), [("eeg", 250.0), ("eeg", 300.0), ("mag", 250.0)])
def test_the_same_windows_come_out_bit_for_bit(tmp_path: Path, kind: str, sfreq: float) -> None:
    """Jittered stamps, holes, bad segments, another unit and markers between samples: every window is as before."""
    made = recording(kind, sfreq)
    own = session(tmp_path, made)
    answer = run_export(own, tmp_path / "bids", None)
    (run,) = answer["runs"]
    assert (run["lost"], run["events"], run["pictures"]) == (31, 27, 3)
    assert any("gaze" in line for line in run["left_out"])
    config = load_config(own / "config.yaml")
    labels = matcher_of(shown_pictures(config.data), config.labels)
    before = list(
        windows_of(made.name_events(labels), config.window, FilterSpec(highpass=0.5, lowpass=40), config.source)
    )
    again = read(BidsRun(bids=tmp_path / "bids"))
    after = list(windows_of(again, config.window, FilterSpec(highpass=0.5, lowpass=40)))
    assert len(before) == len(after) > 20
    for one, other in zip(before, after, strict=True):
        assert (one.id, one.channels, bool(one.quality.rejected)) == (
            other.id,
            other.channels,
            bool(other.quality.rejected),
        )
        np.testing.assert_array_equal(one.data, other.data)
    assert sum(bool(window.quality.rejected) for window in before) >= 2
    assert again.begun == pytest.approx(1.7e9 + 0.3, abs=0.01)
    assert again.streams[0].channels.montage.reference == made.streams[0].channels.montage.reference
    assert again.description == f"{made.description} of own"


def test_the_data_set_is_one_to_mne_bids(tmp_path: Path) -> None:
    """mne-bids reads the run; events name picture, file and trial; pictures, participants and electrodes are there."""
    own = session(tmp_path, recording())
    run_export(own, tmp_path / "bids", None)
    place = mne_bids.BIDSPath(
        subject="07", session="02", task="calibration", run="01", datatype="eeg", root=tmp_path / "bids"
    )
    raw = mne_bids.read_raw_bids(place, verbose="error")
    assert raw.ch_names == ["Oz", "Pz", "Cz", "Light"]
    assert raw.info["bads"] == ["Pz"]
    assert {"cat", "dog", "hen", "BAD_lost", "BAD_move"} <= set(raw.annotations.description)
    root, stem = tmp_path / "bids", "sub-07_ses-02_task-calibration_run-01"
    rows = read_rows(root / "sub-07" / "ses-02" / "eeg" / f"{stem}_events.tsv", ("onset", "stim_file"))
    trials = [row for row in rows if row["trial_type"] in IDS]
    assert len(trials) == 27
    assert [row["trial_number"] for row in trials] == [str(number) for number in range(1, 28)]
    assert {row["stim_file"] for row in trials} == {path.name for path in (root / "stimuli").iterdir()}
    assert [row["trial_number"] for row in trials if row["dropped_frames"] == "2"] == ["5"]
    assert {row["trial"] for row in trials} == {"picture"}
    assert {row["value"] for row in trials} == {"1", "2", "3"}
    sidecar = json.loads((root / "sub-07" / "ses-02" / "eeg" / f"{stem}_eeg.json").read_text("utf-8-sig"))
    assert (sidecar["EEGReference"], sidecar["Manufacturer"]) == ("Fz", "n/a")
    assert "sub-07" in (root / "participants.tsv").read_text("utf-8-sig")
    assert list(root.rglob("*_electrodes.tsv"))


def test_a_second_session_joins_the_data_set(tmp_path: Path) -> None:
    """Participants and runs that are there stay as they are; a run of the same name is refused, and nothing changes."""
    own = session(tmp_path, recording(seconds=8))
    out = tmp_path / "bids"
    run_export(own, out, None)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and "sub-07" in path.parts}
    with pytest.raises(AppError, match="that run is there already"):
        run_export(own, out, None)
    run_export(own, out, None, subject="08", session="01")
    run_export(own, out, None, session="03", task="test")
    assert {path: path.read_bytes() for path in before} == before
    subjects = {row["participant_id"] for row in read_rows(out / "participants.tsv", ("participant_id",))}
    assert subjects == {"sub-07", "sub-08"}
    assert not list(tmp_path.glob(".export-*"))
    runs = sorted(path.name for path in out.rglob("*_eeg.vhdr"))
    assert len(runs) == 3
    assert read(BidsRun(bids=out, subject="07", session="03")).streams[0].sfreq == 250


def test_what_cannot_join_a_data_set_leaves_it_as_it_was(tmp_path: Path) -> None:
    """A run that is in its place already when another file cannot be moved is taken out again."""
    own, out = session(tmp_path, recording(seconds=8)), tmp_path / "bids"
    run_export(own, out, None)
    (out / "participants.json").unlink()
    (out / "participants.json").mkdir()  # in the way of a file
    before = {path: path.is_file() and path.read_bytes() for path in out.rglob("*")}
    with pytest.raises(OutputError, match="it is as it was"):
        run_export(own, out, None, subject="08")
    assert {path: path.is_file() and path.read_bytes() for path in out.rglob("*")} == before
    assert not list(tmp_path.glob(".export-*"))


def without_rate(made: Recording) -> Recording:
    """Take the rate from a recording's first stream."""
    return replace(made, streams=(replace(made.streams[0], sfreq=0.0), *made.streams[1:]))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda made: replace(made, streams=made.streams[1:]), "only EEG and MEG are exported"),
        (without_rate, "has no rate"),
    ],
)
def test_what_bids_cannot_hold_is_told(tmp_path: Path, wrong: Any, words: str) -> None:
    """One line, and no folder is left."""
    own = session(tmp_path, wrong(recording(seconds=8)))
    with pytest.raises(RecordingError, match=words):
        run_export(own, tmp_path / "bids", None)
    assert not (tmp_path / "bids").exists()
    assert not list(tmp_path.glob(".export-*"))


@pytest.mark.parametrize(
    ("source", "out", "options", "words"),
    [
        ("none", "b", {}, "no such file or folder"),
        ("pictures", "b", {}, "holds no recording"),
        ("sessions/sub-07/ses-02", "pictures", {}, "is there and no BIDS data set"),
        ("sessions/sub-07/ses-02", "b", {"subject": "a b"}, "--subject 'a b': a label is letters and digits"),
    ],
)
def test_what_is_none_is_told_in_one_line(
    tmp_path: Path, source: str, out: str, options: dict[str, str], words: str
) -> None:
    """No source, no recording, a folder of something else, a label that is none: nothing is written."""
    session(tmp_path, recording(seconds=4))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AppError, match=words):
        run_export(tmp_path / source, tmp_path / out, None, **options)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command(cli: Cli, tmp_path: Path) -> None:
    """It prints what it wrote."""
    own = session(tmp_path, recording(seconds=8))
    run = cli("export", str(own), "--bids", str(tmp_path / "bids"), "--json")
    assert run.returncode == 0, run.stderr
    (made,) = json.loads(run.stdout)["runs"]
    assert made["file"] == "sub-07/ses-02/eeg/sub-07_ses-02_task-calibration_run-01_eeg.vhdr"
