"""What becomes of the ingest when streams die, come back, are doubled, or were never what they say they are."""

import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stream.epochs.ingest import WindowSpec, windows_of
from stream.errors import SourceError
from stream.lsl.discovery import load_lsl
from stream.lsl.live import LiveIngest, SourceSpec, StreamSelector
from stream.markers.markers import MarkerColumns
from stream.signal.filters import FilterSpec
from stream.types.windows import Window
from tests.stream.amp import Amp, markers, outlet
from tests.stream.conftest import wait_for
from tests.stream.test_lsl import made

WINDOW = WindowSpec(tmin=0.0, tmax=0.1)
SLIDING = WindowSpec(mode="sliding", tmin=0.0, tmax=0.1, step=0.1)


@pytest.fixture
def name() -> str:
    """Name a stream as no other."""
    return f"amp-{uuid.uuid4().hex[:12]}"


@contextmanager
def reading(
    source: SourceSpec, got: list[Window], window: WindowSpec = WINDOW, filters: FilterSpec | None = None
) -> Iterator[LiveIngest]:
    """Read a source while the block goes on."""
    ingest = LiveIngest(source, window, filters or FilterSpec(), got.append)
    ingest.start()
    try:
        yield ingest
    finally:
        ingest.stop()


def label(window: Window) -> str:
    """Name a window by its event."""
    assert window.event is not None
    return window.event.label


def mark(stream: Any, text: str, got: list[Window]) -> None:
    """Push a marker until its window has come: markers of the first moment may be lost with the connection."""

    def came() -> bool:
        stream.push_sample([text])
        return any(label(window) == text for window in got)

    wait_for(came)


def logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    """Look for a text in the log."""
    return any(text in record.getMessage() for record in caplog.records)


