"""Recording to XDF over real sockets, read back by pyxdf."""

import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyxdf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minddiffuser.cli.common import selector
from stream.errors import RecordingError, SourceError
from stream.files.registry import read
from stream.files.xdf_writer import XdfWriter
from stream.lsl.discovery import load_lsl
from stream.recording.record import RecordAccount, record
from stream.types.source_spec import StreamSelector
from tests.stream.amp import Amp
from tests.stream.amp import outlet as amp_outlet

HEADER = (
    '<?xml version="1.0"?><info><name>{name}</name><type>EEG</type><channel_count>{n}</channel_count>'
    "<nominal_srate>{rate}</nominal_srate><channel_format>{fmt}</channel_format><source_id>x</source_id></info>"
)


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until a condition holds; fail at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.01)


def by_name(path: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """Read a file with pyxdf; streams by name."""
    streams, _ = pyxdf.load_xdf(path, verbose=False, **options)
    return {stream["info"]["name"][0]: stream for stream in streams}


class Source:
    """A numbered float stream of two channels and a marker stream, pushed from here."""

    def __init__(self) -> None:
        self.lsl, self.name = load_lsl(), f"rec-{uuid.uuid4().hex}"
        info = self.lsl.StreamInfo(self.name, "EEG", 2, 250.0, "float32", self.name)
        channels = info.desc().append_child("channels")
        for label in ("Cz", "Oz"):
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("unit", "uV")
        self.data = self.lsl.StreamOutlet(info)
        marks = self.lsl.StreamInfo(self.name + "-markers", "Markers", 1, 0.0, "string", self.name + "-markers")
        self.markers = self.lsl.StreamOutlet(marks)
        self.begin = self.lsl.local_clock()
        self.sent = 0

    def selectors(self) -> list[StreamSelector]:
        """Both streams."""
        return [StreamSelector(name=self.name), StreamSelector(name=self.name + "-markers")]

    def push(self, n: int, *, skip: int = 0) -> None:
        """Send the next n samples after leaving out some."""
        self.sent += skip
        place = np.arange(self.sent, self.sent + n)
        stamps = (self.begin + place / 250).tolist()
        self.data.push_chunk(np.stack([place, -place], axis=1).astype(np.float32), stamps)
        self.sent += n


@contextmanager
def recording(path: Path, source: Source) -> Iterator[dict[str, Any]]:
    """Record in a thread while the block pushes; what came of it is in the dict afterwards."""
    stop, out = threading.Event(), {}

    def work() -> None:
        out["account"] = record(
            path, source.selectors(), stop=stop, progress=lambda account: out.update(seen=account.streams[0].samples)
        )

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: source.data.have_consumers() and source.markers.have_consumers())
    try:
        yield out
    finally:
        stop.set()
        thread.join()


def test_what_was_sent_is_in_the_file(tmp_path: Path) -> None:
    """Samples, stamps, strings and metadata come back as sent; a hole is counted; pyxdf can smooth them."""
    source = Source()
    with recording(tmp_path / "x.xdf", source) as out:
        for _ in range(8):
            source.push(100)
        source.push(200, skip=25)
        source.markers.push_sample(["bild µ"], source.begin + 1.0)
        wait_for(lambda: out.get("seen") == 1000)
    account: RecordAccount = out["account"]
    assert [(one.samples, one.lost, one.gap_count) for one in account.streams] == [(1000, 25, 1), (1, 0, 0)]
    assert account.lost == 25
    assert account.bytes == (tmp_path / "x.xdf").stat().st_size
    plain = by_name(tmp_path / "x.xdf", synchronize_clocks=False, dejitter_timestamps=False)
    places = np.delete(np.arange(1025), np.s_[800:825])
    np.testing.assert_array_equal(plain[source.name]["time_series"], np.stack([places, -places], axis=1))
    np.testing.assert_array_equal(plain[source.name]["time_stamps"], source.begin + places / 250)
    assert plain[source.name + "-markers"]["time_series"] == [["bild µ"]]
    footer = plain[source.name]["footer"]["info"]
    assert footer["sample_count"] == ["1000"]
    assert len(footer["clock_offsets"][0]["offset"]) >= 1
    synced = by_name(tmp_path / "x.xdf", dejitter_timestamps=False)
    np.testing.assert_allclose(synced[source.name]["time_stamps"], source.begin + places / 250, atol=2e-3)
    smoothed = by_name(tmp_path / "x.xdf")  # pyxdf spreads the hole over the neighbouring samples
    np.testing.assert_allclose(smoothed[source.name]["time_stamps"], source.begin + places / 250, atol=0.1)
    ours = read(tmp_path / "x.xdf")
    assert ours.streams[0].channels.units == ("V", "V")
    assert [event.label for event in ours.events] == ["bild µ"]


