"""One engine of a pool: a process of its own that holds the models, and nothing of a session."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from decoder.features import Features
from engine.picture import Picture
from engine.spec import EngineSpec
from minddiffuser.remote.protocol import PROTOCOL, About, read_window, write_picture

Part = tuple[dict[str, Any], bytes]
OnPreview = Callable[[list[Picture]], None]


class PoolEngine(Protocol):
    """What a replica holds: an engine, warm, and what it is."""

    def about(self) -> dict[str, Any]:
        """Return the fields of `About` that are the engine's."""
        ...

    def reconstruct(
        self, features: Sequence[Features], on_preview: OnPreview | None, seeds: Sequence[int]
    ) -> list[Picture]:
        """Return pictures, previews first."""
        ...


class LocalEngine:
    """The Reconstructor, warmed up for all sizes of batch."""

    def __init__(self, spec: EngineSpec, batch: int) -> None:
        from engine.reconstructor import Reconstructor
        from minddiffuser.cache import cache_dir

        self._engine = Reconstructor(spec, cache=cache_dir() / "engines")
        self._engine.warm_up(batch)

    def about(self) -> dict[str, Any]:
        """Return the shapes that the models take and make."""
        models = self._engine.models
        return {
            "feature_space": models.feature_space,
            "size": [models.image_size, models.image_size],
            "latent_shape": list(models.latent_shape),
            "tokens": models.tokens,
            "context_dim": models.context_dim,
            "units": self._engine.setup.units,
            "backend": self._engine.backend_name,
            "models": self._engine.about_models,
        }

    def reconstruct(
        self, features: Sequence[Features], on_preview: OnPreview | None, seeds: Sequence[int]
    ) -> list[Picture]:
        """Return pictures, previews first."""
        return self._engine.reconstruct(features, on_preview, seeds)


Make = Callable[[EngineSpec, int], PoolEngine]


@dataclass(slots=True, eq=False)
class _Waiting:
    """A window, since when it waits, and the parts of its answer as they are made."""

    features: Features
    seed: int
    since: float
    parts: asyncio.Queue[Part | Exception] = field(default_factory=asyncio.Queue)


class Replica:
    """What Ray Serve starts: takes windows one by one, and makes their pictures in batches.

    A window that finds the engine idle is begun at once; those that come meanwhile are made together. (Ray's own
    `serve.batch` closes a batch by time, whether or not the engine can take it.)

    Parameters
    ----------
    spec : EngineSpec
    batch : int
        Windows made together at most.
    about : dict
        What the door adds to what the pool says of itself.
    make : callable
        Makes the engine.
    """

    def __init__(self, spec: EngineSpec, batch: int, about: dict[str, Any], make: Make) -> None:
        self._engine = make(spec, batch)
        self._about = About(protocol=PROTOCOL, batch=batch, **about, **self._engine.about())
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="reconstruct")
        self._waiting: deque[_Waiting] = deque()
        self._working: asyncio.Task[None] | None = None

    def about(self) -> dict[str, Any]:
        """Return what the pool is, as JSON."""
        return self._about.model_dump()

    async def __call__(self, body: bytes) -> AsyncGenerator[Part, None]:
        """Yield head and pixels of a window's preview, and of its picture."""
        head, features = read_window(body, self._about)
        window = _Waiting(features, head.seed, time.perf_counter())
        self._waiting.append(window)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        try:
            kind = ""
            while kind != "picture":
                part = await window.parts.get()
                if isinstance(part, Exception):
                    raise part
                yield part
                kind = part[0]["kind"]
        finally:
            with suppress(ValueError):
                self._waiting.remove(window)  # its room went away

    async def _work(self) -> None:
        """Make pictures as long as windows wait."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._about.batch, len(self._waiting)))]
            try:
                await self._make(batch)
            except Exception as error:  # it costs these windows and no others
                for window in batch:
                    window.parts.put_nowait(error)

    async def _make(self, batch: list[_Waiting]) -> None:
        """Make the pictures of a batch, and hand out the previews of all first."""
        loop, began = asyncio.get_running_loop(), time.perf_counter()

        def hand_out(kind: Literal["preview", "picture"], pictures: list[Picture]) -> None:
            for window, picture in zip(batch, pictures, strict=True):
                window.parts.put_nowait(write_picture(picture, kind, began - window.since))

        def on_preview(pictures: list[Picture]) -> None:
            loop.call_soon_threadsafe(hand_out, "preview", pictures)

        features, seeds = [window.features for window in batch], [window.seed for window in batch]
        pictures = await loop.run_in_executor(self._worker, self._engine.reconstruct, features, on_preview, seeds)
        hand_out("picture", pictures)
