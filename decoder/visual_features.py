"""What early and mid visual areas are taken to encode, computed from pixels alone."""

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Array = NDArray[np.float32]

LOW_GRID = 6
MID_GRID = 3
LOW_FEATURES = ("contrast", "luminance", "red-green", "blue-yellow")
MID_FEATURES = ("saturation", "edge 0", "edge 45", "edge 90", "edge 135")
ENERGY_WAVELENGTHS = (0.25, 0.5)
"""Of what oriented filters answer to best, in shares of the picture's side."""
ORIENTATIONS = (0, 45, 90, 135)
"""Of the bars that oriented filters answer to best: degrees from level, clockwise as in `decoder.evaluation.pose`."""
ENERGY_FEATURES = tuple(f"energy {w} {angle}" for w in ENERGY_WAVELENGTHS for angle in ORIENTATIONS)
BANDWIDTH, TUNING_WIDTH = np.log(1.6), np.radians(27)
"""Standard deviations of a filter: of the logarithm of its spatial frequency, and of its orientation."""
COMPRESSION = 0.5
"""Population responses grow about as this power of contrast."""
SEMISATURATION = 0.05
"""Of divisive normalisation, as a response: of a contrast of 0.0025."""
ENERGY_SIDE = 32
"""Pictures are averaged to about so many pixels a side before they are filtered."""


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


def low_level(images: Images, grid: int = LOW_GRID) -> Array:
    """V1: contrast, luminance and opponent colours by place in the visual field.

    Returns
    -------
    code : ndarray, shape (n, 4, grid, grid), float32
        By `LOW_FEATURES`, row (top first) and column (left first). Contrast is the standard deviation of luminance.
    """
    channels = opponent(images)
    means = cells(channels, grid)
    variance = cells(channels[:, :1] ** 2, grid) - means[:, :1] ** 2
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


def contrast_energy(images: Images, grid: int = LOW_GRID) -> Array:
    """V1's complex cells: oriented contrast by place, whatever its polarity, phase or colour.

    Each channel sums the squares of a quadrature pair of log-Gabor filters (Adelson & Bergen 1985; Field 1987) over
    luminance and both opponent colours; a cell's RMS amplitude is compressed, and divided by the mean of all (divisive
    normalisation, Heeger 1992): what is left says where contrast is and how it is turned, not how strong it is.

    Returns
    -------
    code : ndarray, shape (n, 8, grid, grid), float32
        By `ENERGY_FEATURES`, row and column.
    """
    height, width = (max(1, side // max(1, side // ENERGY_SIDE)) for side in images.shape[1:3])
    amplitude = [
        np.sqrt(cells(_energy(_shrunk(opponent(part), height, width)), grid))
        for part in np.array_split(images, range(64, len(images), 64))
    ]
    response = np.concatenate(amplitude) ** COMPRESSION
    return np.asarray(response / (SEMISATURATION + response.mean(axis=(1, 2, 3), keepdims=True)), np.float32)


def _shrunk(channels: Array, height: int, width: int) -> Array:
    n, k, tall, wide = channels.shape
    down, across = tall // height, wide // width
    tiles = channels[:, :, : height * down, : width * across].reshape(n, k, height, down, width, across)
    return np.asarray(tiles.mean(axis=(3, 5)), np.float32)


def _energy(channels: Array) -> Array:
    """Filter (n, k, height, width) by each of `ENERGY_FEATURES`: (n, 8, height, width), summed over k."""
    from scipy import fft

    height, width = channels.shape[2:]
    rim = (height // 2, width // 2)
    # Beyond its rim a picture goes on as it ends, so that the rim itself is no contrast.
    padded = np.pad(channels, ((0, 0), (0, 0), (rim[0],) * 2, (rim[1],) * 2), mode="edge")
    down, across = (fft.fftfreq(n) * side for n, side in zip(padded.shape[2:], (height, width), strict=True))
    frequency = np.hypot(down[:, None], across)
    frequency[0, 0] = np.inf
    direction = np.arctan2(down[:, None], across)
    spectrum = fft.fft2(padded)
    out = []
    for wavelength in ENERGY_WAVELENGTHS:
        radial = np.exp(-0.5 * (np.log(frequency * wavelength) / BANDWIDTH) ** 2)
        for angle in ORIENTATIONS:
            # Bars vary at right angles to their length; one half of the spectrum makes the pair one complex number.
            off = np.angle(np.exp(1j * (direction - np.radians(angle + 90))))
            pair = fft.ifft2(spectrum * (2 * radial * np.exp(-0.5 * (off / TUNING_WIDTH) ** 2)).astype(np.float32))
            inside = pair[:, :, rim[0] : rim[0] + height, rim[1] : rim[1] + width]
            out.append((np.abs(inside) ** 2).sum(axis=1))
    return np.stack(out, axis=1).astype(np.float32)
