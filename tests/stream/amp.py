"""An amplifier and its marker program as outlets of this process: they can be ended and started again."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from stream.lsl.discovery import load_lsl


def outlet(
    name: str,
    kind: str = "EEG",
    labels: Sequence[str] = ("Cz", "Pz"),
    *,
    sfreq: float = 250.0,
    unit: str | Sequence[str] = "uV",
    types: Sequence[str] = (),
    fmt: str = "double64",
    source_id: str | None = None,
) -> Any:
    """Make an outlet with labelled channels."""
    lsl = load_lsl()
    info = lsl.StreamInfo(name, kind, len(labels), sfreq, fmt, name if source_id is None else source_id)
    units = [unit] * len(labels) if isinstance(unit, str) else unit
    channels = info.desc().append_child("channels")
    for i, label in enumerate(labels):
        channel = channels.append_child("channel")
        for key, value in (("label", label), ("unit", units[i]), ("type", types[i] if types else "")):
            if value:
                channel.append_child_value(key, value)
    return lsl.StreamOutlet(info)


def markers(
    name: str, kind: str = "Markers", *,
    columns: int = 1, fmt: str = "string", sfreq: float = 0.0, source_id: str | None = None,
) -> Any:  # fmt: skip
    """Make a marker outlet."""
    lsl = load_lsl()
    return lsl.StreamOutlet(lsl.StreamInfo(name, kind, columns, sfreq, fmt, name if source_id is None else source_id))


class Amp:
    """Sends numbered samples in real time: sample k holds k in every channel.

    Parameters
    ----------
    outlet : pylsl.StreamOutlet
    rate : float
        Samples a second that are really sent.
    stamp : callable, optional
        From the LSL time of a sample to its time stamp.
    column : (int, callable), optional
        A column, and its value at sample k.
    """

    def __init__(
        self, outlet: Any, rate: float = 250.0, stamp: Callable[[float], float] = lambda time: time,
        column: tuple[int, Callable[[int], float]] | None = None,
    ) -> None:  # fmt: skip
        self.outlet, self.rate, self.sent = outlet, rate, 0
        self.begin = load_lsl().local_clock()
        self.paused = threading.Event()
        self._stamp, self._column = stamp, column
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        lsl, n = load_lsl(), self.outlet.channel_count
        while not self._stop.wait(0.01):
            upto = int((lsl.local_clock() - self.begin) * self.rate)
            numbers = np.arange(self.sent, upto)
            if len(numbers) and not self.paused.is_set():
                data = np.repeat(numbers[:, None].astype(np.float64), n, axis=1)
                if self._column:
                    data[:, self._column[0]] = [self._column[1](int(k)) for k in numbers]
                stamps = [self._stamp(self.begin + k / self.rate) for k in numbers]
                self.outlet.push_chunk(data, stamps)
            self.sent = max(upto, self.sent)
