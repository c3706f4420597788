"""Several recordings replayed side by side: on one time line, each stream under its own name."""

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mne
import mne_bids
import numpy as np
import pytest
import pyxdf
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import RecordingError
from stream.files.formats.npz import write_npz
from stream.files.registry import read
from stream.files.xdf_writer import XdfWriter
from stream.lsl.discovery import describe, load_lsl
from stream.recording.alignment import align, length, with_unique_names
from stream.recording.record import record
from stream.recording.replay import replay
from stream.types.events import Event
from stream.types.montage import Montage
from stream.types.recording import BadSegment, RecordedStream, Recording
from stream.types.source_spec import StreamSelector
from stream.types.windows import Channels


def made(
    name: str,
    seconds: float = 2.0,
    sfreq: float = 100.0,
    events: tuple[Event, ...] = (),
    **dates: float,
) -> Recording:
    """Two channels that count samples up and down."""
    n = round(seconds * sfreq)
    data = np.stack([np.arange(n), -np.arange(n)], axis=1).astype(np.float32)
    channels = Channels(("Cz", "Pz"), ("eeg", "eeg"), ("V", "V"))
    stream = RecordedStream(name, "EEG", name, channels, sfreq, np.arange(n) / sfreq, data)
    return Recording(f"{name}.fif", "simulated EEG", (stream,), events, **dates)


