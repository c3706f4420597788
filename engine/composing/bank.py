"""A bank of composed pictures in memory, with every caption that is true of each."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.composing.compose import compose_one, true_captions
from engine.composing.pack import load_pack

HELD_OUT = (0, 1, 2)
"""Compositions whose number modulo 20 is one of these are never trained on."""
_CHUNK = 500


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Pictures and their true captions.

    Attributes
    ----------
    images : Tensor, shape (n, 128, 128, 3), uint8
    phrases : tuple of str
        Every caption in use, once; the first is the empty one.
    true : Tensor, shape (n, most), int64
        For each picture the rows in `phrases` of its true captions, then -1.
    """

    images: Tensor
    phrases: tuple[str, ...]
    true: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, rows: Tensor, device: torch.device) -> Tensor:
        """Pictures as float32 (n, 3, 128, 128) in [0, 1]."""
        return self.images[rows].to(device).permute(0, 3, 1, 2).float() / 255

    def draw_captions(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one true caption of each picture: rows in `phrases`, int64 (n,)."""
        true = self.true[rows]
        chance = torch.rand(true.shape, generator=generator)
        return true.gather(1, chance.masked_fill(true < 0, -1).argmax(1, keepdim=True))[:, 0]

    def holds(self, rows: Tensor, captions: Tensor) -> Tensor:
        """Of which pictures which captions are true: bool (n rows, n captions)."""
        return (self.true[rows][:, :, None] == captions).any(1)


def compose_bank(pack: Path, numbers: Sequence[int], seed: int, *, workers: int = 1) -> Bank:
    """Compose the pictures with the given numbers, 2 ms each and worker.

    Parameters
    ----------
    pack : Path
        Folder of the emoji pack.
    numbers : sequence of int
        Which compositions of `seed`.
    seed : int
    workers : int
        Processes; 1 composes in this one.
    """
    chunks = [numbers[i : i + _CHUNK] for i in range(0, len(numbers), _CHUNK)]
    make = partial(_compose_chunk, pack, seed)
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(make, chunks))
    else:
        parts = [make(chunk) for chunk in chunks]
    captions = list(chain.from_iterable(part[1] for part in parts))
    phrases = ("", *sorted(set(chain.from_iterable(captions))))
    place = {phrase: i for i, phrase in enumerate(phrases)}
    true = torch.full((len(captions), max(map(len, captions))), -1)
    for row, own in enumerate(captions):
        true[row, : len(own)] = torch.tensor([place[phrase] for phrase in own])
    return Bank(torch.from_numpy(np.concatenate([part[0] for part in parts])), phrases, true)


def _compose_chunk(path: Path, seed: int, numbers: Sequence[int]) -> tuple[NDArray[np.uint8], list[tuple[str, ...]]]:
    pack = load_pack(path)
    stimuli = [compose_one(pack, seed, number) for number in numbers]
    captions = [true_captions(pack.concepts[s.concept], s.x, s.y, s.size, s.colours) for s in stimuli]
    return np.stack([s.image for s in stimuli]), captions