def test_a_killed_recorder_leaves_a_readable_file(tmp_path: Path) -> None:
    """After SIGKILL in the middle, everything that was reported as written is read by pyxdf."""
    source, path = Source(), tmp_path / "killed.xdf"
    code = (
        "import sys; from pathlib import Path; from stream.recording.record import record\n"
        "from minddiffuser.cli.common import selector\n"
        "record(Path(sys.argv[1]), [selector(sys.argv[2])], progress=lambda a: print(a.streams[0].samples, flush=True))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path), source.name], stdout=subprocess.PIPE, text=True)
    try:
        wait_for(source.data.have_consumers)
        written, pushed = 0, threading.Event()

        def feed() -> None:
            while not pushed.wait(0.05):
                source.push(50)

        thread = threading.Thread(target=feed)
        thread.start()
        assert child.stdout is not None
        while written < 500:
            written = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        child.wait()
        pushed.set()
        thread.join()
    finally:
        child.kill()
    series = by_name(path)[source.name]["time_series"]
    assert len(series) >= written
    np.testing.assert_array_equal(series[:, 0], np.arange(len(series)) + series[0, 0])


def test_a_full_disk_is_one_line_with_what_was_saved(tmp_path: Path, cli: Any) -> None:
    """When the file may not grow, the command ends with one line, exit code 1, and a readable file."""
    source, path = Source(), tmp_path / "full.xdf"
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))\n"
        "from minddiffuser.cli.entry import main; main()"
    )
    command = [sys.executable, "-c", code, "record", str(path), "--stream", source.name]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=cli.environment)
    try:
        wait_for(source.data.have_consumers, 60)
        while child.poll() is None and source.sent < 100_000:
            source.push(50)
            time.sleep(0.02)
        _, error = child.communicate(timeout=20)
    finally:
        child.kill()
    assert child.returncode == 1
    lines = [line for line in error.splitlines() if "saved:" in line]
    assert len(lines) == 1
    assert "Traceback" not in error
    saved = int(lines[0].split("saved: ")[1].split()[0])
    series = by_name(path)[source.name]["time_series"]
    assert len(series) == saved > 500


def test_a_source_that_comes_back_goes_on_in_its_stream(tmp_path: Path) -> None:
    """A source that went away and came back under its id is one stream with one gap and one disconnection."""
    source = Source()
    lsl = source.lsl
    with recording(tmp_path / "x.xdf", source) as out:
        source.push(500)
        wait_for(lambda: out.get("seen") == 500)
        info = source.data.get_info()
        del source.data
        source.data = lsl.StreamOutlet(info)
        wait_for(source.data.have_consumers)
        source.push(500, skip=300)
        wait_for(lambda: out.get("seen") == 1000)
    data = out["account"].streams[0]
    assert (data.samples, data.lost, data.gap_count, data.disconnections) == (1000, 300, 1, 1)
    assert len(by_name(tmp_path / "x.xdf")[source.name]["time_stamps"]) == 1000


def test_command_answers_in_json(tmp_path: Path, cli: Any) -> None:
    """`minddiffuser record --json` prints one object with every stream's account."""
    source = Source()
    child = cli.start("record", str(tmp_path / "x.xdf"), "--stream", f"source_id={source.name}", "--json")
    try:
        wait_for(source.data.have_consumers, 60)
        source.push(300)
        time.sleep(1.0)  # what has been sent has also arrived
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=30)
    finally:
        child.kill()
    answer = json.loads(out)
    assert child.returncode == 0
    assert (answer["lost"], answer["streams"][0]["samples"], answer["streams"][0]["gaps"]) == (0, 300, [])


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    """A name that is taken, or cannot be written, is refused in one line; nothing is touched."""
    (tmp_path / "x.xdf").write_bytes(b"mine")
    with pytest.raises(RecordingError, match="exists already"):
        XdfWriter(tmp_path / "x.xdf")
    assert (tmp_path / "x.xdf").read_bytes() == b"mine"
    with pytest.raises(RecordingError, match="cannot be written"):
        XdfWriter(tmp_path / "absent" / "x.xdf")


