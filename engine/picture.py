"""Reconstructed pictures: what the engine gives out."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from decoder.features import Features

NOT_FINITE = "numbers that are not finite"


@dataclass(frozen=True, slots=True)
class Picture:
    """One reconstruction of one window.

    Attributes
    ----------
    window_id : str
    stage : int
        1: semantic picture (the preview). 2: after its structure was optimised.
    pixels : ndarray, shape (height, width, 3), uint8, RGB
    seed : int
        The seed of this window's own noise.
    backend : str
        What ran the UNet ('torch', 'onnx', ...).
    timings : dict of str to float
        Seconds by step.
    confidence : float
        The decoder's, carried through.
    note : str
        Why this is a stage-1 picture where stage 2 was asked for, or ''.
    batch : int
        Windows that it was made together with, itself included.
    fault : str
        Why there is no picture, or ''. Where it is set, `pixels` mean nothing and are not to be shown.
    """

    window_id: str
    stage: int
    pixels: NDArray[np.uint8]
    seed: int
    backend: str
    timings: dict[str, float] = field(default_factory=dict)
    confidence: float = 0.0
    note: str = ""
    fault: str = ""
    batch: int = 1


def fault_of(features: Features) -> str:
    """Name what of decoded features is not finite and makes a picture of them worthless, or return ''.

    Blocks of `s` are not among it: stage 2 leaves out those that cannot be used, and does with the others.
    """
    numbers = {
        "c": features.c,
        "z": features.z,
        "structure_latent": features.structure_latent,
        "confidence": features.confidence,
    }
    faults = [name for name, value in numbers.items() if value is not None and not np.isfinite(value).all()]
    return f"{' and '.join(faults)} not finite" if faults else ""
