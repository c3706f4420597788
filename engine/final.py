"""The final pictures of models that have a small decoder for previews: what was shown first, decoded in full."""

import time
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from engine.models.loading import to_uint8
from engine.picture import NOT_FINITE, Picture
from engine.setup import Setup
from engine.stage1 import finite


def decode_final(pictures: Sequence[Picture], latents: Tensor, setup: Setup) -> list[Picture]:
    """Decode pictures by the decoder of final ones.

    Parameters
    ----------
    pictures : sequence of Picture
        As the decoder of previews has them.
    latents : Tensor, shape (n, channels, height, width)
        Theirs.
    setup : Setup
    """
    start = time.perf_counter()
    pixels = setup.decode(latents)
    arrays = to_uint8(pixels).cpu().numpy()
    timings = {"decode_final": time.perf_counter() - start}
    faults = ["" if sound else f"the final decoder gave {NOT_FINITE}" for sound in finite(pixels)]
    return [
        replace(picture, pixels=array, timings=picture.timings | timings, fault=picture.fault or fault)
        for picture, array, fault in zip(pictures, arrays, faults, strict=True)
    ]