def test_missing_stream_writes_no_file(tmp_path: Path) -> None:
    """A stream that is not there is an error that names it, and no file begins."""
    with pytest.raises(SourceError, match="absent"):
        record(tmp_path / "x.xdf", [StreamSelector(name="absent")], timeout_s=0.0)
    assert not (tmp_path / "x.xdf").exists()


def test_a_search_that_is_stopped_is_no_stream_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ends it after a moment is not told that nothing came within ten seconds."""
    monkeypatch.setattr(load_lsl(), "resolve_streams", lambda _: [])
    stop = threading.Event()
    stop.set()
    with pytest.raises(SourceError, match=r"^stopped before a stream was found$"):
        record(tmp_path / "x.xdf", timeout_s=10.0, stop=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("amp", StreamSelector(name="amp")),
        ("type=EEG,source_id=a1", StreamSelector(type="EEG", source_id="a1")),
        ("desc/manufacturer=X", StreamSelector(properties={"desc/manufacturer": "X"})),
    ],
)
def test_selectors_from_the_command_line(text: str, want: StreamSelector) -> None:
    """A bare word is a name, pairs are properties."""
    assert selector(text) == want


def test_a_selector_that_is_half_a_pair_is_refused() -> None:
    """A part without a value cannot choose anything."""
    with pytest.raises(SourceError, match="key=value"):
        selector("type=EEG,x")


FORMATS = {"float32": "f4", "double64": "f8", "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8"}


@given(st.sampled_from(sorted(FORMATS)), st.lists(st.integers(0, 300), min_size=1, max_size=5), st.integers(1, 5))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_format_and_chunking_comes_back(tmp_path: Path, fmt: str, sizes: list[int], n_channels: int) -> None:
    """Numbers of every format, chunks of every size and strings of any text are read back exactly."""
    rng, path = np.random.default_rng(0), tmp_path / f"{uuid.uuid4().hex}.xdf"
    data = rng.integers(-128, 128, (sum(sizes), n_channels)).astype(FORMATS[fmt])
    stamps, words = np.arange(sum(sizes)) / 10, ["", "a", "µ" * 300]
    with XdfWriter(path) as file:
        number = file.stream(HEADER.format(name="n", n=n_channels, rate=10, fmt=fmt))
        text = file.stream(HEADER.format(name="t", n=1, rate=0, fmt="string"))
        edges = np.cumsum([0, *sizes])
        for a, b in pairwise(edges):
            file.samples(number, stamps[a:b], data[a:b])
            file.boundary()
        file.samples(text, np.arange(3.0), np.array([[word.encode()] for word in words], dtype=object))
    got = by_name(path, synchronize_clocks=False, dejitter_timestamps=False)
    if len(data):
        np.testing.assert_array_equal(got["n"]["time_series"], data)
        np.testing.assert_array_equal(got["n"]["time_stamps"], stamps)
    assert got["t"]["time_series"] == [[word] for word in words]


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_anywhere_keeps_its_whole_chunks(tmp_path: Path, at: int) -> None:
    """Whatever byte a file ends at, every chunk before it is read."""
    path = tmp_path / f"{uuid.uuid4().hex}.xdf"
    ends = []
    with XdfWriter(path) as file:
        number = file.stream(HEADER.format(name="n", n=2, rate=10, fmt="float32"))
        header = file.size
        for i in range(10):
            file.samples(number, np.arange(i * 5, i * 5 + 5) / 10, np.full((5, 2), i, np.float32))
            ends.append(file.size)
    whole = path.read_bytes()
    cut = header + at % (len(whole) - header + 1)
    path.write_bytes(whole[:cut])
    want = sum(end <= cut for end in ends)
    if cut - max([header, *(end for end in ends if end <= cut)]) in {5, 6}:
        return  # pyxdf itself fails on a file that ends between a chunk's length and its two-byte tag
    got = by_name(path, synchronize_clocks=False, dejitter_timestamps=False)["n"]["time_series"]
    np.testing.assert_array_equal(got[: 5 * want], np.repeat(np.arange(want), 10).reshape(-1, 2))
    assert len(got) <= 5 * want + 5  # of a torn chunk pyxdf may give what is there


def outlet(name: str, kind: str, source_id: str, n_channels: int = 1) -> Any:
    """Make a float stream at 100 Hz."""
    lsl = load_lsl()
    return lsl.StreamOutlet(lsl.StreamInfo(name, kind, n_channels, 100.0, "float32", source_id))


accounts: list[RecordAccount] = []
"""What recordings have told of their progress."""


@contextmanager
def recording_of(path: Path, selectors: list[StreamSelector]) -> Iterator[dict[str, int]]:
    """Record while the block goes on; how many samples each stream has, by name."""
    stop, seen = threading.Event(), dict[str, int]()

    def watch(account: RecordAccount) -> None:
        accounts.append(account)
        seen.update({f"{one.name}/{one.source_id}": one.samples for one in account.streams})

    thread = threading.Thread(target=record, args=(path, selectors), kwargs={"stop": stop, "progress": watch})
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def test_streams_that_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was asked for is recorded whole from when it comes; nothing else is, and no twin under a known id."""
    monkeypatch.setattr("stream.recording.stream_watcher.TWIN_AFTER_S", 0.5)
    tag, begin = uuid.uuid4().hex, load_lsl().local_clock()
    first = outlet(f"first-{tag}", tag, f"1-{tag}")
    with recording_of(tmp_path / "x.xdf", [StreamSelector(type=tag)]) as seen:
        wait_for(first.have_consumers)
        other = outlet(f"other-{tag}", "Audio", f"3-{tag}")
        late, twin = outlet(f"late-{tag}", tag, f"2-{tag}"), outlet(f"first-{tag}", tag, f"1-{tag}")
        wait_for(late.have_consumers)
        for one in (first, late):
            one.push_chunk(np.arange(50, dtype=np.float32)[:, None], (begin + np.arange(50) / 100).tolist())
        wait_for(lambda: seen.get(f"late-{tag}/2-{tag}") == 50 and "not recorded" in caplog.text)
        assert not twin.have_consumers()
        assert not other.have_consumers()
    got = by_name(tmp_path / "x.xdf", dejitter_timestamps=False)
    assert sorted(got) == [f"first-{tag}", f"late-{tag}"]
    assert got[f"late-{tag}"]["time_series"][:, 0].tolist() == list(range(50))
    assert len(got[f"late-{tag}"]["footer"]["info"]["clock_offsets"][0]["offset"]) >= 1


