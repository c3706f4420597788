"""Photographs of a data set, all made the same size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decoder.datasets import require
from decoder.errors import DatasetError


def read_photographs(files: Sequence[Path], side: int, where: str) -> NDArray[np.uint8]:
    """Read photographs, cut to their middle square and resized (bicubic); shape (n, side, side, 3), RGB.

    Raises
    ------
    DatasetError
        If one is missing or cannot be read; `where` says where the public finds it.
    """
    from PIL import Image

    out = np.empty((len(files), side, side, 3), np.uint8)
    for row, file in enumerate(files):
        try:
            with Image.open(require(file, where)) as image:
                out[row] = squared(np.asarray(image.convert("RGB")), side)
        except OSError as error:
            raise DatasetError(f"{file} is no photograph ({error}); fetch it anew from {where}") from None
    return out


def squared(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Cut a photograph (height, width, 3) to its middle square and resize it (bicubic) to (side, side, 3)."""
    from PIL import Image

    height, width = pixels.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = Image.fromarray(pixels[top : top + edge, left : left + edge])
    return np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))
