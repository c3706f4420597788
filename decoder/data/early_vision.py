"""Early vision, of any picture: where there is contrast, how it is oriented and how coarse it is, by place.

A steerable pyramid in the space domain (Freeman & Adelson 1991, IEEE PAMI 13): at each octave the second derivative of
a Gaussian and its Hilbert transform, turned to several orientations, whose squares add up to oriented energy
(Adelson & Bergen 1985). CLIP's blocks tell what they need of this; cortex has all of it.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Images = NDArray[np.uint8]
Array = NDArray[np.float32]

SIDE = 64
"""Pictures are averaged to at most so many pixels a side."""
OCTAVES = 3
N_ORIENTATIONS = 6
GROUPS = ("contrast", "saturation", "oriented energy")
GRIDS = (8, 4, 2)
"""Cells a side over which energy is averaged."""
TAP = 0.67
"""Distance of the filters' taps, of which there are nine, in standard deviations of their Gaussian times sqrt(2)."""
COMPRESSION = 0.5
"""Population responses grow about as this power of amplitude."""


@cache
def filters() -> torch.Tensor:
    """Return quadrature pairs of filters, shape (2 * N_ORIENTATIONS, 1, 9, 9): all even ones, then all odd ones."""
    place = TAP * np.arange(-4, 5)
    y, x = np.meshgrid(place, place, indexing="ij")
    pairs = []
    for angle in np.pi * np.arange(N_ORIENTATIONS) / N_ORIENTATIONS:
        along = np.cos(angle) * x + np.sin(angle) * y
        envelope = np.exp(-(x**2) - y**2)
        even = 0.9213 * (2 * along**2 - 1) * envelope
        pairs.append((even - even.mean(), 0.9780 * (along**3 - 2.254 * along) * envelope))
    stacked = np.stack([pair[kind] for kind in (0, 1) for pair in pairs])
    return torch.from_numpy(stacked[:, None].astype(np.float32))


def early_vision(images: Images) -> dict[str, Array]:
    """Compute oriented energy, contrast and saturation by place.

    Parameters
    ----------
    images : ndarray, shape (n, height, width, 3), uint8

    Returns
    -------
    features : dict of str to ndarray, shape (n, d), float32
        'oriented energy' of luminance: compressed RMS amplitude, by octave, orientation and cell; 'contrast' of
        luminance and both opponent colours: standard deviation within a cell; 'saturation': its mean over a cell. Cells
        are of each of `GRIDS`; what a picture is too small for is left out.
    """
    colours = torch.from_numpy(np.moveaxis(images, 3, 1).astype(np.float32) / np.float32(255))
    side = min(SIDE, *images.shape[1:3])
    red, green, blue = functional.adaptive_avg_pool2d(colours, side).unbind(1)
    opponent = torch.stack([(red + green + blue) / 3, red - green, blue - (red + green) / 2], dim=1)
    saturation = opponent[:, 1:].square().sum(dim=1, keepdim=True).sqrt()
    contrast, saturated = [], []
    for grid in GRIDS:
        mean, square = (functional.adaptive_avg_pool2d(each, min(grid, side)) for each in (opponent, opponent**2))
        contrast.append((square - mean**2).clamp(min=0).sqrt().flatten(1))
        saturated.append(functional.adaptive_avg_pool2d(saturation, min(grid, side)).flatten(1))
    parts = zip(GROUPS, (contrast, saturated, _energies(opponent[:, :1])), strict=True)
    return {name: torch.cat(each, dim=1).numpy() for name, each in parts if each}


def _energies(luminance: torch.Tensor) -> list[torch.Tensor]:
    """Return compressed amplitudes of luminance (n, 1, side, side), octave by octave, grid by grid."""
    out: list[torch.Tensor] = []
    bank = filters()
    for _ in range(OCTAVES):
        side = luminance.shape[-1]
        if side < 2 * GRIDS[-1] or side <= bank.shape[-1] // 2:
            break
        # Beyond its rim a picture goes on as it ends, so that the rim itself is no contrast.
        padded = functional.pad(luminance, (bank.shape[-1] // 2,) * 4, mode="replicate")
        energy = functional.conv2d(padded, bank).square()
        energy = energy[:, :N_ORIENTATIONS] + energy[:, N_ORIENTATIONS:]
        for grid in GRIDS:
            cells = functional.adaptive_avg_pool2d(energy, min(grid, side))
            out.append(cells.sqrt().pow(COMPRESSION).flatten(1))
        luminance = functional.avg_pool2d(luminance, 2)
    return out