def test_a_marker_stream_that_dies_leaves_the_data_alone(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The EEG goes on without a gap while its marker program is away; the program is named, and taken up again."""
    caplog.set_level(logging.INFO)
    got: list[Window] = []
    keys, other = f"{name}-keys", f"{name}-other"
    first, second = markers(keys), markers(other)
    source = SourceSpec(name=name, markers=(StreamSelector(name=keys), StreamSelector(name=other)))
    with Amp(outlet(name)), reading(source, got) as ingest:
        mark(first, "a", got)
        assert ingest.stats().problems == []
        del first
        wait_for(lambda: logged(caplog, f"marker stream {keys} is lost"))
        [problem] = ingest.stats().problems
        assert keys in problem
        assert "start its program again" in problem
        mark(second, "b", got)
        assert ingest.stats().state == "streaming"
        first = markers(keys)
        wait_for(lambda: logged(caplog, f"marker stream {keys} is back"))
        mark(first, "c", got)
        stats = ingest.stats()
        assert (stats.problems, stats.lost, stats.gap_count, stats.disconnections) == ([], 0, 0, 0)
        assert stats.marker_disconnections == 1
        assert ingest.error is None
        before = stats.samples
        wait_for(lambda: ingest.stats().samples > before)
    assert all(window.quality.rejected is None for window in got)


def test_a_marker_program_that_starts_with_another_source_id(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Scripts make up their source id at every start, or leave it out: markers go on, the namesake in use is let be."""
    caplog.set_level(logging.INFO)
    got: list[Window] = []
    keys, other = f"{name}-keys", f"{name}-other"
    stream, second = markers(keys, source_id="pid-1"), markers(other, source_id="pid-1b")
    source = SourceSpec(name=name, markers=(StreamSelector(name=keys), StreamSelector(name=other)))
    with Amp(outlet(name)), reading(source, got) as ingest:
        mark(stream, "first", got)
        for turn, source_id in enumerate((f"{name}-2", "", f"{name}-3")):
            del stream
            wait_for(lambda: ingest.stats().problems)
            assert "looked for by its name and type" in ingest.stats().problems[0]
            caplog.clear()
            stream = markers(keys, source_id=source_id)
            wait_for(lambda: logged(caplog, f"marker stream {keys} is back"), 20)
            mark(stream, f"again {turn}", got)
            mark(second, f"other {turn}", got)
        stats = ingest.stats()
        assert (stats.problems, stats.lost, stats.gap_count, stats.disconnections) == ([], 0, 0, 0)
        assert (stats.marker_disconnections, stats.duplicates) == (3, 0)
    assert all(window.quality.rejected is None for window in got)


def test_a_source_id_that_the_config_names_is_kept(name: str) -> None:
    """A stream of the lost one's name under another source id is not taken where it may be another device; it is named.

    That holds for the samples, and for markers whose source id the config states.
    """
    got: list[Window] = []
    keys = f"{name}-keys"
    stream = markers(keys, source_id=f"{name}-a")
    device = outlet(name)
    amp = Amp(device)
    with amp, reading(SourceSpec(name=name, markers=(StreamSelector(source_id=f"{name}-a"),)), got) as ingest:
        mark(stream, "first", got)
        del stream
        amp.paused.set()
        amp.outlet = None
        del device
        wait_for(lambda: len(ingest.stats().problems) == 2)
        again = markers(keys, source_id=f"{name}-b"), outlet(name, source_id=f"{name}-c")
        wait_for(lambda: sum("which is not that of" in line for line in ingest.stats().problems) == 2, 20)
        lines = ingest.stats().problems
        assert f"source_id '{name}', which is not that of {name} (type EEG" in lines[0]
        assert f"source_id '{name}-a', which is not that of {keys} (type Markers" in lines[1]
        del again


def test_lost_is_followed_by_back(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A data stream that is gone, and one that only falls silent, are said to be back when they are."""
    caplog.set_level(logging.INFO)
    got: list[Window] = []
    device = outlet(name)
    amp = Amp(device)
    with amp, reading(SourceSpec(name=name), got, SLIDING) as ingest:
        wait_for(lambda: got)
        amp.paused.set()
        wait_for(lambda: logged(caplog, f"stream {name} is silent"))
        assert "sends no samples" in ingest.stats().problems[-1]
        amp.paused.clear()
        wait_for(lambda: logged(caplog, f"stream {name} is back"))
        wait_for(lambda: ingest.stats().problems == [])
        caplog.clear()
        amp.outlet = outlet(name)
        del device
        wait_for(lambda: logged(caplog, f"stream {name} is back"), 30)
        assert logged(caplog, f"stream {name} is lost")
        wait_for(lambda: ingest.stats().state == "streaming")
        assert ingest.stats().disconnections == 2


def test_a_stream_that_comes_back_as_another_ends_clearly(name: str) -> None:
    """A source with another number of channels cannot go on; the error says what differs."""
    got: list[Window] = []
    device = outlet(name)
    amp = Amp(device)
    with amp, reading(SourceSpec(name=name), got, SLIDING) as ingest:
        wait_for(lambda: got)
        amp.paused.set()
        amp.outlet = None
        del device
        wait_for(lambda: ingest.stats().state == "lost")
        again = outlet(name, labels=("Cz", "Pz", "Oz"))
        wait_for(lambda: ingest.error)
        assert "came back with 3 channels instead of 2" in str(ingest.error)
        del again


def test_a_twin_is_named_while_the_session_runs(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A second stream of the same source id is a warning and a problem at once, until it is stopped."""
    caplog.set_level(logging.INFO)
    got: list[Window] = []
    with Amp(outlet(name)), reading(SourceSpec(name=name), got, SLIDING) as ingest:
        wait_for(lambda: got)
        assert ingest.stats().problems == []
        twin = outlet(f"{name}-twin", source_id=name)
        wait_for(lambda: any("2 streams carry source_id" in line for line in ingest.stats().problems), 6)
        assert logged(caplog, f"2 streams carry source_id '{name}'")
        del twin
        wait_for(lambda: ingest.stats().problems == [])
        assert ingest.stats().lost == 0


def test_what_keeps_a_lost_stream_away_is_said(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """When two streams could be the lost one, that is said at once, and it is taken up when one of them is stopped."""
    got: list[Window] = []
    device, second = outlet(name), outlet(f"{name}-b", source_id=f"{name}-b")
    amp = Amp(device)
    with amp, reading(SourceSpec(name=name), got, SLIDING) as ingest:
        wait_for(lambda: got)
        amp.outlet = second
        del device
        wait_for(lambda: ingest.stats().state == "lost")
        one, two = outlet(name), outlet(f"{name}-twin", source_id=name)
        wait_for(lambda: any("cannot be taken up again" in line for line in ingest.stats().problems), 10)
        assert logged(caplog, "cannot be taken up again")
        assert logged(caplog, f"2 streams carry source_id '{name}'")
        amp.outlet = one
        del two
        wait_for(lambda: ingest.stats().state == "streaming", 30)
        wait_for(lambda: ingest.stats().problems == [])


STALLED = """
import logging, sys, time
logging.basicConfig(level=logging.INFO, format="%(message)s")
from stream.signal.filters import FilterSpec
from stream.epochs.ingest import WindowSpec, windows_of
from stream.lsl.live import LiveIngest, SourceSpec
spec = WindowSpec(mode="sliding", tmin=0, tmax=0.1, step=0.1)
ingest = LiveIngest(SourceSpec(name=sys.argv[1]), spec, FilterSpec(), lambda window: None)
ingest.start()
while not ingest.stats().samples:
    time.sleep(0.01)
print("reading", flush=True)
sys.stdin.readline()
before = ingest.stats().samples
while ingest.stats().samples <= before:
    time.sleep(0.01)
print(ingest.stats().disconnections, ingest.stats().lost, flush=True)
ingest.stop()
"""


def test_our_own_stall_is_no_silence(name: str) -> None:
    """A process that stood still for five seconds has lost nothing, and does not call the stream silent."""
    with Amp(outlet(name)):
        command = [sys.executable, "-c", STALLED, name]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "reading\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(5)  # the stall itself
        os.kill(process.pid, signal.SIGCONT)
        out, log = process.communicate("go on\n", timeout=60)
    assert out.split() == ["0", "0"]
    assert "silent" not in log


def test_missing_markers_name_the_ways_out(name: str) -> None:
    """A source without markers is an error that speaks of naming them and of sliding windows."""
    with Amp(outlet(name)), pytest.raises(SourceError, match=r"source\.markers.*window\.mode sliding"):
        LiveIngest(SourceSpec(name=name, timeout_s=0.5), WINDOW, FilterSpec(), lambda _: None).start()


def test_several_marker_streams_are_named(name: str) -> None:
    """Two marker streams and none named: one line that lists them; the named one, or both, are read."""
    got: list[Window] = []
    first, second = markers(f"{name}-m1"), markers(f"{name}-m2", "events")
    with Amp(outlet(name)):
        with pytest.raises(SourceError, match=rf"marker streams .*{name}-m1.*{name}-m2.*source\.markers"):
            LiveIngest(SourceSpec(name=name, timeout_s=2), WINDOW, FilterSpec(), got.append).start()
        with reading(SourceSpec(name=name, markers=StreamSelector(name=f"{name}-m2")), got):
            first.push_sample(["no"])
            mark(second, "yes", got)
    assert {label(window) for window in got} == {"yes"}


@pytest.mark.parametrize("kind", ["Marker", "markers", "Events", "stim", "Whatever"])
def test_any_marker_type_is_found(name: str, kind: str) -> None:
    """A marker stream of any spelling, or of texts under any type, is the source's without being named."""
    got: list[Window] = []
    stream = markers(f"{name}-MARKERS", kind)
    with Amp(outlet(name)), reading(SourceSpec(name=name), got):
        mark(stream, "cat", got)


def test_every_column_of_the_markers_counts(name: str) -> None:
    """A row of two columns is one event that both name; source.markers.column takes one of them."""
    stream = markers(f"{name}-markers", columns=2)
    for column, want in ((None, ["stim/cat", "stim/dog"]), (2, ["cat", "dog"])):
        got: list[Window] = []
        spec = SourceSpec.model_validate({"name": name, "markers": {"column": column}})
        with Amp(outlet(name)), reading(spec, got):
            wait_for(stream.have_consumers)
            for picture in ("cat", "dog"):
                stream.push_sample(["stim", picture])
            wait_for(lambda got=got: len(got) == 2)
        assert [label(window) for window in got] == want
    spec = SourceSpec.model_validate({"name": name, "markers": {"column": 3}})
    with Amp(outlet(name)), pytest.raises(SourceError, match=r"has no column 3.*source\.markers\.column"):
        LiveIngest(spec, WINDOW, FilterSpec(), lambda _: None).start()


@pytest.mark.parametrize("named", [True, False])
def test_a_trigger_column_gives_events(name: str, named: bool) -> None:
    """Onsets in a column of the data become events on their samples: where the config says so, or nothing else is."""
    got: list[Window] = []
    device = outlet(name, labels=("Cz", "TRG"), types=("EEG", "EEG"))
    pulse = (1, lambda k: float(70000 + k // 100) if k % 100 < 20 else 0.0)
    spec = {"name": name, "timeout_s": 1.5, "markers": {"channel": "TRG"} if named else None}
    with Amp(device, column=pulse), reading(SourceSpec.model_validate(spec), got, filters=FilterSpec(channels=("Cz",))):
        wait_for(lambda: len(got) >= 4)
    for window in got:
        assert window.event is not None
        assert window.event.code is not None
        assert window.event.stream == "TRG"
        onset = (window.event.code - 70000) * 100
        np.testing.assert_allclose(window.data[0], (onset + np.arange(25)) * 1e-6, rtol=1e-6)


def test_a_marker_that_is_no_utf8_or_no_number_costs_nothing_else(name: str) -> None:
    """Latin-1 texts are read, numbers that are not finite are left out and counted; the ingest goes on."""
    got: list[Window] = []
    lsl = load_lsl()
    words, codes = markers(f"{name}-words"), markers(f"{name}-codes", fmt="double64")
    source = SourceSpec(name=name, markers=(StreamSelector(name=f"{name}-words"), StreamSelector(name=f"{name}-codes")))
    with Amp(outlet(name)), reading(source, got) as ingest:
        wait_for(lambda: words.have_consumers() and codes.have_consumers())
        now = lsl.local_clock()
        words.push_sample([b"B\xe4r"], now)
        words.push_sample(["nowhere"], float("nan"))
        for i, code in enumerate([1.0, float("nan"), float("inf"), 2.5]):
            codes.push_sample([code], now + 0.1 * (i + 1))
        words.push_sample(["end"], now + 0.7)
        wait_for(lambda: len(got) == 4)
        stats = ingest.stats()
    assert [label(window) for window in got] == ["Bär", "1", "2.5", "end"]
    assert (stats.bad_events, stats.events, ingest.error) == (3, 4, None)


def test_texts_are_no_samples(name: str) -> None:
    """A stream of texts as the data source is refused in one line."""
    log = markers(name, "Log")
    with pytest.raises(SourceError, match="carries texts, no samples"):
        LiveIngest(SourceSpec(name=name, timeout_s=2), SLIDING, FilterSpec(), lambda _: None).start()
    del log


def test_a_type_in_any_case_and_one_that_says_nothing(name: str) -> None:
    """`type: eeg` finds 'EEG', and is taken for the only data stream where that is of type 'signal'."""
    for kind in ("EEG", "signal"):
        got: list[Window] = []
        with Amp(outlet(name, kind)), reading(SourceSpec(type="eeg", timeout_s=1), got, SLIDING) as ingest:
            wait_for(lambda got=got: got)
        assert ingest.source is not None
        assert ingest.source.channels.kinds == ("eeg", "eeg")


def test_near_names_and_hosts_are_told(name: str) -> None:
    """An error on a stream that is not there names what may have been meant, and where each candidate runs."""
    device = outlet(name)
    with pytest.raises(SourceError, match=rf"did you mean name '{name}'.* on {os.uname().nodename}"):
        LiveIngest(SourceSpec(name=name[:-1], timeout_s=0.5), SLIDING, FilterSpec(), lambda _: None).start()
    del device


def test_the_true_rate_of_the_config_rules(name: str) -> None:
    """EEG that declares no rate is refused with the way out; with source.sfreq its windows hold the right samples."""
    device = outlet(name, sfreq=0.0)
    with Amp(device, 200.0):
        with pytest.raises(SourceError, match=r"declares no rate.*source\.sfreq"):
            LiveIngest(SourceSpec(name=name, timeout_s=2), SLIDING, FilterSpec(), lambda _: None).start()
        got: list[Window] = []
        with reading(SourceSpec(name=name, sfreq=200.0), got, SLIDING) as ingest:
            wait_for(lambda: len(got) > 5)
            assert ingest.stats().lost == 0
        assert ingest.sfreq == 200.0
        assert all(window.data.shape[1] == 20 for window in got)


def test_streams_of_one_device_are_no_twins(name: str) -> None:
    """A headset whose EEG, ACC and PPG streams bear one source id is read; it has one stream of each type."""
    got: list[Window] = []
    others = [outlet(name, kind, source_id=name) for kind in ("ACC", "PPG")]
    with Amp(outlet(name)), reading(SourceSpec(name=name, type="EEG"), got, SLIDING) as ingest:
        begun = time.monotonic()
        while time.monotonic() - begun < 2.5:  # as long as a twin takes to be named
            assert ingest.stats().problems == []
            time.sleep(0.1)
        assert got
    del others


def test_the_end_of_a_replay_is_no_loss_of_its_markers(
    play: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """When a replay has sent all it announced, its markers may go too, without a warning or a problem."""
    caplog.set_level(logging.INFO)
    stream_name = f"t-{uuid.uuid4().hex}"
    got: list[Window] = []
    process = play(made(stream_name, seconds=3.0))
    with reading(SourceSpec(name=stream_name, timeout_s=30), got) as ingest:
        wait_for(lambda: process.poll() is not None, 40)
        wait_for(lambda: logged(caplog, f"marker stream {stream_name}-markers has ended"))
        wait_for(lambda: logged(caplog, f"stream {stream_name} has ended"))
        assert ingest.stats().problems == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert got


@pytest.mark.parametrize("column", [None, "picture"])
def test_columns_survive_a_replay(play: Callable[..., Any], column: str | None) -> None:
    """Markers of two columns are replayed as two columns: live, too, the config chooses among them."""
    stream_name = f"t-{uuid.uuid4().hex}"
    recording = made(stream_name, seconds=3.0)
    rows = [("stim", f"p{i}") for i in range(len(recording.events))]
    times = np.array([event.time for event in recording.events])
    events = tuple(MarkerColumns("keys", ("type", "picture")).feed(rows, times))
    recording = replace(recording, events=events)
    spec = SourceSpec.model_validate({"name": stream_name, "timeout_s": 30, "markers": {"column": column}})
    want = list(windows_of(recording, WINDOW, FilterSpec(), spec))
    got: list[Window] = []
    play(recording)
    with reading(spec, got):
        wait_for(lambda: len(got) == len(want), 40)
    assert [window.id for window in got] == [window.id for window in want]
    assert label(got[0]) == ("p0" if column else "stim/p0")
