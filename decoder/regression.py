"""Families of ridge behind one contract: plain, on the inputs most correlated with each target, and banded."""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from decoder.errors import TrainingError
from decoder.preprocess import BandSpec
from decoder.ridge import By, CrossValidation, Part, RidgeRegression, decompose

Array = NDArray[np.float32]


class RegressionSpec(BaseModel):
    """Which family of ridge, and how its settings are chosen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    method: Literal["ridge", "top", "banded"] = "ridge"
    """ridge: on all inputs; top: on those most correlated with each target; banded: a penalty for each band."""
    per_target: bool = True
    """Choose for each number of a feature; false: once for all of them, for data of few pictures."""
    by: By = "error"
    """What is best of held-out samples: least squared error, or correlation, where a gain undoes shrinkage later."""
    inputs: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (50, 150, 450)
    """top: candidate numbers of inputs."""
    bands: BandSpec = BandSpec()
    """banded: which inputs share a penalty."""
    candidates: Annotated[int, Field(ge=1)] = 16
    """banded: random shares of the bands that are tried, the even one first. Memory grows with them."""


class Regression(Protocol):
    """What regresses targets on inputs; its settings are chosen by held-out samples."""

    def chooser(self, parts: Sequence[Part], /) -> "Regression":
        """Return what chooses among the same settings by other parts of the samples; it is not to be fitted."""

    def choose(self, Y: Array, /) -> CrossValidation:
        """Choose settings for targets (n_samples, n_targets)."""

    def fit(self, Y: Array, choice: NDArray[np.float64], /) -> tuple[Array, Array]:
        """Fit on all samples: weights (n_inputs, n_targets) and intercept (n_targets,)."""

    def predict_part(self, part: int, inputs: Array, Y: Array, choice: NDArray[np.float64], /) -> Array:
        """Decode inputs by the training samples of a part alone, as deviations from their mean."""


def make_regression(
    parts: Sequence[Part],
    X: Array,
    spec: RegressionSpec,
    alphas: Sequence[float],
    *,
    bands: NDArray[np.intp],
    rng: np.random.Generator,
) -> Regression:
    """Prepare a family.

    Parameters
    ----------
    parts : sequence of Part
        Every row is held out exactly once.
    X : ndarray, shape (n_samples, n_inputs)
    spec : RegressionSpec
    alphas : sequence of float
        Candidate penalties, in units of the inputs' mean eigenvalue.
    bands : ndarray of int, shape (n_inputs,)
        Of each input; looked at by banded ridge alone.
    rng : numpy.random.Generator
        Draws the candidates of banded ridge.

    Raises
    ------
    TrainingError
        If no input differs between windows.
    """
    spectrum = decompose(X)
    if not spectrum.level > 0:
        raise TrainingError(f"the inputs of all {len(X)} windows are the same; there is nothing to learn from")
    grid = np.asarray(alphas) * spectrum.level
    if spec.method == "top":
        from decoder.topridge import TopRegression

        return TopRegression(parts, X, grid, spec.inputs, per_target=spec.per_target, by=spec.by)
    if spec.method == "banded":
        from decoder.banded import BandedRegression, draw_shares

        shares = draw_shares(int(bands.max()) + 1, spec.candidates, rng)
        return BandedRegression(parts, X, grid, bands, shares, per_target=spec.per_target, by=spec.by)
    return RidgeRegression(parts, spectrum, grid, per_target=spec.per_target, by=spec.by)
