"""An hour of a simulated amplifier: its memory stays flat, and its samples stay on the LSL clock."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from decoder.simulation.eeg import EEG_CHANNELS
from stream.lsl.discovery import load_lsl
from tests.conftest import Cli
from tests.stream.amp import markers

logger = logging.getLogger(__name__)
SECONDS = float(os.environ.get("MINDDIFFUSER_HOUR_S", "3600"))
"""How long it lasts; less than an hour says less."""
RATE, CHANNELS = 500.0, 64
PICTURE_S = 0.75
CAP = (*EEG_CHANNELS, "Fpz")
AMPLIFIER, MARKERS = f"hour-{os.getpid()}", f"hour-{os.getpid()}-markers"


def resident(pid: int) -> float:
    """Return the memory that a process holds, in MB."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


@pytest.mark.big
@pytest.mark.timeout(SECONDS + 300)
def test_an_hour_of_a_simulated_amplifier(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    """Of 64 channels at 500 Hz every sample comes once and in time, markers are answered, memory does not grow."""
    raw = {
        "name": "hour",
        "data": {"dataset": "recording", "train": "calibration.xdf", "stimuli": str(pictures)},
        "source": {"name": AMPLIFIER, "type": "EEG", "markers": {"name": MARKERS}},
    }
    config = tmp_path / "hour.yaml"
    config.write_text(yaml.safe_dump(raw), "utf-8")
    lsl, outlet = load_lsl(), markers(MARKERS)
    process = cli.start("simulate", str(config), "--channels", ",".join(CAP), "--rate", f"{RATE:g}", "--json")
    try:
        found, deadline = list[Any](), time.monotonic() + 120
        while not found and time.monotonic() < deadline:
            found = lsl.resolve_byprop("name", AMPLIFIER, 1, 1.0)
        assert found[0].channel_count() == len(CAP) == CHANNELS
        inlet = lsl.StreamInlet(found[0], max_buflen=60)
        inlet.open_stream()
        while not outlet.have_consumers():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        begin, pushed, samples, first, last, largest = lsl.local_clock(), 0, 0, 0.0, 0.0, 0.0
        behind, memory = list[float](), list[float]()
        while lsl.local_clock() < begin + SECONDS:
            _, stamps = inlet.pull_chunk(timeout=0.5, max_samples=1000)
            now = lsl.local_clock()
            if stamps:
                first = first or stamps[0]
                steps = np.diff([last or first - 1 / RATE, *stamps])
                largest = max(largest, float(np.abs(steps - 1 / RATE).max()))
                samples, last = samples + len(stamps), stamps[-1]
            if now > begin + pushed * PICTURE_S:
                outlet.push_sample([f"p{pushed % 20:02d}"], now)
                pushed += 1
                behind.append(now - last)
                memory.append(resident(process.pid))
        process.send_signal(signal.SIGINT)
        answer, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    account = json.loads(answer)
    tenth = len(memory) // 10
    delay = [1e3 * float(np.median(part)) for part in (behind[tenth : 2 * tenth], behind[-tenth:])]
    held = [float(np.median(part)) for part in (memory[tenth : 2 * tenth], memory[-tenth:])]
    logger.warning(
        "%.0f s: %d samples, steps off by %.2g s at most; %d markers, %d answered, %d late; newest sample %.1f, then "
        "%.1f ms old; memory %.1f, then %.1f MB",
        *(SECONDS, samples, largest, pushed, account["answered"], account["late"], *delay, *held),
    )
    assert process.returncode == 0, errors
    assert largest < 1e-6
    assert samples == round((last - first) * RATE) + 1 > RATE * (SECONDS - 1)
    assert abs(account["answered"] - pushed) <= 1  # the last may come when it has ended
    assert abs(delay[1] - delay[0]) < 10
    assert held[1] < min(held[0] + 5, 300)
