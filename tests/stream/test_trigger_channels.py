"""Trigger channels of files that mne reads: which are read, and what is said of the others."""

from pathlib import Path

import mne
import numpy as np
import pytest

from stream.epochs.ingest import FilterSpec, WindowSpec, windows_of
from stream.files.registry import read
from stream.markers.choice import MarkerSelector
from stream.types.recording import Recording
from stream.types.source_spec import SourceSpec

STEPS = {"STI001": [100, 400], "STI002": [300], "STI101": [100, 300, 400], "STI 014": [100, 300, 400]}


def recorded(folder: Path, channels: list[str], annotations: list[tuple[float, str]] = []) -> Recording:  # noqa: B006
    """Write and read a FIF file with some of these channels."""
    data = np.random.default_rng(0).normal(0, 2e-5, (1 + len(channels), 600))
    for row, name in enumerate(channels, start=1):
        data[row] = 0
        for place in STEPS[name]:
            data[row, place : place + 5] = row + place / 100
    info = mne.create_info(["Cz", *channels], 100, ["eeg", *["stim"] * len(channels)])
    raw = mne.io.RawArray(data, info, verbose="error")
    if annotations:
        raw.set_annotations(mne.Annotations([each[0] for each in annotations], 0, [each[1] for each in annotations]))
    raw.save(folder / "x_raw.fif", verbose="error")
    return read(folder / "x_raw.fif")


def codes(recording: Recording) -> list[tuple[float, int | None, str]]:
    """Time, code and channel of each event."""
    return [(event.time, event.code, event.stream) for event in recording.events]


@pytest.mark.parametrize("combined", ["STI101", "STI 014"])
def test_the_combined_channel_is_read(tmp_path: Path, combined: str) -> None:
    """Beside the single lines, MNE's combined channel is read, wherever it stands; the others are named."""
    recording = recorded(tmp_path, ["STI001", "STI002", combined])
    assert codes(recording) == [(1.0, 4, combined), (3.0, 6, combined), (4.0, 7, combined)]
    assert [event.stream for event in recording.other_events] == ["STI001", "STI002", "STI001"]
    (line,) = [line for line in recording.warnings if "triggers are read" in line]
    assert f"of {combined} (3) and not of STI001 (2), STI002 (1)" in line


def test_mne_stim_channel_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The channel that MNE's own setting names is read."""
    monkeypatch.setenv("MNE_STIM_CHANNEL", "STI002")
    assert codes(recorded(tmp_path, ["STI001", "STI002", "STI101"])) == [(3.0, 5, "STI002")]


def test_single_lines_are_all_read_and_named(tmp_path: Path) -> None:
    """Without a combined channel all are read, as by MNE, each event bears its channel, and a warning names them."""
    recording = recorded(tmp_path, ["STI001", "STI002"])
    assert codes(recording) == [(1.0, 2, "STI001"), (3.0, 5, "STI002"), (4.0, 5, "STI001")]
    assert any("several trigger channels are read, STI001 (2), STI002 (1)" in line for line in recording.warnings)


def test_config_names_another_channel(tmp_path: Path) -> None:
    """A config that names a channel cuts windows at its triggers, also where reading chose another."""
    recording = recorded(tmp_path, ["STI001", "STI002", "STI101"])
    source = SourceSpec(markers=MarkerSelector(channel="STI001"))
    windows = list(windows_of(recording, WindowSpec(tmin=0, tmax=0.3), FilterSpec(), source))
    assert [window.event.code for window in windows if window.event] == [2, 5]


def test_an_annotation_hides_no_trigger(tmp_path: Path) -> None:
    """Annotations and triggers are both read, what tells the same once, and it is said."""
    recording = recorded(tmp_path, ["STI101"], [(1.0, "face"), (2.0, "cough")])
    found = [(event.time, event.label, event.code) for event in recording.events]
    assert found == [(1.0, "face", 2), (2.0, "cough", None), (3.0, "4", 4), (4.0, "5", 5)]
    assert any("2 annotations and 3 triggers of STI101 are read; 1 of them" in line for line in recording.warnings)
