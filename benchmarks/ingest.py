"""Loss, doubling, latency, CPU and memory of the live ingest, beside mne-lsl's StreamLSL on the same stream.

One sender pushes a float32 stream whose first channel numbers the samples. Two receivers, each a process of its own,
read it in the same run into a buffer of 30 s and hand over the same windows: one second, every tenth of a second.
`ready_ms` is the time from the push of a window's last sample to the hand-over of the window (LSL clock).
`cpu_percent` is of one core, all threads of the receiver, while samples came.
"""

import argparse
import json
import multiprocessing
import os
import platform
import signal
import tempfile
import uuid
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ingest_peers import WRAP, Stream, receive_mne_lsl, receive_ours, send
from benchmarks.machine import machine

CHANNELS, RATES = (64, 300, 1000), (1000, 5000)
DELAY_S = 0.01
CONNECT_S = 60.0


def numbered(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Undo the wrap of the numbers: each follows the one before by less than half a turn."""
    if not len(numbers):
        return np.empty(0, np.int64)
    whole = numbers.astype(np.int64)
    steps = whole - np.concatenate([[0], whole[:-1]])
    steps = (steps + WRAP // 2) % WRAP - WRAP // 2
    total: NDArray[np.int64] = np.cumsum(steps)
    return total


def account(answer: tuple[NDArray[np.float64], list[tuple[int, float]], float, float], sent: int, pushed: Any) -> Any:
    """Make the published figures of what a receiver answered."""
    numbers, windows, cpu, rss = answer
    places = numbered(numbers)
    counts = np.bincount(places[(places >= 0) & (places < sent)], minlength=sent)
    upto, times = np.array([n for n, _ in pushed]), np.array([at for _, at in pushed])
    ready = np.array([at - times[np.searchsorted(upto, last, side="right")] for last, at in windows]) * 1e3
    p50, p99 = np.percentile(ready, [50, 99]) if len(ready) else (np.nan, np.nan)
    return {
        "sent": sent,
        "lost": int((counts == 0).sum()),
        "duplicates": int((counts[counts > 1] - 1).sum()),
        "windows": len(windows),
        "ready_ms": {"p50": round(float(p50), 2), "p99": round(float(p99), 2)},
        "cpu_percent": round(cpu, 1),
        "rss_mb": round(rss, 1),
    }


def run(channels: int, rate: int, seconds: float, delay_s: float) -> dict[str, Any]:
    """Send one stream to both receivers and count.

    Parameters
    ----------
    channels, rate : int
        Rate in Hz.
    seconds : float
    delay_s : float
        mne-lsl's acquisition delay.
    """
    context = multiprocessing.get_context("spawn")
    stream = Stream(f"bench-{uuid.uuid4().hex[:12]}", channels, rate, 0)
    samples = max(stream.length, round(seconds * rate) // stream.step * stream.step)
    stream = Stream(stream.name, channels, rate, samples)

    def start(target: Any, *arguments: Any) -> tuple[Any, Connection]:
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(stream, theirs, *arguments), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def expect(pipe: Connection, seconds: float, what: str) -> Any:
        if not pipe.poll(seconds):
            raise TimeoutError(f"{what}: no answer within {seconds:g} s")
        return pipe.recv()

    sender, sending = start(send)
    expect(sending, CONNECT_S, "sender")
    receivers = {"ours": start(receive_ours), "mne_lsl": start(receive_mne_lsl, delay_s)}
    for name, (_, pipe) in receivers.items():
        expect(pipe, CONNECT_S, name)
    for _, pipe in receivers.values():
        pipe.send("go")
    sending.send("go")
    pushed = expect(sending, seconds * 3 + CONNECT_S, "sender")
    for _, pipe in receivers.values():
        pipe.send("sent")
    answers = {name: expect(pipe, seconds + CONNECT_S, name) for name, (_, pipe) in receivers.items()}
    for process, _ in receivers.values():
        process.join(10)
        process.kill()
    sending.send("end")
    sender.join(10)
    figures = {name: account(answer, stream.samples, pushed) for name, answer in answers.items()}
    return {"channels": channels, "rate": rate, "seconds": seconds, **figures}


def about(delay_s: float) -> dict[str, Any]:
    """Describe what was measured on, and how mne-lsl was set."""
    return {
        "repeats": 1,
        "buffer_s": 30,
        "window": "1 s every 0.1 s",
        "mne_lsl_acquisition_delay_s": delay_s,
        "machine": machine(),
        "versions": {name: version(name) for name in ("minddiffuser", "mne-lsl", "pylsl", "numpy")}
        | {"python": platform.python_version()},
    }


def main() -> None:
    """Run one case, or the whole table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    parser.add_argument("--channels", type=int, help="left out: 64, 300 and 1000 channels at 1 and 5 kHz")
    parser.add_argument("--rate", type=int, default=1000, help="Hz")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--delay", type=float, default=DELAY_S, help="mne-lsl's acquisition delay (its default: 0.001)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what ends us, ends our processes
    one = options.channels is not None
    cases = [(options.channels, options.rate)] if one else [(n, rate) for n in CHANNELS for rate in RATES]
    with tempfile.TemporaryDirectory() as folder:
        # Both LSL libraries read this file: machines without multicast find each other by address.
        config = Path(folder) / "lsl_api.cfg"
        config.write_text("[lab]\nKnownPeers = {127.0.0.1}\n[log]\nlevel = -3\n")
        os.environ.setdefault("LSLAPICFG", str(config))
        rows = [run(channels, rate, options.seconds, options.delay) for channels, rate in cases]
    if options.json:
        print(json.dumps({**(rows[0] if one else {"cases": rows}), **about(options.delay)}))
        return
    print(
        f"{'channels':>8} {'Hz':>5} {'':<8} {'sent':>7} {'lost':>6} {'twice':>10} {'p50 ms':>7} {'p99 ms':>8} cpu% MB"
    )
    for row in rows:
        for name in ("ours", "mne_lsl"):
            r = row[name]
            print(
                f"{row['channels']:>8} {row['rate']:>5} {name:<8} {r['sent']:>7} {r['lost']:>6} {r['duplicates']:>10} "
                f"{r['ready_ms']['p50']:>7} {r['ready_ms']['p99']:>8} {r['cpu_percent']:>5} {r['rss_mb']:>6}"
            )


if __name__ == "__main__":
    main()
