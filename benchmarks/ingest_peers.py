"""The three processes of the ingest benchmark: a sender of numbered samples, and two receivers of the same windows."""

import os
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

WINDOW_S = 1.0
STEP_S = 0.1
BUFFER_S = 30.0
PUSH_S = 0.004  # an amplifier's driver hands over a chunk about so often
WRAP = 2**20  # numbers stay exact in float32, in microvolts and in volts
POLL_S = 0.001
GRACE_S = 20.0  # for a receiver that lags, after the last sample
NOISE_UV = 20.0


@dataclass(frozen=True, slots=True)
class Stream:
    """What is sent: a float32 stream whose first channel counts the samples (modulo `WRAP`)."""

    name: str
    channels: int
    rate: int
    samples: int

    @property
    def length(self) -> int:
        """Samples a window."""
        return round(WINDOW_S * self.rate)

    @property
    def step(self) -> int:
        """Samples between windows."""
        return round(STEP_S * self.rate)


@dataclass(slots=True)
class Tally:
    """What a receiver was handed: the numbers of all new samples, and when each window came."""

    numbers: list[NDArray[np.float64]] = field(default_factory=list)
    windows: list[tuple[int, float]] = field(default_factory=list)  # (its last sample's place in the stream, when)


def send(stream: Stream, pipe: Connection) -> None:
    """Push the stream when told to, each sample when it is due; answer with what was pushed when.

    Parameters
    ----------
    stream : Stream
    pipe : Connection
        Takes 'go' and, when everybody is done, 'end'.
    """
    from stream.lsl.discovery import load_lsl

    lsl = load_lsl()
    info = lsl.StreamInfo(stream.name, "EEG", stream.channels, stream.rate, "float32", stream.name)
    listed = info.desc().append_child("channels")
    for i in range(stream.channels):
        channel = listed.append_child("channel")
        for key, value in (("label", f"E{i:04d}"), ("type", "EEG"), ("unit", "microvolts")):
            channel.append_child_value(key, value)
    outlet = lsl.StreamOutlet(info)
    noise = np.random.default_rng(0).normal(0, NOISE_UV, (stream.rate, stream.channels)).astype(np.float32)
    pipe.send("ready")
    pipe.recv()
    pushed: list[tuple[int, float]] = []
    sent, begin = 0, lsl.local_clock()
    while sent < stream.samples:
        upto = min(int((lsl.local_clock() - begin) * stream.rate), stream.samples, sent + stream.rate)
        if upto > sent:
            chunk = noise[np.arange(sent, upto) % stream.rate]
            chunk[:, 0] = np.arange(sent, upto) % WRAP
            pushed.append((upto, lsl.local_clock()))
            outlet.push_chunk(chunk, (begin + np.arange(sent, upto) / stream.rate).tolist())
            sent = upto
        time.sleep(PUSH_S)
    pipe.send(pushed)
    pipe.recv()


def receive_ours(stream: Stream, pipe: Connection) -> None:
    """Receive with `LiveIngest`, as a live session does: sliding windows, microvolts made volts, no filter."""
    from pylsl import local_clock

    from stream.epochs.ingest import FilterSpec, WindowSpec
    from stream.lsl.live import LiveIngest, SourceSpec

    tally = Tally()

    def take(window: Any) -> None:
        numbers = np.rint(window.data[0].astype(np.float64) * 1e6)
        new = numbers if not tally.numbers else numbers[-stream.step :]
        if window.quality.samples_lost:  # places of lost samples hold the last value before them
            new = new[np.diff(new, prepend=-1.0) != 0]
        tally.numbers.append(new)
        tally.windows.append((stream.length - 1 + len(tally.windows) * stream.step, local_clock()))

    spec = WindowSpec(mode="sliding", tmin=0, tmax=WINDOW_S, step=STEP_S)
    source = SourceSpec(name=stream.name, buffer_s=BUFFER_S, timeout_s=30)
    ingest = LiveIngest(source, spec, FilterSpec(), take)
    ingest.start()
    wanted = (stream.samples - stream.length) // stream.step + 1
    _measure(pipe, tally, lambda over: _sleep_until(lambda: len(tally.windows) >= wanted, over))
    ingest.stop()


def receive_mne_lsl(stream: Stream, pipe: Connection, delay_s: float) -> None:
    """Receive with mne-lsl's `StreamLSL`, which fills its buffer in a thread of its own; poll as its examples do.

    `n_new_samples` is polled every millisecond; when it says that a window is complete, `get_data` is asked for it.
    """
    from mne_lsl.lsl import local_clock
    from mne_lsl.stream import StreamLSL

    tally = Tally()
    source = StreamLSL(BUFFER_S, name=stream.name).connect(acquisition_delay=delay_s, timeout=30)

    def poll(over: threading.Event) -> None:
        seen, due, last_stamp, deadline = 0, stream.length, 0.0, np.inf
        while due <= stream.samples and time.monotonic() < deadline:
            new = source.n_new_samples
            if seen + new >= due:
                wanted = max(stream.length, new) + stream.step  # what came since `new` was read is in it too
                data, stamps = source.get_data(wanted / stream.rate)
                now = local_clock()
                fresh = stamps > last_stamp
                tally.numbers.append(data[0, fresh].astype(np.float64))
                seen, last_stamp = seen + int(fresh.sum()), float(stamps[-1])
                while due <= seen:
                    tally.windows.append((due - 1, now))
                    due += stream.step
            elif deadline == np.inf and over.is_set():
                deadline = time.monotonic() + GRACE_S
            time.sleep(POLL_S)

    _measure(pipe, tally, poll)
    source.disconnect()


def _measure(pipe: Connection, tally: Tally, work: Callable[[threading.Event], None]) -> None:
    """Send 'connected', run `work` from 'go' to its end, and answer with the tally and what the process used."""
    over = threading.Event()
    pipe.send("connected")
    pipe.recv()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()

    def wait_for_end() -> None:
        pipe.recv()
        over.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    work(over)
    after, wall = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    numbers = np.concatenate(tally.numbers) if tally.numbers else np.empty(0)
    rss = psutil.Process(os.getpid()).memory_info().rss / 1e6
    pipe.send((numbers, tally.windows, 100 * used / wall, rss))


def _sleep_until(done: Callable[[], bool], over: threading.Event) -> None:
    deadline = np.inf
    while not done() and time.monotonic() < deadline:
        if deadline == np.inf and over.is_set():
            deadline = time.monotonic() + GRACE_S
        time.sleep(0.05)
