"""Live ingest and replay over real LSL sockets, the replay in a process of its own."""

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.epochs.ingest import FilterSpec, WindowSpec, windows_of
from stream.errors import RecordingError, SourceError
from stream.lsl.discovery import describe, find, load_lsl
from stream.lsl.live import LiveIngest, SourceSpec, StreamSelector
from stream.recording.replay import replay
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels, Window
from tests.stream.conftest import wait_for


def made(name: str, seconds: float = 6.0, sfreq: float = 250.0, *, hole: bool = False) -> Recording:
    """Noise of 3 channels with an event on every 40th sample, and a hole of 25 samples if asked for."""
    n = round(seconds * sfreq)
    grid = np.delete(np.arange(n), np.s_[800:825]) if hole else np.arange(n)
    data = np.random.default_rng(0).normal(3e-4, 2e-5, (len(grid), 3)).astype(np.float32)
    channels = Channels(("Cz", "Pz", "EOG"), ("eeg", "eeg", "eog"), ("V", "V", "V"))
    stream = RecordedStream(name, "EEG", name, channels, sfreq, grid / sfreq, data)
    events = tuple(Event(k * 40 / sfreq, f"stim_{k % 7:03d}") for k in range(1, n // 40 - 4))
    return Recording(name, "simulated EEG", (stream,), events)


def live(name: str, window: WindowSpec, filters: FilterSpec, got: list[Window]) -> LiveIngest:
    """Ingest of the stream of a name into a list."""
    return LiveIngest(SourceSpec(name=name, timeout_s=30), window, filters, got.append)


@pytest.mark.parametrize(("speed", "hole"), [(1.0, False), (5.0, True), (100.0, True)])
def test_live_and_offline_windows_agree(play: Callable[..., Any], speed: float, hole: bool) -> None:
    """At any speed, holes included, a replay's live windows are those cut from the file: ids, data and flags."""
    name = f"t-{uuid.uuid4().hex}"
    recording = made(name, hole=hole)
    window = WindowSpec(tmin=-0.1, tmax=0.3, baseline=(-0.1, 0.0), repeats=2)
    filters = FilterSpec(highpass=1.0, lowpass=40.0, decimate=2, channels=("eeg",))
    want = list(windows_of(recording, window, filters))
    assert len(want) > 25
    assert any(w.quality.rejected for w in want) == hole
    got: list[Window] = []
    ingest = live(name, window, filters, got)
    play(recording, speed)
    channels = ingest.start()
    try:
        wait_for(lambda: ingest.stats().samples >= len(recording.streams[0].times), 40)
    finally:
        ingest.stop()
    assert ingest.source is not None
    assert ingest.source.description == "simulated EEG"
    assert (channels.names, ingest.sfreq) == (("Cz", "Pz"), 125.0)
    assert [w.id for w in got] == [w.id for w in want]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-6, atol=1e-6 * float(np.abs(b.data).max()))
        assert (a.quality, a.repeats) == (b.quality, b.repeats)
        assert a.tmin == pytest.approx(b.tmin, abs=1e-4)
        assert a.ready >= a.acquired
    stats = ingest.stats()
    assert (stats.samples, stats.lost) == (len(recording.streams[0].times), 25 * hole)


def test_irregular_stream_of_vectors(play: Callable[..., Any]) -> None:
    """One vector a picture: each marker gets its own vector, at 20 times the speed."""
    name = f"t-{uuid.uuid4().hex}"
    times = np.cumsum(np.random.default_rng(5).uniform(0.2, 0.7, 40))
    data = np.random.default_rng(6).poisson(3, (40, 89)).astype(np.float32)
    channels = Channels(tuple(f"n{i}" for i in range(89)), ("unit",) * 89, ("count",) * 89)
    stream = RecordedStream(name, "spikes", name, channels, 0.0, times, data)
    events = tuple(Event(float(at), f"photo{i}") for i, at in enumerate(times))
    got: list[Window] = []
    ingest = live(name, WindowSpec(mode="sample", tmin=0, tmax=0.1), FilterSpec(), got)
    play(Recording(name, "macaque V4 spikes", (stream,), events), 20.0)
    ingest.start()
    try:
        wait_for(lambda: len(got) == 40)
    finally:
        ingest.stop()
    assert [w.id for w in got] == [f"{i:05d}-photo{i}" for i in range(40)]
    np.testing.assert_array_equal(np.stack([w.data[:, 0] for w in got]), data)


def test_loop_goes_on_without_a_gap(play: Callable[..., Any]) -> None:
    """A looped replay's timestamps go on, and its second pass gives the first one's data under new numbers."""
    name = f"t-{uuid.uuid4().hex}"
    recording = made(name, seconds=2.0)
    got: list[Window] = []
    ingest = live(name, WindowSpec(tmin=0, tmax=0.1), FilterSpec(), got)
    play(recording, 5.0, loop=True)
    ingest.start()
    n = len(recording.events)
    try:
        wait_for(lambda: len(got) >= 2 * n)
    finally:
        ingest.stop()
    assert ingest.stats().lost == 0
    assert got[n].id == f"{n:05d}-{recording.events[0].label}"
    for first, second in zip(got[:n], got[n : 2 * n], strict=True):
        np.testing.assert_array_equal(first.data, second.data)


def test_killed_source_is_lost_and_found_again(play: Callable[..., Any]) -> None:
    """A killed source shows as lost; when it is back under the same id, windows come again and the loss is counted."""
    name = f"t-{uuid.uuid4().hex}"
    got: list[Window] = []
    ingest = live(name, WindowSpec(mode="sliding", tmin=0, tmax=0.2, step=0.2), FilterSpec(), got)
    first = play(made(name), loop=True)
    ingest.start()
    try:
        wait_for(lambda: got)
        assert ingest.stats().state == "streaming"
        first.kill()
        first.wait()
        wait_for(lambda: ingest.stats().state == "lost")
        before = len(got)
        play(made(name), loop=True)
        wait_for(lambda: len(got) > before and got[-1].quality.rejected is None, 30)
        stats = ingest.stats()
        assert (stats.state, stats.disconnections, stats.gap_count) == ("streaming", 1, 1)
        assert stats.lost > 100
        assert any(window.quality.samples_lost for window in got[before:])
    finally:
        ingest.stop()


def test_stop_leaves_no_thread(play: Callable[..., Any]) -> None:
    """Five starts and stops on one source leave no thread behind."""
    name = f"t-{uuid.uuid4().hex}"
    play(made(name), loop=True)
    for _ in range(5):
        got: list[Window] = []
        ingest = live(name, WindowSpec(mode="sliding", tmin=0, tmax=0.1, step=0.1), FilterSpec(), got)
        ingest.start()
        wait_for(lambda got=got: got)
        ingest.stop()
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("lsl-")] == []


