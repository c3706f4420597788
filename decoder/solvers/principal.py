"""Principal axes of pictures' features, where there are more numbers than pictures."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

LEAST_VARIANCE = 1e-6
"""Share of the first axis's variance below which an axis is rounding errors."""


def principal_axes(flat: Array, n_axes: int | None = None) -> tuple[Array, Array]:
    """Find the mean of rows (n, n_numbers) and their principal axes (n_numbers, n_axes), the first ones first.

    Axes are of unit length; all that vary, where no number is given.
    """
    centre = flat.mean(axis=0)
    deviations = flat - centre
    values, vectors = np.linalg.eigh((deviations @ deviations.T).astype(np.float64))
    kept = values > LEAST_VARIANCE * values[-1]
    values, vectors = values[kept][::-1][:n_axes], vectors[:, kept][:, ::-1][:, :n_axes]
    return centre, np.asarray(deviations.T @ (vectors / np.sqrt(values)), np.float32)
