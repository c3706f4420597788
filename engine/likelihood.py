"""Stage 2's loss by likelihood: a candidate is held against what the decoder says of pictures like it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from decoder.features import Features, StructureModel
from engine.errors import FeatureError


@dataclass(frozen=True, slots=True)
class LikelihoodTargets:
    """What was decoded of a batch, to be held against what the decoder says of a candidate.

    Attributes
    ----------
    answers : Tensor, shape (n, n_answers)
        What was decoded, whitened by the decoder's noise; 0 where a sample has a problem.
    operator : Operator
    problems : tuple of (str or None)
        By sample: why nothing can be pulled, or None.
    """

    answers: Tensor
    operator: "Operator"
    problems: tuple[str | None, ...]

    @property
    def blocks(self) -> tuple[int, ...]:
        """CLIP blocks that are used."""
        return tuple(self.operator.units)

    def loss(self, found: Mapping[int, Tensor]) -> Tensor:
        """Mean over answers of (answer - expected answer of the candidate)**2, each sample's own, shape (n,).

        For the picture that was shown it is 1 on average.
        """
        kept = torch.cat([found[block][:, units] for block, units in self.operator.units.items()], dim=1)
        expected = kept @ self.operator.seen.to(kept.dtype) + self.operator.offset.to(kept.dtype)
        return (self.answers.to(kept.dtype) - expected).square().mean(dim=1)


class Operator:
    """A `StructureModel` on the engine's device.

    Parameters
    ----------
    model : StructureModel
    units : int
        Numbers a block has (tokens * width).
    device : torch.device or str

    Raises
    ------
    FeatureError
        If the model is about units that this CLIP does not have.
    """

    def __init__(self, model: StructureModel, units: int, device: torch.device | str = "cpu") -> None:
        self._model = model
        self._count = units
        beyond = [block for block, each in model.units.items() if len(each) and int(each.max()) >= units]
        if beyond:
            msg = (
                f"the bundle's structure model is about units of block {beyond[0]} that this CLIP, with {units} units, "
                "lacks: train the bundle with the models that reconstruct"
            )
            raise FeatureError(msg)
        self.units = {b: torch.from_numpy(each).long().to(device) for b, each in model.units.items()}
        self.seen = torch.from_numpy(model.seen.T.copy()).to(device)
        self.offset = torch.from_numpy(model.offset).to(device)

    def targets(self, features: Sequence[Features]) -> LikelihoodTargets:
        """Targets of a batch; a sample that lacks a unit (no block, NaN, empty mask) is left out alone.

        Raises
        ------
        FeatureError
            If a target has another number of units than the model is about.
        """
        answers = np.zeros((len(features), len(self._model.offset)), np.float32)
        problems: list[str | None] = []
        for i, f in enumerate(features):
            problem = self._problem(f)
            problems.append(problem)
            if problem is None:
                kept = np.concatenate([f.s[block].values[units] for block, units in self._model.units.items()])
                answers[i] = self._model.said @ kept
        return LikelihoodTargets(torch.from_numpy(answers).to(self.offset.device), self, tuple(problems))

    def _problem(self, f: Features) -> str | None:
        for block, units in self._model.units.items():
            if block not in f.s:
                return "no decoded structure" if not f.s else f"block {block}: not decoded"
            target = f.s[block]
            if target.values.shape != (self._count,) or target.mask.shape != (self._count,):
                msg = (
                    f"window {f.window_id!r}: block {block} of s has shapes {target.values.shape} and "
                    f"{target.mask.shape} and this CLIP {self._count} units: train the bundle with the models that "
                    "reconstruct"
                )
                raise FeatureError(msg)
            if not target.mask[units].all():
                return (
                    f"block {block}: its mask is empty"
                    if not target.mask.any()
                    else f"block {block}: its mask lacks units"
                )
            if not np.isfinite(target.values[units]).all():
                return f"block {block}: its target is not finite"
        return None