@pytest.fixture
def outlet() -> Iterator[Callable[..., Any]]:
    """Make outlets in this process."""
    lsl, kept = load_lsl(), []

    def make(name: str, source_id: str, unit: str | None = "uV", kind: str = "EEG", fmt: str = "float32") -> Any:
        info = lsl.StreamInfo(name, kind, 2, 100.0, fmt, source_id)
        channels = info.desc().append_child("channels")
        for label in ("Oz", "Cz"):
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            if unit:
                channel.append_child_value("unit", unit)
        kept.append(lsl.StreamOutlet(info))
        return kept[-1]

    yield make
    kept.clear()


def test_missing_stream_lists_what_is_there(outlet: Callable[..., Any]) -> None:
    """No match is an error that says what was asked for and what was found."""
    name = f"there-{uuid.uuid4().hex}"
    outlet(name, name)
    with pytest.raises(SourceError) as caught:
        find(StreamSelector(name="absent"), 0.1, lsl=load_lsl())
    assert "name 'absent'" in str(caught.value)
    assert name in str(caught.value)


def test_several_and_doubled_streams_are_refused(outlet: Callable[..., Any]) -> None:
    """Two streams of one name are ambiguous; two with one source id are refused even if the name tells them apart."""
    name = f"twin-{uuid.uuid4().hex}"
    outlet(name, name + "-1")
    outlet(name, name + "-2")
    with pytest.raises(SourceError, match="2 streams with name"):
        find(StreamSelector(name=name), 5, lsl=load_lsl())
    assert find(StreamSelector(name=name, source_id=name + "-2"), 5, lsl=load_lsl()).source_id() == name + "-2"
    outlet(name + "-other", name + "-1")
    with pytest.raises(SourceError, match="carry source_id"):
        find(StreamSelector(name=name + "-other"), 5, lsl=load_lsl())


