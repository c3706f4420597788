"""Real outlets that send at another rate than they declare, stamps that are no times, and samples that are absurd."""

import threading
import uuid
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from stream.epochs.ingest import WindowSpec
from stream.lsl.discovery import load_lsl
from stream.lsl.live import LiveIngest, SourceSpec
from stream.signal.filters import FilterSpec
from stream.types.windows import Window
from tests.stream.conftest import wait_for

Chunk = Callable[[int, int], np.ndarray]


class Device:
    """An outlet of two channels in volts, and its markers, one a second, fed by a thread."""

    def __init__(self, declared: float, rate: float, data: Chunk, *, auto: bool = False) -> None:
        self._lsl = lsl = load_lsl()
        self.name = f"dev-{uuid.uuid4().hex}"
        info = lsl.StreamInfo(self.name, "EEG", 2, declared, "double64", self.name)
        channels = info.desc().append_child("channels")
        for label in ("Oz", "Cz"):
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("unit", "V")
        self._outlet = lsl.StreamOutlet(info)
        self._markers = lsl.StreamOutlet(
            lsl.StreamInfo(f"{self.name}-markers", "Markers", 1, 0.0, "string", self.name + "m")
        )
        self._rate, self._data, self._auto = rate, data, auto
        self.stamps: Callable[[np.ndarray], np.ndarray] = lambda stamps: stamps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._outlet.have_consumers():
            if self._stop.wait(0.01):
                return
        begin, sent, marked = self._lsl.local_clock() + 0.3, 0, 0
        while not self._stop.wait(0.02):
            now = self._lsl.local_clock() - begin
            upto = int(now * self._rate)
            if upto > sent:
                chunk = self._data(sent, upto)
                stamps = self.stamps(begin + np.arange(sent, upto) / self._rate)
                if self._auto:
                    self._outlet.push_chunk(chunk)
                else:
                    self._outlet.push_chunk(chunk, stamps.tolist())
                sent = upto
            if now > marked + 1:
                marked += 1
                self._markers.push_sample([f"m{marked}"], begin + marked)

    def close(self) -> None:
        """End the thread and the outlets."""
        self._stop.set()
        self._thread.join()
        del self._outlet, self._markers


def numbers(start: int, stop: int) -> np.ndarray:
    """Return each sample its own number, in nanovolts."""
    return np.repeat(np.arange(start, stop, dtype=float)[:, None] * 1e-9, 2, axis=1)


@pytest.fixture
def device() -> Iterator[Callable[..., Device]]:
    """Make devices that are gone after the test."""
    made: list[Device] = []

    def make(*args: float | Chunk, **options: bool) -> Device:
        made.append(Device(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize(
    ("declared", "rate", "auto"), [(250, 125, False), (250, 125, True), (256, 200, True), (250, 500, False)]
)
def test_a_live_stream_at_another_rate(device: Callable[..., Device], declared: float, rate: float, auto: bool) -> None:
    """The ingest ends within seconds by an error that names both rates; no window before that is trusted."""
    stream = device(declared, rate, numbers, auto=auto)
    got: list[Window] = []
    spec = SourceSpec(name=stream.name, timeout_s=30)
    ingest = LiveIngest(spec, WindowSpec(tmin=-0.1, tmax=0.4), FilterSpec(), got.append)
    ingest.start()
    try:
        wait_for(lambda: ingest.error, 25)
    finally:
        ingest.stop()
    text = str(ingest.error)
    assert f"{declared:g} Hz but sends" in text
    assert float(text.rsplit(" ", 1)[1]) == pytest.approx(rate, rel=0.02)
    assert "source.sfreq" in text
    assert all(window.quality.rejected for window in got)


def test_a_live_stream_survives_stamps_and_samples_that_are_absurd(device: Callable[..., Device]) -> None:
    """NaN and infinite timestamps, and a sample of 3e38, cost no thread: later windows are right and trusted."""
    noise = np.random.default_rng(0).normal(0, 2e-5, (250, 2))

    def data(start: int, stop: int) -> np.ndarray:
        chunk = noise[np.arange(start, stop) % 250].copy()
        if start <= 550 < stop:
            chunk[550 - start, 1] = 3e38
        return chunk

    def stamps(true: np.ndarray) -> np.ndarray:
        nonlocal spoilt
        if len(true) > 2 and spoilt < 8:
            true[1] = (np.nan, np.inf, -np.inf, 1e18)[spoilt % 4]
            spoilt += 1
        return true

    spoilt = 0
    stream = device(250, 250, data)
    stream.stamps = stamps
    got: list[Window] = []
    spec = SourceSpec(name=stream.name, timeout_s=30)
    filters = FilterSpec(highpass=1.0, lowpass=40.0)
    ingest = LiveIngest(spec, WindowSpec(tmin=-0.1, tmax=0.4), filters, got.append)
    ingest.start()
    try:
        wait_for(lambda: len(got) >= 6, 25)
        stats = ingest.stats()
    finally:
        ingest.stop()
    assert ingest.error is None
    assert (stats.bad_stamps, stats.bad, stats.lost) == (8, 1, 0)
    assert set(stats.channel_rms) == {"Oz", "Cz"}
    assert ingest.samples >= stats.samples
    reasons = {w.event.label: w.quality.rejected for w in got if w.event}
    assert reasons.pop("m2") == "Cz: not finite, or beyond what the unit allows"
    assert set(reasons.values()) == {None}
    assert all(np.abs(w.data).max() < 2e-4 for w in got)
