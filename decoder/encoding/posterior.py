"""What a window says of features through an encoding model, weighed against what pictures are like.

Pictures that nobody was shown tell how features go together with the answers that an encoding model predicts; a
window's answer is such a prediction with noise of unit variance. For Gaussian features the most probable ones are
linear in the answer, in closed form, as of Schoenmakers et al. (2013, NeuroImage 83). Ridge learns the same map from
the windows alone, of which there are fewer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.features import Features, LayerTarget, block_of, with_numbers

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorMap:
    """The map onto one feature's decoded numbers.

    Attributes
    ----------
    weights : ndarray, shape (k, n_active), float32
        From deviations of the answer to deviations of the feature, with its gain.
    mean : ndarray, shape (n_active,), float32
        Of the feature over the bank.
    """

    weights: Array
    mean: Array

    def __call__(self, deviations: Array) -> Array:
        """Decode deviations (n, k) of answers: (n, n_active)."""
        return np.asarray(self.mean + deviations @ self.weights, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """Decodes features from what an encoding model makes of windows.

    Attributes
    ----------
    centre : ndarray, shape (k,), float32
        Mean answer over the bank.
    maps : dict of str to PosteriorMap
        By name: 'z', 's1', ...
    """

    centre: Array
    maps: dict[str, PosteriorMap]

    def __call__(self, found: list[Features], masks: Mapping[str, Mask]) -> list[Features]:
        """Return features with those that are decoded here.

        Parameters
        ----------
        found : list of Features
            Decoded otherwise, each with its evidence.
        masks : mapping of str to ndarray of bool
            Which of each feature's numbers are decoded; the others stay.
        """
        answers = np.stack([one.evidence.answer for one in found if one.evidence is not None])
        deviations = answers - self.centre
        decoded = {name: map_(deviations) for name, map_ in self.maps.items()}
        out = []
        for row, one in enumerate(found):
            s = dict(one.s)
            for name, values in decoded.items():
                if (block := block_of(name)) is not None:
                    s[block] = LayerTarget(
                        with_numbers(one.s[block].values, masks[name], values[row]), one.s[block].mask
                    )
            z = with_numbers(one.z, masks["z"], decoded["z"][row]) if one.z is not None and "z" in decoded else one.z
            out.append(replace(one, z=z, s=s))
        return out

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that was fitted, by name."""
        out: dict[str, NDArray[np.generic]] = {"centre": self.centre}
        for name, map_ in self.maps.items():
            out |= {f"{name}.weights": map_.weights, f"{name}.mean": map_.mean}
        return out

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "Posterior":
        """Rebuild one from `tensors()`."""
        names = sorted(name.removesuffix(".weights") for name in tensors if name.endswith(".weights"))
        maps = {name: PosteriorMap(tensors[f"{name}.weights"], tensors[f"{name}.mean"]) for name in names}
        return cls(tensors["centre"], maps)


def fit_posterior(answers: Array, features: Mapping[str, Array], powers: Mapping[str, float]) -> Posterior:
    """Fit the maps on pictures that nobody was shown.

    Parameters
    ----------
    answers : ndarray, shape (n, k), float32
        What an encoding model predicts of each picture, in directions where noise is of unit covariance.
    features : mapping of str to ndarray, shape (n, n_active)
        By name.
    powers : mapping of str to float
        How far shrinkage is undone, as `decoder.solvers.ridge.undo_shrinkage` has it.
    """
    centre = answers.mean(axis=0, dtype=np.float64)
    deviations = answers - centre
    covariance = deviations.T @ deviations / len(answers) + np.eye(len(centre))
    maps = {}
    for name, values in features.items():
        mean = values.mean(axis=0, dtype=np.float64)
        true = values.astype(np.float32) - mean.astype(np.float32)
        shared = deviations.astype(np.float32).T @ true / np.float32(len(answers))
        weights = np.linalg.solve(covariance, shared.astype(np.float64))
        decoded, all_of_it = (weights * shared).sum(), np.square(true, dtype=np.float64).mean(axis=0).sum()
        gain = float(np.sqrt(all_of_it / decoded)) ** powers[name] if decoded > 0 else 1.0
        maps[name] = PosteriorMap((gain * weights).astype(np.float32), mean.astype(np.float32))
    return Posterior(centre.astype(np.float32), maps)
