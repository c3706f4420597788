"""Several live streams and marker sources in one window, over real LSL sockets."""

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stream.epochs.follower import FollowerSpec
from stream.epochs.ingest import WindowSpec, windows_of
from stream.errors import SourceError
from stream.lsl.discovery import load_lsl
from stream.lsl.live import LiveIngest, SourceSpec, StreamSelector
from stream.signal.filters import FilterSpec
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels, Window
from tests.stream.conftest import wait_for

AHEAD_S = 500  # of ours is the clock of the other machine
ELSEWHERE = ["unshare", "--time", "--monotonic", str(AHEAD_S), "--boottime", str(AHEAD_S), "--uts", "--fork"]
ELSEWHERE += ["--kill-child", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"]

SEND = """
import json, sys, time
import numpy as np
from stream.lsl.discovery import load_lsl
name, sfreq, values = sys.argv[1], float(sys.argv[2]), json.load(open(sys.argv[3]))
lsl = load_lsl()
info = lsl.StreamInfo(name, "MEG", 1, sfreq, "double64", name)
channel = info.desc().append_child("channels").append_child("channel")
channel.append_child_value("label", "MEG001")
channel.append_child_value("unit", "T")
outlet = lsl.StreamOutlet(info)
print("ready", lsl.local_clock(), flush=True)
begin = float(sys.stdin.readline())
sent = 0
while sent < len(values):
    due = min(len(values), max(sent, int((lsl.local_clock() - begin) * sfreq)))
    if due > sent:
        stamps = begin + np.arange(sent, due) / sfreq
        outlet.push_chunk([[value] for value in values[sent:due]], stamps.tolist())
        sent = due
    time.sleep(0.005)
sys.stdin.readline()
"""


def stream(name: str, kind: str, sfreq: float, times: np.ndarray, frequency: float) -> RecordedStream:
    """Two channels that swing at a frequency, with noise."""
    data = np.sin(2 * np.pi * frequency * times)[:, None] * [1.0, -2.0]
    data += np.random.default_rng(len(times)).normal(0, 0.1, data.shape)
    channels = Channels((f"{kind}1", f"{kind}2"), ("misc",) * 2, ("count",) * 2)
    return RecordedStream(f"{kind}-{name}", kind, f"{kind}-{name}", channels, sfreq, times, data.astype(np.float32))


def check_same(got: list[Window], want: list[Window], atol: float) -> None:
    """Hold live windows against those cut from the file."""
    assert [window.id for window in got] == [window.id for window in want]
    for a, b in zip(got, want, strict=True):
        assert a.channels == b.channels
        assert a.quality == b.quality
        np.testing.assert_allclose(a.data, b.data, atol=atol * float(np.abs(b.data).max()))


def test_lost_extra_stream_is_a_lost_source(play: Callable[..., Any]) -> None:
    """When one of two streams is killed the state says so and windows go on, flagged; then it is back."""
    name = uuid.uuid4().hex
    eeg, meg = (stream(name, kind, 250, np.arange(1500) / 250, 7) for kind in ("EEG", "MEG"))
    spec = WindowSpec(mode="sliding", tmin=0, tmax=0.2, step=0.2)
    got: list[Window] = []
    extra = [FollowerSpec(name=meg.name)]
    ingest = LiveIngest(SourceSpec(name=eeg.name, timeout_s=30), spec, FilterSpec(), got.append, extra)
    play(Recording("eeg", "", (eeg,), ()), loop=True)
    second = play(Recording("meg", "", (meg,), ()), loop=True)
    ingest.start()
    try:
        wait_for(lambda: any(window.quality.rejected is None for window in got))
        second.kill()
        second.wait()
        wait_for(lambda: ingest.stats().state == "lost")
        assert ingest.stats().streams[eeg.name].state == "streaming"
        before = len(got)
        wait_for(lambda: len(got) > before + 5)
        assert all(window.quality.rejected for window in got[before + 1 :])
        play(Recording("meg", "", (meg,), ()), loop=True)
        wait_for(lambda: got[-1].quality.rejected is None, 30)
        stats = ingest.stats()
        assert (stats.state, stats.disconnections, stats.streams[meg.name].gap_count > 0) == ("streaming", 1, True)
    finally:
        ingest.stop()


@pytest.fixture
def elsewhere(tmp_path: Any) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a sender on what looks like another machine: another host name, a clock that is ahead."""
    if not shutil.which("unshare") or subprocess.run([*ELSEWHERE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("another clock and host name need unshare(1) and the right to use it")
    running: list[subprocess.Popen[str]] = []

    def start(name: str, sfreq: float, values: list[float]) -> subprocess.Popen[str]:
        (tmp_path / "values.json").write_text(json.dumps(values), "utf-8")
        command = [*ELSEWHERE, sys.executable, "-c", SEND, name, str(sfreq), str(tmp_path / "values.json")]
        running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_other_clocks_and_two_marker_sources(elsewhere: Callable[..., subprocess.Popen[str]]) -> None:
    """A stream whose clock is 500 s ahead, text and number markers: windows are those of one file with one clock.

    What both marker sources tell of is one window, and counted as doubled.
    """
    lsl, name = load_lsl(), uuid.uuid4().hex
    eeg = stream(name, "EEG", 250, np.arange(500) / 250, 4)
    meg_times = np.arange(1000) / 500
    meg = np.sin(2 * np.pi * 3 * meg_times)
    remote = elsewhere(f"MEG-{name}", 500.0, meg.tolist())
    assert remote.stdout is not None
    assert remote.stdin is not None
    assert float(remote.stdout.readline().split()[1]) - lsl.local_clock() == pytest.approx(AHEAD_S, abs=5)
    info = lsl.StreamInfo(eeg.name, "EEG", 2, 250, "float32", eeg.name)
    outlet = lsl.StreamOutlet(info)
    words = lsl.StreamOutlet(lsl.StreamInfo(f"words-{name}", "Markers", 1, 0, "string", f"words-{name}"))
    codes = lsl.StreamOutlet(lsl.StreamInfo(f"codes-{name}", "Codes", 1, 0, "int32", f"codes-{name}"))
    texts = [(0.5, "face"), (1.0, "7"), (1.2, "house")]
    numbers = [(0.8, 70000), (1.001, 7), (1.5, 3)]
    source = SourceSpec(
        name=eeg.name,
        unit="count",
        timeout_s=30,
        markers=(StreamSelector(name=f"words-{name}"), StreamSelector(name=f"codes-{name}")),
    )
    window, extra = WindowSpec(tmin=0, tmax=0.3), [FollowerSpec(name=f"MEG-{name}", filters=FilterSpec(lowpass=40))]
    got: list[Window] = []
    ingest = LiveIngest(source, window, FilterSpec(), got.append, extra)
    ingest.start()
    try:
        begin = lsl.local_clock() + 0.2
        remote.stdin.write(f"{begin + AHEAD_S!r}\n")
        remote.stdin.flush()
        for at, code in numbers:
            codes.push_sample([code], begin + at)
        for at, text in texts:
            words.push_sample([text], begin + at)
        sent = 0
        while sent < len(eeg.times):
            due = int(np.searchsorted(eeg.times, lsl.local_clock() - begin))
            if due > sent:
                outlet.push_chunk(eeg.data[sent:due], (begin + eeg.times[sent:due]).tolist())
            sent = max(sent, due)
        wait_for(lambda: len(got) == 5)
    finally:
        ingest.stop()
    channels = Channels(("MEG001",), ("mag",), ("T",))
    other = RecordedStream(f"MEG-{name}", "MEG", "m", channels, 500, meg_times, meg[:, None].astype(np.float32))
    here = replace(eeg, channels=Channels(("EEG001", "EEG002"), ("eeg", "eeg"), ("count", "count")))
    events = [Event(at, str(label)) for at, label in (*texts, *numbers)]
    want = list(windows_of(Recording("r", "", (here, other), tuple(events)), window, FilterSpec(), source, extra))
    assert [each.event.label for each in want if each.event] == ["face", "70000", "7", "house", "3"]
    check_same(got, want, 5e-3)  # the other machine's clock is known to a fraction of a millisecond
    assert ingest.stats().duplicates == 1
    assert [each.event.code for each in got if each.event] == [None, 70000, 7, None, 3]


def test_two_markers_that_are_one_stream_are_refused() -> None:
    """Two selectors that find the same marker stream would double every marker."""
    lsl, name = load_lsl(), uuid.uuid4().hex
    outlets = [
        lsl.StreamOutlet(lsl.StreamInfo(name, "EEG", 1, 100, "float32", name)),
        lsl.StreamOutlet(lsl.StreamInfo(f"m-{name}", "Markers", 1, 0, "string", f"m-{name}")),
    ]
    markers = (StreamSelector(name=f"m-{name}"), StreamSelector(source_id=f"m-{name}"))
    source = SourceSpec(name=name, unit="uV", markers=markers)
    ingest = LiveIngest(source, WindowSpec(), FilterSpec(), lambda _: None)
    with pytest.raises(SourceError, match="two of the markers are one stream"):
        ingest.start()
    del outlets
