"""mne-lsl as an independent peer, in both directions."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest

from stream.epochs.ingest import FilterSpec, WindowSpec
from stream.files.formats.npz import write_npz
from stream.lsl.live import LiveIngest, SourceSpec
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels, Window

# mne-lsl would download a liblsl of its own; the one in pylsl's wheel serves both, and knows the peers by then.
LIBRARY = "import os, pylsl.lib; os.environ['MNE_LSL_LIB'] = str(pylsl.lib.libpath)\n"
PEERS = "from stream.lsl.discovery import load_lsl; load_lsl()\n"
PLAYER = (
    LIBRARY
    + PEERS
    + """
import sys, time
import mne
from mne_lsl.player import PlayerLSL
mne.set_log_level("ERROR")
player = PlayerLSL(sys.argv[1], chunk_size=16, n_repeat=1000, name=sys.argv[2], source_id=sys.argv[2])
player.start()
print("playing", flush=True)
sys.stdin.read()
"""
)
READER = (
    LIBRARY
    + PEERS
    + """
import sys, time
import numpy as np
from mne_lsl.stream import StreamLSL
stream = StreamLSL(bufsize=10, name=sys.argv[1]).connect(acquisition_delay=0.05, timeout=30)
deadline = time.monotonic() + 40
wanted = int(sys.argv[2])
while stream.n_new_samples < wanted and time.monotonic() < deadline:
    time.sleep(0.05)
data, times = stream.get_data(winsize=wanted / stream.info["sfreq"])
np.savez(sys.argv[3], data=data, times=times, names=np.array(stream.ch_names))
stream.disconnect()
"""
)


def wait_for(condition: Callable[[], Any], seconds: float = 40.0) -> None:
    """Wait until a condition holds; fail at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.01)


def counted(n: int) -> np.ndarray:
    """Make two channels: the sample's number in microvolts, and noise; exact in float32."""
    noise = np.random.default_rng(0).normal(0, 50, n).round()
    return np.stack([np.arange(n), noise], axis=1).astype(np.float32)


def test_our_ingest_reads_mne_lsls_player(tmp_path: Path) -> None:
    """Windows from PlayerLSL hold the file's samples, one after the other, in volts, with nothing lost."""
    name, want = f"mne-{uuid.uuid4().hex}", counted(2500).astype(np.float64) * 1e-6
    info = mne.create_info(["Cz", "Oz"], 250.0, "eeg")
    mne.io.RawArray(want.T, info, verbose="error").save(tmp_path / "x_raw.fif", fmt="double", verbose="error")
    command = [sys.executable, "-c", PLAYER, str(tmp_path / "x_raw.fif"), name]
    player = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    got: list[Window] = []
    spec = WindowSpec(mode="sliding", tmin=0, tmax=0.4, step=0.4)
    ingest = LiveIngest(SourceSpec(name=name, timeout_s=30), spec, FilterSpec(), got.append)
    try:
        assert player.stdout is not None
        assert player.stdout.readline() == "playing\n"
        assert ingest.start() == Channels(("Cz", "Oz"), ("eeg", "eeg"), ("V", "V"))
        wait_for(lambda: len(got) >= 10)
    finally:
        ingest.stop()
        player.kill()
        player.wait()
    stats = ingest.stats()
    assert (stats.lost, stats.gap_count, ingest.sfreq) == (0, 0, 250.0)
    first = round(float(got[0].data[0, 0]) * 1e6)
    data = np.concatenate([window.data for window in got], axis=1)
    places = (first + np.arange(data.shape[1])) % len(want)
    np.testing.assert_allclose(data, want[places].T, rtol=1e-6)


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_mne_lsls_stream_reads_our_replay(tmp_path: Path, speed: float) -> None:
    """StreamLSL gets every sample of a replay once, in order, named, in volts, at the replay's own pace."""
    name, n = f"ours-{uuid.uuid4().hex}", 1000
    data = counted(n) * np.float32(1e-6)
    channels = Channels(("Cz", "Oz"), ("eeg", "eeg"), ("V", "V"))
    stream = RecordedStream(name, "EEG", name, channels, 250.0, np.arange(n) / 250, data)
    write_npz(Recording(name, "simulated EEG", (stream,), ()), tmp_path / "x.npz")
    play = [sys.executable, "-m", "minddiffuser", "replay", str(tmp_path / "x.npz"), "--speed", str(speed)]
    replay = subprocess.Popen(play, env=os.environ, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        command = [sys.executable, "-c", READER, name, str(n), str(tmp_path / "got.npz")]
        subprocess.run(command, check=True, timeout=90)
    finally:
        replay.kill()
        replay.wait()
    with np.load(tmp_path / "got.npz") as got:
        assert got["names"].tolist() == ["Cz", "Oz"]
        np.testing.assert_array_equal(got["data"].T.astype(np.float32), data)
        assert np.diff(got["times"]).mean() == pytest.approx(1 / 250 / speed, rel=1e-3)
