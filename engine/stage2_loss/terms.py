"""Terms of fast stage 2's loss beside the structure loss: each is one function, its weight, and its entry in `TERMS`.

To add a term, write all three here; the weight is a setting by then, `engine.structure.weights.<name>`. Terms are each
sample's own, so that a batch equals its members. torch is imported by none: configs are checked against the weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a batch's windows say of whole pictures (`decoder.features.Evidence`).

    Attributes
    ----------
    answers : Tensor, shape (n, k)
    maps : dict of int to Tensor, shape (units, k)
        By CLIP block.
    """

    answers: "Tensor"
    maps: "dict[int, Tensor]"


@dataclass(frozen=True, slots=True)
class Iterate:
    """A latent that is being optimised, and what its loss is measured by.

    Attributes
    ----------
    x : Tensor, shape (n, channels, height, width)
    features : mapping of int to Tensor, shape (n, units)
        Shallow CLIP features of x by block.
    start : Tensor, shape of x
        Where the optimisation began.
    z : Tensor, shape of x, or None
        Decoded latent.
    evidence : Answers or None
        None where the decoder holds no encoding model of these blocks.
    """

    x: "Tensor"
    features: "Mapping[int, Tensor]"
    start: "Tensor"
    z: "Tensor | None"
    evidence: Answers | None = None


def distance_from_start(at: Iterate) -> "Tensor":
    """Return the mean squared distance from the latent that the optimisation began at."""
    return (at.x - at.start).square().mean(dim=(1, 2, 3))


def distance_from_z(at: Iterate) -> "Tensor | None":
    """Return the mean squared distance from the decoded z, where there is one."""
    return None if at.z is None else (at.x - at.z).square().mean(dim=(1, 2, 3))


def misfit_of_window(at: Iterate) -> "Tensor | None":
    """Return the mean squared misfit between the window and what the picture would be answered with."""
    if at.evidence is None:
        return None
    predicted = [at.features[block] @ values for block, values in at.evidence.maps.items()]
    return (at.evidence.answers - sum(predicted[1:], predicted[0])).square().mean(dim=1)


class LossWeights(BaseModel):
    """Weights of the terms that are added to the structure loss (fast), 1 at the start; 0 leaves one out."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    proximal: Weight = 0.1
    """Of the squared distance from the latent that optimisation begins at: holds against adversarial texture."""
    latent_prior: Weight = 0.0
    """Of the squared distance from the decoded z, where there is one: z is decoded structure too."""
    likelihood: Weight = 0.0
    """Of how badly the picture explains the window, by the decoder's encoding model (`decoder.encoding`): the squared
    misfit in units of noise, over the directions that tell pictures apart; 1 is noise alone. Without an encoding model,
    and where the engine is another machine's, it is left out."""


TERMS: "dict[str, Callable[[Iterate], Tensor | None]]" = {
    "proximal": distance_from_start,
    "latent_prior": distance_from_z,
    "likelihood": misfit_of_window,
}
"""Terms by the name of their weight, in the order in which they are added: each (n,), or None where it has no part."""