def test_properties_choose(outlet: Callable[..., Any]) -> None:
    """A stream can be chosen by any of its metadata."""
    kind = f"K{uuid.uuid4().hex}"
    outlet("one", kind + "1", unit="uV", kind=kind)
    outlet("two", kind + "2", unit="mV", kind=kind)
    selector = StreamSelector(type=kind, properties={"desc/channels/channel/unit": "mV"})
    assert find(selector, 5, lsl=load_lsl()).name() == "two"


def test_units_become_si_or_are_refused(outlet: Callable[..., Any]) -> None:
    """Microvolts are scaled to volts; a stream that does not say its unit is refused unless the config does.

    What the stream itself says rules over the config; auxiliary channels without a unit are plain numbers.
    """
    known, silent = outlet("known", "k1").get_info(), outlet("silent", "s1", unit=None).get_info()
    source = describe(known, None)
    assert source.channels == Channels(("Oz", "Cz"), ("eeg", "eeg"), ("V", "V"))
    np.testing.assert_allclose(source.factors, 1e-6)
    assert (source.sfreq, source.speed) == (100.0, 1.0)
    with pytest.raises(SourceError, match=r"channel Oz.*source\.unit"):
        describe(silent, None)
    np.testing.assert_allclose(describe(silent, "mV").factors, 1e-3)
    np.testing.assert_allclose(describe(known, "mV").factors, 1e-6)
    trigger = outlet("trigger", "t1", unit=None, kind="AUX").get_info()
    assert describe(trigger, None).channels.units == ("count", "count")


def test_integer_stream_and_markers_from_elsewhere(outlet: Callable[..., Any]) -> None:
    """An int16 stream in microvolts with a numeric marker stream of another name gives windows in volts."""
    lsl, name = load_lsl(), f"int-{uuid.uuid4().hex}"
    data = outlet(name, name, fmt="int16")
    marks = lsl.StreamOutlet(lsl.StreamInfo(name + "-codes", "Codes", 1, 0.0, "int32", name + "-codes"))
    got: list[Window] = []
    spec = SourceSpec(name=name, markers=StreamSelector(name=name + "-codes"), timeout_s=10)
    ingest = LiveIngest(spec, WindowSpec(tmin=0, tmax=0.1), FilterSpec(), got.append)
    ingest.start()
    try:
        begin = lsl.local_clock()
        stamps = begin + np.arange(100) / 100
        marks.push_sample([70000], float(stamps[50]))
        data.push_chunk(np.arange(200, dtype=np.int16).reshape(100, 2), stamps.tolist())
        wait_for(lambda: got)
    finally:
        ingest.stop()
    assert got[0].id == "00000-70000"
    assert got[0].event is not None
    assert got[0].event.code == 70000
    np.testing.assert_allclose(got[0].data[0], np.arange(100, 120, 2) * 1e-6, rtol=1e-6)


