"""Stage 1: the diffusion model draws from c, and from z noised to a strength: the right thing, roughly."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.batching import Batch
from engine.models.loading import to_uint8
from engine.picture import NOT_FINITE, Picture
from engine.sampling.sampling import begin, sample
from engine.setup import Setup


@dataclass(frozen=True, slots=True)
class Preview:
    """Stage 1 of a batch.

    Attributes
    ----------
    first : Tensor, shape (n, channels, height, width)
        The UNet's first output, which fast stage 2 begins with too.
    latents : Tensor, shape (n, channels, height, width)
    pixels : Tensor, shape (n, 3, height, width)
        Before they are rounded.
    pictures : list of Picture
    """

    first: Tensor
    latents: Tensor
    pixels: Tensor
    pictures: list[Picture]


def generate(batch: Batch, setup: Setup) -> Preview:
    """Sample a batch and decode it; a window whose numbers come out not finite has a `fault`."""
    start = time.perf_counter()
    outputs: list[Tensor] = []
    predict = setup.predict(setup.unet, batch.mask, setup.spec.guidance)

    def recorded(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        outputs.append(predict(x, t, c))
        return outputs[-1]

    x = begin(batch.schedule, batch.z, batch.noise[0])
    latents = sample(recorded, batch.schedule, x, batch.c, list(batch.noise[1:]))
    sampled = time.perf_counter()
    pixels = setup.preview_pixels(latents)
    arrays = to_uint8(pixels).cpu().numpy()
    timings = {"stage1": sampled - start, "decode1": time.perf_counter() - sampled}
    faults = ["" if sound else f"stage 1 gave {NOT_FINITE}" for sound in finite(latents, pixels)]
    pictures = [
        Picture(f.window_id, 1, array, seed, setup.backend, dict(timings), f.confidence, fault=fault, batch=len(arrays))
        for f, array, seed, fault in zip(batch.features, arrays, batch.seeds, faults, strict=True)
    ]
    return Preview(outputs[0], latents, pixels, pictures)


def finite(*batches: Tensor) -> list[bool]:
    """Check, for each sample of some batches, whether all its numbers are finite."""
    sound = torch.stack([torch.isfinite(batch).flatten(1).all(dim=1) for batch in batches])
    return [bool(one) for one in sound.all(dim=0).tolist()]
