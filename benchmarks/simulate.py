"""Check if a simulated amplifier keeps the clock and its memory: an hour by a clock of its own, minutes over LSL.

`python -m benchmarks.simulate --json [--hours 1] [--seconds 180]`: 64 channels at 500 Hz, a marker every half second.
The hour is sent as fast as it goes, to nobody. Then `minddiffuser simulate`, a program of its own, sends to an inlet.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from benchmarks.machine import machine

SFREQ = 500.0
N_PICTURES = 60
EVERY_S = 0.5


def channels() -> tuple[str, ...]:
    """Return the 63 electrodes of THINGS-EEG2 and the one they were recorded against."""
    from decoder.simulation.eeg import EEG_CHANNELS

    return (*EEG_CHANNELS, "Fz")


def virtual(hours: float) -> dict[str, Any]:
    """Send by a clock of one's own, and follow resident memory and stamps."""
    from decoder.simulation.eeg import Participant
    from decoder.simulation.live import LiveParticipant
    from decoder.simulation.ongoing import Misbehaviour
    from minddiffuser.experiment.amplifier import Amplifier
    from stream.types.events import Event
    from stream.types.labels import LabelMatcher

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N_PICTURES, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    meanings = rng.normal(size=(N_PICTURES, 40)).astype(np.float32)
    participant = Participant("eeg", "thingslike", 0, images, meanings, channels=channels())
    ids = [f"p{i}" for i in range(N_PICTURES)]
    live = LiveParticipant(participant, SFREQ, 0)
    amplifier = Amplifier(
        live,
        dict(zip(ids, participant.code(images, meanings), strict=True)),
        LabelMatcher(ids),
        begin=0.0,
        factor=1e6,
        misbehaviour=Misbehaviour(),
        rng=rng,
    )
    process, resident, worst, n = psutil.Process(), [], 0.0, 0
    began, cpu, next_marker, end = time.monotonic(), time.process_time(), 0.0, 3600 * hours
    for tick in range(round(end / 0.02)):
        now = 0.02 * tick
        if now >= next_marker:
            amplifier.mark(Event(now, ids[int(rng.integers(N_PICTURES))]))
            next_marker += EVERY_S
        for _, stamps in amplifier.due(now):
            worst = max(worst, abs(stamps[-1] - (n + len(stamps) - 1) / SFREQ))
            n += len(stamps)
        if tick % (round(end / 0.02) // 10) == 0:
            resident.append(round(process.memory_info().rss / 1e6, 1))
    return {
        "hours": hours,
        "channels": len(channels()),
        "samples": n,
        "answered": amplifier.account.answered,
        "late": amplifier.account.late,
        "worst_stamp_error_s": worst,
        "resident_mb": resident,
        "took_s": round(time.monotonic() - began, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
    }


def real(seconds: float) -> dict[str, Any]:
    """Run the program, send it markers, and receive what it sends."""
    from decoder.data.stimuli import StimulusTable, write_stimuli
    from stream.lsl.discovery import load_lsl

    lsl = load_lsl()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N_PICTURES, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    ids = tuple(f"p{i}" for i in range(N_PICTURES))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_stimuli(
            StimulusTable(ids, images, tuple((f"thing {i}",) for i in range(N_PICTURES))), folder / "pictures"
        )
        config = {
            "name": "bench",
            "data": {"dataset": "recording", "train": "none.xdf", "stimuli": str(folder / "pictures")},
            "source": {"type": "EEG"},
        }
        (folder / "bench.yaml").write_text(yaml.safe_dump(config), "utf-8")
        options = ["--channels", ",".join(channels()), "--rate", f"{SFREQ:g}", "--preset", "thingslike", "--json"]
        command = [sys.executable, "-m", "minddiffuser", "simulate", str(folder / "bench.yaml"), *options]
        outlet = lsl.StreamOutlet(lsl.StreamInfo("bench-markers", "Markers", 1, 0.0, "string", "bench-markers"))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            found: list[Any] = []
            while not found:
                found = lsl.resolve_byprop("name", "simulated-eeg", 1, 1.0)
            inlet = lsl.StreamInlet(found[0])
            buffer = np.empty((1024, len(channels())), np.float32)
            inlet.open_stream()
            process, began = psutil.Process(program.pid), lsl.local_clock()
            lags, arrivals, stamps = list[float](), list[float](), list[float]()
            resident, marked, next_marker = list[float](), 0, began + 3
            while (now := lsl.local_clock()) < began + seconds:
                _, times = inlet.pull_chunk(timeout=0.02, max_samples=1024, dest_obj=buffer)
                if times:
                    lags.append(lsl.local_clock() - times[-1])
                    arrivals.append(now - began)
                    stamps += times
                if now >= next_marker:
                    outlet.push_sample([ids[int(rng.integers(N_PICTURES))]], now)
                    marked, next_marker = marked + 1, next_marker + EVERY_S
                if now - began > len(resident) * seconds / 10:
                    resident.append(round(process.memory_info().rss / 1e6, 1))
            cpu = sum(process.cpu_times()[:2])
            program.terminate()
            account = json.loads(program.communicate(timeout=30)[0])
    steps, lag, at = np.diff(stamps), np.array(lags), np.array(arrivals)
    third = seconds / 3
    fit = np.polyfit(np.arange(len(stamps)) / SFREQ, stamps, 1)
    return {
        "seconds": seconds,
        "received": len(stamps),
        "missing": int(np.round(steps * SFREQ - 1).sum()),
        "rate_error_ppm": round(float((1 - fit[0]) * 1e6), 4),
        "lag_ms": {
            part: {f"p{q}": round(1000 * float(np.percentile(lag[inside], q)), 1) for q in (50, 99)}
            for part, inside in (("first third", at < third), ("last third", at > 2 * third))
        },
        "markers": marked,
        "account": account,
        "resident_mb": resident,
        "cpu_share": round(cpu / seconds, 3),
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=180.0)
    given = parser.parse_args()
    answer = {"virtual": virtual(given.hours), "lsl": real(given.seconds), "machine": machine()}
    print(json.dumps(answer, indent=None if given.json else 1))


if __name__ == "__main__":
    main()
