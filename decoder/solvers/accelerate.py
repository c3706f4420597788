"""Large matrix products on a GPU, where there is one."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORTH = 2**27
"""Multiplications below which copying to a GPU and back costs more than it saves."""


@cache
def device() -> str:
    """Return torch's name of what regression runs on: 'cuda' or 'cpu'."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Compute a @ b; of two matrices of one type, on a GPU if there is one and it is worth it."""
    if a.shape[0] * b.shape[0] * b.shape[1] < WORTH or device() == "cpu":
        return np.asarray(a @ b)
    import torch

    left, right = (torch.from_numpy(np.ascontiguousarray(each)).to(device()) for each in (a, b))
    return np.asarray((left @ right).cpu().numpy())
