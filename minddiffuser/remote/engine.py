"""An engine as a live session sees it: in this process, or in a pool."""

from __future__ import annotations

import asyncio
import logging
import queue
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import aiohttp

from decoder.features import Features
from engine.picture import Picture
from minddiffuser.config.engine import RoomEngineSpec
from minddiffuser.errors import AppError
from minddiffuser.remote.client import PoolClient
from minddiffuser.remote.errors import PoolLostError, PoolRefusedError, ProtocolError, RemoteError
from minddiffuser.remote.protocol import About
from stream.tasks import supervised

logger = logging.getLogger(__name__)

OnPreview = Callable[[list[Picture]], None]
LOOK_S, LOOK_LOST_S = 2.0, 0.5
"""Seconds between two looks whether the pool is there, and while it is not."""
UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError, EOFError)
OTHER_POOL = frozenset({"token", "version", "feature space", "size"})
"""Refusals that hold for every window."""


class Engine(Protocol):
    """What makes pictures: `engine.reconstructor.Reconstructor`, or a `RemoteEngine`."""

    left: dict[str, str]
    lost: str
    """Why it cannot be reached at present, or ''."""

    @property
    def backend_name(self) -> str:
        """What runs the UNet."""
        ...

    @property
    def about_models(self) -> dict[str, str]:
        """Folder, UNet and feature space of the models."""
        ...

    def reconstruct(self, features: Sequence[Features], on_preview: OnPreview | None = None) -> list[Picture]:
        """Return the pictures of some windows, in their order; previews are handed over first."""
        ...


