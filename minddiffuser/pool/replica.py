"""One engine of a pool: a process of its own that holds the models, and nothing of a session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from ray import serve

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


def _batched(method: Callable[..., Any]) -> Any:
    """Let Ray Serve collect calls; how many and for how long is set as the replica starts."""
    return serve.batch(max_batch_size=8, batch_wait_timeout_s=0.005)(method)


class Replica:
    """What Ray Serve starts: takes windows one by one, and makes their pictures in batches.

    Parameters
    ----------
    spec : EngineSpec
    batch : int
        Windows made together at most.
    wait_s : float
        How long the first window of a batch waits for others.
    about : dict
        What the door adds to what the pool says of itself.
    make : callable
        Makes the engine.
    """

    def __init__(self, spec: EngineSpec, batch: int, wait_s: float, about: dict[str, Any], make: Make) -> None:
        self._engine = make(spec, batch)
        self._about = About(protocol=PROTOCOL, batch=batch, **about, **self._engine.about())
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="reconstruct")
        self._together.set_max_batch_size(batch)
        self._together.set_batch_wait_timeout_s(wait_s)

    def about(self) -> dict[str, Any]:
        """Return what the pool is, as JSON."""
        return self._about.model_dump()

    async def __call__(self, body: bytes) -> AsyncGenerator[Part, None]:
        """Yield head and pixels of a window's preview, and of its picture."""
        head, features = read_window(body, self._about)
        async for part in self._together((features, head.seed, time.perf_counter())):
            yield part

    @_batched
    async def _together(self, windows: list[tuple[Features, int, float]]) -> AsyncGenerator[list[Part], None]:
        """Yield the previews of a batch, and then its pictures."""
        loop, began = asyncio.get_running_loop(), time.perf_counter()
        waited = [began - since for _, _, since in windows]
        features, seeds = [f for f, _, _ in windows], [seed for _, seed, _ in windows]
        previews: asyncio.Future[list[Picture]] = loop.create_future()

        def hand_over(pictures: list[Picture]) -> None:
            loop.call_soon_threadsafe(previews.set_result, pictures)

        work = loop.run_in_executor(self._worker, self._engine.reconstruct, features, hand_over, seeds)
        await asyncio.wait([previews, work], return_when=asyncio.FIRST_COMPLETED)
        if previews.done():
            yield [write_picture(p, "preview", s) for p, s in zip(previews.result(), waited, strict=True)]
        yield [write_picture(p, "picture", s) for p, s in zip(await work, waited, strict=True)]
