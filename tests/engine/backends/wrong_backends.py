"""Backends that are wrong on purpose, each in a way that real ones have been, and one that is right."""

from collections.abc import Callable

import torch
from torch import Tensor

from engine.backends.torch import TorchBackend
from engine.models.loading import Models

Change = Callable[[Tensor], Tensor]


def right(out: Tensor) -> Tensor:
    """Leave the output as it is."""
    return out


def bit_flip(out: Tensor) -> Tensor:
    """Flip the highest bit of one exponent: memory that something else wrote into."""
    bits = out.clone().view(torch.int32)
    bits.view(-1)[0] ^= 1 << 30
    return bits.view(torch.float32)


def swapped_rows(out: Tensor) -> Tensor:
    """Exchange the first two rows of a batch."""
    return torch.cat([out[1:2], out[:1], out[2:]]) if len(out) > 1 else out


def nan_at_batch_3(out: Tensor) -> Tensor:
    """Overflow where the batch is no power of two."""
    return torch.full_like(out, torch.nan) if len(out) == 3 else out


def first_row_for_all(out: Tensor) -> Tensor:
    """Spread one row over all others, as copying into a buffer of another size does."""
    return out[:1].expand_as(out).clone()


def wrong_shape(out: Tensor) -> Tensor:
    """Lose a row where there are several."""
    return out[:-1] if len(out) > 1 else out


def slightly_off(out: Tensor) -> Tensor:
    """Scale by a thousandth: rounding to a smaller type where nobody asked for it."""
    return out * 1.001


def fails_at_batch_8(out: Tensor) -> Tensor:
    """Run out of memory."""
    if len(out) == 8:
        raise RuntimeError("out of memory\nwith a second line")
    return out


class StaleGraph:
    """Replays what came out when a size was captured: every size, or one alone."""

    def __init__(self, batch: int | None = None) -> None:
        self.batch = batch
        self.captured: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, out: Tensor) -> Tensor:
        """Return the first output of this size."""
        return out if self.batch not in {None, len(out)} else self.captured.setdefault(tuple(out.shape), out).clone()


class StaleSize:
    """Keeps the last size's shape: after a larger batch a smaller one's rows are those of before."""

    def __init__(self) -> None:
        self.buffer: Tensor | None = None

    def __call__(self, out: Tensor) -> Tensor:
        """Return the first rows of the largest output so far."""
        if self.buffer is None or len(out) > len(self.buffer):
            self.buffer = out.clone()
        return self.buffer[: len(out)].clone()


class Changed:
    """Eager torch, with one network's output changed.

    Parameters
    ----------
    models : Models
    part : {'unet', 'decoder', 'preview_decoder'}
    change : callable
    """

    def __init__(self, models: Models, part: str, change: Change) -> None:
        self.name = "wrong"
        self.compiled = 0
        self.calls = 0
        self._eager, self._part, self._change = TorchBackend(models), part, change

    def unet(self, x: Tensor, timesteps: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        """See `engine.backends.base.Backend`."""
        self.calls += 1
        out = self._eager.unet(x, timesteps, c, mask)
        return self._change(out) if self._part == "unet" else out

    def decode(self, latents: Tensor, *, preview: bool = False) -> Tensor:
        """See `engine.backends.base.Backend`."""
        self.calls += 1
        out = self._eager.decode(latents, preview=preview)
        return self._change(out) if self._part == ("preview_decoder" if preview else "decoder") else out


OPENED: list[Changed] = []


def unavailable_because(_: str, __: torch.device) -> str | None:
    """Return that it can run."""
    return None


def open_backend(name: str, models: Models, _: object, **__: object) -> Changed:
    """Return a backend of which every second row is another's, or a right one."""
    OPENED.append(Changed(models, "unet", right if name == "right" else swapped_rows))
    return OPENED[-1]