class RemoteEngine:
    """The engine of a pool; an async context manager. Needs no models, and no Ray.

    Parameters
    ----------
    spec : RoomEngineSpec
        With `remote`.
    room : str
        Names this session in the pool's account.
    feature_space : str
        That the windows are decoded into.
    stage2 : bool
        False: stage 2 is left out of this room's pictures.
    fallback : Engine, optional
        Makes the pictures while the pool cannot be reached.

    Raises
    ------
    AppError
        Token or certificate cannot be read; on entering: no pool is there and there is no fallback, or the pool is not
        one for this room.
    """

    def __init__(
        self,
        spec: RoomEngineSpec,
        room: str,
        feature_space: str,
        *,
        stage2: bool = True,
        fallback: Engine | None = None,
    ) -> None:
        self._client, self._spec = PoolClient(spec, room), spec
        self._feature_space, self._stage2, self._fallback = feature_space, stage2, fallback
        self._about: About | None = None
        self.left: dict[str, str] = {}
        self.lost = ""

    @property
    def backend_name(self) -> str:
        """What runs the UNet in the pool."""
        return self._about.backend if self._about else self._fallback.backend_name if self._fallback else ""

    @property
    def about_models(self) -> dict[str, str]:
        """Folder, UNet and feature space of the pool's models, and where it is."""
        own = self._about.models if self._about else self._fallback.about_models if self._fallback else {}
        return own | {"feature_space": self._feature_space, "pool": self._client.address}

    async def __aenter__(self) -> RemoteEngine:
        self._loop = asyncio.get_running_loop()
        await self._client.__aenter__()
        try:
            await self._look()
            if self.lost and self._fallback is None:
                raise AppError(self.lost)
        except BaseException:
            await self._client.__aexit__()
            raise
        self._watching = supervised(self._watch(), "pool")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._client.__aexit__()

    def reconstruct(self, features: Sequence[Features], on_preview: OnPreview | None = None) -> list[Picture]:
        """Return the pictures of some windows, in their order; not on the event loop's thread.

        Parameters
        ----------
        features : sequence of Features
        on_preview : callable, optional
            Called once, with the previews of all windows.

        Raises
        ------
        PoolLostError
            The pool cannot be reached, and there is no fallback.
        RemoteError
            It is full, refused, or failed.
        """
        parts: queue.SimpleQueue[tuple[int, str, Picture] | None] = queue.SimpleQueue()
        work = asyncio.run_coroutine_threadsafe(self._all(features, parts), self._loop)
        work.add_done_callback(lambda _: parts.put(None))
        previews: dict[int, Picture] = {}
        finals: dict[int, Picture] = {}
        while (part := parts.get()) is not None:
            place, kind, picture = part
            if kind == "picture":
                finals[place] = picture
                continue
            previews[place] = picture
            if on_preview is not None and len(previews) == len(features):
                on_preview([previews[i] for i in range(len(features))])
                on_preview = None
        try:
            work.result()
        except PoolLostError:
            if self._fallback is None:
                raise
            return self._fallback.reconstruct(features, on_preview)
        return [finals[i] for i in range(len(features))]

    async def _all(
        self, features: Sequence[Features], parts: queue.SimpleQueue[tuple[int, str, Picture] | None]
    ) -> None:
        await asyncio.gather(*(self._one(place, one, parts) for place, one in enumerate(features)))

    async def _one(
        self, place: int, features: Features, parts: queue.SimpleQueue[tuple[int, str, Picture] | None]
    ) -> None:
        """Hand over the parts of one window's answer; a window whose answer broke off is sent once more."""
        seen: set[str] = set()
        for again in (False, True):
            if self.lost or self._about is None:
                raise PoolLostError(self.lost)
            try:
                async for kind, picture in self._client.pictures(self._about, features, stage2=self._stage2_there()):
                    if kind not in seen:
                        seen.add(kind)
                        parts.put((place, kind, self._as_asked(picture)))
                return
            except TimeoutError:
                await self._look()
                if self.lost:
                    raise PoolLostError(self.lost) from None
                raise RemoteError(f"no picture from the pool within {self._spec.timeout_s:g} s") from None
            except UNREACHABLE as error:
                if again:
                    self._set_lost(self._unreachable(error))
                    raise PoolLostError(self.lost) from None
            except PoolRefusedError as error:
                if error.reason in OTHER_POOL:
                    self._set_lost(str(error))
                    raise PoolLostError(self.lost) from None
                raise

    def _stage2_there(self) -> bool:
        return self._stage2 and self._about is not None and self._about.units > 0

    def _as_asked(self, picture: Picture) -> Picture:
        """Drop the note that there was nothing for stage 2, where the room asked for none."""
        return picture if self._stage2 else replace(picture, note="")

    async def _watch(self) -> None:
        """Look whether the pool is there, and is the one it was, as long as the session runs."""
        while True:
            await asyncio.sleep(LOOK_LOST_S if self.lost else LOOK_S)
            await self._look()

    async def _look(self) -> None:
        try:
            about = await self._client.about()
            self._check(about)
        except UNREACHABLE as error:
            self._set_lost(self._unreachable(error))
        except (PoolRefusedError, ProtocolError) as error:
            self._set_lost(str(error))
        else:
            self._about = about
            self._set_lost("")

    def _check(self, about: About) -> None:
        """Refuse a pool that makes other pictures than this session's."""
        address = self._client.address
        if about.feature_space != self._feature_space:
            raise PoolRefusedError(
                f"the bundle decodes into feature space {self._feature_space} but the pool at {address} has "
                f"{about.feature_space}; start the pool with the models that the bundle was trained with",
                "feature space",
            )
        if self._about is not None and about.size != self._about.size:
            now, before = ("x".join(map(str, reversed(size))) for size in (about.size, self._about.size))
            raise PoolRefusedError(
                f"the pool at {address} makes pictures of {now} pixels now, and made {before} before; start this room "
                "again, or the pool with its former models",
                "size",
            )

    def _set_lost(self, line: str) -> None:
        if line and not self.lost and self._about is not None:
            logger.error("engine lost: %s", line)
        elif not line and self.lost:
            logger.warning("the pool at %s is back", self._client.address)
        self.lost = line

    def _unreachable(self, error: Exception) -> str:
        words = "no answer in time" if isinstance(error, TimeoutError) else " ".join(str(error).split())[:300]
        return f"cannot reach the pool at {self._client.address} ({words or type(error).__name__})"
