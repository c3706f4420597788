"""A whole live session on real sockets whose windows fail as their markers say, at every step of their way."""

import asyncio
import contextlib
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from decoder.errors import BundleError
from decoder.features import Evidence, Features
from decoder.models.bundle import Bundle
from decoder.preprocessing.session_moments import fit_session_moments
from engine.errors import FeatureError
from engine.models.loading import Models
from engine.picture import Picture
from engine.reconstructor import Reconstructor
from engine.spec import EngineSpec, StructureSpec
from minddiffuser.config.spec import Config, parse_config
from minddiffuser.live.session import Session
from minddiffuser.remote.engine import Engine
from stream.files.formats.npz import write_npz
from stream.mqtt.broker import BrokerSpec, EmbeddedBroker
from stream.mqtt.publisher import Publisher
from stream.mqtt.subscriber import Subscriber
from stream.types.events import Event
from stream.types.recording import RecordedStream, Recording
from stream.types.windows import Channels, Window
from tests.brokers import until

SFREQ = 100.0
GAP_S = 0.25
"""Seconds between two markers."""
ERRORS: Mapping[str, Exception] = {
    "ValueError": ValueError("first line\nsecond line"),
    "KeyError": KeyError("key"),
    "MemoryError": MemoryError(),
    "OutOfMemoryError": torch.OutOfMemoryError("CUDA out of memory."),
    "LinAlgError": np.linalg.LinAlgError("SVD did not converge"),
    "BundleError": BundleError("a window that does not fit"),
    "FeatureError": FeatureError("features that do not fit"),
    "FloatingPointError": FloatingPointError("overflow"),
    "OSError": OSError("no space left"),
    "AssertionError": AssertionError(),
    "RecursionError": RecursionError("too deep"),
}
STEPS = ("decode", "reconstruct", "preview")
FATES = (
    "fine",
    "encode",
    "original",
    "unsure",
    "nan-c",
    "nan-z",
    "overflow",
    *(f"{s}:{e}" for s in STEPS for e in ERRORS),
)
"""What may become of a window; its marker's label."""
CHANNELS = Channels(("A1", "A2"), ("eeg", "eeg"), ("V", "V"))


def outcome(fate: str) -> str:
    """Say under what a window of a fate is to be counted."""
    if fate in {"fine", "original"}:
        return "published"
    return "abstained" if fate in {"unsure", "nan-c", "nan-z", "overflow"} else "failed"


def label(window_id: str) -> str:
    """Return the label in a window's id."""
    return window_id.partition("-")[2]


class FatefulModel:
    """Decodes what the window's label says."""

    family: ClassVar[str] = "fateful"

    def __init__(self, models: Models, evidence: Evidence | None = None) -> None:
        self._evidence = evidence
        self._c = models.encode_text([""])[0]
        self._z = np.zeros(models.latent_shape, np.float32)

    def predict(self, windows: Sequence[Window], _: NDArray[np.float32], /) -> list[Features]:
        """Decode one window."""
        (window,) = windows
        fate = label(window.id)
        if fate.startswith("decode:"):
            raise ERRORS[fate.partition(":")[2]]
        features = Features(window.id, self._c, self._z, confidence=0.1 if fate == "unsure" else 0.9)
        features = replace(features, evidence=self._evidence)
        match fate:
            case "nan-c":
                return [replace(features, c=np.full_like(self._c, np.nan))]
            case "nan-z":
                return [replace(features, z=np.full_like(self._z, np.nan))]
            case "overflow":
                return [replace(features, z=np.full_like(self._z, 3e38))]
        return [features]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Give nothing."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Give nothing."""
        return {}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> "FatefulModel":
        """Never read back."""
        raise NotImplementedError


class FatefulReconstructor(Reconstructor):
    """Reconstructs, and fails where the window's label says so."""

    def reconstruct(
        self,
        features: Sequence[Features],
        on_preview: Callable[[list[Picture]], None] | None = None,
    ) -> list[Picture]:
        """Reconstruct one window."""
        step, _, error = label(features[0].window_id).partition(":")
        if step == "reconstruct":
            raise ERRORS[error]
        pictures = super().reconstruct(features, on_preview)
        if step == "preview":
            raise ERRORS[error]
        if step == "encode":
            return [replace(pictures[0], pixels=np.zeros((7, 0, 3), np.uint8))]
        return pictures


def engine_of(models: Models) -> FatefulReconstructor:
    """Make the engine on tiny models: stage 1 alone."""
    return FatefulReconstructor(EngineSpec(threads=1, steps=1, structure=StructureSpec(mode="none")), models)