def test_a_source_that_comes_back_otherwise_shaped_is_another_stream(tmp_path: Path) -> None:
    """Channels cannot change within a stream of the file: a source with more of them goes on as a stream of its own."""
    tag, begin = uuid.uuid4().hex, load_lsl().local_clock()
    source = outlet(f"amp-{tag}", "EEG", tag)
    with recording_of(tmp_path / "x.xdf", [StreamSelector(name=f"amp-{tag}")]) as seen:
        wait_for(source.have_consumers)
        source.push_chunk(np.zeros((20, 1), np.float32), (begin + np.arange(20) / 100).tolist())
        wait_for(lambda: seen.get(f"amp-{tag}/{tag}") == 20)
        del source
        again = outlet(f"amp-{tag}", "EEG", tag, n_channels=2)
        wait_for(again.have_consumers)
        again.push_chunk(np.ones((30, 2), np.float32), (begin + 9 + np.arange(30) / 100).tolist())
        wait_for(lambda: seen.get(f"amp-{tag}/{tag}") == 30)
    streams, _ = pyxdf.load_xdf(tmp_path / "x.xdf", verbose=False)
    assert sorted(one["time_series"].shape for one in streams) == [(20, 1), (30, 2)]


@pytest.mark.parametrize(
    ("declared", "real", "wrong"), [(250.0, 200.0, True), (250.0, 252.0, False), (0.0, 100.0, True)]
)
def test_a_rate_that_is_not_the_declared_one_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, declared: float, real: float, wrong: bool
) -> None:
    """The account holds the rate that was measured, holes left out, and a warning where it is not the declared one."""
    name = f"rate-{uuid.uuid4().hex}"
    device = amp_outlet(name, sfreq=declared)
    with Amp(device, real) as amp, recording_of(tmp_path / "x.xdf", [StreamSelector(name=name)]) as seen:
        wait_for(lambda: seen.get(f"{name}/{name}", 0) > 1.5 * real)
        amp.paused.set()
        before = amp.sent
        wait_for(lambda: amp.sent > before + real)
        amp.paused.clear()
        wait_for(lambda: seen.get(f"{name}/{name}", 0) > 4 * real)
        wait_for(lambda: accounts[-1].streams[0].measured_hz is not None)
    [account] = accounts[-1].streams
    assert account.declared_hz == declared
    assert account.measured_hz == pytest.approx(real, rel=5e-3)
    assert bool(account.warning) == wrong
    assert ("source.sfreq" in caplog.text) == wrong
