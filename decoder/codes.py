"""What early and mid visual areas are taken to encode, computed from pixels alone."""

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Array = NDArray[np.float32]

LOW_GRID = 6
MID_GRID = 3
LOW_FEATURES = ("contrast", "luminance", "red-green", "blue-yellow")
MID_FEATURES = ("saturation", "edge 0", "edge 45", "edge 90", "edge 135")


def opponent(images: Images) -> Array:
    """Turn RGB into luminance, red-green and blue-yellow.

    Parameters
    ----------
    images : ndarray, shape (n, height, width, 3), uint8

    Returns
    -------
    channels : ndarray, shape (n, 3, height, width), float32
        Luminance in [0, 1]; opponent channels in [-1, 1].
    """
    red, green, blue = np.moveaxis(images.astype(np.float32) / 255, 3, 0)
    return np.stack([(red + green + blue) / 3, red - green, blue - (red + green) / 2], axis=1)


def cells(maps: Array, grid: int) -> Array:
    """Average maps (n, k, height, width) over a grid of cells: (n, k, grid, grid); sides are cut to whole cells."""
    n, k, height, width = maps.shape
    tall, wide = height // grid, width // grid
    tiles = maps[:, :, : tall * grid, : wide * grid].reshape(n, k, grid, tall, grid, wide)
    return np.asarray(tiles.mean(axis=(3, 5)), np.float32)


def low_level(images: Images) -> Array:
    """V1: contrast, luminance and opponent colours by place in the visual field.

    Returns
    -------
    code : ndarray, shape (n, 4, 6, 6), float32
        By `LOW_FEATURES`, row (top first) and column (left first). Contrast is the standard deviation of luminance.
    """
    channels = opponent(images)
    means = cells(channels, LOW_GRID)
    variance = cells(channels[:, :1] ** 2, LOW_GRID) - means[:, :1] ** 2
    return np.concatenate([np.sqrt(np.maximum(variance, 0)), means], axis=1)


def mid_level(images: Images) -> Array:
    """V4: saturation and edges of four orientations, over large receptive fields.

    Returns
    -------
    code : ndarray, shape (n, 5, 3, 3), float32
        By `MID_FEATURES`, row and column.
    """
    channels = opponent(images)
    saturation = np.hypot(channels[:, 1], channels[:, 2])
    down, across = np.gradient(channels[:, 0], axis=(1, 2))
    diagonals = (down + across) / np.sqrt(2), (down - across) / np.sqrt(2)
    maps = [saturation, *(np.abs(edge) for edge in (across, diagonals[0], down, diagonals[1]))]
    return cells(np.stack(maps, axis=1).astype(np.float32), MID_GRID)
