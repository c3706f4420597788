"""What is wrong with a stream is named within 5 s of it, to whoever watches and in the log, and no picture is shown."""

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.models.loading import Models
from minddiffuser.config.spec import Config
from minddiffuser.live.session import Session
from stream.epochs.ingest import windows_of
from stream.lsl.discovery import load_lsl
from stream.mqtt.broker import EmbeddedBroker
from stream.mqtt.publisher import Publisher
from stream.mqtt.subscriber import Subscriber
from stream.quality.signal_profile import SignalRecorder
from stream.types.labels import LabelMatcher
from tests.minddiffuser.faulty import bundle_for, config_for, engine_of, recording_of
from tests.stream.amp import markers, outlet

SFREQ = 100.0
SOON_S = 5.0
"""Seconds of signal from the first bad sample: what has come by then, which a busy machine does not change."""
PATIENCE_S = 60.0
ENOUGH = 10
"""Pictures of a stream with nothing wrong, after which it is believed."""


@dataclass(frozen=True)
class Fault:
    """A stand-in amplifier and its markers, with one thing wrong, and the words that name it."""

    words: str
    scale: float = 1.0
    rate: float = SFREQ
    channels: tuple[str, ...] = ("A1", "A2")
    label: str = "fine"
    events: str = ".*"
    hum: float = 0.0
    marked: bool = True


FAULTS = {
    "unit": Fault("EEG levels are about a million times the calibration's: wrong unit?", scale=1e6),
    "small unit": Fault("EEG levels are about a thousandth of the calibration's: wrong unit?", scale=1e-3),
    "level": Fault("times the calibration's: another gain or reference", scale=50.0),
    "spectrum": Fault("mains hum?", hum=200e-6),
    "rate": Fault("samples a second come, not 100", rate=80.0),
    "label": Fault("markers name no picture, such as 'dog'", label="dog"),
    "montage": Fault("the stream lacks 1 of the bundle's 2 channels: A2", channels=("A1", "B2")),
    "confidence": Fault(
        "the last 5 windows gave no picture: confidence 0.1 is below 0.5, the least that is shown", label="unsure"
    ),
    "marker": Fault("none matches window.events 'stim.*'; labels are 'fine'", events="stim.*"),
    "no markers": Fault("no marker stream and no trigger channel yet; start the program that sends them", marked=False),
}


class FirstWord(logging.Handler):
    """Notes when a log line first held some words, and how much signal a session had got by then."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words
        self.session: Session | None = None
        self.after: float | None = None
        self.at = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a line."""
        if self.after is None and self.words and self.words in record.getMessage():
            ingest = self.session._ingest if self.session else None
            self.at, self.after = record.created, ingest.samples / SFREQ if ingest else 0.0


@contextmanager
def listening(words: str) -> Iterator[FirstWord]:
    """Listen to the log while the block runs."""
    handler = FirstWord(words)
    logging.getLogger().addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def amplifier(name: str, fault: Fault) -> Iterator[None]:
    """Send noise of 10 uV and a marker every half second while the block runs."""
    lsl, stop = load_lsl(), threading.Event()
    samples = outlet(name, "EEG", fault.channels, sfreq=SFREQ, unit="V", types=["EEG"] * len(fault.channels))
    marks = markers(f"{name}-markers") if fault.marked else None
    begin = lsl.local_clock()

    def send() -> None:
        sent = marked = 0
        rng = np.random.default_rng(0)
        while not stop.wait(0.02):
            due = int((lsl.local_clock() - begin) * fault.rate)
            times = begin + np.arange(sent, due) / fault.rate
            if len(times):
                data = rng.normal(0, 1e-5, (len(times), len(fault.channels)))
                data += fault.hum * np.sin(2 * np.pi * 47 * times)[:, None] * [1, 0.9]
                samples.push_chunk(np.ascontiguousarray(data * fault.scale), times.tolist())
            sent = due
            if marks and due > (marked + 1) * SFREQ / 2:
                marks.push_sample([fault.label], float(lsl.local_clock() - 0.1))
                marked += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def config_of(name: str, fault: Fault) -> Config:
    """Give a config for an amplifier that leaves limits, levels and the least confidence to the bundle."""
    return config_for(
        name,
        source={"name": name, "timeout_s": 30},
        window={"tmin": 0, "tmax": 0.2, "events": fault.events},
        filters={"highpass": None, "lowpass": None, "decimate": 1},  # nothing takes out the hum
        publish={"session": name},
    )