def test_a_receiver_that_throws_ends_the_ingest_openly(play: Callable[..., Any]) -> None:
    """What `on_window` throws is found in `error`, and the thread is gone."""
    name = f"t-{uuid.uuid4().hex}"

    def refuse(window: Window) -> None:
        raise ValueError(f"no room for {window.id}")

    spec = WindowSpec(mode="sliding", tmin=0, tmax=0.1, step=0.1)
    ingest = LiveIngest(SourceSpec(name=name, timeout_s=30), spec, FilterSpec(), refuse)
    play(made(name), loop=True)
    ingest.start()
    wait_for(lambda: ingest.error)
    ingest.stop()
    assert "no room for 00000-sliding" in str(ingest.error)


def test_replay_refuses_what_it_cannot_play() -> None:
    """A speed out of range and a recording without samples are refused in one line."""
    with pytest.raises(RecordingError, match="out of range"):
        replay(made("x"), speed=1000)
    with pytest.raises(RecordingError, match="without samples"):
        replay(made("x", seconds=0.0))


def test_configuration_comes_before_the_first_call(tmp_path: Path) -> None:
    """In a fresh process the known peers are set, and a user's own configuration file is left to rule."""
    code = "import json, sys; from stream.lsl.discovery import load_lsl; load_lsl(('127.0.0.1', '10.0.0.7')); "
    code += "import stream.lsl.discovery as s; print(json.dumps(s._peers))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(out.stdout) == ["127.0.0.1", "10.0.0.7"]


def test_the_end_of_a_replay_is_no_loss(play: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """A replay that sent all it announced may go without a warning; one that is killed half-way may not."""
    for killed in (False, True):
        caplog.clear()
        name = f"t-{uuid.uuid4().hex}"
        ingest = live(name, WindowSpec(mode="sliding", tmin=0, tmax=0.1, step=0.1), FilterSpec(), [])
        process = play(made(name, seconds=2.0))
        ingest.start()
        try:
            if killed:
                wait_for(lambda ingest=ingest: ingest.stats().samples)
                process.kill()
            wait_for(lambda ingest=ingest: ingest.stats().state == "lost", 30)
        finally:
            ingest.stop()
        assert any("is lost" in record.message for record in caplog.records) == killed


def test_markers_of_another_source_are_not_taken(outlet: Callable[..., Any]) -> None:
    """Of several marker streams the one that bears the source's name is taken."""
    lsl, name = load_lsl(), f"own-{uuid.uuid4().hex}"
    outlet(name, name)
    marks = [
        lsl.StreamOutlet(lsl.StreamInfo(each, "Markers", 1, 0.0, "string", each))
        for each in (f"{name}-markers", f"other-{name}-markers")
    ]
    got: list[Window] = []
    ingest = live(name, WindowSpec(tmin=0, tmax=0.1), FilterSpec(), got)
    ingest.start()
    try:
        wait_for(marks[0].have_consumers)
        assert not marks[1].have_consumers()
    finally:
        ingest.stop()


def test_slow_stream_of_volumes(play: Callable[..., Any]) -> None:
    """At 0.5 Hz, one scan in two seconds, live windows of lagged volumes are those of the file."""
    name = f"t-{uuid.uuid4().hex}"
    times = np.arange(40) * 2.0
    data = np.random.default_rng(8).normal(1000, 10, (40, 30)).astype(np.float32)
    channels = Channels(tuple(f"v{i}" for i in range(30)), ("voxel",) * 30, ("count",) * 30)
    stream = RecordedStream(name, "fMRI", name, channels, 0.5, times, data)
    recording = Recording(name, "simulated fMRI", (stream,), tuple(Event(5.3 * k, f"p{k}") for k in range(1, 13)))
    window, filters = WindowSpec(mode="mean", tmin=4, tmax=8), FilterSpec(percent_signal=60)
    want = list(windows_of(recording, window, filters))
    assert len(want) == 12
    got: list[Window] = []
    ingest = live(name, window, filters, got)
    play(recording, 60.0)
    ingest.start()
    try:
        wait_for(lambda: len(got) == len(want))
    finally:
        ingest.stop()
    for a, b in zip(got, want, strict=True):
        assert a.id == b.id
        np.testing.assert_allclose(a.data, b.data, atol=1e-4)
