"""Where the figure of a picture is, how large it is and how it is turned.

The background is told from the picture's rim: a colour that changes evenly across the picture, or two colours with a
straight edge between them, whichever fits the rim better. Close to such an edge every mixture of the two is background:
a reconstruction may have the edge a little elsewhere, or wavy. What differs from all that is the figure, and its
moments are its pose. Meant for one figure on a simple background; on photographs of scenes the answer means nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RIM = 0.08
"""Width of the rim, in shares of the picture's side."""
SPARSE = 3
"""One of so many of its pixels is looked at."""
ANGLES, OFFSETS = 24, 13
"""Edges that are tried for a background of two colours: so many directions, and so many places for each."""
BETTER = 0.7
"""An edge is believed if the rim then differs from the background by less than this share of what it did."""
BAND = 0.09
"""So far from an edge (in shares of the side) mixtures of its two colours are background."""
FAR = 0.3
"""Differences of a rim's pixel (RGB in [0, 1], summed) beyond this count as this: figures may hang over the rim."""
LEVEL, LEAST_LEVEL = 0.3, 0.06
"""The figure differs from the background by more than this share of the 97th percentile, and by this at least."""
LEAST_PART = 0.25
"""Parts smaller than this share of the largest part are no part of the figure."""
LEAST_ELONGATION = 1.25
"""A figure rounder than this has no orientation."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Moments of a figure.

    Attributes
    ----------
    x, y : float
        Centre of mass, in shares of the picture's sides from the left and from the top.
    size : float
        Root mean square distance from the centre, in shares of the side.
    orientation : float
        Of the long axis, in degrees clockwise from level, in (-90, 90].
    elongation : float
        Spread along the long axis over that across it.
    """

    x: float
    y: float
    size: float
    orientation: float
    elongation: float


NOWHERE = Pose(0.5, 0.5, 0.0, 0.0, 1.0)
"""Of a picture that shows nothing but background."""


def pose(image: NDArray[np.uint8]) -> Pose:
    """Measure the pose of the figure in a picture (height, width, 3); `NOWHERE` if there is none."""
    return pose_of_mask(figure(image))


def pose_of_mask(mask: NDArray[np.generic]) -> Pose:
    """Return the moments of a figure's mask or alpha, shape (height, width); `NOWHERE` if it is empty."""
    weights = mask.astype(np.float64)
    total = weights.sum()
    if total == 0:
        return NOWHERE
    x, y = _places(*weights.shape)
    cx, cy = float((weights * x).sum() / total), float((weights * y).sum() / total)
    xx, yy = float((weights * (x - cx) ** 2).sum() / total), float((weights * (y - cy) ** 2).sum() / total)
    xy = float((weights * (x - cx) * (y - cy)).sum() / total)
    half = np.hypot((xx - yy) / 2, xy)
    long, across = (xx + yy) / 2 + half, max((xx + yy) / 2 - half, 1e-9)
    turned = float(np.degrees(np.arctan2(2 * xy, xx - yy) / 2))
    return Pose(cx, cy, float(np.sqrt(xx + yy)), turned, float(np.sqrt(long / across)))


def pose_errors(found: Sequence[Pose], true: Sequence[Pose]) -> dict[str, Floats]:
    """Compare poses with the truth, one by one.

    Returns
    -------
    errors : dict of str to ndarray, shape (n,)
        'position' (distance, in shares of the side), 'size' (absolute difference, in shares of the true size),
        'orientation' (degrees, 0 to 90; by chance 45; NaN where the true figure is too round to have one).
    """
    pairs = list(zip(found, true, strict=True))
    turns = [
        abs((f.orientation - t.orientation + 90) % 180 - 90) if t.elongation >= LEAST_ELONGATION else np.nan
        for f, t in pairs
    ]
    return {
        "position": np.array([np.hypot(f.x - t.x, f.y - t.y) for f, t in pairs]),
        "size": np.array([abs(f.size - t.size) / t.size for f, t in pairs]),
        "orientation": np.array(turns),
    }


def figure(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find what is not background in a picture (height, width, 3): a mask (height, width), holes filled."""
    from scipy import ndimage

    colours = image.astype(np.float64) / 255
    away = ndimage.gaussian_filter(difference(colours), 1.0)
    mask = ndimage.binary_fill_holes(away > max(LEVEL * float(np.percentile(away, 97)), LEAST_LEVEL))
    parts, n_parts = ndimage.label(mask)
    if n_parts < 2:
        return np.asarray(mask, np.bool_)
    areas = np.bincount(parts.ravel())[1:]
    return np.isin(parts, 1 + np.flatnonzero(areas >= LEAST_PART * areas.max()))


def difference(colours: Floats) -> Floats:
    """Compute how far each pixel of a picture (height, width, 3) in [0, 1] is from its background (told from its rim).

    Returns
    -------
    ndarray, shape (height, width)
        Distances in RGB.
    """
    x, y = (axis - 0.5 for axis in _places(*colours.shape[:2]))
    rows, columns = np.indices(x.shape)
    rim = (np.maximum(abs(x), abs(y)) > 0.5 - RIM) & ((rows + columns) % SPARSE == 0)
    told = colours[rim]
    plane = np.stack([np.ones_like(x), x, y], axis=2)
    guess = plane @ _fit_plane(plane[rim], told)
    cost = BETTER * _cost(told, guess[rim])
    edge = None
    for angle in np.pi / ANGLES * np.arange(ANGLES):
        along = np.cos(angle) * x + np.sin(angle) * y
        for offset in np.linspace(-0.3, 0.3, OFFSETS):
            beyond = along[rim] > offset
            here, there = np.median(told[beyond], axis=0), np.median(told[~beyond], axis=0)
            found = _cost(told, np.where(beyond[:, None], here, there))
            if found < cost:
                edge, cost = (along - offset, here, there), found
    if edge is None:
        return np.asarray(np.linalg.norm(colours - guess, axis=2))
    return _from_edge(colours, *edge)


def _from_edge(colours: Floats, past: Floats, here: Floats, there: Floats) -> Floats:
    """Distances to a background that is `here` past an edge (by `past`, signed) and `there` before it."""
    between = there - here
    share = np.clip((colours - here) @ between / max(float(between @ between), 1e-9), 0, 1)
    share = np.where(abs(past) < BAND, share, past <= 0)
    return np.asarray(np.linalg.norm(colours - here - share[..., None] * between, axis=2))


def _places(height: int, width: int) -> tuple[Floats, Floats]:
    y, x = np.mgrid[:height, :width]
    return (x + 0.5) / width, (y + 0.5) / height


def _fit_plane(places: Floats, colours: Floats) -> Floats:
    """Least absolute deviations, by reweighted least squares: a figure that hangs over the rim is outvoted."""
    weights = np.ones((len(places), 1))
    for _ in range(12):
        solved = np.linalg.lstsq(places * weights, colours * weights, rcond=None)[0]
        off = np.abs(colours - places @ solved).sum(axis=1, keepdims=True)
        weights = 1 / np.sqrt(np.maximum(off, 0.01))
    return np.asarray(solved)


def _cost(colours: Floats, guess: Floats) -> float:
    return float(np.minimum(np.abs(colours - guess).sum(axis=1), FAR).mean())
