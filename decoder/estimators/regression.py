"""Ridge regression as a config sets it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from decoder.errors import TrainingError
from decoder.solvers.ridge import By, RidgeRegression, Split, decompose

Array = NDArray[np.float32]


class RegressionSpec(BaseModel):
    """Settings of the choice of penalties."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    per_target: bool = True
    """Choose for each number of a feature; false: once for all of them, for data of few pictures."""
    by: By = "error"
    """What is best of held-out samples: least squared error, or correlation, where a gain undoes shrinkage later."""


def make_regression(
    splits: Sequence[Split], X: Array, spec: RegressionSpec, alphas: Sequence[float]
) -> RidgeRegression:
    """Prepare a regression.

    Parameters
    ----------
    splits : sequence of Split
        Every row is held out exactly once.
    X : ndarray, shape (n_samples, n_inputs)
    spec : RegressionSpec
    alphas : sequence of float
        Candidate penalties, in units of the inputs' mean eigenvalue.

    Raises
    ------
    TrainingError
        If no input differs between windows.
    """
    spectrum = decompose(X)
    if not spectrum.level > 0:
        raise TrainingError(f"the inputs of all {len(X)} windows are the same; there is nothing to learn from")
    grid = np.asarray(alphas) * spectrum.level
    return RidgeRegression(splits, spectrum, grid, per_target=spec.per_target, by=spec.by)