def config_for(name: str, **parts: Any) -> Config:
    """Give a config that reads the stream of a name and decodes a fifth of a second after each marker."""
    raw: dict[str, Any] = {
        "name": "fateful",
        "data": {"dataset": "recording"},
        "source": {"name": name, "timeout_s": 30},
        "window": {"tmin": 0, "tmax": 0.2},
        "queue": {"policy": "every"},
        "publish": {"session": "fateful", "abstain_below": 0.5},
    }
    return parse_config(raw | parts, "test")


def bundle_for(models: Models, config: Config, evidence: Evidence | None = None) -> Bundle:
    """Make a bundle that decodes by fate, with what its channels looked like in training."""
    noise = np.random.default_rng(0).normal(0, 1e-5, (40, 2, 20)).astype(np.float32)
    meta = {"data": "nothing", "config": config.own(), "feature_space": models.feature_space}
    model = FatefulModel(models, evidence)
    return Bundle(
        {"all": model}, CHANNELS, sfreq=SFREQ, n_times=20, tmin=0.0, meta=meta, moments=fit_session_moments(noise)
    )


def recording_of(name: str, fates: Sequence[str]) -> Recording:
    """Noise with a marker for each fate."""
    n = round(SFREQ * (1.0 + GAP_S * len(fates)))
    data = np.random.default_rng(0).normal(0, 1e-5, (n, 2)).astype(np.float32)
    stream = RecordedStream(name, "EEG", name, CHANNELS, SFREQ, np.arange(n) / SFREQ, data)
    events = tuple(Event(0.5 + GAP_S * place, fate) for place, fate in enumerate(fates))
    return Recording(name, "noise", (stream,), events)


@dataclass
class Run:
    """A session under way, and what a subscriber heard of it."""

    session: Session
    publisher: Publisher
    running: asyncio.Task[Any]
    stop: asyncio.Event
    heard: list[tuple[str, Any]] = field(default_factory=list)

    def metas(self, stage: str) -> list[dict[str, Any]]:
        """Metas of a stage, as they came."""
        return [said for kind, said in self.heard if kind == "meta" and said["stage"] == stage]

    def states(self) -> list[str]:
        """States of the session, as they came."""
        return [said["state"] for kind, said in self.heard if kind == "status"]


@asynccontextmanager
async def live(
    models: Models,
    fates: Sequence[str],
    folder: Path,
    broker: BrokerSpec | None = None,
    options: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
    evidence: Evidence | None = None,
    **parts: Any,
) -> AsyncIterator[Run]:
    """Run a session on a replay whose markers are `fates`; on leaving, everything has been heard that was said.

    `options` are the session's own, `parts` those of its config; `engine` is in place of one here, and
    every window has the same `evidence`.
    """
    name = f"fateful-{uuid.uuid4().hex[:8]}"
    file = folder / f"{name}.npz"
    write_npz(recording_of(name, fates), file)
    config = config_for(name, **parts)
    engine = engine or engine_of(models)
    command = [sys.executable, "-m", "minddiffuser", "replay", str(file), "--name", name]
    replay = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        async with EmbeddedBroker() as embedded:
            spec = broker or embedded.spec
            async with Subscriber(spec, "fateful") as subscriber:
                publisher = await Publisher(spec, "fateful").__aenter__()
                shown = {"original": np.zeros((0, 0, 3), np.uint8), "fine": np.zeros((8, 8, 3), np.uint8)}
                session = Session(
                    config, bundle_for(models, config, evidence), engine, publisher, shown, **options or {}
                )
                stop = asyncio.Event()
                running = asyncio.create_task(session.run(stop))
                run = Run(session, publisher, running, stop)
                reading = asyncio.create_task(_read(subscriber, run))
                try:
                    yield run
                finally:
                    stop.set()
                    await asyncio.gather(running, return_exceptions=True)
                    await publisher.__aexit__(None, None, None)
                    await _offline(run)
                    reading.cancel()
    finally:
        replay.kill()
        replay.wait()


async def finished(run: Run) -> None:
    """Wait until the replay is over and every window has been dealt with, then end the session."""
    async with asyncio.timeout(60):
        await run.session.first_window()
        await run.session.idle()
        run.stop.set()
        await run.running


async def _read(subscriber: Subscriber, run: Run) -> None:
    async for message in subscriber:
        if message.kind in {"meta", "status", "metrics"}:
            run.heard.append((message.kind, message.json()))


async def _offline(run: Run) -> None:
    with contextlib.suppress(TimeoutError):  # a publisher that is dead cannot say so
        await until(lambda: "offline" in run.states(), 5)