@pytest.mark.parametrize(
    ("first", "second", "begins"),
    [
        ({"begun": 1e9}, {"begun": 1e9 + 1.25}, [0, 1.25]),
        ({"begun": 1e9 + 0.5}, {"begun": 1e9}, [0.5, 0]),
        ({"lsl_begun": 70.0}, {"lsl_begun": 70.75}, [0, 0.75]),
        ({"begun": 1e9, "lsl_begun": 70.0}, {"begun": 1e9 + 1, "lsl_begun": 70.75}, [0, 0.75]),
        ({"begun": 1e9, "lsl_begun": 70.0}, {"begun": 1e9 + 1, "lsl_begun": 9000.0}, [0, 1]),
        ({"begun": 1e9, "lsl_begun": 70.0}, {"begun": 1e9 + 1}, [0, 1]),
    ],
)
def test_begins_as_recorded(first: dict[str, float], second: dict[str, float], begins: list[float]) -> None:
    """The LSL clock tells where both have it and the dates agree, else the dates; events move with their samples."""
    pair = (made("a", events=(Event(0.5, "x"),), **first), made("b", events=(Event(0.5, "y"),), **second))
    for one, begin in zip(align(pair), begins, strict=True):
        assert one.streams[0].times[0] == pytest.approx(begin)
        assert one.events[0].time == pytest.approx(begin + 0.5)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [({"begun": 1e9}, {}, "no measurement date in b.fif"), ({"begun": 1e9}, {"begun": 1e9 + 60}, "do not overlap")],
)
def test_unknown_begins_are_said(
    first: dict[str, float], second: dict[str, float], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a date is missing, or the files do not overlap, all begin together and a warning says so."""
    for one in align((made("a", **first), made("b", **second))):
        assert one.streams[0].times[0] == 0
    assert "all recordings begin together" in caplog.text
    assert said in caplog.text


@given(st.lists(st.sampled_from(["a", "b", "a-2"]), min_size=1, max_size=6))
@settings(deadline=None)
def test_no_two_streams_bear_one_name(names: list[str]) -> None:
    """Whatever the files are called, every stream has its own name and source id; the first keeps what it had."""
    out = [one.streams[0] for one in with_unique_names([made(name) for name in names])]
    assert len({stream.name for stream in out}) == len({stream.source_id for stream in out}) == len(names)
    assert out[0].name == names[0]


def test_length_reaches_the_last_sample_or_event() -> None:
    """A recording lasts one period longer than its last sample, or until its last event."""
    assert length(made("a")) == pytest.approx(2.0)
    assert length(made("a", events=(Event(7.5, "late"),))) == 7.5


def received(tmp_path: Path, enough: dict[str, int], play: Callable[[threading.Event], None]) -> Path:
    """Record streams while something plays, until each holds enough samples; give the file."""
    stopped, ended, path = threading.Event(), threading.Event(), tmp_path / f"{uuid.uuid4().hex}.xdf"
    player = threading.Thread(target=play, args=(ended,))

    def watch(account: Any) -> None:
        if all(one.samples >= enough[one.name] for one in account.streams):
            stopped.set()

    player.start()
    try:
        record(path, [StreamSelector(name=name) for name in enough], seconds=30, progress=watch, stop=stopped)
    finally:
        ended.set()
        player.join()
    return path


def test_files_side_by_side(tmp_path: Path) -> None:
    """EEG, a device that began later and ended sooner, and markers alone, looped.

    Each arrives whole, as far apart as it was recorded, in every pass; and with what is known of its electrodes.
    """
    tag = uuid.uuid4().hex
    eeg, gaze, marks = f"eeg-{tag}", f"gaze-{tag}", f"marks-{tag}"
    montage = Montage(((0.0, 0.01, 0.09), None), "left mastoid", ("Pz",))
    first = made(eeg, begun=1e9, events=(Event(0.3, "eeg-event"),))
    recordings = (
        replace(
            first, streams=(replace(first.streams[0], channels=replace(first.streams[0].channels, montage=montage)),)
        ),
        made(gaze, sfreq=60.0, seconds=1.0, begun=1e9 + 0.5),
        Recording(marks, "markers", (), (Event(0.25, "face"), Event(0.75, "house")), begun=1e9 + 0.5),
    )
    enough = {eeg: 201, gaze: 61, f"{eeg}-markers": 2, f"{marks}-markers": 3}
    path = received(tmp_path, enough, lambda stop: replay(*recordings, speed=2.0, loop=True, stop=stop))
    streams, _ = pyxdf.load_xdf(path, synchronize_clocks=False, dejitter_timestamps=False, verbose=False)
    stamps = {one["info"]["name"][0]: one["time_stamps"] for one in streams}
    values = {one["info"]["name"][0]: one["time_series"] for one in streams}
    begin = stamps[eeg][0]
    np.testing.assert_allclose(stamps[eeg][:201] - begin, np.arange(201) / 200, atol=1e-6)
    np.testing.assert_array_equal(values[eeg][:201, 0], np.arange(201) % 200)
    np.testing.assert_allclose(stamps[gaze][:60] - begin, 0.25 + np.arange(60) / 120, atol=1e-6)
    np.testing.assert_allclose(stamps[gaze][60] - begin, 1.25, atol=1e-6)
    np.testing.assert_allclose(stamps[f"{eeg}-markers"][:2] - begin, [0.15, 1.15], atol=1e-6)
    np.testing.assert_allclose(stamps[f"{marks}-markers"][:3] - begin, [0.375, 0.625, 1.375], atol=1e-6)
    assert [row[0] for row in values[f"{marks}-markers"][:3]] == ["face", "house", "face"]
    stored = next(stream.channels.montage for stream in read(path).streams if stream.name == eeg)
    assert (stored.reference, stored.bads) == ("left mastoid", ("Pz",))
    assert stored.places[0] == pytest.approx((0.0, 0.01, 0.09))
    assert stored.places[1] is None


def test_recordings_without_data_are_refused() -> None:
    """Markers alone cannot be replayed: nobody would know when to begin."""
    with pytest.raises(RecordingError, match="no data stream"):
        replay(Recording("m", "markers", (), (Event(0.0, "x"),)))


def test_bad_segments_are_sent_as_lost(tmp_path: Path) -> None:
    """What is marked bad, and the sample behind a joint, come without a number in any channel; the rest as it was."""
    tag = uuid.uuid4().hex
    whole = made(tag)
    bad = (BadSegment(0.5, 0.2, "BAD_x"), BadSegment(1.0, 0.0, "boundary"))
    marked = replace(whole, streams=(replace(whole.streams[0], bad=bad),))
    path = received(tmp_path, {tag: 200}, lambda stop: replay(marked, stop=stop))
    (stream,) = read(path).streams
    lost = np.isnan(stream.data).all(axis=1)
    assert np.flatnonzero(lost).tolist() == [*range(50, 70), 100]
    np.testing.assert_array_equal(stream.data[~lost], whole.streams[0].data[~lost])


def test_each_marker_stream_is_sent_under_its_own_name(tmp_path: Path) -> None:
    """Events of several streams are told apart live; those of one go to '<name>-markers', wherever they came from."""
    tag = uuid.uuid4().hex
    events = (Event(0.5, "cat", stream=f"pictures-{tag}"), Event(0.7, "left", stream=f"keys-{tag}"))
    both = made(tag, events=events)
    path = received(tmp_path, {tag: 200} | {event.stream: 1 for event in events}, lambda stop: replay(both, stop=stop))
    assert {(event.label, event.stream) for event in read(path).events} == {
        ("cat", f"pictures-{tag}"), ("left", f"keys-{tag}"),
    }  # fmt: skip
    tag = uuid.uuid4().hex
    one = made(tag, events=events[:1])
    path = received(tmp_path, {tag: 200, f"{tag}-markers": 1}, lambda stop: replay(one, stop=stop))
    assert [event.label for event in read(path).events] == ["cat"]


def test_dates_and_montages_come_from_the_files(tmp_path: Path) -> None:
    """Measurement date, electrode places and bad channels are read from FIF, and kept by NPZ."""
    info = mne.create_info(["Cz", "Oz"], 100, "eeg")
    raw = mne.io.RawArray(np.zeros((2, 100)), info, verbose="error")
    raw.set_montage("standard_1020")
    raw.info["bads"] = ["Oz"]
    raw.set_meas_date(1.6e9)
    raw.crop(0.25).save(tmp_path / "x_raw.fif", verbose="error")
    recording = read(tmp_path / "x_raw.fif")
    (stream,) = recording.streams
    assert recording.begun == pytest.approx(1.6e9 + 0.25)
    assert stream.channels.montage.bads == ("Oz",)
    want = raw.info["chs"][1]["loc"][:3]
    assert stream.channels.montage.places[1] == pytest.approx(tuple(want))
    write_npz(recording, tmp_path / "x.npz")
    assert read(tmp_path / "x.npz").streams[0].channels.montage == stream.channels.montage
    assert read(tmp_path / "x.npz").begun == recording.begun


def test_montage_of_a_live_stream() -> None:
    """An amplifier's metadata, as XDF's page on EEG has them, give places in metres, reference and bad channels."""
    lsl = load_lsl()
    info = lsl.StreamInfo("amp", "EEG", 2, 100.0, "float32", uuid.uuid4().hex)
    channels = info.desc().append_child("channels")
    for label, place, status in (("Cz", "0 10.5 90", "good"), ("Oz", "x", "bad")):
        channel = channels.append_child("channel")
        for key, value in (("label", label), ("unit", "microvolts"), ("status", status)):
            channel.append_child_value(key, value)
        location = channel.append_child("location")
        for axis, number in zip("XYZ", place.split(), strict=False):
            location.append_child_value(axis, number)
    info.desc().append_child("reference").append_child_value("label", "A1")
    montage = describe(lsl.StreamOutlet(info).get_info(), None).channels.montage
    assert (montage.reference, montage.bads, montage.places[1]) == ("A1", ("Oz",), None)
    assert montage.places[0] == pytest.approx((0.0, 0.0105, 0.09))


def test_xdf_knows_when_it_was_recorded(tmp_path: Path) -> None:
    """Our own XDF files bear a date; their time 0 is the first stamp of the LSL clock; markers alone can be read."""
    header = (
        '<?xml version="1.0"?><info><name>m</name><type>Markers</type><channel_count>1</channel_count>'
        "<nominal_srate>0</nominal_srate><channel_format>string</channel_format><source_id>m</source_id></info>"
    )
    before = time.time()
    with XdfWriter(tmp_path / "x.xdf") as file:
        number = file.stream(header)
        file.samples(number, np.array([512.5, 513.0]), np.array([[b"a"], [b"b"]], dtype=object))
    recording = read(tmp_path / "x.xdf")
    assert recording.begun is not None
    assert before - 0.01 <= recording.begun <= time.time()
    assert recording.lsl_begun == 512.5
    assert (recording.streams, recording.events) == ((), (Event(0.0, "a"), Event(0.5, "b")))


def test_command_replays_bids_runs(tmp_path: Path, cli: Any) -> None:
    """`minddiffuser replay FOLDER FILE --subject S` plays both, and says that they begin together."""
    tag = uuid.uuid4().hex
    raw = mne.io.RawArray(np.zeros((1, 100)), mne.create_info(["Cz"], 100, "eeg"), verbose="error")
    place = mne_bids.BIDSPath(subject="01", task=tag, datatype="eeg", root=tmp_path / "ds")
    mne_bids.write_raw_bids(raw, place, format="BrainVision", allow_preload=True, verbose="error")
    folder, table = str(tmp_path / "ds"), tmp_path / "gaze.csv"
    table.write_text("timestamps,x\n" + "".join(f"{i / 50},1\n" for i in range(50)))
    run = cli("replay", folder, str(table), "--subject", "1", "--no-wait", "--json", "--speed", "10")
    assert run.returncode == 0, run.stderr
    name = f"sub-01_task-{tag}_eeg.vhdr"
    assert json.loads(run.stdout) == {"replayed": f"{name} + gaze.csv", "stopped": False}
    assert "all recordings begin together" in run.stderr.replace("\n", " ")
