"""Pictures for categories whose own pictures are not in the data: cards that name them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SIDE = 128


def cards(names: Sequence[str]) -> NDArray[np.uint8]:
    """Write each name, black on white, on a card of its own; shape (n, 128, 128, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    out = []
    for name in names:
        card = Image.new("RGB", (SIDE, SIDE), "white")
        font = ImageFont.load_default(min(36.0, 1.6 * SIDE / max(len(name), 1)))
        ImageDraw.Draw(card).text((SIDE / 2, SIDE / 2), name, fill="black", font=font, anchor="mm")
        out.append(np.asarray(card))
    return np.stack(out)