async def first_named(models: Models, fault: Fault, log: FirstWord) -> tuple[float, Session, list[dict[str, Any]]]:
    """Run a session on an amplifier until its fault is named, or without one until pictures are out.

    Returns
    -------
    after : float
        Seconds of signal that had come when metrics or status named it.
    session : Session
    metas : list of dict
    """
    name = f"first-{uuid.uuid4().hex[:8]}"
    config = config_of(name, fault)
    bundle = bundle_for(models, config)
    recorder = SignalRecorder()
    calibration = recording_of("calibration", ["fine"] * 40)
    for _ in windows_of(calibration, config_of(name, Fault("")).window, config.filters, recorder=recorder):
        pass
    profile = recorder.profile()
    assert profile is not None
    bundle.meta |= {"signal": profile.model_dump(mode="json"), "scores": {"confidence": {"threshold": 0.5}}}
    shown: dict[str, NDArray[np.uint8]] = {"fine": np.zeros((8, 8, 3), np.uint8)}
    stop, metas = asyncio.Event(), []
    async with (
        asyncio.timeout(PATIENCE_S),
        EmbeddedBroker() as broker,
        Publisher(broker.spec, name) as publisher,
        Subscriber(broker.spec, name) as messages,
    ):
        labels = LabelMatcher(("fine", "unsure"))
        log.session = session = Session(config, bundle, engine_of(models), publisher, shown, labels=labels)
        with amplifier(name, fault):
            running = asyncio.create_task(session.run(stop))
            async for message in messages:
                if message.kind not in {"meta", "metrics", "status"}:
                    continue
                said = message.json()
                metas += [said] if message.kind == "meta" else []
                problems = said.get("ingest", {}).get("problems", [])
                if not fault.words and session.account.published >= ENOUGH:
                    after = 0.0
                    break
                if fault.words and any(fault.words in line for line in (*problems, said.get("detail", ""))):
                    after = said.get("ingest", {}).get("samples", 0) / SFREQ
                    break
        stop.set()
        await asyncio.gather(running, return_exceptions=True)
    return after, session, metas


@pytest.mark.parametrize("kind", FAULTS)
async def test_what_is_wrong_is_named_within_five_seconds(
    kind: str, tiny: Models, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong unit, level, spectrum, rate, label, montage or marker is in the metrics or the status, and in the log."""
    fault = FAULTS[kind]
    caplog.set_level(logging.INFO)
    began = time.time()
    with listening(fault.words) as log:
        after, session, metas = await first_named(tiny, fault, log)
    assert after <= SOON_S
    if kind != "montage":  # an error that ends the session is the command's own line
        assert log.after is not None
        assert log.after <= SOON_S
    if kind == "no markers":  # no signal is read before they are there
        assert log.at - began <= SOON_S
    if kind != "label":
        assert not [meta for meta in metas if meta["stage"] in {"preview", "picture"}]
        assert session.account.published == 0
    if kind in {"unit", "level", "small unit"}:
        assert session.account.rejection["used"] == 0
        assert session.account.rejection["markers"] == session.account.rejected > 0


async def test_a_stream_like_the_calibrations_raises_nothing(tiny: Models, caplog: pytest.LogCaptureFixture) -> None:
    """The same amplifier with nothing wrong is no problem to anybody, and its pictures are published."""
    with listening("") as log:
        _, session, metas = await first_named(tiny, Fault(""), log)
    assert session.account.published >= ENOUGH
    assert (session.account.rejected, session.account.abstained) == (0, 0)
    assert "calibration" not in caplog.text
    assert {meta["abstain_below"] for meta in metas if meta["stage"] == "picture"} == {0.5}
    text = session.account.rejection["text"]
    assert text == f"{session.account.windows} markers, {session.account.windows} used"
