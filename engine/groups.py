"""Windows that share a batch, on their way to pictures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from decoder.features import Features
from engine.picture import Picture
from engine.sampling import Schedule

NOT_FINITE = "numbers that are not finite"
_SMALL = 4  # windows whose pull takes longer on several threads than on one (two cores, OMP_WAIT_POLICY=passive)


@dataclass
class Group:
    """Windows that can share one batch, on their way to pictures."""

    places: list[int]
    features: list[Features]
    schedule: Schedule
    seeds: list[int]
    z: Tensor | None
    c: Tensor
    mask: Tensor
    noise: Tensor
    layout: Tensor | None = None
    first: Tensor | None = None
    pixels: Tensor | None = None
    pictures: list[Picture] = field(default_factory=list)


def in_order(groups: Sequence[Group]) -> list[Picture]:
    """Return the pictures of several groups in the order of their windows."""
    placed = {place: picture for g in groups for place, picture in zip(g.places, g.pictures, strict=True)}
    return [placed[place] for place in range(len(placed))]


def finite(*batches: Tensor) -> list[bool]:
    """Tell of each sample of some batches whether all its numbers are finite."""
    sound = torch.stack([torch.isfinite(batch).flatten(1).all(dim=1) for batch in batches])
    return [bool(one) for one in sound.all(dim=0).tolist()]


@contextmanager
def threads_for(latents: Tensor) -> Iterator[None]:
    """Run on one thread what is too small to be shared out: waking another costs more than it does."""
    threads = torch.get_num_threads()
    if latents.device.type != "cpu" or len(latents) > _SMALL or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
