"""A small linear world: pictures, encoders that are linear in their pixels, and windows that are too."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from decoder.data.stimuli import StimulusTable
from stream.types.events import Event
from stream.types.windows import Channels, Window

N_CHANNELS, N_TIMES, SFREQ = 12, 20, 100.0


class LinearEncoders:
    """Encoders without weights files: random projections of the pixels."""

    feature_space = "linear-0"
    patch_grid, on_cpu = 2, True

    def __init__(self, stimuli: StimulusTable) -> None:
        rng = np.random.default_rng(7)
        self.pixels = stimuli.images.reshape(len(stimuli), -1) / 255 - 0.5
        assert stimuli.captions is not None
        self.by_caption = {captions[0]: row for row, captions in enumerate(stimuli.captions)}
        size = self.pixels.shape[1]
        self.c, self.z = rng.normal(size=(size, 10)), rng.normal(size=(size, 2 * 3 * 3))
        self.s = {block: rng.normal(size=(size, 40)) for block in range(1, 7)}
        for projection in self.s.values():
            projection[:, 30:] = 0
        self.calls = 0

    def encode_text(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Give a constant first token and two that are linear in the pixels."""
        self.calls += 1
        rows = [self.by_caption[caption] for caption in captions]
        decoded = (self.pixels[rows] @ self.c).reshape(-1, 2, 5)
        first = np.broadcast_to(np.arange(5.0), (len(rows), 1, 5))
        return np.concatenate([first, decoded], axis=1).astype(np.float32)

    def encode_latents(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Give latents of shape (2, 3, 3)."""
        self.calls += 1
        return ((images.reshape(len(images), -1) / 255 - 0.5) @ self.z).reshape(-1, 2, 3, 3).astype(np.float32)

    def structure(
        self, images: NDArray[np.uint8], blocks: Sequence[int] = (1, 2, 3, 4, 5, 6)
    ) -> dict[int, NDArray[np.float32]]:
        """Give 30 units linear in the pixels and 10 of noise, by block."""
        self.calls += 1
        flat = images.reshape(len(images), -1) / 255 - 0.5
        noise = np.random.default_rng(int(images.sum())).normal(size=(len(images), 40))
        return {
            block: (flat @ projection + noise * ~projection.any(axis=0)).astype(np.float32)
            for block, projection in self.s.items()
            if block in blocks
        }


@pytest.fixture
def stimuli() -> StimulusTable:
    """120 pictures of noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 4, 4, 3), dtype=np.uint8)
    return StimulusTable(tuple(f"p{i}" for i in range(120)), images, tuple((f"caption {i}",) for i in range(120)))


@pytest.fixture
def encoders(stimuli: StimulusTable) -> LinearEncoders:
    """Give encoders of those pictures."""
    return LinearEncoders(stimuli)


@pytest.fixture
def channels() -> Channels:
    """Twelve channels in volts."""
    return Channels(tuple(f"E{i}" for i in range(N_CHANNELS)), ("eeg",) * N_CHANNELS, ("V",) * N_CHANNELS)


@pytest.fixture
def windows(stimuli: StimulusTable, channels: Channels) -> list[Window]:
    """One window a picture."""
    return make_windows(stimuli, channels, noise=1.0, seed=1)


@pytest.fixture
def window_maker() -> Callable[..., list[Window]]:
    """Give the maker of windows itself."""
    return make_windows


def make_windows(
    stimuli: StimulusTable, channels: Channels, *, noise: float, seed: int, signal: float = 1.0, scale: float = 1e-6
) -> list[Window]:
    """Give one window a stimulus: pixels through a fixed mixing matrix, plus white noise."""
    pixels = stimuli.images.reshape(len(stimuli), -1) / 255 - 0.5
    mixing = np.random.default_rng(99).normal(size=(pixels.shape[1], len(channels) * N_TIMES)) / 2
    data = signal * pixels @ mixing
    data += noise * np.random.default_rng(seed).normal(size=data.shape)
    data = (scale * data).reshape(-1, len(channels), N_TIMES).astype(np.float32)
    return [
        Window(
            f"{seed}-{row}",
            data[row],
            channels,
            SFREQ,
            float(row),
            -0.05,
            Event(float(row), name),
            row + 1.0,
            row + 1.0,
        )
        for row, name in enumerate(stimuli.ids)
    ]
