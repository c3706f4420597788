"""Windows that are all but the same are shown the last picture again (after StreamDiffusion's similarity filter)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from decoder.features import Features
from engine.picture import Picture
from engine.spec import ReuseSpec


@dataclass(slots=True)
class _Last:
    """The window of a stream that was last reconstructed, and how many were skipped since."""

    features: Features
    skipped: int = 0


class Reuse:
    """Decides which windows are skipped, stream by stream, and shows them what was made last.

    A window is held against the last one that was reconstructed, so that slow drift adds up. The chance of a skip rises
    from 0 at `similarity` to 1 for equal features; it is drawn from seed, stream and window id alone.

    Parameters
    ----------
    spec : ReuseSpec
    seed : int
    """

    def __init__(self, spec: ReuseSpec, seed: int) -> None:
        self._spec = spec
        self._seed = seed
        self._last: dict[str, _Last] = {}
        self._kept: dict[tuple[str, int], Picture] = {}

    def source(self, features: Features, stream: str) -> str | None:
        """Id of the window whose picture the next window of a stream is shown again; None to reconstruct it."""
        last = self._last.get(stream)
        if last is not None and last.skipped < self._spec.longest_run:
            least = self._spec.similarity
            chance = (similarity(last.features, features) - least) / (1 - least)
            if _draw(self._seed, stream, features.window_id) < chance:
                last.skipped += 1
                return last.features.window_id
        self._last[stream] = _Last(features)
        return None

    def fill(
        self,
        features: Sequence[Features],
        sources: Sequence[str | None],
        made: Sequence[Picture],
        *,
        stream: str,
        stage: int,
    ) -> list[Picture]:
        """Pictures of all windows: those that were `made`, in order, and where there is a source, its own again."""
        by_window = {picture.window_id: picture for picture in made}
        if kept := self._kept.get((stream, stage)):
            by_window.setdefault(kept.window_id, kept)
        if made:
            self._kept[stream, stage] = made[-1]
        return [
            by_window[f.window_id] if source is None else _again(by_window[source], f)
            for f, source in zip(features, sources, strict=True)
        ]

    def forget(self, stream: str) -> None:
        """Begin a stream anew: the window that was decided on last has no picture."""
        self._last.pop(stream, None)


def _again(picture: Picture, f: Features) -> Picture:
    return replace(picture, window_id=f.window_id, confidence=f.confidence, timings={}, reused=picture.window_id)


def similarity(a: Features, b: Features) -> float:
    """Least cosine of two windows' c, z and blocks of s; -1 where one has what the other lacks."""
    if (a.z is None) != (b.z is None) or a.s.keys() != b.s.keys() or a.c.shape != b.c.shape:
        return -1.0
    pairs = [(a.c, b.c), *((a.s[block].values, b.s[block].values) for block in a.s)]
    if a.z is not None and b.z is not None:
        pairs.append((a.z, b.z))
    cosines = []
    for one, other in pairs:
        x, y = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
        norms = float(np.linalg.norm(x) * np.linalg.norm(y))
        if not np.isfinite(norms):
            return -1.0
        cosines.append(float(x @ y) / norms if norms > 0 else float(np.array_equal(x, y)))
    return min(cosines)


def _draw(seed: int, stream: str, window_id: str) -> float:
    """Uniform number in [0, 1) that depends on nothing that came before."""
    digest = hashlib.sha256(f"{seed}:{stream}:{window_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2.0**48
